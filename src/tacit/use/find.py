"""Search from a run: the query encoded as the data was, the data's features computed once and kept in the run's folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tacit.core.errors import TacitError, one_of
from tacit.data.collection import Collection
from tacit.data.loader import Loader
from tacit.evaluation.features import extract
from tacit.evaluation.readout import WHITENED
from tacit.use.kept import keep, kept
from tacit.use.reading import Reading
from tacit.use.run import OpenRun
from tacit.use.search import Hit, hits, search
from tacit.use.whiten import whitening

TEXT = "text:"


def find(
    run: OpenRun, query: Any, collection: Collection | None, k: int, index: str = "auto", features: str = "pooled"
) -> list[Hit]:
    """The samples of a collection (what the run was trained on, by default) nearest to a query.

    Args:
        query: a path or URL of one sample, `row:N`, `text:A SENTENCE` (runs that learned from captions), or an array
            `[H, W, C]`.
        features: what is compared, `pooled` or `whitened`.
    """
    one_of("features", features, ("pooled", WHITENED))
    if k < 1:
        raise TacitError(f"{k} neighbours were asked for; at least 1 was expected")
    text = isinstance(query, str) and query.startswith(TEXT)
    if text and features == WHITENED:
        raise TacitError("a sentence is compared with pictures as they were trained to be: leave --features out")
    collection = (collection or run.data()).with_channels(run.spec.channels)
    ids, vectors = vectors_of(run, collection)
    if features == WHITENED:
        vectors = whitening(run)(torch.from_numpy(vectors)).numpy()
    paths = [str(collection.index.table["path"][row]) for row in ids.tolist()]
    if isinstance(query, str) and query.startswith("row:"):
        place = _row(query, ids, len(collection))
        # The sample itself is its own nearest neighbour: one more is asked for, and it is left out.
        found = hits(*search(vectors[place], vectors, k + 1, index), paths, ids)[0]
        others = [hit for hit in found if hit.id != ids[place]][:k]
        return [Hit(rank, hit.score, hit.path, hit.id) for rank, hit in enumerate(others, 1)]
    if text:
        reading = Reading(run)
        return hits(*search(reading([query.removeprefix(TEXT)]), reading.pictures(vectors), k, index), paths, ids)[0]
    asked = _encoded(run, query, run.side(collection), features)
    return hits(*search(asked, vectors, k, index), paths, ids)[0]


def vectors_of(run: OpenRun, collection: Collection) -> tuple[np.ndarray, np.ndarray]:
    """int64 `[N]` rows and float32 `[N, D]` features of all readable samples, from the run's folder where they were kept."""
    kept_as = f"{collection.fingerprint}-{run.fingerprint}-{run.side(collection)}-{len(run.windows)}.npz"
    path = run.folder.path / "search" / kept_as
    if (there := _kept(path, len(collection))) is not None:
        return there
    found = extract(run.encode(), run.loader(collection, max_bad=1.0))
    ids, vectors = found.ids.numpy(), found.values.cpu().numpy()
    keep(path, ids=ids, vectors=vectors)
    return ids, vectors


def _kept(path: Path, samples: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The features that were kept there; None where there are none, or none that are whole: they can be made again."""
    if (found := kept(path, "ids", "vectors")) is None:
        return None
    ids, vectors = found
    whole = ids.shape == vectors.shape[:1] and vectors.ndim == 2 and (ids.dtype, vectors.dtype) == (np.int64, np.float32)
    return (ids, vectors) if whole and len(ids) and ids.min() >= 0 and ids.max() < samples else None


def _encoded(run: OpenRun, query: Any, side: int | None, features: str) -> np.ndarray:
    """float32 `[1, D]`, decoded as what it is compared with: a file finds itself."""
    if isinstance(query, np.ndarray):
        query = [query]
    elif isinstance(query, os.PathLike):
        query = os.fspath(query)
    said = query if isinstance(query, str) else "array"
    folder = isinstance(query, str) and os.path.isdir(query)  # the frames of a film, the slices of a volume
    try:
        collection = run.taken([query] if isinstance(query, str) and not folder else query).with_channels(run.spec.channels)
    except TacitError as problem:
        raise TacitError(f"the query {said} is no use: {problem}") from problem
    if len(collection) != 1:
        raise TacitError(f"the query {said} holds {len(collection)} samples; give a single one, or embed them")
    loader = Loader(collection, None, None, 1, 0, shuffle=False, side=side, windows=run.windows)
    return extract(run.encode(features), loader).values.cpu().numpy()


def _row(query: str, ids: np.ndarray, samples: int) -> int:
    number = query.removeprefix("row:")
    if not number.isdecimal() or len(number) > 18 or not int(number) < samples:
        raise TacitError(f"'{query}': rows are given as row:0 to row:{samples - 1}")
    place = int(np.searchsorted(ids, int(number)))
    if place >= len(ids) or ids[place] != int(number):
        raise TacitError(f"'{query}' could not be read, so there is nothing to compare; choose another row")
    return place
