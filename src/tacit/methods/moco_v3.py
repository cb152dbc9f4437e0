"""MoCo v3: An Empirical Study of Training Self-Supervised Vision Transformers.

Each view, through encoder, projector and predictor, has to pick the other view of its image out of a batch of keys, which a
slowly moving copy of encoder and projector makes. Against SimCLR the second copy steadies the targets, and negatives come
from the other view alone. Keys never carry a gradient; the copy moves before it makes them.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.methods.augment import BYOLOptions, byol_view, contrastive_training, contrastive_views, published_resnet
from tacit.methods.method import Chosen, Contrastive, Facts, Paper, Progress, Rows, Terms, option
from tacit.methods.pictures import contrast
from tacit.nn.ema import follow, momentum, teacher_of
from tacit.nn.encoder import Encoder
from tacit.nn.heads import moco_mlp
from tacit.nn.vit import VisionTransformer
from tacit.objectives.contrast import moco, moco_chance
from tacit.views.view import View

RESIDUAL = {
    "encoder": "resnet50",
    "epochs": 100,
    "warmup_epochs": 10,
    "optimiser": "lars",
    "lr_per_256": 0.6,
    "weight_decay": 1e-6,
    "temperature": 1.0,
    "projector_layers": 2,
    "predictor_norm": False,
    "area": 0.2,
}


class MoCoV3Options(BYOLOptions):
    temperature: float = option(0.2, "divides the cosine similarities", gt=0)
    momentum: float = option(0.99, "how much of the momentum copy stays at the first step", auto="1 - 30 / steps", ge=0, le=1)
    momentum_rises: bool = option(True, "whether that grows to 1 along half a cosine; else it stays (at 0: shared weights)")
    head_width: int = option(4096, "hidden width of projector and predictor", auto="512", ge=1)
    head_out: int = option(256, "dimensions in which views are compared", auto="128", ge=1)
    projector_layers: Literal[2, 3] = option(3, "layers of the projector (ResNet: 2)", auto="2 for ResNets, 3 for transformers")
    predictor: bool = option(True, "whether queries pass a predictor")
    head_norm: bool = option(True, "batch-norm inside projector and predictor")
    predictor_norm: bool = option(True, "batch-norm at the predictor's end (ResNet: not)", auto="false for ResNets")
    freeze_patches: bool = option(True, "keep a transformer's patch projection at its random values")
    area: float = option(
        0.08, "least share of the image that a view shows", auto="0.2 up to 64 pixels, 0.5 of nearly empty ones", gt=0, le=1
    )
    blur: float = option(
        1.0, "chance of a blurred first view; a tenth of it for the second", auto="0 below 48 pixels", ge=0, le=1
    )


class MoCoV3(Contrastive):
    """Chen, Xie, He, ICCV 2021."""

    name = "moco-v3"
    paper = Paper(
        "An Empirical Study of Training Self-Supervised Vision Transformers",
        "Chen, Xie, He",
        2021,
        "ICCV",
        "facebookresearch/moco-v3",
    )
    kinds = ("image",)
    Options = MoCoV3Options
    paper_training = {
        "encoder": "vit-small/16",
        "size": 224,
        "batch": 4096,
        "epochs": 300,
        "warmup_epochs": 40,
        "optimiser": "adamw",
        "lr_per_256": 1.5e-4,
        "weight_decay": 0.1,
    }
    paper_columns = {
        "resnet50": RESIDUAL,
        "resnet50-300": RESIDUAL | {"epochs": 300, "lr_per_256": 0.3},
        "resnet50-1000": RESIDUAL | {"epochs": 1000, "lr_per_256": 0.3, "weight_decay": 1.5e-6, "momentum": 0.996},
        "vit-base": {"encoder": "vit-base/16"},
    }

    @classmethod
    def auto(cls, facts: Facts) -> dict[str, Chosen]:
        kept = min(max(1 - 30 / facts.steps, 0.9), 0.996)
        small = facts.size < 48
        return (
            contrastive_views(facts)
            | contrastive_training(facts)
            | {
                "momentum": Chosen(kept, f"a memory of about 3 % of {facts.steps} steps"),
                "head_width": Chosen(512, "small data"),
                "head_out": Chosen(128, "small data"),
                "projector_layers": Chosen(2 if facts.residual else 3, "as published for this kind of encoder"),
                "predictor_norm": Chosen(not facts.residual, "as published for this kind of encoder"),
                "blur": Chosen(0.0 if small else 1.0, "views of less than 48 pixels" if small else "as published"),
                "solarise": Chosen(0.0 if small else 0.2, "views of less than 48 pixels" if small else "as published"),
            }
        )

    @classmethod
    def encoder_options(cls, options: Any, encoder: str) -> dict[str, Any]:
        # The official ViT-S of MoCo v3 has 12 heads of width 32 instead of 6.
        if encoder.startswith("vit-small"):
            return {"positions": "sincos-row", "init": "moco", "heads": 12}
        return {"positions": "sincos-row", "init": "moco"} if encoder.startswith("vit") else published_resnet(encoder)

    @classmethod
    def check(cls, options: Any, encoder: Encoder, spec: Spec, size: int, batch: int) -> None:
        if batch < 8:
            raise TacitError(f"moco-v3 with a batch of {batch} has too few negatives; use at least 8, or dino")

    def __init__(self, options: MoCoV3Options, encoder: Encoder, spec: Spec, size: int) -> None:
        super().__init__(options, encoder, spec, size)
        o = options
        self.head = moco_mlp([encoder.width, *[o.head_width] * (o.projector_layers - 1), o.head_out], norm=o.head_norm)
        self.predictor: nn.Module = nn.Identity()
        if o.predictor:
            self.predictor = moco_mlp([o.head_out, o.head_width, o.head_out], o.predictor_norm, o.head_norm)
        self.teacher = teacher_of(encoder)
        self.teacher_head = teacher_of(self.head)
        if o.freeze_patches and isinstance(encoder, VisionTransformer):
            encoder.patch_embed.requires_grad_(False)

    @property
    def projector(self) -> nn.Module:
        return self.head

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Everything, in a transformer (AdamW); what has two or more dimensions, in a ResNet (LARS)."""
        return isinstance(self.student, VisionTransformer) or parameter.ndim > 1

    def views(self) -> dict[str, View]:
        o, area = self.options, (self.options.area, 1.0)
        return {
            "view1": byol_view(o, self.size, area, o.blur),
            "view2": byol_view(o, self.size, area, 0.1 * o.blur, o.solarise),
        }

    def embed(self, views: dict[str, Tensor], draws: Draws) -> Rows:
        x1, x2 = views["view1"], views["view2"]
        q1, q2 = self.query(x1), self.query(x2)  # [N, P], each view by itself
        with torch.no_grad():
            return {"q1": q1, "q2": q2, "k1": self.key(x1), "k2": self.key(x2)}

    def compare(self, rows: Rows, progress: Progress) -> Terms:
        q1, q2 = rows["q1"], rows["q2"]
        k1, k2 = distributed.gather(rows["k1"]), distributed.gather(rows["k2"])  # [W N, P], without gradient
        offset = distributed.rank() * len(q1)
        t = self.options.temperature
        first, second = moco(q1, k2, t, offset), moco(q2, k1, t, offset)
        return Terms(first + second, {"first": first.detach(), "second": second.detach()}, chance=moco_chance(len(k1), t))

    def query(self, x: Tensor) -> Tensor:
        return self.predictor(self.head(self.student(x).pooled))

    def key(self, x: Tensor) -> Tensor:
        return self.teacher_head(self.teacher(x).pooled)

    def before_step(self, progress: Progress) -> None:
        """The momentum copy follows before it makes keys."""
        o = self.options
        kept = momentum(progress.fraction, o.momentum) if o.momentum_rises else o.momentum
        follow(self.teacher, self.student, kept)
        follow(self.teacher_head, self.head, kept)

    def pictures(self, views: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        z = torch.cat([self.head(self.student(views[name]).pooled) for name in ("view1", "view2")])
        return contrast(views["view1"], views["view2"], z)
