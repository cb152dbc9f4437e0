"""A small PointNet from the points of a token to one vector; it may know in which order they were taken."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.nn.points.norm import MaskedBatchNorm
from tacit.nn.points.padding import padded
from tacit.objectives.precision import as_given, wide


class Stage(nn.Module):
    """`fc2(relu(norm(fc1(x))))` for rows of points, the first layer without bias."""

    def __init__(self, channels: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden, bias=False)
        self.norm = MaskedBatchNorm(hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, hidden: Tensor) -> Tensor:
        """What follows `fc1`: `[n, hidden]` -> `[n, out]`."""
        return self.fc2(F.relu(self.norm(hidden)))

    def padding(self) -> Tensor:
        """What every padding slot becomes, `[out]`: its batch-norm is the bias, whatever lies in it."""
        return self.fc2(F.relu(self.norm.bias))


def order_code(slots: int, width: int) -> Tensor:
    """`[sin(s w_k), cos(s w_k)]`, `w_k = 10000**(-k / (width / 2 - 1))`, for slots s = 0, 1, ...: float64 `[slots, width]`."""
    half = width // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / max(half - 1, 1))
    angle = torch.arange(slots, dtype=torch.float64)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class PointNet(nn.Module):
    """Per-point features, their maximum put in front of each, features again, their maximum (PoLAr-MAE, after PointNet).

    Padding slots take part in both maxima with one constant, as in the published code, but only true points are computed.
    In float32 also under autocast.

    Args:
        channels: of a point.
        width: of the vector.
        hidden: h1 and h2, widths of the first stage; the second is `2 * h2` wide.
        ordered: add a code of its slot to each point after the first stage.
    """

    def __init__(self, channels: int, width: int, hidden: tuple[int, int] = (128, 256), ordered: bool = False) -> None:
        super().__init__()
        narrow, wider = hidden
        self.first = Stage(channels, narrow, wider)
        self.second = Stage(2 * wider, 2 * wider, width)
        self.order = nn.Linear(wider, wider) if ordered else None

    def forward(self, points: Tensor, mask: Tensor) -> Tensor:
        """Points `[M, S, C]` and bool `[M, S]`, which of them are true -> `[M, width]`."""
        with as_given(points.device):
            token, slot = mask.nonzero(as_tuple=True)
            rows = self.first(self.first.fc1(wide(points[token, slot])))  # [n, h2]
            features, code = padded(rows, mask, self.first.padding()), None
            if self.order is not None:
                code = F.relu(self.order(order_code(mask.shape[1], rows.shape[1]).to(rows)))  # [S, h2]
                features, rows = (
                    features + code,
                    rows + code.index_select(0, slot),
                )  # (whose gradient is added up in order, which indexing leaves open)
            largest = features.max(dim=1).values  # amax shares a gradient among equals, which takes three times as long
            # fc1 of [largest, row]: the first half is the same for all points of a token.
            by_token, by_point = self.second.fc1.weight.chunk(2, dim=1)
            rows = self.second(F.linear(largest, by_token).index_select(0, token) + F.linear(rows, by_point))
            return padded(rows, mask, self.second.padding()).max(dim=1).values
