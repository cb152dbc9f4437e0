"""MAE: Masked Autoencoders Are Scalable Vision Learners.

Three quarters of an image's patches are hidden; the encoder sees only the rest, and a small decoder regresses the pixels of
what was hidden. There are no mask tokens in the encoder, so hidden patches cost nothing. Nothing is stopped, nobody teaches.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.methods.method import Chosen, Facts, Method, Options, Paper, Progress, Terms, option
from tacit.methods.pictures import shown, strip
from tacit.nn.encoder import Encoder
from tacit.nn.image_decoder import ImageDecoder
from tacit.nn.patches import patchify, unpatchify
from tacit.nn.vit import VisionTransformer
from tacit.objectives.precision import wide
from tacit.objectives.reconstruct import masked_mse, normalised, normalised_chance
from tacit.views.image import ImageView
from tacit.views.masks import Hidden, block_mask, grid_mask, keep_of, kept, random_keep
from tacit.views.normalise import statistics
from tacit.views.view import View

SHORT = 11_000
"""Steps beyond which `auto`'s rate for narrow encoders falls to that of others; it was tried with 1,000 to 10,900 of them."""

FEW = 8
"""Values of a patch below which `auto` leaves them as they are: what is left of so few by their own mean and deviation is
little, and of a single one nothing."""


class MAEOptions(Options):
    mask_ratio: float = option(
        0.75, "share of patches that are hidden", auto="0.75, or 0.6 below 64 patches or for drawings", gt=0, lt=1
    )
    mask_kind: Literal["random", "block", "grid"] = option("random", "which patches are hidden")
    norm_pix: bool = option(
        True, "normalise each target patch by its own mean and deviation", auto="false where most are flat, or below 8 values"
    )
    norm_floor: float = option(
        0.0, "grey levels of 255 under which a patch counts as flat", auto="2 if over 10 % of patches are flat", ge=0
    )
    decoder_width: int = option(512, "width of the decoder", auto="64 on a processor, 256 else", ge=4, multiple_of=4)
    decoder_depth: int = option(8, "blocks of the decoder", auto="2", ge=0)
    decoder_heads: int = option(16, "attention heads of the decoder", auto="4", ge=1)
    mask_in_encoder: bool = option(False, "let the encoder see mask tokens instead of skipping what is hidden (a baseline)")
    loss_on: Literal["hidden", "all"] = option("hidden", "which patches are scored")
    area: float = option(
        0.2, "least share of the image that the view shows", auto="0.5 up to 48 pixels, 0.35 up to 96", gt=0, le=1
    )
    flip: float = option(0.5, "chance of a mirrored view", auto="0 where a mirror image means something else", ge=0, le=1)
    normalise: Literal["none", "data", "imagenet"] = option("imagenet", "what is subtracted and divided by", auto="data")
    pool: Literal["cls", "mean"] = option("cls", "features: the class token, or the mean of the patch tokens", auto="mean")


