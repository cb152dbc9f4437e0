"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations.

Two random views of every image are embedded, and each view has to pick its partner out of all other views of the batch.
Everything is in the augmentations, the batch and a projection head that is thrown away afterwards.
There is no teacher, no queue and no stop-gradient; both views go through the network together, so batch-norm mixes them.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.methods.augment import AugmentedOptions, blurred, contrastive_training, contrastive_views, published_resnet
from tacit.methods.method import Chosen, Contrastive, Facts, Paper, Progress, Rows, Terms, option
from tacit.methods.pictures import contrast
from tacit.nn.encoder import Encoder
from tacit.nn.heads import SimCLRProjector
from tacit.objectives.contrast import nt_xent, nt_xent_chance
from tacit.views.image import ImageView, Jitter
from tacit.views.view import View


class SimCLROptions(AugmentedOptions):
    temperature: float = option(
        0.1, "divides the cosine similarities", auto="0.2, or 0.5 for long runs and where there are near-duplicates", gt=0
    )
    head_layers: Literal[0, 1, 2, 3] = option(3, "layers of the projection head (v1: 2, v2: 3)", auto="2")
    head_width: int = option(0, "hidden width of the projection head; 0: that of the features", auto="at least 256", ge=0)
    head_out: int = option(128, "dimensions in which views are compared", ge=1)
    unit_length: bool = option(True, "put embeddings on the sphere before they are compared (hidden_norm)")
    gather: bool = option(True, "take negatives from all processes, not only from one's own")
    reduction: Literal["official", "paper"] = option("official", "sum of both directions' means, or half of it")
    area: float = option(
        0.08, "least share of the image that a view shows", auto="0.2 up to 64 pixels, 0.5 of nearly empty ones", gt=0, le=1
    )
    jitter: float = option(1.0, "strength of the colour jitter", auto="0.5 up to 64 pixels", ge=0, le=1.25)
    brightness: Literal["multiply", "add"] = option("multiply", "how jitter changes brightness (v1: add)")
    blur: float = option(0.5, "chance of a blurred view", auto="0 below 48 pixels", ge=0, le=1)
    normalise: Literal["none", "data", "imagenet"] = option("none", "what is subtracted and divided by", auto="data")


class SimCLR(Contrastive):
    """Chen, Kornblith, Norouzi, Hinton, ICML 2020; the deeper head of "Big Self-Supervised Models", 2020."""

    name = "simclr"
    paper = Paper(
        "A Simple Framework for Contrastive Learning of Visual Representations",
        "Chen, Kornblith, Norouzi, Hinton",
        2020,
        "ICML",
        "google-research/simclr",
    )
    kinds = ("image",)
    Options = SimCLROptions
    paper_training = {
        "encoder": "resnet50",
        "size": 224,
        "batch": 4096,
        "epochs": 100,
        "warmup_epochs": 10,
        "optimiser": "lars-simclr",
        "lr_per_256": 0.3,
        "weight_decay": 1e-6,
        "momentum": 0.9,
    }
    paper_columns = {
        "v1": {"head_layers": 2, "brightness": "add"},
        "cifar": {
            "encoder": "resnet18",
            "size": 32,
            "batch": 512,
            "epochs": 1000,
            "lr_per_256": 1.0,
            "weight_decay": 1e-4,
            "temperature": 0.5,
            "jitter": 0.5,
            "blur": 0.0,
        },
    }

    @classmethod
    def auto(cls, facts: Facts) -> dict[str, Chosen]:
        if facts.duplicates > 0.1:
            temperature = Chosen(0.5, "near-duplicates would be pushed apart")
        else:
            temperature = Chosen(0.5, "a long run") if facts.steps > 20_000 else Chosen(0.2, f"batches of {facts.batch}")
        return (
            contrastive_views(facts)
            | contrastive_training(facts)
            | {
                "temperature": temperature,
                "head_layers": Chosen(2, "enough for short runs"),
                "head_width": Chosen(max(256, facts.width), f"{facts.width} features, and at least 256"),
            }
        )

    @classmethod
    def encoder_options(cls, options: Any, encoder: str) -> dict[str, Any]:
        return published_resnet(encoder, init="simclr")

    @classmethod
    def check(cls, options: Any, encoder: Encoder, spec: Spec, size: int, batch: int) -> None:
        if batch < 32:
            raise TacitError(f"simclr with a batch of {batch} has too few negatives; use at least 32, or moco-v3 or dino")

    def __init__(self, options: SimCLROptions, encoder: Encoder, spec: Spec, size: int) -> None:
        super().__init__(options, encoder, spec, size)
        hidden = options.head_width or encoder.width
        self.head = SimCLRProjector(encoder.width, options.head_layers, hidden, options.head_out)

    @property
    def projector(self) -> nn.Module:
        return self.head

    def views(self) -> dict[str, View]:
        o, s = self.options, self.options.jitter
        view = ImageView(
            self.size,
            area=(o.area, 1.0),
            flip=o.flip,
            jitter=Jitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s, probability=0.8, brighten=o.brightness),
            grey=o.grey,
            blur=blurred(o.blur, self.size),
            normalise=o.normalise,
        )
        return {"view1": view, "view2": view}

    def embed(self, views: dict[str, Tensor], draws: Draws) -> Rows:
        x = torch.cat([views["view1"], views["view2"]])  # [2N, C, H, W], all first views, then all second views
        z1, z2 = self.head(self.student(x).pooled).chunk(2)  # [N, P] each
        return {"z1": z1, "z2": z2}

    def compare(self, rows: Rows, progress: Progress) -> Terms:
        z1, z2 = rows["z1"], rows["z2"]
        o, all1, all2, offset = self.options, z1, z2, 0
        if o.gather:
            all1, all2, offset = distributed.gather(z1), distributed.gather(z2), distributed.rank() * len(z1)
        loss = nt_xent(z1, z2, o.temperature, all1, all2, offset, o.reduction, o.unit_length)
        return Terms(loss, {"nt_xent": loss.detach()}, chance=nt_xent_chance(len(all1), o.reduction))

    def pictures(self, views: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        x = torch.cat([views["view1"], views["view2"]])
        return contrast(views["view1"], views["view2"], self.head(self.student(x).pooled))
