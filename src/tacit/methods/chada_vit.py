"""ChAda-ViT: Channel Adaptive Attention for Joint Representation Learning of Heterogeneous Microscopy Images.

Every patch of every channel is a token of its own, from one projection that all channels share; positions are the same in all
channels, and each channel has a slot of its own. So one encoder reads pictures of any number of channels, whatever microscope
they come from. It is pretrained by DINO: a student repeats what a slowly moving teacher says about another view, and in each
view every channel is in a light of its own. The teacher never gets a gradient.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.methods.augment import blurred
from tacit.methods.dino import DINO
from tacit.methods.distil import DistilOptions
from tacit.methods.method import Chosen, Facts, Paper, option
from tacit.methods.pictures import enlarged, strip
from tacit.nn.centre import Centre
from tacit.nn.channel_vit import ChannelViT, OneChannelViT
from tacit.nn.encoder import Encoder
from tacit.views.channel_image import ChannelView
from tacit.views.image import ImageView
from tacit.views.view import View


class ChAdaViTOptions(DistilOptions):
    channels: int = option(10, "most channels of a picture: how many slots there are", auto="as many as the data has", ge=1)
    prototypes: int = option(
        65536, "K, what teacher and student spread their opinion over", auto="a third of the samples, 64 to 4096", ge=2
    )
    head_width: int = option(2048, "hidden width of the head", auto="256", ge=1)
    bottleneck: int = option(256, "dimensions in which views are compared to prototypes", auto="64", ge=1)
    head_norm: bool = option(False, "batch-norm inside the head", auto="true")
    fixed_gain: bool = option(False, "prototypes have unit length (norm_last_layer)", auto="true")
    teacher_temperature: float = option(0.07, "sharpness of the teacher", auto="0.04", gt=0)
    temperature_epochs: int = option(50, "epochs from one to the other", auto="0", ge=0)
    centre_momentum: float = option(
        0.9, "how much of the running mean stays at each step", auto="0.9, more for small batches", ge=0, le=1
    )
    momentum: float = option(0.9995, "how much of the teacher stays at the first step", auto="1 - 12 / steps", ge=0, le=1)
    centre_each: bool = option(False, "a centre for each number of channels, so that this number is no answer", auto="true")
    freeze_last: float = option(1.0, "epochs during which the prototypes stay as they are", auto="5 % of the run", ge=0)
    block: Literal["official", "prenorm"] = option("official", "norms after each branch and ReLU, or the usual block")
    attend: Literal["all", "channels"] = option("all", "patches look at all others, or at their own place in all channels")
    slots: bool = option(True, "whether a token knows which channel it is of; else their order means nothing")
    pool: Literal["cls", "mean"] = option("cls", "features: the class token, or the mean of the true channels' tokens")
    area: float = option(0.08, "least share of the picture that a view shows", auto="0.3", ge=0.01, le=1)
    jitter: float = option(
        1.0,
        "strength of each channel's own shift (0.3) and gain (0.5 to 1.5)",
        auto="0.5 below 5,000 steps, 0.25 below 1,000",
        ge=0,
        le=1,
    )
    blur: float = option(1.0, "chance of a blurred first view; a tenth for the second", auto="0 below 48 pixels", ge=0, le=1)
    solarise: float = option(0.2, "chance that the second view is solarised", auto="0", ge=0, le=1)
    flip: float = option(0.5, "chance of a mirrored view", auto="0 where a mirror image means something else", ge=0, le=1)
    turns: bool = option(False, "quarter turns and upside down, too", auto="true, unless a mirror image means something else")
    discard: bool = option(False, "leave one channel out of two samples in three")
    shuffle: bool = option(False, "channels in a random order in every view, where their order means nothing")


class ChAdaViT(DINO):
    """Bourriez, Bendidi, Cohen, Watkinson, Sanchez, Bollot, Genovesio, CVPR 2024."""

    name = "chada-vit"
    paper = Paper(
        "ChAda-ViT: Channel Adaptive Attention for Joint Representation Learning of Heterogeneous Microscopy Images",
        "Bourriez, Bendidi, Cohen, Watkinson, Sanchez, Bollot, Genovesio",
        2024,
        "CVPR",
        "nicoboou/chadavit",
    )
    kinds = ("channels",)
    Options = ChAdaViTOptions
    paper_training = {
        "encoder": "channel-vit-tiny/16",
        "size": 224,
        "batch": 64,
        "epochs": 400,
        "warmup_epochs": 10,
        "optimiser": "adamw",
        "schedule": "cosine-inclusive",
        "lr_per_256": 5e-4,
        "weight_decay": 1e-4,
    }
    paper_columns = {}

    @classmethod
    def auto(cls, facts: Facts) -> dict[str, Chosen]:
        epochs = facts.steps / max(1, facts.samples // facts.batch)
        small, anyhow = facts.size < 48, facts.mirrored is not False
        jitter = 0.25 if facts.steps < 1000 else 0.5 if facts.steps < 5000 else 1.0
        rows = 2 * facts.batch
        base = 1e-3 if facts.width <= 128 else 5e-4
        return {
            "channels": Chosen(facts.extent[0], f"pictures have at most {facts.spec.size[0]}"),
            "prototypes": Chosen(min(max(facts.samples // 3, 64), 4096), f"{facts.samples} samples"),
            "head_width": Chosen(256, "small data"),
            "bottleneck": Chosen(64, "small data"),
            "head_norm": Chosen(True, "without it the teacher says the same of all samples"),
            "fixed_gain": Chosen(True, "steadier in short runs"),
            "centre_each": Chosen(True, "else the number of channels is all that the teacher says"),
            "teacher_temperature": Chosen(0.04, "a lower one puts everything on one prototype"),
            "temperature_epochs": Chosen(0, "constant"),
            "centre_momentum": Chosen(0.9 if rows >= 128 else 1 - 0.1 * rows / 128, f"{rows} teacher rows a step"),
            "momentum": Chosen(min(max(1 - 12 / facts.steps, 0.9), 0.9995), f"{facts.steps} steps"),
            "freeze_last": Chosen(round(0.05 * epochs, 4), "5 % of the run"),
            "area": Chosen(0.3, "smaller crops of cells show hardly any of them"),
            "jitter": Chosen(jitter, f"{facts.steps} steps; the stronger, the longer the teacher says the same of all"),
            "blur": Chosen(0.0 if small else 1.0, "views of less than 48 pixels" if small else "as published"),
            "solarise": Chosen(0.0, "on a dark ground it makes another picture"),
            "flip": Chosen(0.5 if anyhow else 0.0, "mirror images mean the same, as far as is known" if anyhow else "--mirror"),
            "turns": Chosen(anyhow, "a slide has no upper side" if anyhow else "a mirror image means something else"),
            "train.optimiser": Chosen("adamw", "as published"),
            "train.lr": Chosen(base, f"features of {facts.width} dimensions"),
            "train.warmup": Chosen(max(1, facts.steps // 10), "a tenth of the steps"),
            "train.weight_decay": Chosen(1e-4, "as published"),
            "train.clip": Chosen(3.0, "short runs"),
        }

    @classmethod
    def encoder_options(cls, options: Any, encoder: str) -> dict[str, Any]:
        if not encoder.startswith("channel-vit"):
            return {}
        return {"block": options.block, "attend": options.attend, "channel_token": options.slots, "pool": options.pool}

    @classmethod
    def extent(cls, options: Any, size: int) -> tuple[int, ...]:
        return (options.channels, size, size)

    @classmethod
    def check(cls, options: Any, encoder: Encoder, spec: Spec, size: int, batch: int) -> None:
        if not isinstance(encoder, ChannelViT | OneChannelViT):
            raise TacitError("chada-vit needs an encoder of channels; use --encoder channel-vit-micro/8 or another of them")
        if spec.size[0] > options.channels:
            raise TacitError(
                f"pictures have up to {spec.size[0]} channels, channels={options.channels} slots are too few; raise it"
            )

    def __init__(self, options: ChAdaViTOptions, encoder: Encoder, spec: Spec, size: int) -> None:
        super().__init__(options, encoder, spec, size)
        if options.centre_each:
            self.center = Centre(options.prototypes, options.centre_momentum, groups=options.channels)

    def group(self, large: Tensor) -> Tensor | None:
        return counts(large) - 1 if self.options.centre_each else None

    @property
    def encoder(self) -> Encoder:
        """The student: that is what the paper evaluates."""
        return self.student

    @property
    def projector(self) -> torch.nn.Module:
        return self.head

    def decays(self, name: str, parameter: Tensor) -> bool:
        """As published: biases and norms, too."""
        return True

    def views(self) -> dict[str, View]:
        o = self.options

        def view(blur: float, solarise: float) -> ChannelView:
            look = ImageView(
                self.size,
                area=(o.area, 1.0),
                flip=o.flip,
                flip_vertical=0.5 if o.turns else 0.0,
                blur=blurred(blur, self.size),
                solarise=solarise,
                normalise="none",
            )
            return ChannelView(look, 0.3 * o.jitter, 0.5 * o.jitter, o.turns, o.discard, o.shuffle)

        return {"global1": view(o.blur, 0.0), "global2": view(0.1 * o.blur, o.solarise)}

    def pictures(self, views: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        rows = F.pad(panels(views["global1"]), (0, 0, 0, 4), value=1.0), panels(views["global2"])
        found = {"Two views of each picture, one channel below the other; what a picture lacks is grey": torch.cat(rows, dim=1)}
        if not isinstance(self.student, ChannelViT):
            return found
        x = views["global1"][:4]
        seen = self.student(x, attention=True)
        assert seen.attention is not None
        maps = seen.attention[:, :, 0, 1:].unflatten(2, self.student.grid(x.shape[2:]))  # [B, heads, C, h, w], of the class
        side_by_side = torch.cat([attended(*each) for each in zip(x, maps, strict=True)], dim=2)
        found |= {
            "What the class token attends to: each channel, and beside it each head's attention over its patches": side_by_side,
            "How much of that attention each channel has (a row a picture)": bars(maps.sum(dim=(3, 4)).mean(dim=1)),
        }
        if self.student.channel_token is not None:
            slots = F.normalize(self.student.channel_token[0, :, 0].float(), dim=1)
            cosines = ((slots @ slots.T + 1) / 2).clamp(0, 1)
            found["How alike the slots are of every two channels (white: the same)"] = enlarged(cosines, 16)
        return found


def counts(x: Tensor) -> Tensor:
    """How many true channels the views `[N, 2, C, H, W]` have, int64 `[N]`, 1 at least."""
    return (x[:, 1, :, 0, 0] > 0).sum(dim=1).clamp(min=1)


def panels(x: Tensor, most: int = 8) -> Tensor:
    """Views `[N, 2, C, H, W]`, a picture a column, a channel a row: `[1, C * (H + 1), N * (W + 1)]`; absent ones are grey."""
    shown = x[:most, 0].where(x[:most, 1] > 0, 0.5).float()
    return strip(*shown.split(1, dim=1), most=most)


def attended(x: Tensor, maps: Tensor) -> Tensor:
    """One view `[2, C, H, W]`, a channel a row; columns are the channel and each head's map `[heads, C, h, w]` over it."""
    true = x[1, :, 0, 0] > 0
    strongest = maps.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    large = F.interpolate(maps / strongest, x.shape[2:], mode="nearest")[:4, true]
    columns = torch.cat([x[:1, true], large]).float()  # [1 + heads, C, H, W]
    picture = strip(*columns.transpose(0, 1)[:, :, None], most=5)
    return F.pad(picture, (0, 4, 0, int((~true).sum()) * (x.shape[2] + 1)), value=1.0)


def bars(share: Tensor, height: int = 40, width: int = 20) -> Tensor:
    """Shares `[N, C]` of 1, a row of bars each, the longest one the whole: `[1, N * (height + 1), C * width]`."""
    level = torch.linspace(1, 0, height, device=share.device)[:, None, None]
    filled = (level <= share / share.amax()).float().transpose(0, 1)  # [N, height, C]
    drawn = F.pad(filled[..., None].expand(-1, -1, -1, width - 4), (2, 2)).flatten(2)
    return F.pad(drawn, (0, 0, 0, 1), value=0.5).flatten(0, 1)[None]
