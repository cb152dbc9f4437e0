"""Threads that decode. Decoders let go of the interpreter's lock, so threads are enough and nothing is copied."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pool(threads: int | None = None) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads or min(16, processors()), thread_name_prefix="tacit-decode")


def in_order(
    workers: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int = 64
) -> Iterator[Result]:
    """`map(work, items)` with at most `ahead` results under way: memory stays bounded however long `items` is."""
    under_way: deque[Future[Result]] = deque()
    try:
        for item in items:
            under_way.append(workers.submit(work, item))
            if len(under_way) >= ahead:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()
