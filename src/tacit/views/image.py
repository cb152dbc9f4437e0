"""Views of images: what the papers' chains of augmentations do, for a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.views import colour, crops
from tacit.views.blur import gaussian_blur
from tacit.views.crops import central_square, random_resized_crop
from tacit.views.erase import erase
from tacit.views.geometry import resample
from tacit.views.normalise import Normalise, statistics

_ERASED_AREA = (0.02, 0.33)
_ERASED_ASPECT = (0.3, 3.3)

_DRAWN: dict[str, dict[str, int]] = {
    "area": crops.DRAWN,
    "flip": {"flip": 1},
    "flip_vertical": {"flip.vertical": 1},
    "rotate": {"rotate": 1},
    "jitter": {"jitter": 1, "brightness": 1, "contrast": 1, "saturation": 1, "hue": 1, "jitter.order": 4},
    "grey": {"grey": 1},
    "blur": {"blur": 1, "blur.sigma": 1},
    "solarise": {"solarise": 1},
    "erase": {"erase": 1, **{f"erase/{name}": count for name, count in crops.DRAWN.items()}},
}
"""How many numbers each part of a view draws under which name, so that all of them can be made at once."""


@dataclass(frozen=True)
class Jitter:
    """Amplitudes of random colour changes, in a random order.

    Attributes:
        brightness, contrast, saturation: a factor uniform over `[max(0, 1 - a), 1 + a]`.
        hue: a shift uniform over `[-a, a]`, in turns of the colour circle, at most 0.5.
        probability: of changing colour at all.
        brighten: `multiply` by that factor, or `add` a number uniform over `[-a, a]` (SimCLR's first version).
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    probability: float = 0.8
    brighten: Literal["multiply", "add"] = "multiply"


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with a standard deviation uniform over `[low, high]` pixels of the view, with a probability.

    SimCLR's: the kernel is a tenth of the view's side wide (at 32 pixels three taps, which hardly blur), black lies beyond
    the borders.
    """

    low: float
    high: float
    probability: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise TacitError(f"blur is from {self.low} to {self.high} pixels; give two numbers with 0 < low <= high")


@dataclass(frozen=True)
class ImageView:
    """A random view, float32 `[B, C, size, size]`: crop, flips, rotation, jitter, grey, blur, solarise, normalise, erase.

    Every number is drawn under a name of its own and depends on nothing but the sample, epoch and seed. Saturation, hue and
    grey act on three channels and leave other data as it is. A sample's view is the same in any batch and under any padding,
    up to 1e-6 of the range (1e-5 under rotation): libraries multiply matrices of other shapes in another order.

    Attributes:
        size: side of the view, in pixels.
        area: least and greatest share of the sample that is cut out.
        aspect: least and greatest width / height of what is cut out.
        flip, flip_vertical: probability of mirroring left and right, top and bottom.
        rotate: greatest angle in degrees, either way; what comes into view is the image's surroundings or its mirror image.
            Rotated views are interpolated without antialiasing.
        jitter, blur: None for none.
        grey: probability of losing all colour.
        solarise: probability of turning values from `solarise_threshold` on into their negative.
        erase: probability of wiping out one rectangle of 2 to 33 % of the view, with the value that zero means afterwards.
        interpolation: `bicubic` or `bilinear`.
        normalise: `data` (mean and deviation of the data), `imagenet`, or `none` (values stay in `[0, 1]`).
    """

    size: int
    area: tuple[float, float]
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    flip_vertical: float = 0.0
    rotate: float = 0.0
    jitter: Jitter | None = None
    grey: float = 0.0
    blur: Blur | None = None
    solarise: float = 0.0
    solarise_threshold: float = 0.5
    erase: float = 0.0
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    normalise: Normalise = "data"

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise TacitError(f"area of a view is {self.area}; give two shares with 0 < low <= high <= 1")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise TacitError(f"aspect of a view is {self.aspect}; give two ratios with 0 < low <= high")

    def __call__(self, batch: Batch, draws: Draws, spec: Spec) -> Tensor:
        draws = self.ahead(draws)
        return self.finished(self.cut(batch, draws), draws, spec)

    def ahead(self, draws: Draws) -> Draws:
        """The draws with all numbers that this view takes made at once."""
        return draws.ahead({name: n for part, names in _DRAWN.items() if getattr(self, part) for name, n in names.items()})

    def finished(self, x: Tensor, draws: Draws, spec: Spec) -> Tensor:
        """Everything but moving pixels: from what `cut` made to the view."""
        tint = self._tint(x, draws, spec)
        x = tint(x).clamp_(0, 1)
        if self.blur:
            sigma = draws.uniform("blur.sigma", low=self.blur.low, high=self.blur.high)
            chosen = draws.chance("blur", self.blur.probability)
            x = changed(x, chosen, lambda x, sigma: gaussian_blur(x, self.size // 10, sigma), sigma)
        if self.solarise:
            chosen = draws.chance("solarise", self.solarise)
            x = changed(x, chosen, lambda x: colour.solarise(x, self.solarise_threshold))
        return self._erase(_normalised(x, self.normalise, spec), draws)

    def cut(self, batch: Batch, draws: Draws) -> Tensor:
        """Everything that moves pixels, in the units of the data."""
        boxes = random_resized_crop(draws, batch.sizes, self.area, self.aspect)
        angle = math.radians(self.rotate)
        return resample(
            batch.data,
            batch.sizes,
            boxes,
            (self.size, self.size),
            flip_x=draws.chance("flip", self.flip) if self.flip else None,
            flip_y=draws.chance("flip.vertical", self.flip_vertical) if self.flip_vertical else None,
            rotation=draws.uniform("rotate", low=-angle, high=angle) if self.rotate else None,
            interpolation=self.interpolation,
        )

    def _tint(self, x: Tensor, draws: Draws, spec: Spec) -> colour.ColourMap:
        """Everything that mixes channels, from the units of the data."""
        tint = _to_unit(x, spec)
        if self.jitter:
            j, chosen = self.jitter, draws.chance("jitter", self.jitter.probability)

            def factor(name: str, amplitude: float) -> Tensor:
                return torch.where(chosen, draws.uniform(name, low=max(0.0, 1 - amplitude), high=1 + amplitude), 1.0)

            def amount(name: str, amplitude: float) -> Tensor:
                return torch.where(chosen, draws.uniform(name, low=-amplitude, high=amplitude), 0.0)

            still = torch.zeros(len(x), device=x.device)
            added = j.brighten == "add"
            tint = colour.jitter(
                tint,
                x.mean((2, 3)),
                brightness=still + 1 if added else factor("brightness", j.brightness),
                lift=amount("brightness", j.brightness) if added else still,
                contrast=factor("contrast", j.contrast),
                saturation=factor("saturation", j.saturation),
                hue=amount("hue", j.hue),
                order=draws.permutation("jitter.order", 4),
            )
        if self.grey:
            tint = colour.grey(tint, draws.chance("grey", self.grey))
        return tint

    def _erase(self, x: Tensor, draws: Draws) -> Tensor:
        if not self.erase:
            return x
        sizes = torch.full((len(x), 2), self.size, device=x.device)
        boxes = random_resized_crop(draws.within("erase"), sizes, _ERASED_AREA, _ERASED_ASPECT)
        return changed(x, draws.chance("erase", self.erase), erase, boxes)


@dataclass(frozen=True)
class CentreView:
    """The view that evaluation sees, float32 `[B, C, size, size]`: the central square, resized. Nothing is drawn.

    Attributes:
        size: side of the view, in pixels; the shorter side of every sample is brought to it.
        normalise: as in `ImageView`.
    """

    size: int
    normalise: Normalise = "data"

    def __call__(self, batch: Batch, draws: Draws, spec: Spec) -> Tensor:  # noqa: ARG002  (nothing is drawn)
        return self.finished(self.cut(batch), spec)

    def cut(self, batch: Batch) -> Tensor:
        """The central square, resized, in the units of the data."""
        extent = (self.size, self.size)
        # On a processor it is known at once whether all are of this size: resampled, their numbers would be the same.
        if batch.data.device.type == "cpu" and batch.data.shape[2:] == extent and bool((batch.sizes == self.size).all()):
            return batch.data.float()
        return resample(batch.data, batch.sizes, central_square(batch.sizes), extent)

    def finished(self, x: Tensor, spec: Spec) -> Tensor:
        """From what `cut` made to the view."""
        return _normalised(_to_unit(x, spec)(x).clamp_(0, 1), self.normalise, spec)


def _to_unit(x: Tensor, spec: Spec) -> colour.ColourMap:
    """From the units of the data to `[0, 1]`."""
    gain = 1 / (spec.high - spec.low)
    of_each = x.new_ones(x.shape[:2])
    return colour.scaling(of_each * gain, of_each * (-spec.low * gain))


def _normalised(x: Tensor, normalise: Normalise, spec: Spec) -> Tensor:
    """Values in `[0, 1]` as an encoder sees them; overwrites `x`."""
    mean, std = (each.to(x.device)[:, None, None] for each in statistics(normalise, spec))
    return x.sub_(mean).div_(std)


def changed(x: Tensor, chosen: Tensor, change: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """`change(x, *parameters)` in the samples that were chosen (bool `[B]`); overwrites `x`."""
    if x.device.type != "cpu":
        # How many were chosen is not known here without waiting for the device: changing all of them is cheaper.
        return torch.where(chosen[:, None, None, None], change(x, *parameters), x)
    rows = chosen.nonzero()[:, 0]
    x[rows] = change(x[rows], *(each[rows] for each in parameters))
    return x
