"""Run a function on several processes that find each other as in a real run; what each of them returned."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning_fabric import Fabric

from tacit.train import ranks

CPU = torch.device("cpu")


def on_ranks(count: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """`work(*args)` on `count` processes, each of which may `world` as often as it likes; results in rank order."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_one, args=(count, free_port(), folder, work, args), nprocs=count)
        return [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(count)]


def world(strategy: str = "ddp") -> Fabric:
    return ranks.join(CPU, strategy)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _one(rank: int, count: int, port: int, folder: str, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.save(work(*args), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
