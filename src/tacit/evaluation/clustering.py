"""Clustering: do the groups that k-means finds without labels agree with the classes."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F

from tacit.evaluation.features import Labelled
from tacit.evaluation.outcome import Outcome

STARTS = 3


def clustering(data: Labelled, seed: int = 0) -> Outcome:
    """k-means with as many clusters as classes, on L2-normalised training features; test samples go to the nearest centre.

    Returns:
        On test: `nmi` (normalised mutual information, arithmetic mean) in `[0, 1]`, `ari` (adjusted Rand index, 0 by chance)
        and `accuracy`, the share in the right cluster when clusters are matched to classes one to one as well as possible.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    train_x = F.normalize(data.train_x, dim=1).cpu().numpy()
    test_x, test_y = F.normalize(data.test_x, dim=1).cpu().numpy(), data.test_y.cpu().numpy()
    # More clusters than distinct features cannot be; on constant features there is one.
    clusters = min(len(data.classes), len(np.unique(train_x, axis=0)))
    model = KMeans(clusters, n_init=STARTS, random_state=seed)  # pyright: ignore[reportArgumentType]
    found = np.asarray(model.fit(train_x).predict(test_x))
    values = {
        "nmi": float(normalized_mutual_info_score(test_y, found)),
        "ari": float(adjusted_rand_score(test_y, found)),
        "accuracy": matched_accuracy(found, test_y),
    }
    return Outcome(values, {"clusters": clusters, "starts": STARTS})


def matched_accuracy(clusters: np.ndarray, y: np.ndarray) -> float:
    """The share of samples in the cluster of their class, under the best one-to-one matching (Kuhn, 1955; int `[N]` both)."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((clusters.max() + 1, y.max() + 1), dtype=np.int64)
    np.add.at(counts, (clusters, y), 1)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(y))
