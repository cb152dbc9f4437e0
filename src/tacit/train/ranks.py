"""One process or many: `torchrun` or SLURM starts them, tacit only looks around."""

from __future__ import annotations

import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.single_device import SingleDeviceStrategy

from tacit.core.errors import TacitError


def count() -> int:
    """How many processes were started for this run."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1) if launched() else 1


def place() -> int:
    """Which of them this is; 0 is the one that writes."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) if launched() else 0


def launched() -> bool:
    """Whether a launcher that tells processes apart started this one."""
    return "RANK" in os.environ or (
        "SLURM_PROCID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")
    )


def alone(device: torch.device) -> Fabric:
    """A world of this process, whoever else was started: for measuring."""
    return Fabric(accelerator=_accelerator(device), strategy=SingleDeviceStrategy(device))


def join(device: torch.device) -> Fabric:
    """This process's part in the world that was started; data-parallel where there are several."""
    if count() == 1:
        fabric = alone(device)
    else:
        here = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or count())
        if count() % here:
            raise TacitError(f"{count()} processes with {here} on this machine: give every machine the same number")
        fabric = Fabric(accelerator=_accelerator(device), devices=here, num_nodes=count() // here, strategy="ddp")
    fabric.launch()
    return fabric


def _accelerator(device: torch.device) -> str:
    return {"cuda": "cuda", "mps": "mps"}.get(device.type, "cpu")
