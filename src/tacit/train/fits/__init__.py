"""Views and encoders that suit the data, the machine and the time: one file of rules for each kind of data."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from tacit.methods.method import Chosen
from tacit.train.situation import Situation

FITS = {
    "channels": "tacit.train.fits.channels",
    "image": "tacit.train.fits.image",
    "pair": "tacit.train.fits.pair",
    "points": "tacit.train.fits.points",
    "video": "tacit.train.fits.video",
    "volume": "tacit.train.fits.volume",
}


class Fit(Protocol):
    """What a module in `train/fits/` offers."""

    fewest: int
    """Few samples, or little memory, make a batch no smaller than this."""

    def size(self, now: Situation) -> Chosen:
        """Side of the views, in pixels."""
        ...

    def feature_size(self, now: Situation, size: int) -> Chosen:
        """Side of the views that features are taken of, given that of training; 0 for the same."""
        ...

    def extent(self, now: Situation, size: int) -> tuple[int, ...]:
        """All axes of such views: height and width, for images."""
        ...

    def encoder(self, now: Situation, size: int) -> Chosen:
        """Name of the encoder for views of that side."""
        ...


def fit_of(kind: str) -> Fit:
    """The rules for this kind of data."""
    return cast(Fit, import_module(FITS[kind]))
