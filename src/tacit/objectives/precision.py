"""How exact a loss is computed."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """At least float32: half precision is widened, the rest is left as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
