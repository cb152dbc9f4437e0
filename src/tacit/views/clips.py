"""Which frames of a video a clip shows, from given uniforms, and clips at two speeds. Numbers are counted from 0.

Frame counts are int64 `[B]`, one for each video; indices come out as int64.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Windows of a length in seconds (MAE-ST) ------------------------------------------------------------------------------


def clip_span(rate: float, size: int, target_fps: float, fps: Tensor) -> Tensor:
    """How many frames of its source a clip spans: `rate * size / target_fps * fps`, float64 `[B]`.

    Args:
        rate: the clip takes every `rate`-th frame at the target speed.
        size: frames of the clip.
        target_fps: the target speed in frames per second.
        fps: `[B]`, frames per second of each video.
    """
    return rate * size / target_fps * fps.double()


def window_starts(frames: Tensor, span: Tensor, uniform: Tensor) -> Tensor:
    """Where a window begins, anywhere at random: `uniform * max(F - span, 0)`, float64 `[B]`, in frames."""
    return uniform.double() * (frames - span).clamp(min=0)


def even_window_starts(frames: Tensor, span: Tensor, clips: int) -> Tensor:
    """float64 `[B, clips]`: evenly from the first frame on; a single window lies in the middle."""
    room = (frames - span).clamp(min=0)
    if clips == 1:
        return (room / 2).floor()[:, None]
    return (room / (clips - 1)).floor()[:, None] * torch.arange(clips, device=frames.device)


def window(frames: Tensor, starts: Tensor, span: Tensor, size: int) -> Tensor:
    """The frames of windows, `size` of them evenly from `start` to `start + span - 1`: `[B, size]`.

    What lies beyond the video is its last frame, and fractions are cut off.
    """
    steps = torch.arange(size, device=frames.device)
    places = starts[:, None] + (span - 1)[:, None] * steps / max(size - 1, 1)  # in this order whole numbers stay whole
    return torch.minimum(places.clamp(min=0), frames[:, None] - 1).long()


# Consecutive frames (RSPNet) ------------------------------------------------------------------------------------------


def temporal_crop(frames: Tensor, size: int, stride: int, uniform: Tensor) -> Tensor:
    """`size` frames with a stride from a random start, every possible one alike: `[B, size]`.

    A video of at most `size` frames is looped; one that is longer, but shorter than the crop, is sampled evenly.

    Args:
        frames: F.
        size, stride: of the clip.
        uniform: `[B]`, in `[0, 1)`.
    """
    starts = (uniform.double() * (last_start(frames, size, stride) + 1)).long()
    return _from(frames, starts[:, None], size, stride)[:, 0]


def even_crops(frames: Tensor, size: int, stride: int, clips: int) -> Tensor:
    """The same with `clips` evenly spaced starts, to evaluate: `[B, clips, size]`; a single one lies in the middle."""
    last = last_start(frames, size, stride)
    starts = last[:, None] // 2 if clips == 1 else _evenly(last, clips)
    return _from(frames, starts, size, stride)


def last_start(frames: Tensor, size: int, stride: int) -> Tensor:
    """The last frame at which such a crop can begin, `[B]`; 0 where the video is shorter than the crop."""
    return (frames - (size - 1) * stride - 1).clamp(min=0)


def _from(frames: Tensor, starts: Tensor, size: int, stride: int) -> Tensor:
    """Crops `[B, clips, size]` from starts `[B, clips]`, or what stands for them in videos that are too short."""
    steps = torch.arange(size, device=frames.device)
    looped, spread = (steps % frames[:, None])[:, None], _evenly(frames - 1, size)[:, None]
    short = torch.where((frames <= size)[:, None, None], looped, spread)
    fits = frames > (size - 1) * stride
    return torch.where(fits[:, None, None], starts[..., None] + stride * steps, short)


def _evenly(last: Tensor, count: int) -> Tensor:
    """Whole numbers `[B, count]` evenly from 0 to `last`, halves to the even one."""
    return (torch.arange(count, device=last.device) * last[:, None].double() / max(count - 1, 1)).round().long()


# Two speeds of one video (RSPNet) -------------------------------------------------------------------------------------


def fast_ones(permutation: Tensor, share: float) -> Tensor:
    """Bool `[B]`: the first `int(share * B)` samples of the permutation are slow, the others fast."""
    fast = torch.ones(len(permutation), dtype=torch.bool, device=permutation.device)
    fast[permutation[: int(share * len(permutation))]] = False
    return fast


def at_speed(clips: Tensor, fast: Tensor, speed: int) -> Tensor:
    """Play clips `[B, C, T, H, W]` from their first frame, fast ones with a stride of `speed`: `[B, C, T // speed, H, W]`."""
    stride = torch.where(fast, speed, 1)
    index = torch.arange(clips.shape[2] // speed, device=clips.device) * stride[:, None]  # [B, T // speed]
    rows = torch.arange(len(clips), device=clips.device)[:, None]
    return clips.transpose(1, 2)[rows, index].transpose(1, 2)
