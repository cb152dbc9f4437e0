"""Embedding on the machines of a Ray cluster: Ray Data deals out the groups, a worker computes them as this process would."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tacit.core.errors import TacitError
from tacit.use.embed_groups import Work

AT_ONCE = 8
"""Groups that a worker is given at a time at the most: it decodes ahead through all of them."""


@dataclass(frozen=True)
class Cluster:
    """Where to compute.

    Attributes:
        address: as Ray has it: `local` starts Ray on this machine, `auto` joins the cluster that this machine is part of,
            `HOST:PORT` or `ray://HOST:PORT` another one. A program that has joined one already stays there.
        gpus: each worker takes a GPU, where the cluster has any.
    """

    address: str
    gpus: bool = True


class Worker:
    """A process of the cluster that has unpacked the work once and computes the groups it is given."""

    def __init__(self, packed: Any, place: str, threads: int) -> None:
        """Unpack `packed`, an object of Ray's store; see `_packed`."""
        import ray
        from ray import cloudpickle

        if os.path.isdir(place):
            os.chdir(place)  # Relative paths mean here what they meant where the work was packed.
        # With another number of threads, sums come in another order, and features in other last bits.
        torch.set_num_threads(threads)
        self.work: Work | TacitError
        try:
            self.work = cloudpickle.loads(ray.get(packed))
        except TacitError as problem:
            self.work = problem

    def __call__(self, dealt: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        """From a batch of one row, `numbers`, to a row for each group: `number`, `content`, or else what the problem is."""
        try:
            if isinstance(self.work, TacitError):
                raise self.work
            for number, content in self.work([int(number) for number in dealt["numbers"][0]]):
                yield _row(number, content, "")
        except TacitError as problem:
            yield _row(-1, b"", str(problem))


def on_cluster(work: Work, numbers: Sequence[int], cluster: Cluster) -> Iterator[tuple[int, bytes]]:
    """What `work(numbers)` gives, in whatever order it is finished.

    Every machine has to see the run's folder and the data under the same paths, or by URL.

    Raises:
        TacitError: no Ray, no cluster, data that cannot be sent, or what a worker met.
    """
    packed = _packed(work)
    with _joined(cluster) as ray:
        count, needs, threads = _workers(ray, cluster)
        each = max(1, min(AT_ONCE, len(numbers) // (2 * count)))  # two turns for each at least, so that none ends late
        hands = [{"numbers": list(numbers[start : start + each])} for start in range(0, len(numbers), each)]
        found = ray.data.from_items(hands, override_num_blocks=len(hands)).map_batches(
            Worker,
            fn_constructor_args=(ray.put(packed), os.getcwd(), threads),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count),
            **needs,
        )
        try:
            for row in found.iter_rows():
                if row["problem"]:
                    raise TacitError(row["problem"])
                yield int(row["number"]), row["content"]
        except ray.exceptions.RayError as problem:
            said = str(problem).strip().rpartition("\n")[2][:200]
            raise TacitError(
                f"a worker of the cluster failed ({said}); every machine needs tacit, the run's folder and the data"
            ) from problem


def _row(number: int, content: bytes, problem: str) -> dict[str, Any]:
    return {"number": np.array([number]), "content": np.array([content], dtype=object), "problem": np.array([problem])}


def _packed(work: Work) -> bytes:
    try:
        from ray import cloudpickle
    except ImportError:
        raise TacitError("embedding on a cluster needs Ray, which is not installed: pip install 'tacit[cluster]'") from None
    try:
        return cloudpickle.dumps(work)  # pyright: ignore[reportPrivateImportUsage]
    except (pickle.PicklingError, TypeError, AttributeError, ValueError) as problem:
        raise TacitError(
            f"this data cannot be sent to other machines ({problem}); save it to files and name those"
        ) from problem


@contextmanager
def _joined(cluster: Cluster) -> Iterator[Any]:
    """Ray, joined; left again if it was not joined before."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # What is started here does not call home.
    import ray
    import ray.data

    here = not ray.is_initialized()
    if here:
        quiet: dict[str, Any] = {"include_dashboard": False} if cluster.address == "local" else {}
        try:
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as problem:
            said = " ".join(str(problem).split())[:200]
            raise TacitError(f"no Ray cluster at '{cluster.address}' ({said}); local starts one on this machine") from problem
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # What goes wrong is said once, by the exception.
    try:
        yield ray
    finally:
        if here:
            ray.shutdown()


def _workers(ray: Any, cluster: Cluster) -> tuple[int, dict[str, float], int]:
    """How many workers there may be, what each takes, and its threads: as many as here, where machines have them."""
    there = ray.cluster_resources()
    processors = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    threads = min([torch.get_num_threads(), *(count for count in processors if count)])
    if cluster.gpus and there.get("GPU"):
        return int(there["GPU"]), {"num_gpus": 1}, threads
    return max(1, int(there.get("CPU", 1)) // threads), {"num_cpus": threads}, threads
