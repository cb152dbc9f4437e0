"""tacit's own encoders by name: which sizes there are, and how a name and the views' extent become arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tacit.core.errors import TacitError, nearest
from tacit.nn import anatomy, c3d, channel_vit, resnet, resnet3d, s3d, stills, swin3d, towers, video_vit, vit
from tacit.nn.encoder import Encoder
from tacit.nn.points.encoder import PointTransformer

Extent = list[int]


@dataclass(frozen=True)
class Family:
    """Encoders of one class.

    Attributes:
        make: the class.
        shapes: what the sizes are called, and the arguments that each stands for.
        views: what they look at, and how many axes that has.
        patch: what follows the name behind a slash, as in an example; empty for nothing.
        fitted: further arguments, given the extent of the views and the patch.
        chosen: values of options that nobody gave, by the extent of the views; they become part of the configuration.
    """

    make: Callable[..., Encoder]
    shapes: Mapping[str, Mapping[str, Any]]
    views: tuple[str, int]
    patch: str = ""
    fitted: Callable[[Extent, list[int]], dict[str, Any]] = lambda extent, patch: {}
    chosen: Callable[[Extent], dict[str, Any]] = lambda extent: {}

    def examples(self) -> list[str]:
        return [f"{name}/{self.patch}" if self.patch else name for name in self.shapes]


def own(name: str, channels: int, extent: Extent, options: dict[str, Any]) -> Encoder:
    """The encoder of this name; what is chosen by the extent alone becomes part of `options`."""
    variant, _, patch = name.partition("/")
    family = next((family for family in FAMILIES if variant in family.shapes), None)
    if family is None or bool(patch) > bool(family.patch):
        known = [example for family in FAMILIES for example in family.examples()]
        raise TacitError(
            f"no encoder is called '{name}'{nearest(name, known)} (there are {', '.join(known)}, timm:NAME, file.py:Class)"
        )
    what, axes = family.views
    if len(extent) != axes:
        raise TacitError(f"encoder {name} is for {what}, the views have {len(extent)} axes; choose another encoder")
    known = list(inspect.signature(family.make).parameters)
    for option in options:
        if option not in known:
            raise TacitError(f"encoder {name} has no option '{option}'{nearest(option, known)}")
    for key, value in family.chosen(extent).items():
        options.setdefault(key, value)
    fitted = family.fitted(extent, _patch(name, patch, family.patch, extent))
    return family.make(channels, **{**family.shapes[variant], **fitted, **options})


def _patch(name: str, given: str, example: str, extent: Extent) -> list[int]:
    """`8`, or `2x8` for two frames of 8 pixels, as numbers."""
    if not example:
        return []
    variant, parts = name.partition("/")[0], given.split("x")
    most = [*extent[: example.count("x")], min(extent[-2:])]
    numbers = [int(part) if part.isdigit() else 0 for part in parts]
    if len(numbers) != len(most) or not all(0 < number <= limit for number, limit in zip(numbers, most, strict=True)):
        lengths = " by ".join(f"1 to {limit}" for limit in most)
        raise TacitError(f"encoder {name}: give a patch of {lengths} pixels behind the name, as in {variant}/{example}")
    return numbers


def _shapes(named: Mapping[str, NamedTuple], prefix: str = "") -> dict[str, Mapping[str, Any]]:
    return {prefix + name: shape._asdict() for name, shape in named.items()}


def _small_below_64(word: str) -> Callable[[Extent], dict[str, Any]]:
    """The larger stem leaves too little of a small view."""
    return lambda extent: {"stem": "small" if min(extent[-2:]) <= 64 else word}


FAMILIES = (
    Family(
        vit.VisionTransformer,
        _shapes(vit.VARIANTS),
        ("images", 2),
        "16",
        lambda extent, patch: {"size": extent, "patch": patch[0]},
    ),
    Family(
        towers.ClipVisionTransformer,
        _shapes(vit.VARIANTS, "clip-"),
        ("images", 2),
        "16",
        lambda extent, patch: {"size": extent, "patch": patch[0]},
    ),
    Family(
        towers.ClipResNet,
        {"clip-resnet50": {"blocks": (3, 4, 6, 3), "width": 64, "out": 1024}},
        ("images", 2),
        fitted=lambda extent, patch: {"size": extent},
        chosen=_small_below_64("imagenet"),
    ),
    Family(resnet.ResNet, _shapes(resnet.VARIANTS), ("images", 2), chosen=_small_below_64("imagenet")),
    Family(
        video_vit.VideoTransformer,
        _shapes(vit.VARIANTS, "video-"),
        ("clips", 3),
        "2x16",
        lambda extent, patch: {"size": extent, "tubelet": patch[0], "patch": patch[1]},
    ),
    Family(
        stills.Stills,
        _shapes(vit.VARIANTS, "stills-"),
        ("clips", 3),
        "16",
        lambda extent, patch: {"size": extent, "patch": patch[0]},
    ),
    Family(resnet3d.ResNet3d, _shapes(resnet3d.VARIANTS), ("clips", 3), chosen=_small_below_64("full")),
    Family(c3d.C3D, {"c3d": {}}, ("clips", 3)),
    Family(s3d.S3DG, {"s3d-g": {}}, ("clips", 3)),
    Family(swin3d.Swin3D, _shapes(swin3d.VARIANTS), ("volumes", 3)),
    Family(anatomy.AnatomyNet, _shapes(anatomy.VARIANTS), ("volumes", 3)),
    Family(PointTransformer, _shapes(vit.VARIANTS, "point-"), ("clouds of points", 1)),
    Family(
        channel_vit.ChannelViT,
        _shapes(channel_vit.VARIANTS),
        ("images of channels", 3),
        "16",
        lambda extent, patch: {"size": extent, "patch": patch[0]},
    ),
    Family(
        channel_vit.OneChannelViT,
        _shapes(vit.VARIANTS, "one-channel-"),
        ("images of channels", 3),
        "16",
        lambda extent, patch: {"size": extent, "patch": patch[0]},
    ),
)
