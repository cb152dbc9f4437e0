"""Which rank is this, and what do the others hold. One process is a world of one: nothing here needs a launcher."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.rows = len(local)
        parts = [torch.empty_like(local) for _ in range(world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Every rank's loss saw this rank's rows: their gradients add up.
        total = grads[0].contiguous()
        dist.all_reduce(total)
        return total[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def gather(local: Tensor) -> Tensor:
    """The rows of all ranks in rank order, with gradients: `[B, ...]` -> `[W * B, ...]`. Every rank has the same B."""
    if world_size() == 1:
        return local
    return _Gather.apply(local)  # pyright: ignore[reportReturnType]


def largest(value: int) -> int:
    """The largest of the ranks' numbers, on every rank."""
    if world_size() == 1:
        return value
    held = torch.tensor(value, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(held, dist.ReduceOp.MAX)
    return int(held)


def mean(value: Tensor) -> Tensor:
    """The mean over ranks, without gradient."""
    if world_size() == 1:
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()
