"""How pictures of channels are shown where no method has a say: the central square, or parts of it in another light."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from tacit.data.spec import Spec
from tacit.views.channel_image import ChannelCentreView, ChannelView
from tacit.views.image import ImageView
from tacit.views.normalise import TOLD

coarse = (16, 16, 16)
"""The first so many channels, in their order, with zeros for those that a picture does not have: what a person would stack."""
varied = "the values of its channels"


def window(spec: Spec, extent: Sequence[int]) -> None:
    return None


def looks(spec: Spec, extent: Sequence[int]) -> tuple[()]:
    return ()


def still(extent: Sequence[int]) -> ChannelCentreView:
    return ChannelCentreView(extent[-1])


def told(spec: Spec, extent: Sequence[int]) -> tuple[str, ...]:
    size = f"{extent[-1]} x {extent[-1]}"
    cut = f"cut out the central square of all channels, resize it to {size}, and add a plane of ones: the channels' presence"
    return (cut, *TOLD)


def crops(extent: Sequence[int]) -> ChannelView:
    return ChannelView(ImageView(extent[-1], area=(0.3, 1.0), flip=0.0, normalise="none"), shift=0.1, gain=0.25)


def light(extent: Sequence[int]) -> ChannelView:
    return ChannelView(ImageView(extent[-1], area=(0.9, 1.0), flip=0.0, normalise="none"), shift=0.3, gain=0.5)


def tuning(extent: Sequence[int], mirrored: float) -> ChannelView:
    return ChannelView(ImageView(extent[-1], area=(0.2, 1.0), flip=mirrored, normalise="none"))


def flat(x: Tensor) -> Tensor:
    height, width = (min(most, side) for most, side in zip(coarse[1:], x.shape[3:], strict=True))
    values = F.adaptive_avg_pool2d(x[:, 0, : coarse[0]], (height, width))
    return F.pad(values, (0, 0, 0, 0, 0, coarse[0] - values.shape[1])).flatten(1)
