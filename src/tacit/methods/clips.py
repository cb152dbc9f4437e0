"""What methods that look at clips have in common: how long a clip is, how far apart its frames are, how films are drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.methods.method import Chosen, Facts, Options, option
from tacit.methods.pictures import shown, strip


class ClipOptions(Options):
    frames: int = option(16, "frames of a clip", auto="8 on a processor, 16 else, no more than the videos have", ge=1, le=1024)
    stride: int = option(
        8, "frames of a video from one frame of a clip to the next", auto="1 to 4, by the videos' length", ge=1, le=1024
    )


def clip_rules(facts: Facts, speed: int = 1) -> dict[str, Chosen]:
    """Clips that can be played `speed` times as fast and leave room to start anywhere in a typical video."""
    there = facts.spec.size[0]
    frames = max(1, min(facts.extent[0], there // speed))
    stride = max(1, min(4, there // (2 * speed * frames)))
    return {
        "frames": Chosen(frames, f"videos have {there} frames"),
        "stride": Chosen(stride, f"{frames} frames so far apart still leave room in {there}"),
    }


def films(*clips: Tensor, most: int = 16) -> Tensor:
    """Clips `[C, T, H, W]`, each a row of frames, all of them in one scale: `[C, R * (H + 1), T * (W + 1)]`."""
    frames = torch.stack([clip.transpose(0, 1) for clip in clips])  # [R, T, C, H, W]
    tall = shown(frames.transpose(1, 2).transpose(0, 1).flatten(1, 3)[None])[0]  # [1 or 3, R * T * H, W]
    rows = tall.unflatten(1, frames.shape[:2] + frames.shape[3:4])  # [C, R, T, H, W]
    return strip(*rows.permute(1, 2, 0, 3, 4), most=most)


def histograms(*values: Tensor, low: float = -1.0, high: float = 1.0, bins: int = 40, height: int = 48) -> Tensor:
    """How often values `[N]` lie where between `low` and `high`, each set a row of bars: `[1, R * (height + 1), W]`."""
    counts = torch.stack([torch.histc(each.float().cpu(), bins, low, high) for each in values])
    bars = counts / counts.max().clamp(min=1) * height
    rows = (torch.arange(height, 0, -1)[None, :, None] <= bars[:, None]).float().repeat_interleave(4, dim=2)
    line = torch.full((len(rows), 1, rows.shape[2]), 0.5)
    return torch.cat([rows, line], dim=1).flatten(0, 1)[None]
