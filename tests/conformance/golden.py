"""The golden numbers of a card: `tests/golden/NAME.npz`, or the same name in the folder that `TACIT_GOLDEN` names.

Arrays are called `case/in/x`, `case/hyper/h`, `case/weights/w` and `case/out/y`. Every size and hyperparameter of a test comes
from them: another file with the same names and other values has to pass too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tacit.nn.centre import Centre

FOLDER = Path(os.environ.get("TACIT_GOLDEN") or Path(__file__).parents[1] / "golden")


@dataclass
class Case:
    """One case. Scalars among the hyperparameters are Python numbers, all else are tensors as stored."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    hyper: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    out: dict[str, Tensor] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The weights below a prefix, without it."""
        return {name.removeprefix(prefix): value for name, value in self.weights.items() if name.startswith(prefix)}


def golden(name: str) -> dict[str, Case]:
    """All cases of a card."""
    cases: dict[str, Case] = {}
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        for path in arrays.files:
            case, role, key = path.split("/", 2)
            array = arrays[path]
            target = getattr(cases.setdefault(case, Case()), {"in": "inputs"}.get(role, role))
            target[key] = array.item() if role == "hyper" and array.ndim == 0 else torch.from_numpy(array)
    return cases


def assert_near(actual: Tensor, expected: Tensor, rtol: float = 1e-9, atol: float = 1e-9) -> None:
    torch.testing.assert_close(actual.detach(), expected.to(actual.dtype), rtol=rtol, atol=atol)


def moved(center: Tensor, teacher: Tensor, momentum: float) -> Tensor:
    """A centre `[1, K]` after a step in which the teacher said these rows."""
    centre = Centre(center.shape[-1], momentum).to(center.dtype)
    centre.mean.copy_(center)
    centre.hear(teacher)
    centre.move()
    return centre.mean
