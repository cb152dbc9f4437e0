"""The centre of a teacher: the running mean of what it says, which is taken from that."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core import distributed
from tacit.objectives.precision import wide


class Centre(nn.Module):
    """`c <- m c + (1 - m) mean(t)`, over the rows of a step's raw logits t, those of all ranks and passes (DINO).

    What is heard during a step moves the centre only when the step is over. The centre starts at zero.

    Args:
        width: K, how many logits a row has.
        momentum: m, how much of the centre stays at each step, in `[0, 1]`.
        groups: G; rows of each group have a mean of their own, and that of a group without rows stays as it is.

    Attributes:
        mean: `[G, K]`, without gradient.
    """

    mean: Tensor

    def __init__(self, width: int, momentum: float, groups: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(groups, width))
        self.momentum = momentum
        self.heard: list[Tensor] = []
        """Of each pass of this step `[G, K + 1]`: the sums of the rows, and how many there were."""

    def of(self, group: Tensor | None = None) -> Tensor:
        """What is taken from rows of these groups, int64 `[N]`: `[N, K]`; from all rows where None: `[1, K]`."""
        return self.mean if group is None else self.mean[group]

    @torch.no_grad()
    def hear(self, teacher: Tensor, group: Tensor | None = None) -> None:
        """Remember logits `[..., K]` until the step is over; int64 `[N]` says of which group each row of `[N, K]` is."""
        rows = F.pad(wide(teacher).flatten(0, -2), (0, 1), value=1.0)
        if group is None:
            self.heard.append(rows.sum(dim=0, keepdim=True))
        else:
            self.heard.append(F.one_hot(group, len(self.mean)).to(rows).T @ rows)

    @torch.no_grad()
    def move(self) -> None:
        """The step is over."""
        if self.heard:
            heard = distributed.total(torch.stack(self.heard).sum(dim=0))
            sums, many = heard.split([heard.shape[1] - 1, 1], dim=1)
            moved = self.momentum * self.mean + (1 - self.momentum) * sums / many.clamp(min=1)
            self.mean = torch.where(many > 0, moved, self.mean)
            self.heard.clear()
