"""Gradients that come out the same, bit by bit, however many threads add them up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Inside, what several threads add to one place of a gradient is added in one order.

    The rows that an index picks more than once (positions of the tokens that are seen, places of a volume) get their gradients
    as threads come to it, unless PyTorch is told otherwise: two runs then differ in the last bit. On a processor the order
    costs no time. It is not asked for elsewhere, where some operations know no order and others are far slower with one.
    """
    if device.type != "cpu":
        yield
        return
    before, warning = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    more: Any = torch.utils.deterministic
    filled = more.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    more.fill_uninitialized_memory = False  # nothing reads what was not written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warning)
        more.fill_uninitialized_memory = filled
