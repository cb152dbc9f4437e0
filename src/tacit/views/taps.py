"""Weighted sums of neighbouring pixels, with neighbours and weights of its own for every sample, row and column."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SPARSE_ON = {"cpu"}
"""Devices on which only the taps are computed, and no product with matrices that are 0 beside them.

On one thread of a processor matrices take twice as long for a crop of 16 pixels, 3 times at 32, 4 at 96 and 5 at 224;
for a blur 1.3 times, then 2, 2.4, 4 and 5. Accelerators are made for matrices (not measured there), and MPS has
no `embedding_bag` before PyTorch 2.10.
"""


PIECE = 2**20
"""Values that a processor sums in one go: what lies between the two sums then stays in its cache.

On one thread 32 clips of 16 frames of 64 pixels take 12.7 ms at once and 11.3 so, 256 pictures of 96 pixels 10.1 and 7.0; with
half of it clips are quicker still, but small pictures take a tenth longer.
"""


class Taps(NamedTuple):
    """What each pixel of a result takes from which pixels along one axis.

    Attributes:
        place: `[B, out, taps]`, whole numbers in `[0, length)` of the axis, of any dtype.
        weight: `[B, out, taps]`, float32 or float64; 0 for what is not to be seen.
    """

    place: Tensor
    weight: Tensor

    def of(self, samples: slice) -> Taps:
        """Those of some samples."""
        return Taps(self.place[samples], self.weight[samples])

    def sum(self, lines: Tensor) -> Tensor:
        """`[B, C, length, W]` to `[B, C, out, W]`: what is added up are whole lines, so memory is read in order."""
        batch, channels, length, width = lines.shape
        place = self.place.long()
        if lines.device.type in SPARSE_ON:
            # Each channel by itself: the lines of one fit into a cache, so that turning them costs little.
            first = torch.arange(batch * channels, device=lines.device).view(batch, channels, 1, 1) * length
            weight = self.weight[:, None].expand(-1, channels, -1, -1).flatten(0, 2)
            place = (place[:, None] + first).flatten(0, 2)
            added = F.embedding_bag(place, lines.flatten(0, 2), mode="sum", per_sample_weights=weight)
            return added.view(batch, channels, self.place.shape[1], width)
        matrix = self.weight.new_zeros(*place.shape[:2], length).scatter_add_(2, place, self.weight)
        return matrix[:, None] @ lines


def along(x: Tensor, axis: int, taps: Taps) -> Tensor:
    """Sums along one axis of `[B, C, ...]`, from 2 on: of the same shape but for that axis; along the last not in one piece."""
    shape = (*x.shape[:axis], taps.place.shape[1], *x.shape[axis + 1 :])
    if axis + 1 < x.ndim:
        return taps.sum(x.flatten(1, axis - 1).flatten(3)).view(shape)
    lines = x.flatten(1, axis - 2).transpose(2, 3).contiguous()  # what lies along the axis in one piece is turned, and back
    return taps.sum(lines).transpose(2, 3).view(shape)


def separable(image: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """`[B, C, H, W]` of any real dtype to `[B, C, h, w]` of the weights': sums along columns, then along rows."""
    each = max(1, PIECE // max(1, image[:1].numel()) if image.device.type in SPARSE_ON else len(image))
    done = rows.weight.new_empty(*image.shape[:2], rows.place.shape[1], columns.place.shape[1])
    for first in range(0, len(image), each):
        these = slice(first, first + each)
        lines = image[these].to(done.dtype, memory_format=torch.contiguous_format)
        done[these] = along(along(lines, 2, rows.of(these)), 3, columns.of(these))
    return done
