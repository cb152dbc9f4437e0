"""Images: a processor affords few pixels, and a transformer few patches."""

from __future__ import annotations

from tacit.data.kinds.kind import sides
from tacit.methods.method import Chosen
from tacit.nn.resnet import VARIANTS
from tacit.train.fits.same import fewest
from tacit.train.situation import Situation

__all__ = ["encoder", "extent", "feature_size", "fewest", "size", "whole"]

SMALL = ((10.0, 16), (60.0, 32), (240.0, 64))
"""Minutes on a processor up to which a residual network is trained on views of so many pixels a side, at most.

A step costs as the area of its views, and by steps it learns. Tried with 2 and 8 minutes of one core (`benchmarks/sides.py`);
what longer runs take follows from what a step costs.
"""

OWN = "resnet-mini"
"""What a processor trains where nobody says otherwise."""


def size(now: Situation) -> Chosen:
    side, small = whole(now), _small(now)
    if small is not None and small < side.value:
        return Chosen(small, f"small views buy steps, which count most in {now.minutes:g} minutes on a processor")
    return side


def feature_size(now: Situation, size: int) -> Chosen:
    side = whole(now)
    if size == _small(now) and size < side.value and "size" not in now.training:
        # Touvron et al., "Fixing the train-test resolution discrepancy", 2019.
        return Chosen(min(side.value, size + size // 2), "crops of training show things larger than whole images do")
    return Chosen(0, "as in training")


def _small(now: Situation) -> int | None:
    """The side that views may have, where the encoder is a residual network, whose stem suits their side, and time is short."""
    if now.device != "cpu" or now.method.tokens or now.training.get("encoder", OWN) not in VARIANTS:
        return None
    return next((side for minutes, side in SMALL if now.minutes <= minutes), None)


def whole(now: Situation) -> Chosen:
    """Side of views that show as much as the samples have and the time allows."""
    side = min(sides(now.spec.kind, now.spec.size))
    if now.device != "cpu":
        most = 128 if now.minutes <= 30 else 224
    elif now.brief and not now.method.tokens:  # patches grow with the view: tokens are no fewer in a small one
        most = 32
    else:
        most = 64 if now.minutes <= 30 else 96
    if side > most:
        return Chosen(most, f"{side} pixels would be too slow for {now.minutes:g} minutes on this {now.device}")
    fitting = [
        size
        for size in range(side, 3, -1)
        if size // _patch(now, size) >= (6 if size >= 12 else 4) and (size % 4 == 0 or side < 16)
    ]
    return Chosen(fitting[0] if fitting else max(side, 4), f"samples are {side} pixels")


def extent(now: Situation, size: int) -> tuple[int, ...]:
    return (size, size)


def encoder(now: Situation, size: int) -> Chosen:
    patch = _patch(now, size)
    if now.method.tokens:
        name = "vit-mini" if now.device == "cpu" else "vit-small"
        return Chosen(f"{name}/{patch}", f"{now.method.name} hides tokens; {(size // patch) ** 2} of them suit {size} pixels")
    if now.device == "cpu":
        return Chosen(OWN, "trains quickly on a processor")
    if now.kept < 20_000:
        return Chosen("resnet18", f"{now.kept} samples are few for a transformer")
    return Chosen(f"vit-small/{patch}", f"{now.kept} samples and a GPU")


def _patch(now: Situation, size: int) -> int:
    """The smallest patch that divides a view into not too many tokens; single pixels only where there are hardly any."""
    most_tokens = 144 if now.device == "cpu" else 200
    return next(p for p in range(2 if size >= 8 else 1, size + 1) if size % p == 0 and (size // p) ** 2 <= most_tokens)
