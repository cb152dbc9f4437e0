"""How exact a loss is computed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """At least float32: half precision is widened, the rest is left as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def as_given(device: torch.device) -> AbstractContextManager:
    """Products in the precision of their factors, also under autocast; devices that know none (meta) need nothing."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()
