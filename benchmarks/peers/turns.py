"""What every script in this folder does: it takes a turn for every line that it reads, and says in JSON how long that took.

The interpreter is that of the other libraries, so nothing of tacit is imported here. By hand, for three turns:

    yes | head -3 | PEERS/bin/python benchmarks/peers/examples.py simclr
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import torch


def take_turns(turn: Callable[[], object], steps: int, *libraries: str) -> None:
    """Name the versions of these libraries; then `turn()`, which makes so many steps, for every line of standard input."""
    print(json.dumps({name: version(name) for name in ("torch", *libraries)}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        turn()
        print(json.dumps({"seconds_per_step": (time.perf_counter() - start) / steps}), flush=True)


def import_torchvision() -> None:
    """Import torchvision, also where its compiled operators are of another build than torch.

    The package index has builds for GPUs only, whose library does not load beside a torch for processors. Python code that
    describes two of its detection operators then finds them missing, and the import fails. Nothing here detects anything:
    declaring them is enough, and transforms and models, which are Python on top of Pillow and torch, are as they always are.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
