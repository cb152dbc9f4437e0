"""Changes of images whose channels are not colours: every channel by itself, and which channels there are.

Images are `[B, C, H, W]`, zero where a channel is missing; `present`, bool `[B, C]`, says which channels are true. All numbers
are given, so that two views of a sample share what they are given alike.
"""

from __future__ import annotations

import torch
from torch import Tensor


def present(counts: Tensor, channels: int) -> Tensor:
    """Bool `[B, channels]`: the first `counts [B]` channels of each sample."""
    return torch.arange(channels, device=counts.device) < counts[:, None]


def only(image: Tensor, present: Tensor) -> Tensor:
    """Zero where a channel is not `present`, bool `[B, C]`; overwrites the image, whose values are finite."""
    return image.mul_(present[..., None, None])  # a processor takes thirty times as long to choose


def jitter(image: Tensor, present: Tensor, uniform: Tensor, shift: float = 0.3, gain: float = 0.5) -> Tensor:
    """`clamp(g (x + d), 0, 1)` with numbers `d` and `g` of its own for every channel (ChAda-ViT's colour jitter).

    Args:
        image: `[B, C, H, W]` in `[0, 1]`.
        present: bool `[B, C]`; padding stays zero.
        uniform: `[B, C, 2]` in `[0, 1)`, for `d` in `[-shift, shift)` and `g` in `[1 - gain, 1 + gain)`. The published
            strength is `d` in +-0.3 and `g` from 0.5 to 1.5. `g` multiplies, though the paper's code calls it gamma.
        shift, gain: strengths; 0 changes nothing.
    """
    offset, factor = (2 * uniform[..., None, None] - 1).unbind(2)  # each [B, C, 1, 1], in [-1, 1)
    return only((image + shift * offset).mul_(1 + gain * factor).clamp_(0, 1), present)


def discard(image: Tensor, present: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Take one channel away from two samples in three, but never the last one (ChAda-ViT's RandomDiscarder).

    The first number stands for a draw from 0, 1, 2, of which each but 0 drops exactly one channel; the second says which.

    Args:
        image: `[B, C, H, W]`.
        present: bool `[B, C]`.
        uniform: `[B, 2]` in `[0, 1)`; views of one sample that get the same numbers keep the same channels.

    Returns:
        The image, in which later channels have moved up by one and zeros follow, and what is present of it; of the same shape.
    """
    counts = present.sum(dim=1)
    dropped = (counts * uniform[:, 1]).floor()
    dropped = dropped.where((3 * uniform[:, 0] >= 1) & (counts > 1), -1)
    gone = present & (present.cumsum(dim=1) - 1 == dropped[:, None])
    order = gone.argsort(dim=1, stable=True)  # a channel that is missing between others keeps its place among them
    left = (present & ~gone).gather(1, order)
    return only(_ordered(image, order), left), left


def shuffle(image: Tensor, present: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The true channels in the order of their noise, for data whose channels come in no order that means anything.

    Args:
        image: `[B, C, H, W]`.
        present: bool `[B, C]`.
        noise: finite, `[B, C]`; equal numbers keep their order.

    Returns:
        The image, true channels first, and what is present of it.
    """
    order = noise.masked_fill(~present, torch.inf).argsort(dim=1, stable=True)
    return _ordered(image, order), present.gather(1, order)


def _ordered(image: Tensor, order: Tensor) -> Tensor:
    return image[torch.arange(len(image), device=image.device)[:, None], order]
