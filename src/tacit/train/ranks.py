"""One process or many: `torchrun`, SLURM or tacit itself starts them; here they find each other. See `docs/scale.md`."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException

from tacit.core import distributed, launch
from tacit.core.errors import Echoed, Lost, TacitError, one_of, said

STRATEGIES = ("ddp", "fsdp")

SILENCE = timedelta(minutes=10)
"""A rank that has not answered for so long is taken for lost. One that died is missed at once, since its connections close."""

PATIENCE = timedelta(days=2)
"""So long the others wait while the first rank works alone: lists the data, looks at the encoder, writes a checkpoint."""

T = TypeVar("T")


def count() -> int:
    """How many processes were started for this run."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS") or 1) if launch.launched() else 1


def alone(device: torch.device) -> Fabric:
    """A world of this process, whoever else was started: for measuring."""
    return Fabric(accelerator=_accelerator(device), strategy=SingleDeviceStrategy(device), plugins=[LightningEnvironment()])


def join(device: torch.device, strategy: str = "ddp") -> Fabric:
    """This process's part in the world that was started.

    Args:
        device: what kind of device to compute on; each process of a machine takes one of its own.
        strategy: how weights lie on several ranks: `ddp`, a copy on each; `fsdp`, a part on each.
    """
    one_of("strategy", strategy, STRATEGIES)
    if count() == 1:
        fabric = alone(device)
        fabric.launch()
        return fabric
    machines = int(os.environ.get("SLURM_STEP_NUM_NODES") or 1)
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or count() // machines)
    if count() % here:
        raise TacitError(f"{count()} processes with {here} on this machine: give every machine the same number")
    if strategy == "fsdp":
        from tacit.train.sharded import shard

        how = ModelParallelStrategy(lambda module, mesh: shard(module, mesh["data_parallel"]), count(), 1, timeout=SILENCE)
    else:
        how = DDPStrategy(timeout=SILENCE)
        # Of kernels of one pixel or one channel, whose order in memory has two names that mean the same.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # who met whom is no news
    try:
        fabric = Fabric(accelerator=_accelerator(device), devices=here, num_nodes=count() // here, strategy=how)
    except (RuntimeError, ValueError, MisconfigurationException) as problem:  # processes do not fit to devices
        raise TacitError(
            f"{said(problem)}; start as many processes on a machine as it has devices, see docs/scale.md"
        ) from problem
    with company("nobody else came"):
        fabric.launch()
        distributed.be_patient(PATIENCE)
    return fabric


def by_first(fabric: Fabric, work: Callable[[], T]) -> T:
    """What the first rank finds out alone, told to every rank; or the `TacitError` that it ends in, likewise."""
    found: T | None = None
    refused: TacitError | None = None
    if fabric.global_rank == 0:
        try:
            with distributed.apart():
                found = work()
        except TacitError as problem:
            refused = problem
    distributed.meet()
    found, words, code = fabric.broadcast((found, str(refused), getattr(refused, "exit_code", 0)))
    if refused is not None:
        raise refused
    if code:
        raise Echoed(words, code)
    return found  # pyright: ignore[reportReturnType]


@contextmanager
def company(mend: str) -> Iterator[None]:
    """What the end of another process does to this one within the block becomes a `Lost`, with what to do about it."""
    try:
        yield
    except RuntimeError as problem:
        if count() == 1 or not (isinstance(problem, dist.DistError) or any(sign in str(problem) for sign in _SIGNS)):
            raise
        raise Lost("another process of this run ended or fell silent", mend) from problem


_SIGNS = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "Broken pipe", "gloo/transport", "NCCL")
"""What collectives say when they cannot reach somebody: gloo has no class of errors for it."""


def _accelerator(device: torch.device) -> str:
    return {"cuda": "cuda", "mps": "mps"}.get(device.type, "cpu")
