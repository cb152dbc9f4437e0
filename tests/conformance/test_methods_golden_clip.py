"""CLIP as a whole against numbers from its published code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_parts_clip import depth_of, named_as_here
from torch import Tensor, nn

from golden import Case, assert_near, golden
from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.data.spec import Spec
from tacit.data.text.wording import Wording
from tacit.methods.clip import CLIP
from tacit.methods.method import Progress
from tacit.nn.encoder import Encoded, Encoder
from tacit.nn.text import TextTransformer
from tacit.nn.towers import ClipVisionTransformer, projection

GOLDEN = golden("clip")
FIRST = Progress(0, 1, 1)
SPEC = Spec("pair", 3, (16, 16))


class AsGiven(Encoder):
    """A tower that passes on features that were made elsewhere."""

    width, depth = 1, 1

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Encoded:
        return Encoded(x, x)


def between(width: int, scale: float, **options: Any) -> CLIP:
    """The method with towers that are no towers: features in, loss out."""
    small = {"vocabulary": 514, "context": 4, "text": "text-micro", "out": width, "init_scale": scale}
    made = CLIP(CLIP.Options(**small | options), AsGiven(), SPEC, 16).double()
    made.image_head = nn.Identity()
    made.text = nn.Identity()
    made.log_scale.data = torch.tensor([scale], dtype=torch.float64).log()
    return made


def draws(count: int) -> Draws:
    return Draws(0, 0, torch.arange(count))


def test_loss_and_its_gradients():
    case = GOLDEN["loss"]
    image, text = (case.inputs[name].requires_grad_() for name in ("image", "text"))
    made = between(image.shape[1], 1.0)
    made.log_scale.data.fill_(case.hyper["log_scale"])
    terms = made({"image": image, "text": text}, draws(len(image)), FIRST)
    assert_near(terms.total, case.out["loss"])
    terms.total.backward()
    assert_near(image.grad, case.out["grad_image"])
    assert_near(text.grad, case.out["grad_text"])
    assert_near(made.log_scale.grad[0], case.out["grad_log_scale"])


def test_loss_of_each_rank(monkeypatch):
    case = GOLDEN["loss_local"]
    image, text = case.inputs["image"], case.inputs["text"]
    made, found = between(image.shape[-1], case.hyper["scale"]), []
    for rank, (f, g) in enumerate(zip(image, text, strict=True)):
        gathered = iter((image.flatten(0, 1), text.flatten(0, 1)))
        monkeypatch.setattr(distributed, "gather", lambda _, gathered=gathered: next(gathered))
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        found.append(made({"image": f, "text": g}, draws(len(f)), FIRST).total)
    assert_near(torch.stack(found), case.out["loss_per_rank"])
    assert_near(torch.stack(found).mean(), case.out["loss_global"])


def test_siglip():
    case = GOLDEN["siglip"]
    image = case.inputs["image"].requires_grad_()
    made = between(image.shape[1], case.hyper["scale"], loss="siglip", bias=case.hyper["bias"])
    total = made({"image": image, "text": case.inputs["text"]}, draws(len(image)), FIRST).total
    assert_near(total, case.out["loss"])
    grad = torch.autograd.grad(total, image)[0]
    # The published gradient is with respect to unit rows; the method's passes their normalisation, which takes this away.
    expected = case.out["grad_image"]
    along = (expected * image).sum(1, keepdim=True) * image
    assert_near(grad, (expected - along).detach())


def towers(case: Case, which: str) -> CLIP:
    """The method with this case's tower in its place."""
    names = case.weights
    if which == "text":
        table, positions = names["token_embedding.weight"], names["positional_embedding"]
        ratio = len(names["transformer.resblocks.0.mlp.c_fc.weight"]) / table.shape[1]
        made = between(names["text_projection"].shape[1], 1.0)
        tower = TextTransformer(
            len(table), len(positions), table.shape[1], depth_of(names), case.hyper["heads"], mlp_ratio=ratio
        )
        weight = names["text_projection"]
    else:
        width, image = len(names["class_embedding"]), case.inputs["image"]
        ratio = len(names["transformer.resblocks.0.mlp.c_fc.weight"]) / width
        shape = (image.shape[1], image.shape[2:], case.hyper["patch"], width, depth_of(names), case.hyper["heads"], ratio)
        made, tower, weight = between(names["proj"].shape[1], 1.0), ClipVisionTransformer(*shape), names["proj"]
    tower = tower.double()
    tower.load_state_dict(named_as_here(names))
    head = projection(*weight.shape).double()
    head.load_state_dict({"weight": weight.T})
    if which == "text":
        made.text = _Read(tower, head)
    else:
        made.student, made.image_head = tower, head
    return made


class _Read(nn.Module):
    """A reader with a trunk of any size."""

    def __init__(self, trunk: TextTransformer, head: nn.Linear) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.trunk(tokens).pooled)


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("which", ["text", "image"])
def test_towers_within_the_method(which):
    case = GOLDEN["text_tower" if which == "text" else "vision_tower"]
    made = towers(case, which)
    if which == "text":
        found = made.of_text(case.inputs["tokens"])
    else:
        found = made.of_image(case.inputs["image"], draws(len(case.inputs["image"])))
    assert_near(found, unit(case.out["features"]))


def test_tokens_are_packed_as_published():
    case = GOLDEN["pack_tokens"]
    h = case.hyper
    assert (h["sot"], h["eot"], h["pad"]) == (h["eot"] - 1, h["eot"], 0), "the two largest ids, and 0 behind them"
    wording = Wording(h["eot"] + 1, h["context"])
    assert torch.equal(wording.rows([row[row >= 0].tolist() for row in case.inputs["ids"]]), case.out["tokens"])
