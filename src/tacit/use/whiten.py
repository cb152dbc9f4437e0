"""What whitens a run's features: taken once from samples that it was trained on, and kept in its folder."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tacit.data.index import spread
from tacit.data.spec import Batch
from tacit.evaluation.features import Encode, extract
from tacit.evaluation.readout import WHITENED
from tacit.evaluation.subject import Subject
from tacit.evaluation.whitening import Whitening
from tacit.use.kept import keep, kept

if TYPE_CHECKING:
    from tacit.use.run import OpenRun

SAMPLES = 2048
"""So many of them at most."""


def whitening(run: OpenRun) -> Whitening:
    """Of the run's own pooled features, from its folder where it was kept.

    Raises:
        TacitError: it was not, and the samples are not there.
    """
    path = run.folder.path / "search" / f"whitening-{run.fingerprint}.npz"
    if (there := _kept(path, run.encoder.width)) is not None:
        return there
    made = taken(run, run.encode())
    keep(path, mean=made.mean.cpu().numpy(), matrix=made.matrix.cpu().numpy())
    return made


def taken(run: OpenRun, encode: Encode) -> Whitening:
    """Of what `encode` says of samples that the run was trained on."""
    data = run.data().with_channels(run.spec.channels)
    return Whitening.of(extract(encode, run.loader(data, spread(len(data), SAMPLES), max_bad=1.0)).values)


def whitened(run: OpenRun, plain: Subject) -> Subject:
    """The same with whitened features."""
    whiten = taken(run, plain.encode)
    second = None if plain.second is None else partial(through, whiten, plain.second)
    return replace(plain, encode=partial(through, whiten, plain.encode), second=second, features=WHITENED)


def through(whiten: Whitening, encode: Encode, batch: Batch) -> Tensor:
    """Whitened features of a batch."""
    return whiten(encode(batch))


def _kept(path: Path, width: int) -> Whitening | None:
    """What was kept there; None where it is not, or not whole: it can be taken again."""
    if (found := kept(path, "mean", "matrix")) is None:
        return None
    mean, matrix = found
    whole = mean.dtype == matrix.dtype == np.float32 and matrix.ndim == 2 and mean.shape == matrix.shape[:1] == (width,)
    finite = whole and np.isfinite(mean).all() and np.isfinite(matrix).all()
    return Whitening(torch.from_numpy(mean), torch.from_numpy(matrix)) if finite else None
