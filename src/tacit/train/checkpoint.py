"""Checkpoints: whole or absent, plain tensors and numbers, read without unpickling anything else."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from tacit.core import files
from tacit.core.errors import TacitError


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; the one before it stays until this one is complete."""
    with files.replacing(path) as file:
        torch.save(state, file)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of tensors, numbers, strings and containers; anything else in it is refused."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise TacitError(f"no checkpoint at {path}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as problem:
        first_line = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise TacitError(f"cannot read the checkpoint {path} ({first_line[:120]}); remove it to start again") from problem


def due(every: str, step: int, seconds_since: float) -> bool:
    """Whether `500` steps, `30s` or `10m` have passed at the end of this step."""
    number, unit = int(every.rstrip("sm")), every[-1]
    if unit in "sm":
        return seconds_since >= number * (60 if unit == "m" else 1)
    return number > 0 and step % number == 0
