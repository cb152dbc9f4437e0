"""What methods that compare augmented views have in common."""

from __future__ import annotations

import pytest
from tiny_methods import facts

from tacit.methods.augment import published_resnet, rate
from tacit.methods.moco_v3 import MoCoV3


@pytest.mark.parametrize(
    ("encoder", "residual"),
    [
        ("resnet-mini", True),
        ("clip-resnet50", True),
        ("timm:wide_resnet50_2", True),
        ("nets/mine.py:SmallResNet", True),
        ("resnets/mine.py:Transformer", False),
        ("vit-micro/4", False),
        ("timm:vit_tiny_patch16_224", False),
    ],
)
def test_rates_and_heads_go_by_the_same_kind_of_encoder(encoder, residual):
    known = facts(encoder=encoder)
    assert known.residual == residual
    assert ("residual" in rate(known).reason) == residual
    assert MoCoV3.auto(known)["projector_layers"].value == (2 if residual else 3)


def test_only_tacits_own_networks_are_given_options_of_theirs():
    assert published_resnet("resnet18", init="simclr") == {"zero_gain": True, "init": "simclr"}
    assert published_resnet("resnet-mini", init="simclr") == {"init": "simclr"}
    assert published_resnet("clip-resnet50", init="simclr") == published_resnet("timm:resnet18") == {}
