"""How images are shown where no method has a say: the central square, or parts of it in another light."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from tacit.data.spec import Spec
from tacit.views.image import CentreView, ImageView, Jitter
from tacit.views.normalise import TOLD

coarse = (32, 32)
varied = "light and colour"


def window(spec: Spec, extent: Sequence[int]) -> None:
    return None


def looks(spec: Spec, extent: Sequence[int]) -> tuple[()]:
    return ()


def still(extent: Sequence[int]) -> CentreView:
    return CentreView(extent[-1])


def told(spec: Spec, extent: Sequence[int]) -> tuple[str, ...]:
    return (f"cut out the central square and resize it to {extent[-1]} x {extent[-1]}", *TOLD)


def crops(extent: Sequence[int]) -> ImageView:
    return ImageView(extent[-1], area=(0.3, 1.0), flip=0.0, jitter=Jitter(0.4, 0.4, 0.0, 0.0, probability=1.0))


def light(extent: Sequence[int]) -> ImageView:
    return ImageView(extent[-1], area=(0.9, 1.0), flip=0.0, jitter=Jitter(0.8, 0.8, 0.8, 0.2, probability=1.0), grey=0.5)


def tuning(extent: Sequence[int], mirrored: float) -> ImageView:
    return ImageView(extent[-1], area=(0.2, 1.0), flip=mirrored)


def flat(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    return adaptive_avg_pool2d(x, (min(coarse[0], height), min(coarse[1], width))).flatten(1)
