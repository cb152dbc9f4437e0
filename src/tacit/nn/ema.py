"""A teacher that follows a student."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import nn

from tacit.core.distributed import local

M = TypeVar("M", bound=nn.Module)


def teacher_of(student: M) -> M:
    """A copy that never gets a gradient."""
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """`teacher <- momentum * teacher + (1 - momentum) * student`, over the teacher's parameters by name.

    Buffers (running statistics) stay the teacher's own. The student may have parameters that the teacher lacks.
    """
    theirs = dict(student.named_parameters())
    names, ours = zip(*teacher.named_parameters(), strict=True)
    # Where weights lie in parts on many ranks, a rank's parts of both are of the same places.
    own, new = ([local(weight) for weight in weights] for weights in (ours, [theirs[name] for name in names]))
    torch._foreach_lerp_(own, new, 1.0 - momentum)


def momentum(fraction: float, start: float) -> float:
    """From `start` to 1 along half a cosine: `1 - (1 - start) (1 + cos(pi fraction)) / 2` (MoCo v3, DINO)."""
    return 1.0 - (1.0 - start) * 0.5 * (1.0 + math.cos(math.pi * fraction))
