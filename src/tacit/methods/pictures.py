"""Pictures that several methods draw for the report: float `[C, H, W]` in `[0, 1]`, C 1 or 3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shown(x: Tensor) -> Tensor:
    """Views `[N, C, H, W]` in any units as pictures `[N, 1 or 3, H, W]` in `[0, 1]`, each stretched to its own extremes."""
    x = x.float()
    x = x[:, :3] if x.shape[1] >= 3 else x[:, :1]
    low, high = x.flatten(1).amin(1), x.flatten(1).amax(1)
    return (x - low[:, None, None, None]) / (high - low).clamp(min=1e-6)[:, None, None, None]


def strip(*rows: Tensor, most: int = 8) -> Tensor:
    """Views `[N, C, H, W]`, each set of them one row of pictures, one sample a column: `[C, R * (H + 1), N * (W + 1)]`."""
    channels = max(1 if row.shape[1] < 3 else 3 for row in rows)
    framed = [F.pad(row[:most].expand(-1, channels, -1, -1), (0, 1, 0, 1), value=1.0) for row in rows]
    return torch.cat([torch.cat(list(row), dim=2) for row in framed], dim=1)


def planes(x: Tensor) -> Tensor:
    """Volumes `[N, C, S, S, S]` as three middle slices side by side, `[N, C, S, 3 S]`; up and the front are above."""
    middle = x.shape[2] // 2
    return torch.cat([x[:, :, middle], x[:, :, :, middle], x[:, :, :, :, middle]], dim=3).flip(2)


def heaviest(maps: Tensor, share: float) -> Tensor:
    """1 at the fewest places that hold this share of each map `[..., h, w]` of numbers above 0, and 0 elsewhere."""
    values, order = maps.flatten(-2).sort(dim=-1, descending=True)
    before = values.cumsum(-1) - values
    inside = (before < share * values.sum(-1, keepdim=True)).to(maps.dtype)
    return torch.zeros_like(inside).scatter_(-1, order, inside).view_as(maps)


def similarity(z: Tensor, most: int = 64) -> Tensor:
    """Cosines of the first views against all: partners lie on the diagonals. `[1, H, W]`, enlarged to be seen."""
    half = len(z) // 2
    n = min(half, most)
    z = F.normalize(torch.cat([z[:n], z[half : half + n]]).float(), dim=1)
    return enlarged(((z @ z.T + 1) / 2).clamp(0, 1))


def enlarged(matrix: Tensor, times: int = 4) -> Tensor:
    """Numbers in `[0, 1]`, `[H, W]`, as a picture with a square of pixels for each."""
    return matrix[None].repeat_interleave(times, 1).repeat_interleave(times, 2)


def stretched(matrix: Tensor) -> Tensor:
    """Numbers as grey levels, from the least to the largest."""
    low, high = matrix.float().aminmax()
    return (matrix.float() - low) / (high - low).clamp(min=1e-6)


def contrast(first: Tensor, second: Tensor, z: Tensor) -> dict[str, Tensor]:
    """What a method that compares views shows: pairs of them, and who resembles whom.

    Args:
        first, second: views `[N, C, H, W]`.
        z: what is compared, `[2 N, P]`, first views first.
    """
    return {
        "Two views of each image: the upper has to find the lower, and the other way round": strip(shown(first), shown(second)),
        "Similarity of every view to every other: bright off-diagonals are partners that were found": similarity(z),
    }


def histogram(values: Tensor, most: float, bins: int = 48, height: int = 16) -> Tensor:
    """How many of some numbers `[N]` in `[0, most]` lie where, as bars of which the highest fills the picture: `[1, H, W]`."""
    counts = torch.histc(values.float(), bins, 0, most)
    bars = (height * counts / counts.max().clamp(min=1)).ceil()
    filled = torch.arange(height, 0, -1, device=counts.device)[:, None] <= bars
    return F.pad(enlarged(filled.float()), (0, 0, 0, 4), value=0.5)
