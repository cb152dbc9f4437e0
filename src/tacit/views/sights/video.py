"""How films are shown where no method has a say: the middle of them, or other stretches and parts in another light."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from tacit.data.spec import Spec
from tacit.data.window import Middle
from tacit.views.clips import EvenClip, even_clips
from tacit.views.image import CentreView
from tacit.views.normalise import TOLD
from tacit.views.sights import image
from tacit.views.video import ClipView, MiddleView
from tacit.views.view import View

coarse = (8, 16, 16)
varied = "light and colour"

CLIPS = 10
"""So many stand for a film, as RSPNet has it."""


def window(spec: Spec, extent: Sequence[int]) -> Middle:
    """Twice as long as a clip, so that there are different stretches to cut."""
    return Middle(2 * extent[0], spec.stride)


def looks(spec: Spec, extent: Sequence[int]) -> list[EvenClip]:
    """Evenly spread clips; no more than a typical film has different ones of."""
    return even_clips(spec.size[0], extent[0], spec.stride, CLIPS)


def still(extent: Sequence[int]) -> View:
    return MiddleView(extent[0], CentreView(extent[-1]))


def told(spec: Spec, extent: Sequence[int]) -> tuple[str, ...]:
    frames = f"take the middle {extent[0]} of the frames, {spec.stride} apart"
    return (f"{frames}, cut out the central square of each and resize it to {extent[-1]} x {extent[-1]}", *TOLD)


def crops(extent: Sequence[int]) -> View:
    return ClipView(extent[0], image.crops(extent))


def light(extent: Sequence[int]) -> View:
    return ClipView(extent[0], image.light(extent))


def tuning(extent: Sequence[int], mirrored: float) -> View:
    return ClipView(extent[0], image.tuning(extent, mirrored))


def flat(x: Tensor) -> Tensor:
    places = tuple(min(most, length) for most, length in zip(coarse, x.shape[2:], strict=True))
    return adaptive_avg_pool3d(x, places).flatten(1)  # pyright: ignore[reportArgumentType]
