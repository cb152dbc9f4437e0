"""The contract of a kind of data, and the table of kinds.

A kind is a module with the names below. To add one: write `data/kinds/NAME.py`, add a line to `KINDS`, and give `nn/` a
tokenizer for it; nothing else in tacit knows a file format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from torch import Tensor

from tacit.core.errors import TacitError, nearest
from tacit.data.payload import Limits, Payload
from tacit.data.spec import Batch

if TYPE_CHECKING:
    from tacit.data.survey import Survey

KINDS = {"image": "tacit.data.kinds.image"}


@dataclass(frozen=True)
class Form:
    """What a sample looks like by its header; for a whole collection, what all samples are brought to.

    Attributes:
        channels: how many.
        dtype: `uint8`, `uint16` or `float32`.
        extent: height and width (for volumes also depth, first), in pixels.
    """

    channels: int
    dtype: str
    extent: tuple[int, ...]


@dataclass(frozen=True)
class Sniffed:
    """How sure a kind is that data is its own: certainty in `[0, 1]`, and why in a few words."""

    certainty: float
    why: str


class Kind(Protocol):
    """What a module in `data/kinds/` offers. Decoded samples are `[*extent, C]`."""

    name: str
    default_encoder: str

    def extensions(self) -> frozenset[str]:
        """File name extensions of this kind, lower case, with the dot."""
        ...

    def sniff(self, names: Sequence[str], first: Payload | None) -> Sniffed:
        """Is data with these file names (a few of them) and this first sample of this kind?"""
        ...

    def form(self, payload: Payload, name: str = "", limits: Limits = ...) -> Form:
        """What the sample looks like, from its header alone. Raises `Unreadable`."""
        ...

    def agree(self, forms: Sequence[Form]) -> Form:
        """The one form that all samples are brought to, given the forms of some."""
        ...

    def decode(
        self, payload: Payload, form: Form | None = None, side: int | None = None, name: str = "", limits: Limits = ...
    ) -> np.ndarray:
        """`[*extent, C]` with the channels and dtype of `form`, shrunk so that the shorter side is at most `side`.

        Raises `Unreadable`, and nothing else, whatever the bytes are.
        """
        ...

    def collate(self, ids: Tensor, samples: Sequence[np.ndarray]) -> Batch:
        """Samples `[C, *extent]`, perhaps of different extents, as one batch."""
        ...

    def thumbnail(self, sample: np.ndarray, side: int, low: float = 0.0, high: float = 255.0) -> bytes:
        """A decoded sample as a small PNG; `low` and `high` are the values shown as black and white."""
        ...

    def checks(self, survey: Survey) -> list[str]:
        """What `tacit doctor` should tell the owner of such data, one line each."""
        ...


def kind_named(name: str) -> Kind:
    """The kind of that name; a `TacitError` with the nearest name where there is none."""
    if name not in KINDS:
        raise TacitError(f"unknown kind of data '{name}': kinds are {', '.join(KINDS)}{nearest(name, KINDS)}")
    return cast(Kind, import_module(KINDS[name]))


def choose(names: Sequence[str], first: Payload | None) -> tuple[Kind | None, str]:
    """The kind that is surest of this data, and why; None where none recognises anything."""
    judged = [(kind, kind.sniff(names, first)) for kind in map(kind_named, KINDS)]
    kind, best = max(judged, key=lambda pair: pair[1].certainty)
    return (kind, best.why) if best.certainty > 0 else (None, best.why)
