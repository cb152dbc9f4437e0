"""A pass of tacit's loader over some files beside threads that prepare one sample after another; for `clips` and `inputs`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import torch
from pairs import alternate, row, show, summary, times
from torch import Tensor

from tacit.data.loader import Loader
from tacit.data.open import open_data
from tacit.data.spec import Batch
from tacit.data.window import Window
from tacit.data.workers import processors

SEED = 0


def beside(
    what: str,
    other: str,
    folder: Path,
    kind: str,
    one: Callable[[Path], Tensor],
    batch: int,
    pairs: int,
    most: float,
    windows: Mapping[str, Window] | None = None,
    finish: Callable[[Batch], Tensor] = lambda batch: batch.data,
    same: Callable[[Path, Tensor], bool] | None = None,
) -> dict[str, Any]:
    """A row of the table: every file of a folder once, in batches that lie ready for a step. Nothing is in a store.

    Args:
        what, other: both sides, in words.
        folder: the files, whose number is a multiple of the batch.
        kind: what they are opened as.
        one: the other side: a file as the tensor of one sample; as many threads as tacit's call it, and stack what comes out.
        batch: samples at a time.
        pairs, most: as in `pairs`.
        windows: which part of each sample is wanted, by view; the whole of it without.
        finish: what tacit makes of a batch, into samples of the same shape as those of `one`.
        same: whether a sample of tacit's could have come out of this file by `one`; looked at once.
    """
    collection = open_data(folder, kind=kind)
    paths = [folder / collection.index.path(number) for number in range(len(collection))]
    assert len(paths) % batch == 0
    loader = Loader(collection, None, None, batch, SEED, windows=windows)
    checked(loader, paths, one, finish, same)
    passes = count()

    def ours() -> None:
        first = next(passes) * loader.steps_per_epoch
        assert sum(len(finish(found)) for found in loader.ahead(first, first + loader.steps_per_epoch)) == len(paths)

    def theirs() -> None:
        assert sum(map(len, stacked(paths, one, batch))) == len(paths)

    seconds = alternate({"tacit": ours, "sample by sample": theirs}, pairs)
    show(seconds)
    found = row(what, f"{other}, on as many threads", times(seconds, "tacit", "sample by sample"), most)
    pace = {name: len(paths) / spread["median"] for name, spread in summary(seconds).items()}
    print(", ".join(f"{name}: {value:,.1f} samples/s" for name, value in pace.items()))
    return found | {"seconds": summary(seconds), "samples_per_second": pace}


def stacked(paths: Sequence[Path], one: Callable[[Path], Tensor], batch: int) -> Iterator[Tensor]:
    """The obvious pipeline: threads prepare samples, and batches are stacked."""
    with ThreadPoolExecutor(processors()) as threads:
        for start in range(0, len(paths), batch):
            yield torch.stack(list(threads.map(one, paths[start : start + batch])))


def checked(
    loader: Loader,
    paths: Sequence[Path],
    one: Callable[[Path], Tensor],
    finish: Callable[[Batch], Tensor],
    same: Callable[[Path, Tensor], bool] | None,
) -> None:
    """Both sides do the same work: samples of one shape and dtype, and what tacit shows of a file lies in it."""
    found = loader.batch(0)
    ours = finish(found)
    theirs = torch.stack([one(paths[number]) for number in found.ids.tolist()])
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), (ours.shape, ours.dtype, theirs.shape, theirs.dtype)
    assert len(set(found.ids.tolist())) == len(ours)
    assert same is None or all(same(paths[number], x) for number, x in zip(found.ids.tolist(), ours, strict=True))
