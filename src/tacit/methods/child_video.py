"""MAE-ST, as trained on a child's view of the world.

Nine tenths of a clip's tubelets are hidden; the encoder sees only the rest, and a small decoder regresses the pixels of what
was hidden. What the paper adds to masked autoencoders over space and time are data and controls, not the loss: how much video
there is, and an image autoencoder that sees the same frames, one by one (`stills-vit-...` as the encoder).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.data.window import Stretch
from tacit.methods.clips import ClipOptions, clip_rules, films
from tacit.methods.method import Chosen, Facts, Method, Paper, Progress, Terms, option
from tacit.nn.encoder import Encoder
from tacit.nn.image_decoder import ImageDecoder
from tacit.nn.spacetime import predicted_frames, tubelets, untubelets
from tacit.nn.stills import Stills
from tacit.nn.video_decoder import VideoDecoder
from tacit.nn.video_vit import VideoTransformer
from tacit.objectives.precision import wide
from tacit.objectives.reconstruct import masked_mse, normalised, normalised_chance
from tacit.views.image import ImageView
from tacit.views.masks import Hidden, kept, random_keep
from tacit.views.masks_time import center_ranks, temporal_ranks
from tacit.views.video import ClipView
from tacit.views.view import View


class ChildVideoOptions(ClipOptions):
    mask_ratio: float = option(
        0.9, "share of tubelets that are hidden", auto="0.9 from 160 tubelets on, 0.75 or 0.8 below", gt=0, lt=1
    )
    norm_pix: bool = option(False, "normalise each target tubelet by its own mean and deviation", auto="off")
    frames_predicted: int = option(0, "frames of the clip that are predicted, evenly spaced; 0 for all", ge=0)
    decoder_width: int = option(512, "width of the decoder", auto="64 on a processor, 256 else", ge=4)
    decoder_depth: int = option(4, "blocks of the decoder", auto="1 on a processor, 2 else", ge=0)
    decoder_heads: int = option(16, "attention heads of the decoder", auto="4", ge=1)
    positions: Literal["separable", "joint"] = option("separable", "a position for time and one for place, or one for both")
    class_token: bool = option(True, "whether encoder and decoder have a class token")
    repeats: int = option(16, "clips of each video in a step", auto="1", ge=1, le=64)
    area: float = option(0.5, "least share of the frame that a clip shows", ge=0.01, le=1)
    flip: float = option(0.5, "chance of a mirrored clip", ge=0, le=1)
    normalise: Literal["none", "data", "imagenet", "films"] = option("films", "what is subtracted and divided by", auto="data")
    pool: Literal["mean", "cls"] = option("mean", "features: the mean of the tokens, or the class token (as when fine-tuned)")


class ChildVideo(Method):
    """Orhan, Wang, Wang, Ren, Lake, CogSci 2024."""

    name = "child-video"
    paper = Paper(
        "Self-supervised learning of video representations from a child's perspective",
        "Orhan, Wang, Wang, Ren, Lake",
        2024,
        "CogSci",
        "eminorhan/video-models",
    )
    kinds = ("video",)
    tokens = True
    rebuilds = True
    Options = ChildVideoOptions
    paper_training = {
        "encoder": "video-vit-huge/2x14",
        "size": 224,
        "batch": 4,
        "epochs": 250,
        "schedule": "constant",
        "optimiser": "adamw",
        "lr": 1e-4,
        "beta2": 0.95,
        "weight_decay": 0.05,
        "clip": 0.1,
    }
    paper_columns = {
        "s-tenth": {"epochs": 1774},
        "saycam": {"epochs": 119},
        "kinetics": {"batch": 64, "repeats": 1, "epochs": 49},
        "stills": {"encoder": "stills-vit-huge/14", "mask_ratio": 0.75, "decoder_depth": 8},
        "mae-st": {
            "lr_per_256": 6.4e-3,
            "warmup_epochs": 5,
            "schedule": "cosine",
            "norm_pix": True,
            "frames_predicted": 8,
            "repeats": 4,
            "stride": 4,
            "clip": 0.02,
        },
    }

    @classmethod
    def auto(cls, facts: Facts) -> dict[str, Chosen]:
        tubelet, _, patch = facts.encoder.partition("/")[2].partition("x")
        known = tubelet.isdigit() and patch.isdigit()  # else it is a user's own encoder
        places = facts.extent[0] // int(tubelet) * (facts.size // int(patch)) ** 2 if known else 160
        ratio = 0.9 if places >= 160 else 0.8 if places >= 80 else 0.75
        said = f"{places} tubelets"
        if facts.encoder.startswith("stills"):
            ratio, said = 0.75, "as published for stills"
        small = facts.device == "cpu"
        rate = 3e-3 if small else 1e-3  # small encoders then leave the mean colour in fewer steps
        return clip_rules(facts) | {
            "mask_ratio": Chosen(ratio, said),
            "norm_pix": Chosen(False, "as published: flat backgrounds would be blown up"),
            "decoder_width": Chosen(64 if small else 256, "a small decoder is enough"),
            "decoder_depth": Chosen(1 if small else 2, "a small decoder is enough"),
            "decoder_heads": Chosen(4, "a small decoder is enough"),
            "repeats": Chosen(1, "clips are quick to read"),
            "normalise": Chosen("data", "the data's own mean and deviation"),
            "train.optimiser": Chosen("adamw", "as published"),
            "train.lr": Chosen(
                rate * (facts.batch / 64) ** 0.5, f"{rate:g} x sqrt(batch / 64): the published rate is for far longer runs"
            ),
            "train.beta2": Chosen(0.95, "as published"),
            "train.weight_decay": Chosen(0.05, "as published"),
            "train.clip": Chosen(1.0, "short runs"),
        }

    @classmethod
    def encoder_options(cls, options: Any, encoder: str) -> dict[str, Any]:
        if encoder.startswith("stills"):
            return {"pool": options.pool}
        if encoder.startswith("video-vit"):
            return {"positions": options.positions, "pool": options.pool, "class_token": options.class_token}
        return {}

    @classmethod
    def extent(cls, options: Any, size: int) -> tuple[int, ...]:
        return (options.frames, size, size)

    @classmethod
    def check(cls, options: Any, encoder: Encoder, spec: Spec, size: int, batch: int) -> None:
        if not isinstance(encoder, VideoTransformer | Stills):
            raise TacitError(
                "child-video hides tubelets, so it needs a transformer; use --encoder video-vit-mini/2x8 or another"
            )
        tubelet, patch = _cell(encoder)
        if options.frames % tubelet or size % patch:
            raise TacitError(
                f"clips of {options.frames} frames of {size} pixels do not divide into tubelets of {tubelet} frames of {patch} "
                "pixels; change --set frames=..., --set size=... or the encoder's patch"
            )
        frames = 1 if isinstance(encoder, Stills) else options.frames
        kept(math.prod(encoder.grid([frames, size, size])), options.mask_ratio)
        predicted_frames(frames, tubelet, options.frames_predicted or frames)

    def __init__(self, options: ChildVideoOptions, encoder: Encoder, spec: Spec, size: int) -> None:
        super().__init__(options, encoder, spec, size)
        assert isinstance(encoder, VideoTransformer | Stills)  # `check` saw to that
        self.stills = isinstance(encoder, Stills)
        frames = 1 if self.stills else options.frames
        self.tubelet, self.patch = _cell(encoder)
        self.grid = encoder.grid([frames, size, size])
        self.shown, self.held = predicted_frames(frames, self.tubelet, options.frames_predicted or frames)
        values = self.held * self.patch**2 * spec.channels
        wide, deep, heads = options.decoder_width, options.decoder_depth, options.decoder_heads
        self.decoder: ImageDecoder | VideoDecoder
        if self.stills:
            self.decoder = ImageDecoder(encoder.width, wide, deep, heads, self.grid[1:], values)
        else:
            more = {"class_token": options.class_token, "joint": options.positions == "joint"}
            self.decoder = VideoDecoder(encoder.width, wide, deep, heads, self.grid, values, **more)

    @property
    def places(self) -> int:
        return math.prod(self.grid)

    def views(self) -> dict[str, View]:
        o = self.options
        look = ImageView(self.size, area=(o.area, 1.0), flip=o.flip, interpolation="bilinear", normalise=o.normalise)
        return {f"clip{number}": ClipView(o.frames, look, Stretch(o.frames, o.stride)) for number in range(o.repeats)}

    def forward(self, views: dict[str, Tensor], draws: Draws, progress: Progress) -> Terms:
        clips = self.cut(torch.cat(list(views.values())))  # [R * B, C, T, H, W]
        frames = self.options.frames if self.stills else 1
        noise = [draws.within(name).uniform("mask", frames, self.places).flatten(0, 1) for name in views]
        hidden = random_keep(torch.cat(noise), self.options.mask_ratio)
        loss = masked_mse(wide(self.predict(clips, hidden)), self.target(clips), hidden.mask)
        return Terms(loss, {"pixels": loss.detach()}, chance=self.chance)

    def cut(self, clips: Tensor) -> Tensor:
        """What is masked and completed by itself: clips as they are, or each of their frames as a clip of one."""
        return clips.transpose(1, 2).flatten(0, 1)[:, :, None] if self.stills else clips

    def predict(self, clips: Tensor, hidden: Hidden) -> Tensor:
        """What the decoder makes of the tubelets that are seen: `[B, L, values of a tubelet]`."""
        seen = self.student(clips, keep=hidden.keep)
        # The image control's decoder goes on with the encoder's class token; that of clips has one of its own.
        latent = torch.cat([seen.prefix, seen.tokens], dim=1) if self.stills else seen.tokens
        return self.decoder(latent, hidden.restore)

    def target(self, clips: Tensor) -> Tensor:
        rows = self.cells(clips)
        return normalised(rows) if self.options.norm_pix else rows

    def cells(self, clips: Tensor) -> Tensor:
        """The tubelets of the frames that are predicted: `[B, L, values of a tubelet]`."""
        some = self.held < self.tubelet
        return tubelets(clips[:, :, self.shown.to(clips.device)] if some else clips, self.held, self.patch)

    @property
    def chance(self) -> float | None:
        """The loss of predicting nothing but the mean: known where tubelets are normalised, or the data as a whole is."""
        if self.options.norm_pix:
            return normalised_chance(self.held * self.patch**2 * self.spec.channels)
        return 1.0 if self.options.normalise == "data" else None

    def pictures(self, views: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        clip, ratio = next(iter(views.values()))[:1], self.options.mask_ratio
        clips = self.cut(clip)
        ranks = {"at random": (draws.uniform("mask", len(clips), self.places)[0], ratio)}
        if not self.stills:
            ranks |= {"at the end": (temporal_ranks(self.places)[None].to(clip.device), 0.25)}
            ranks |= {"in the middle": (center_ranks(self.places)[None].to(clip.device), 0.25)}
        told = "A clip, what the encoder sees of it ({:.0%} hidden {}), and what the decoder makes of that"
        return {
            told.format(share, where): self.completed(clips, random_keep(noise, share))
            for where, (noise, share) in ranks.items()
        }

    def completed(self, clips: Tensor, hidden: Hidden) -> Tensor:
        """Three rows of frames: the clip, what is seen of it, and what is seen with what was made of the rest."""
        frames, patch = self.held, self.patch
        rows, prediction = self.cells(clips), self.predict(clips, hidden).float()
        if self.options.norm_pix:
            mean, variance = rows.mean(-1, keepdim=True), rows.var(-1, keepdim=True)
            prediction = prediction * (variance + 1e-6).sqrt() + mean
        mask, grey = hidden.mask[..., None].to(rows), rows.mean()
        parts = (rows, rows * (1 - mask) + grey * mask, rows * (1 - mask) + prediction * mask)
        return films(*(untubelets(part, frames, patch, self.grid).transpose(0, 1).flatten(1, 2) for part in parts))


def _cell(encoder: VideoTransformer | Stills) -> tuple[int, int]:
    """Frames and side of what is hidden or seen as a whole."""
    if isinstance(encoder, Stills):
        return 1, encoder.image.patch_embed.patch
    return encoder.patch_embed.tubelet, encoder.patch_embed.patch
