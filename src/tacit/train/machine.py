"""What this machine is and what it does well: measured, not supposed."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable

import torch

from tacit.core.errors import TacitError
from tacit.data.payload import memory


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name; `auto` takes CUDA, then MPS, then the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise TacitError(f"no device '{name}'; use auto, cpu, cuda, cuda:N or mps") from None
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        raise TacitError(f"device '{name}' is not available here; use --device auto")
    return device


def seconds_per_call(call: Callable[[], object], device: torch.device, at_least: int = 3, budget: float = 1.0) -> float:
    """Median seconds of a call, after one uncounted: `at_least` calls, more while `budget` seconds last (10 at most)."""

    def once() -> float:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    once()
    times: list[float] = []
    while len(times) < at_least or (sum(times) < budget and len(times) < 10):
        times.append(once())
    return sorted(times)[len(times) // 2]


def bytes_kept(call: Callable[[], object]) -> int:
    """What a call keeps for its backward pass, without weights: nearly all that a step takes, and as much for each sample."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor if tensor._base is None else tensor._base, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    return sum(kept.values())


def describe() -> dict[str, str | int]:
    """Versions and hardware, for `run.json`."""
    facts: dict[str, str | int] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
        facts["gpus"] = torch.cuda.device_count()
    return facts


def memory_bytes(device: torch.device) -> int:
    """Memory that there is: of the GPU for CUDA, else what this process may use of the machine's."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else memory()


def memory_megabytes(device: torch.device) -> float:
    """Most memory this process has held: on the GPU for CUDA, resident in the system else."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    scale = 2**20 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