class MAE(Method):
    """He, Chen, Xie, Li, Dollár, Girshick, CVPR 2022."""

    name = "mae"
    paper = Paper(
        "Masked Autoencoders Are Scalable Vision Learners",
        "He, Chen, Xie, Li, Dollár, Girshick",
        2022,
        "CVPR",
        "facebookresearch/mae",
    )
    kinds = ("image",)
    tokens = True
    rebuilds = True
    Options = MAEOptions
    paper_training = {
        "encoder": "vit-base/16",
        "size": 224,
        "batch": 4096,
        "epochs": 800,
        "warmup_epochs": 40,
        "optimiser": "adamw",
        "lr_per_256": 1.5e-4,
        "beta2": 0.95,
        "weight_decay": 0.05,
    }
    paper_columns = {
        "1600": {"epochs": 1600},
        "vit-large": {"encoder": "vit-large/16"},
        "vit-huge": {"encoder": "vit-huge/14"},
    }

    @classmethod
    def auto(cls, facts: Facts) -> dict[str, Chosen]:
        patch = facts.encoder.partition("/")[2]
        side = int(patch) if patch.isdigit() else 0  # that of a user's own encoder is not known
        places, values = (facts.size // side) ** 2 if side else 64, side**2 * facts.spec.channels
        if places < 20:
            ratio = Chosen(0.5, f"only {places} patches")  # at 0.6 fewer than 8 would be seen
        elif places < 64:
            ratio = Chosen(0.6, f"only {places} patches")
        elif facts.sparse > 0.5:
            ratio = Chosen(0.6, "sparse pictures")
        else:
            ratio = Chosen(0.75, "as published")
        rate = Chosen(1e-3 * facts.batch / 256, "1e-3 x batch / 256: the published rate is for far longer runs")
        brisk = 4e-3 * min(1.0, SHORT / facts.steps)
        if facts.width <= 192 and (high := brisk * math.sqrt(facts.batch / 256)) > rate.value:
            rate = Chosen(high, f"{brisk:.2g} x sqrt(batch / 256): {facts.steps} steps of a narrow encoder")
        target = Chosen(True, "as published")
        if facts.flat > 0.5:
            target = Chosen(False, f"{facts.flat:.0%} of the patches are flat")
        elif 0 < values < FEW:
            target = Chosen(False, f"a patch has but {values} value(s)")
        area = 0.5 if facts.size <= 48 else 0.35 if facts.size <= 96 else 0.2
        return {
            "mask_ratio": ratio,
            "norm_pix": target,
            "norm_floor": Chosen(2.0, f"{facts.flat:.0%} of the patches are flat")
            if facts.flat > 0.1
            else Chosen(0.0, "few flat patches"),
            "decoder_width": Chosen(64 if facts.device == "cpu" else 256, "a small decoder is enough"),
            "decoder_depth": Chosen(2, "a small decoder is enough"),
            "decoder_heads": Chosen(4, "a small decoder is enough"),
            "area": Chosen(area, f"views of {facts.size} pixels"),
            "flip": Chosen(0.0, "drawings may mean something else in a mirror (--mirror if not)")
            if facts.mirrored is False
            else Chosen(0.5, "as published"),
            "normalise": Chosen("data", "the data's own mean and deviation"),
            "pool": Chosen("mean", "nothing in pretraining gives the class token a target of its own"),
            "train.optimiser": Chosen("adamw", "as published"),
            "train.lr": rate,
            "train.beta2": Chosen(0.95, "as published"),
            "train.weight_decay": Chosen(0.05, "as published"),
        }

    @classmethod
    def encoder_options(cls, options: Any, encoder: str) -> dict[str, Any]:
        return {"positions": "sincos", "init": "mae", "pool": options.pool} if encoder.startswith("vit") else {}

    @classmethod
    def check(cls, options: Any, encoder: Encoder, spec: Spec, size: int, batch: int) -> None:
        if not isinstance(encoder, VisionTransformer):
            raise TacitError("mae hides patches, so it needs a transformer; use --encoder vit-mini/4 or another vit")
        if encoder.prefix != 1:
            raise TacitError(
                f"mae's decoder takes a class token and no registers, the encoder has {encoder.prefix} prefix tokens"
            )
        patch = encoder.patch_embed.patch
        if size % patch:
            raise TacitError(
                f"views of {size} pixels do not divide into patches of {patch}; change --set size=... or the encoder's patch"
            )
        kept((size // patch) ** 2, options.mask_ratio)
        if options.norm_pix and patch**2 * spec.channels == 1:
            raise TacitError("norm_pix=true leaves nothing of a patch of one value; use --set norm_pix=false or larger patches")
        if options.mask_kind == "grid" and options.mask_ratio != 0.75:
            raise TacitError(f"mask_kind=grid hides three quarters, so mask_ratio={options.mask_ratio} cannot be; use 0.75")

    def __init__(self, options: MAEOptions, encoder: Encoder, spec: Spec, size: int) -> None:
        super().__init__(options, encoder, spec, size)
        assert isinstance(encoder, VisionTransformer)  # `check` saw to that
        self.student: VisionTransformer = encoder
        self.patch: int = encoder.patch_embed.patch
        self.grid = encoder.grid([size, size])
        self.decoder = ImageDecoder(
            encoder.width,
            options.decoder_width,
            options.decoder_depth,
            options.decoder_heads,
            self.grid,
            self.patch**2 * spec.channels,
        )

        self.hidden_token = nn.Parameter(torch.randn(encoder.width) * 0.02) if options.mask_in_encoder else None

    def views(self) -> dict[str, View]:
        o = self.options
        return {"view": ImageView(self.size, area=(o.area, 1.0), flip=o.flip, normalise=o.normalise)}

    def forward(self, views: dict[str, Tensor], draws: Draws, progress: Progress) -> Terms:
        x = views["view"]  # [B, C, H, W]
        hidden = self.hide(draws, self.options.mask_ratio)
        prediction = self.predict(x, hidden)  # [B, L, p * p * C]
        loss = self.loss(x, prediction, hidden.mask)
        return Terms(loss, {"pixels": loss.detach()}, chance=self.chance)

    def hide(self, draws: Draws, ratio: float) -> Hidden:
        kind, places = self.options.mask_kind, self.grid[0] * self.grid[1]
        if kind == "random":
            return random_keep(draws.uniform("mask", places), ratio)
        if kind == "block":
            return keep_of(block_mask(draws, self.grid, places - kept(places, ratio)))
        return keep_of(grid_mask(self.grid).to(draws.samples.device).expand(len(draws.samples), -1))

    def predict(self, x: Tensor, hidden: Hidden) -> Tensor:
        if self.hidden_token is not None:
            patches = self.student.patch_embed(x)
            patches = torch.where(hidden.mask[..., None] > 0, self.hidden_token.to(patches.dtype), patches)
            seen = self.student.trunk(patches, self.grid)
            restore = torch.arange(patches.shape[1], device=x.device).expand(len(x), -1)
        else:
            seen, restore = self.student(x, keep=hidden.keep), hidden.restore
        assert seen.prefix is not None  # `check` saw to that
        return self.decoder(torch.cat([seen.prefix, seen.tokens], dim=1), restore)

    def loss(self, x: Tensor, prediction: Tensor, mask: Tensor) -> Tensor:
        scored = mask if self.options.loss_on == "hidden" else torch.ones_like(mask)
        return masked_mse(wide(prediction), self.target(x), scored)

    def target(self, x: Tensor) -> Tensor:
        patches = patchify(x, self.patch)
        return normalised(patches, self.floor) if self.options.norm_pix else patches

    @property
    def floor(self) -> float:
        """What is added to a patch's variance: the published 1e-6, or that of `norm_floor` grey levels in normalised units."""
        _, deviation = statistics(self.options.normalise, self.spec)
        return max(1e-6, (self.options.norm_floor / 255 / float(deviation.mean())) ** 2)

    @property
    def chance(self) -> float | None:
        """The loss of predicting nothing but the mean: known where every patch is normalised."""
        return normalised_chance(self.patch**2 * self.spec.channels) if self.options.norm_pix else None

    def pictures(self, views: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        own, places = self.options.mask_ratio, self.grid[0] * self.grid[1]
        others = (0.5, 0.9) if self.options.mask_kind == "random" else ()
        ratios = sorted({own, *(ratio for ratio in others if int(places * (1 - ratio)))})
        return {
            f"Image, what the encoder sees of it ({1 - ratio:.0%}), what the decoder makes of that": self.completed(
                views["view"], self.hide(draws, ratio)
            )
            for ratio in ratios
        }

    def completed(self, x: Tensor, hidden: Hidden) -> Tensor:
        """Rows of images, of what is seen of them, and of what is seen with what was made of the rest."""
        patches, prediction = patchify(x, self.patch), self.predict(x, hidden).float()
        if self.options.norm_pix:
            mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
            prediction = prediction * (variance + self.floor).sqrt() + mean
        mask = hidden.mask[..., None]
        grey = patches.mean(dim=(1, 2), keepdim=True)
        images = [unpatchify(rows, self.patch, self.grid) for rows in (
            patches, patches * (1 - mask) + grey * mask, patches * (1 - mask) + prediction * mask
        )]  # fmt: skip
        return strip(*shown(torch.cat(images, dim=2)).chunk(3, dim=2))
