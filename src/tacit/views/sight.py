"""The contract of a sight: how samples of a kind are shown where no method has a say - to embed, to judge, to fine-tune."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from torch import Tensor

from tacit.data.loader import whole_or
from tacit.data.spec import Spec
from tacit.data.window import Window
from tacit.views.view import View

SIGHTS = {
    "channels": "tacit.views.sights.channels",
    "image": "tacit.views.sights.image",
    "pair": "tacit.views.sights.pair",
    "points": "tacit.views.sights.points",
    "video": "tacit.views.sights.video",
    "volume": "tacit.views.sights.volume",
}


class Sight(Protocol):
    """What a module in `views/sights/` offers. An extent is that of the views: height and width for images."""

    coarse: tuple[int, ...]
    """The extent at which raw input is compared: what a person would call a thumbnail."""
    varied: str
    """What differs between two views of `light`, in words, several things."""

    def window(self, spec: Spec, extent: Sequence[int]) -> Window | None:
        """Which part of a sample the views below are made of; None for all of it."""
        ...

    def looks(self, spec: Spec, extent: Sequence[int]) -> Sequence[Window]:
        """Parts of a sample, each seen by `still`, that its features are the mean over; none where one does."""
        ...

    def still(self, extent: Sequence[int]) -> View:
        """What evaluation and embedding see of a sample, or of a look: the same every time."""
        ...

    def told(self, spec: Spec, extent: Sequence[int]) -> tuple[str, ...]:
        """How that view is made of a sample, step by step, in words, for other programs."""
        ...

    def crops(self, extent: Sequence[int]) -> View:
        """A moderate change of place and light: two of them are plainly the same sample to a person, and not to raw values."""
        ...

    def light(self, extent: Sequence[int]) -> View:
        """Nearly all of the sample with other values, or none: the same layout, which crops and textures lose."""
        ...

    def tuning(self, extent: Sequence[int], mirrored: float) -> View:
        """What fine-tuning is trained through; `mirrored` is the chance of a mirror image."""
        ...

    def flat(self, x: Tensor) -> Tensor:
        """Raw input as if it were features: a view `[B, C, *extent]`, averaged down to `coarse` -> `[B, D]`."""
        ...


def sight(kind: str) -> Sight:
    """How samples of this kind are shown."""
    return cast(Sight, import_module(SIGHTS[kind]))


def windows_of(spec: Spec, extent: Sequence[int]) -> dict[str, Window]:
    """The parts of a sample that its features are the mean over, by name; none where they are of all of it."""
    shown = sight(spec.kind)
    looks = {f"look {place}": look for place, look in enumerate(shown.looks(spec, extent))}
    return looks or whole_or(shown.window(spec, extent))
