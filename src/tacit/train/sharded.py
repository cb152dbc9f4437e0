"""Weights that lie in parts on all ranks (FSDP2): how they are laid out, put together, and taken apart again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from tacit.core import distributed

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

M = TypeVar("M", bound=nn.Module)

ENTRANCES = ("with_map",)
"""What else than `forward` a block may be called by."""


def shard(module: M, mesh: DeviceMesh) -> M:
    """Lay every weight out over the ranks of a mesh, in place: a block's are gathered when it is called, and let go."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for block in list(blocks(module)):
        fully_shard(block, mesh=mesh)
        for entrance in ENTRANCES:
            if hasattr(block, entrance):
                register_fsdp_forward_method(block, entrance)
    fully_shard(module, mesh=mesh)
    return module


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """What is repeated in a module: the outermost elements of lists and sequences that are made of parts themselves."""
    for child in module.children():
        if isinstance(module, nn.ModuleList | nn.Sequential) and any(True for _ in child.children()):
            yield child
        else:
            yield from blocks(child)


def whole(tree: Any, keep: bool = True) -> Any:
    """A state with every tensor that lies in parts put together on the processor. Every rank has to ask.

    Args:
        tree: dictionaries and lists of tensors and other values.
        keep: whether this rank wants them; else there is None in their place, and no more than one is held at a time.
    """
    if isinstance(tree, dict):
        return {name: whole(value, keep) for name, value in tree.items()}
    if isinstance(tree, list):
        return [whole(value, keep) for value in tree]
    if not isinstance(tree, Tensor) or not distributed.in_parts(tree):
        return tree
    full = tree.full_tensor()  # pyright: ignore[reportAttributeAccessIssue]
    return full.cpu() if keep else None


def laid_out(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor as another of its shape lies: on its device, in its order of memory, in its parts over ranks."""
    made = torch.empty_like(like)
    part = distributed.local(made)
    if distributed.in_parts(made):
        mesh = made.device_mesh  # pyright: ignore[reportAttributeAccessIssue]
        parts = value.chunk(mesh.size())  # the last ones may be missing: short tensors do not reach all ranks
        value = parts[mesh.get_local_rank()] if mesh.get_local_rank() < len(parts) else value[:0]
    part.copy_(value)
    return made
