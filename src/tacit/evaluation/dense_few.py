"""Few labelled samples: what the dense protocols learn from ten of them, drawn several times."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from tacit.core.draws import Draws

FEW, DRAWS = 10, 3


def few_samples(sample: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Which rows belong to ten drawn samples, int64, for each draw; none where there are not more samples than that.

    Args:
        sample: int64 `[N]`, the sample of each row.
        seed: of the draws.
    """
    there = torch.from_numpy(np.unique(sample))
    for draw in range(DRAWS if len(there) > FEW else 0):
        order = Draws(seed, draw, there).within("dense").words("few", 1)[:, 0].argsort(stable=True)
        yield np.flatnonzero(np.isin(sample, there[order[:FEW]].numpy()))
