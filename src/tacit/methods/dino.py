"""DINO: Emerging Properties in Self-Supervised Vision Transformers.

From any crop, a student repeats what a slowly moving teacher says about a large crop of the same image. There are no
negatives and no predictor: the teacher's output is centred (by a running mean) and sharpened (by a low temperature), and the
two together keep it from collapsing. The teacher never gets a gradient; it follows after every step, and it is what is kept.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.methods.augment import BYOLOptions, byol_view, contrastive_views, rate
from tacit.methods.distil import DistilOptions
from tacit.methods.method import Chosen, Facts, Method, Paper, Progress, Terms, option
from tacit.methods.pictures import heaviest, shown, strip
from tacit.nn.centre import Centre
from tacit.nn.ema import follow, momentum, teacher_of
from tacit.nn.encoder import Encoder
from tacit.nn.heads import DINOHead
from tacit.nn.vit import VARIANTS, VisionTransformer
from tacit.objectives.distil import cross_view, entropy, sharpen, teacher_temperature
from tacit.views.view import View

LONGER = {"teacher_temperature": 0.07, "temperature_epochs": 30, "fixed_gain": False}
MORE_CROPS = {"global_area": 0.25, "local_crops": 10, "local_area": (0.05, 0.25)}


class DINOOptions(DistilOptions, BYOLOptions):
    drop_path: float = option(
        0.1, "chance that a branch of the student's last block is dropped", auto="0 up to depth 6", ge=0, lt=1
    )
    local_crops: int = option(8, "small crops per image", auto="0 in short runs, else 2, or 4 in long ones", ge=0, le=20)
    local_size: int = option(96, "side of a small crop in pixels", auto="half the view", ge=4)
    global_area: float = option(0.4, "least share of the image in a large crop", gt=0, le=1)
    local_area: tuple[float, float] = option((0.05, 0.4), "share of the image in a small crop", auto="0.1 to 0.4")
    blur: float = option(
        1.0,
        "chance of a blurred first crop; half of it for small crops, a tenth for the second",
        auto="0 below 48 pixels",
        ge=0,
        le=1,
    )


class DINO(Method):
    """Caron, Touvron, Misra, Jegou, Mairal, Bojanowski, Joulin, ICCV 2021."""

    name = "dino"
    paper = Paper(
        "Emerging Properties in Self-Supervised Vision Transformers",
        "Caron, Touvron, Misra, Jegou, Mairal, Bojanowski, Joulin",
        2021,
        "ICCV",
        "facebookresearch/dino",
    )
    kinds = ("image",)
    Options = DINOOptions
    paper_training = {
        "encoder": "vit-small/16",
        "size": 224,
        "batch": 1024,
        "epochs": 100,
        "warmup_epochs": 10,
        "optimiser": "adamw",
        "schedule": "cosine-inclusive",
        "lr_per_256": 5e-4,
        "lr_end": 1e-6,
        "weight_decay": 0.04,
        "weight_decay_end": 0.4,
        "clip": 3.0,
        "clip_per_tensor": True,
    }
    paper_columns = {
        "300": LONGER | {"epochs": 300},
        "800": LONGER | MORE_CROPS | {"epochs": 800, "clip": 0.0, "lr_end": 1e-5},
        "two-crops": {"local_crops": 0, "global_area": 0.14},
        "resnet50": {"encoder": "resnet50", "global_area": 0.14, "local_area": (0.05, 0.14)},
    }

    @classmethod
    def auto(cls, facts: Facts) -> dict[str, Chosen]:
        quarter = 2 ** round(math.log2(max(facts.samples / 4, 2)))
        prototypes = min(
            max(quarter, min(1024, 2 ** int(math.log2(facts.samples)))), 4096 if facts.samples <= 50_000 else 65536
        )
        kept = min(max(1 - 20 / facts.steps, 0.98), 0.9995)
        few = "; for so few steps simclr is the better choice" if facts.steps < 1500 else ""
        rows = 2 * facts.batch
        epochs = facts.steps / max(1, facts.samples // facts.batch)
        variant, _, patch = facts.encoder.partition("/")
        patch = int(patch) if patch.isdigit() else 1
        deep = variant in VARIANTS and VARIANTS[variant].depth > 6
        long = facts.steps > 10_000
        half = max(4, patch, facts.size // 2 - facts.size // 2 % patch)
        small = facts.size < 48
        views = {k: v for k, v in contrastive_views(facts).items() if k in ("jitter", "grey", "flip", "normalise")}
        return views | {
            "prototypes": Chosen(prototypes, f"{facts.samples} samples"),
            "head_width": Chosen(512, "small data"),
            "head_norm": Chosen(False, "as published")
            if long
            else Chosen(True, "without it the teacher says nearly the same of all samples for hundreds of steps"),
            "centre_momentum": Chosen(0.9 if rows >= 128 else 1 - 0.1 * rows / 128, f"{rows} teacher rows a step"),
            "momentum": Chosen(kept, f"a memory of about 5 % of {facts.steps} steps{few}"),
            "freeze_last": Chosen(round(min(1.0, 0.03 * epochs), 4), "3 % of the run, one epoch at most"),
            "teacher_temperature": Chosen(0.07 if long else 0.04, f"{facts.steps} steps"),
            "temperature_epochs": Chosen(max(1, round(0.3 * epochs)) if long else 0, f"{facts.steps} steps"),
            "drop_path": Chosen(0.1, "as published") if deep else Chosen(0.0, "a shallow encoder"),
            "local_crops": Chosen(4 if facts.steps >= 5000 else 2 if facts.steps >= 1500 else 0, f"{facts.steps} steps"),
            "local_size": Chosen(half, "half the view, in whole patches"),
            "local_area": Chosen((0.1, 0.4), f"views of {facts.size} pixels"),
            "blur": Chosen(0.0 if small else 1.0, "views of less than 48 pixels" if small else "as published"),
            "solarise": Chosen(0.0 if small else 0.2, "views of less than 48 pixels" if small else "as published"),
            "train.optimiser": Chosen("adamw", "as published"),
            "train.lr": rate(facts),
            "train.lr_end": Chosen(1e-6, "as published"),
            "train.warmup": Chosen(max(1, facts.steps // 10), "a tenth of the steps"),
            "train.weight_decay": Chosen(0.04, "constant in short runs"),
            "train.clip": Chosen(3.0, "as published"),
            "train.clip_per_tensor": Chosen(True, "as published"),
        }

    @classmethod
    def encoder_options(cls, options: Any, encoder: str) -> dict[str, Any]:
        return {"positions": "learned", "init": "dino", "drop_path": options.drop_path} if encoder.startswith("vit") else {}

    @classmethod
    def check(cls, options: Any, encoder: Encoder, spec: Spec, size: int, batch: int) -> None:
        if options.local_crops and options.local_size > size:
            raise TacitError(f"local_size={options.local_size} is larger than the view of {size} pixels; lower it")
        if options.local_crops and min(encoder.grid([options.local_size] * 2)) < 1:
            raise TacitError(f"local_size={options.local_size} is smaller than a patch of the encoder; raise it")
        if not 0 < options.local_area[0] <= options.local_area[1] <= 1:
            raise TacitError(f"local_area={list(options.local_area)}: give two shares with 0 < low <= high <= 1")

    def __init__(self, options: DistilOptions, encoder: Encoder, spec: Spec, size: int) -> None:
        super().__init__(options, encoder, spec, size)
        o = options
        self.head = DINOHead(
            encoder.width, o.prototypes, o.head_width, o.bottleneck, fixed_gain=o.fixed_gain, batch_norm=o.head_norm
        )
        self.teacher = teacher_of(encoder)
        self.teacher_head = teacher_of(self.head)
        self.center = Centre(o.prototypes, o.centre_momentum)

    @property
    def encoder(self) -> Encoder:
        return self.teacher

    @property
    def projector(self) -> nn.Module:
        return self.teacher_head

    def views(self) -> dict[str, View]:
        o, large = self.options, (self.options.global_area, 1.0)
        small = byol_view(o, o.local_size, o.local_area, 0.5 * o.blur, of=self.size)
        return {
            "global1": byol_view(o, self.size, large, o.blur),
            "global2": byol_view(o, self.size, large, 0.1 * o.blur, o.solarise),
            **{f"local{i + 1}": small for i in range(o.local_crops)},
        }

    def forward(self, views: dict[str, Tensor], draws: Draws, progress: Progress) -> Terms:
        o = self.options
        large = torch.cat([views["global1"], views["global2"]])  # [2B, C, H, W]
        small = [view for name, view in views.items() if name.startswith("local")]
        student = self.says(large, small, draws)  # [V B, K], crop by crop
        with torch.no_grad():
            teacher = self.teacher_head(self.teacher(large).pooled)  # [2B, K]
        temperature = teacher_temperature(
            int(progress.epoch), o.teacher_temperature_start, o.teacher_temperature, o.temperature_epochs
        )
        target = sharpen(teacher, self.center.of(self.group(large)), temperature)
        loss = cross_view(student, target, o.student_temperature, 2 + len(small))
        if self.training and o.centre:
            self.center.hear(teacher, self.group(large))
        sure = entropy(target)
        return Terms(
            loss,
            {"cross_view": loss.detach()},
            chance=math.log(o.prototypes),
            watch={
                "teacher_entropy": sure,
                "divergence": loss.detach() - sure,
                "teacher_temperature": loss.new_tensor(temperature),
            },
        )

    def group(self, large: Tensor) -> Tensor | None:
        """Which of several centres the teacher's logits of these crops have, int64 `[2B]`; None where there is but one."""
        return None

    def says(self, large: Tensor, small: list[Tensor], draws: Draws) -> Tensor:
        """The student's logits: one call of the trunk for each size of crop, one of the head for all."""
        features = [self.student(large, draws=draws.within("large")).pooled]
        if small:
            features.append(self.student(torch.cat(small), draws=draws.within("small")).pooled)
        return self.head(torch.cat(features))

    def after_backward(self, progress: Progress) -> None:
        if progress.epoch < self.options.freeze_last:
            self.head.hold()

    def after_step(self, progress: Progress) -> None:
        o = self.options
        self.center.move()
        kept = momentum(progress.fraction, o.momentum) if o.momentum_rises else o.momentum
        follow(self.teacher, self.student, kept)
        follow(self.teacher_head, self.head, kept)

    def pictures(self, views: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        crops = {"The two large crops, which the teacher sees": strip(shown(views["global1"]), shown(views["global2"]))}
        small = [shown(view) for name, view in views.items() if name.startswith("local")]
        if small:
            crops["The small crops, from which the student has to say the same"] = strip(*small)
        if not isinstance(self.teacher, VisionTransformer):
            return crops
        x = views["global1"][:8]
        seen = self.teacher(x, attention=True)
        assert seen.attention is not None
        grid = self.teacher.grid(x.shape[2:])
        maps = seen.attention[:, :, 0, -grid[0] * grid[1] :].unflatten(2, grid)  # [B, heads, h, w], from the class token

        def rows(maps: Tensor) -> Tensor:
            enlarged = nn.functional.interpolate(maps[:, :4], x.shape[2:], mode="nearest")
            return strip(shown(x), *enlarged.split(1, dim=1))

        return crops | {
            "What the class token attends to (one row a head)": rows(maps / maps.amax(dim=(2, 3), keepdim=True)),
            "Where 60 % of that attention lies": rows(heaviest(maps, 0.6)),
        }
