"""Which rank is this, and what do the others hold. One process is a world of one: nothing here needs a launcher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_apart = False
_patient: Any = None


def world_size() -> int:
    return dist.get_world_size() if _together() else 1


def rank() -> int:
    return dist.get_rank() if _together() else 0


def _together() -> bool:
    return not _apart and dist.is_available() and dist.is_initialized()


@contextmanager
def apart() -> Iterator[None]:
    """In here this process is a world of one, whoever else was started: for what one rank does alone."""
    global _apart
    before, _apart = _apart, True
    try:
        yield
    finally:
        _apart = before


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


def mine(gathered: Tensor) -> Tensor:
    """This rank's part of what `gather` gave."""
    return gathered.tensor_split(world_size())[rank()]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:  # noqa: ARG004 - nothing is to be kept
        total = local.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Every rank's loss saw the sum.
        return _Total.forward(ctx, grads[0])


def total(local: Tensor) -> Tensor:
    """The sum over ranks, with gradients."""
    if world_size() == 1:
        return local
    return _Total.apply(local)  # pyright: ignore[reportReturnType]


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


def rows(local: Tensor) -> Tensor:
    """How many rows all ranks have together, where each has another number of them; 1 at least."""
    return total(torch.tensor(float(len(local)), device=local.device)).clamp(min=1)


def mean_of_rows(local: Tensor) -> Tensor:
    """The mean of numbers `[N]`, N differing between ranks, such that the mean of what all ranks get is that over all rows."""
    return local.sum() * (world_size() / rows(local))


def everybodys(value: Any) -> list[Any]:
    """What every rank has to say, in rank order; small things, since they are pickled."""
    if world_size() == 1:
        return [value]
    said = [None] * world_size()
    dist.all_gather_object(said, value)
    return said


# Tensors that lie in parts on all ranks -------------------------------------------------------------------------------


def in_parts(tensor: Tensor) -> bool:
    """Whether every rank holds but a part of a tensor (FSDP)."""
    return hasattr(tensor, "to_local")  # a DTensor; to import that class would take longer than everything else here


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that lies in parts, any other tensor itself; the memory is the tensor's own."""
    return tensor.to_local() if in_parts(tensor) else tensor  # pyright: ignore


def lengths(tensors: Sequence[Tensor], whole: bool) -> Tensor:
    """The Euclidean norms `[N]` of N tensors of one dtype, of which this rank holds the whole or else a part."""
    own = torch.stack(list(torch._foreach_norm(tensors)))  # pyright: ignore
    if whole:
        return own
    squares = own.double().square()  # in float32 that of a small gradient would be 0
    dist.all_reduce(squares)  # one message for all of them
    return squares.sqrt().to(own.dtype)


# Waiting for the first rank -------------------------------------------------------------------------------------------


def be_patient(most: timedelta) -> None:
    """Let `meet` wait this long. All ranks call it once, after they have found each other."""
    global _patient
    _patient = dist.new_group(backend="gloo", timeout=most)


def meet() -> None:
    """Wait until every rank is here: where the first one may have worked for longer than a lost rank is waited for."""
    if world_size() > 1:
        dist.barrier(_patient)
