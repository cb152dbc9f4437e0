"""Weighted sums of neighbouring pixels, with neighbours and weights of its own for every sample, row and column."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SPARSE_ON = {"cpu"}
"""Devices on which only the taps are computed, and no product with matrices that are 0 beside them.

On one thread of a processor matrices take 1.0 to 1.2 times as long for a crop of 16 or 32 pixels, 1.8 at 64, 2.4 at 96 and 4
at 224; for a blur 1.3 to 1.8 times, then 2.3, 3 and 3. Accelerators are made for matrices (not measured there), and MPS has
no `embedding_bag` before PyTorch 2.10.
"""


class Taps(NamedTuple):
    """What each pixel of a result takes from which pixels along one axis.

    Attributes:
        place: `[B, out, taps]`, whole numbers in `[0, length)` of the axis, of any dtype.
        weight: `[B, out, taps]`, float32 or float64; 0 for what is not to be seen.
    """

    place: Tensor
    weight: Tensor

    def sum(self, lines: Tensor) -> Tensor:
        """`[B, length, ...]` to `[B, out, ...]`: what is added up are whole lines, so memory is read in order."""
        batch, length = lines.shape[:2]
        place, table = self.place.long(), lines.flatten(2)  # [B, length, width]
        if lines.device.type in SPARSE_ON:
            place = place + torch.arange(batch, device=lines.device)[:, None, None] * length
            weight = self.weight.flatten(0, 1)
            added = F.embedding_bag(place.flatten(0, 1), table.flatten(0, 1), mode="sum", per_sample_weights=weight)
        else:
            matrix = self.weight.new_zeros(*place.shape[:2], length).scatter_add_(2, place, self.weight)
            added = torch.bmm(matrix, table)
        return added.view(batch, place.shape[1], *lines.shape[2:])


def separable(image: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """`[B, C, H, W]` of any real dtype to `[B, C, h, w]` of the weights': sums along columns, then along rows."""
    x = image.permute(0, 2, 1, 3).to(rows.weight.dtype, memory_format=torch.contiguous_format)  # [B, H, C, W]
    x = rows.sum(x).permute(0, 3, 2, 1)  # [B, W, C, h]
    return columns.sum(x).permute(0, 2, 3, 1).contiguous()
