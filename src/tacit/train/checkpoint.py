"""Checkpoints: whole or absent, plain tensors and numbers, read without unpickling anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tacit.core import archives, files
from tacit.core.errors import TacitError, said


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; the one before it stays until this one is complete."""
    with files.replacing(path) as file:
        torch.save(state, file)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint of tensors, numbers, strings and containers; anything else in it is refused.

    Tensors are mapped from the file: the processes of a machine share one copy, and read what they use of it.
    """
    try:
        archives.refuse_damaged(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise TacitError(f"no checkpoint at {path}") from None
    except Exception as problem:  # a damaged file makes a parser fail in any way
        raise TacitError(f"cannot read the checkpoint {path} ({said(problem)}); remove it to start again") from problem


def due(every: str, step: int, seconds_since: float) -> bool:
    """Whether `500` steps, `30s` or `10m` have passed at the end of this step."""
    number, unit = int(every.rstrip("sm")), every[-1]
    if unit in "sm":
        return seconds_since >= number * (60 if unit == "m" else 1)
    return number > 0 and step % number == 0
