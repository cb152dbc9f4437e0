"""What an encoder of images or volumes says of pixels or voxels, through windows of its own extent over whole samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.evaluation.dense_reader import Tokens
from tacit.nn.convnet import ConvNet
from tacit.nn.encoder import Encoder
from tacit.nn.layout import channels_last
from tacit.nn.swin3d import Swin3D
from tacit.views.normalise import statistics
from tacit.views.volume import to_unit

OVERLAP = 0.5
"""Of neighbouring windows, where whole samples are segmented; what several say of a place is weighted by a bell curve."""

AT_ONCE = 4
"""Windows that are encoded together."""

CELLS = 4
"""Raw input tells a token by its pixels averaged to at most so many cells along each axis."""

INTERPOLATION = {2: "bilinear", 3: "trilinear"}

Box = tuple[slice, ...]


class GridReader:
    """A place's features are those of the encoder's maps, interpolated linearly to it and laid side by side.

    Hierarchical networks have a map for each stage; transformers have one, their tokens. Samples are taken as they are decoded,
    neither cropped nor resized; what is smaller than the encoder's extent is padded with darkness behind its end.

    Args:
        encoder: whose maps they are.
        spec: what samples look like.
        extent: what the encoder is shown, in pixels or voxels along each axis.
        raw: say of the same cells what raw input says, averaged over them, without the encoder.
    """

    background = True

    def __init__(self, encoder: Encoder, spec: Spec, extent: Sequence[int], raw: bool = False) -> None:
        self.encoder, self.spec, self.extent, self.raw = encoder, spec, tuple(extent), raw

    @torch.no_grad()
    def tokens(self, batch: Batch) -> list[Tokens]:
        found = []
        for x, size in self._samples(batch):
            place = F.pad(torch.arange(math.prod(size)).reshape(size), self._beyond(size), value=-1)
            parts = [self._tokens(x, place, window) for window in self._tiles(x)]
            found.append(Tokens(torch.cat([p.features for p in parts]), torch.cat([p.members for p in parts])))
        return found

    @torch.no_grad()
    def features(self, batch: Batch, places: Sequence[Tensor]) -> list[Tensor]:
        found = []
        for (x, size), wanted in zip(self._samples(batch), places, strict=True):
            at = torch.stack(torch.unravel_index(wanted, size), dim=1)  # [n, axes]
            rows, missing = torch.empty(0), torch.ones(len(at), dtype=torch.bool)
            for window in self._tiles(x):
                low, high = (torch.tensor([getattr(side, end) for side in window]) for end in ("start", "stop"))
                new = (missing & ((at >= low) & (at < high)).all(dim=1)).nonzero()[:, 0]
                if len(new):
                    each = self._maps(x[(slice(None), slice(None), *window)])
                    values = torch.cat([_at(values, at[new] - low, self.extent) for values in each], dim=1).cpu()
                    rows = values.new_empty(len(at), values.shape[1]) if missing.all() else rows
                    rows[new], missing[new] = values, False
            found.append(rows)
        return found

    @torch.no_grad()
    def scores(self, batch: Batch, weight: Tensor, bias: Tensor) -> list[Tensor]:
        try:
            from monai.inferers.utils import sliding_window_inference
        except ImportError:
            raise TacitError("segmentation needs MONAI, which is not installed: pip install 'tacit[medical]'") from None

        def score(windows: Tensor) -> Tensor:
            maps = self._maps(windows)
            heads = weight.to(windows).split([each.shape[1] for each in maps])
            low = [torch.einsum("bd...,dk->bk...", each, head) for each, head in zip(maps, heads, strict=True)]
            mode = INTERPOLATION[len(self.extent)]
            full = sum(F.interpolate(each, self.extent, mode=mode, align_corners=False) for each in low)
            return full + bias.to(windows).view(-1, *[1] * len(self.extent))  # pyright: ignore[reportReturnType]

        found = []
        for x, size in self._samples(batch):
            seen = sliding_window_inference(x, self.extent, AT_ONCE, score, overlap=OVERLAP, mode="gaussian")
            assert isinstance(seen, Tensor)
            own = seen[(0, slice(None), *map(slice, size))]
            found.append(own.flatten(1).T.cpu())
        return found

    def _samples(self, batch: Batch) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
        """Each sample as an encoder sees values, `[1, C, *extent]` and its true extent."""
        device = next(self.encoder.parameters()).device
        mean, std = (each.to(device).view(-1, *[1] * len(self.extent)) for each in statistics("data", self.spec))
        for row, size in zip(batch.data, map(tuple, batch.sizes.tolist()), strict=True):
            own = to_unit(row[(slice(None), *map(slice, size))].to(device), self.spec)
            yield ((F.pad(own, self._beyond(size)) - mean) / std)[None], size

    def _beyond(self, size: Sequence[int]) -> list[int]:
        """What a sample lacks of one window, as `F.pad` wants it: behind the end of each axis, the last axis first."""
        lacks = [max(0, side - there) for side, there in zip(self.extent, size, strict=True)]
        return [pad for lack in reversed(lacks) for pad in (0, lack)]

    def _tiles(self, x: Tensor) -> list[Box]:
        """Windows over all of `x [1, C, *extent]` that overlap only where an axis ends."""
        starts = [
            [min(start, there - side) for start in range(0, there, side)]
            for there, side in zip(x.shape[2:], self.extent, strict=True)
        ]
        corners = torch.cartesian_prod(*map(torch.tensor, starts)).tolist()
        return [tuple(slice(at, at + side) for at, side in zip(corner, self.extent, strict=True)) for corner in corners]

    def _tokens(self, x: Tensor, place: Tensor, window: Box) -> Tokens:
        """The tokens of one window, and which places `place [*extent]` (-1: padding) each was made of."""
        shown = x[(slice(None), slice(None), *window)]
        values = _as_map(self.encoder, shown)
        grid = values.shape[2:]
        if self.raw:
            cells = [min(CELLS, max(side // count, 1)) for side, count in zip(self.extent, grid, strict=True)]
            fine = F.interpolate(shown, [count * cell for count, cell in zip(grid, cells, strict=True)], mode="area")
            features = _cells(fine[0], grid).flatten(1)  # [L, C * cells]
        else:
            features = values[0].flatten(1).T
        # A grid that does not divide the window has cells of different sizes: each voxel belongs to the cell it falls into.
        belongs = torch.zeros(self.extent, dtype=torch.int64)
        for axis, (side, count) in enumerate(zip(self.extent, grid, strict=True)):
            along = torch.arange(side) * count // side
            belongs = belongs * count + along.view([-1 if a == axis else 1 for a in range(len(grid))])
        return Tokens(features.float().cpu(), _gathered(place[window].flatten(), belongs.flatten(), math.prod(grid)))

    def _maps(self, windows: Tensor) -> list[Tensor]:
        """`[B, D_i, *grid_i]` each, of windows `[B, C, *extent]`."""
        found = maps(self.encoder, windows)
        if not self.raw:
            return [each.float() for each in found]
        return [windows, *(F.interpolate(windows, each.shape[2:], mode="area") for each in found)]


def maps(encoder: Encoder, x: Tensor) -> list[Tensor]:
    """What a frozen encoder says of places: `[B, D_i, *grid_i]` for every map it has, the finest first.

    Raises:
        TacitError: its tokens do not lie on a grid.
    """
    if isinstance(encoder, Swin3D | ConvNet):
        names = encoder.maps if isinstance(encoder, Swin3D) else list(encoder.counts)
        taps = encoder(channels_last(x), taps=names).taps
        return [taps[name] for name in names]
    return [_as_map(encoder, x)]


def _as_map(encoder: Encoder, x: Tensor) -> Tensor:
    """The tokens as a map `[B, D, *grid]`."""
    tokens, grid = encoder(channels_last(x)).tokens, encoder.grid(x.shape[2:])
    if len(grid) != x.ndim - 2 or math.prod(grid) != tokens.shape[1]:
        raise TacitError(
            f"this encoder has no tokens that lie on a grid over its input ({tokens.shape[1]} tokens, a grid of {list(grid)}); "
            "take one of tacit's for images or volumes"
        )
    return tokens.transpose(1, 2).unflatten(2, grid)


def _at(values: Tensor, places: Tensor, extent: Sequence[int]) -> Tensor:
    """A map `[1, D, *grid]` of a window, interpolated at int64 places `[n, axes]` of it: `[n, D]`."""
    sides = torch.tensor(extent, dtype=torch.float32)
    unit = (2 * (places + 0.5) / sides - 1).flip(1).to(values)  # the last axis comes first
    grid = unit.view(1, *[1] * (len(extent) - 1), len(places), len(extent))
    found = F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found.flatten(2)[0].T


def _cells(fine: Tensor, grid: Sequence[int]) -> Tensor:
    """`[C, *(grid * cell)]` -> `[L, C, cell ...]`: what each cell of the grid holds."""
    axes = range(len(grid))
    for axis, count in enumerate(grid):
        fine = fine.unflatten(1 + 2 * axis, (count, -1))  # [C, g, c, g, c, ...]
    return fine.permute(*(1 + 2 * axis for axis in axes), 0, *(2 + 2 * axis for axis in axes)).flatten(0, len(grid) - 1)


def _gathered(place: Tensor, belongs: Tensor, count: int) -> Tensor:
    """Places `[P]` that belong to cells `[P]` in `[0, count)`, by cell: `[count, S]`, then -1."""
    order = belongs.argsort(stable=True)
    sizes = torch.bincount(belongs, minlength=count)
    within = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[belongs[order]]
    members = torch.full((count, int(sizes.max())), -1, dtype=torch.int64)
    members[belongs[order], within] = place[order]
    return members
