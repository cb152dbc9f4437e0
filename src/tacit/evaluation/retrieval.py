"""Retrieval: is something of the same class among the nearest, and how far up are all of its class."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.evaluation.features import Labelled
from tacit.evaluation.neighbours import ranks, similarity_blocks
from tacit.evaluation.outcome import Outcome

DEPTHS = (1, 5, 10)


def retrieve(queries: Tensor, query_y: Tensor, gallery: Tensor, gallery_y: Tensor, itself: bool = False) -> dict[str, float]:
    """Recall@1, 5, 10 and mean average precision, by cosine, over the queries whose class the gallery has.

    Recall@k is the share of queries with one of their class among the k nearest, as in metric learning; average precision is
    the mean, over all of a query's class, of the precision at their ranks.

    Args:
        queries: `[Q, D]`, query_y: int64 `[Q]`.
        gallery: `[N, D]`, gallery_y: int64 `[N]`.
        itself: queries and gallery are one set, and a sample does not find itself.

    Returns:
        `recall@1`, `recall@5`, `recall@10`, `map`, shares in `[0, 1]`, and `queries`, how many there were; only this, if 0.
    """
    found = torch.zeros(len(DEPTHS), dtype=torch.float64, device=queries.device)
    precision, count = 0.0, 0
    places = torch.arange(1, len(gallery) + 1, device=queries.device, dtype=torch.float64)
    everything = torch.arange(len(gallery), device=gallery.device)
    for block, cosine in similarity_blocks(queries, gallery, itself):
        ranked = ranks(cosine, everything).argsort(dim=1, descending=True)
        # A sample that is its own query was put last, and is cut off there.
        ranked = ranked[:, : len(gallery) - int(itself)]
        right = (gallery_y[ranked] == query_y[block][:, None]).double()
        answers = right.sum(dim=1)
        right, answers = right[answers > 0], answers[answers > 0]
        for i, depth in enumerate(DEPTHS):
            found[i] += right[:, :depth].amax(dim=1).sum()
        precision += float(((right.cumsum(dim=1) / places[: right.shape[1]] * right).sum(dim=1) / answers).sum())
        count += len(answers)
    if not count:
        return {"queries": 0}
    values = {f"recall@{depth}": float(hits) / count for depth, hits in zip(DEPTHS, found, strict=True)}
    return values | {"map": precision / count, "queries": count}


def retrieval(data: Labelled) -> Outcome:
    """Test samples look for training samples of their class; if the two share no class, test samples look for each other."""
    shared = bool(torch.isin(data.test_y, data.train_y).any())
    gallery = (data.train_x, data.train_y) if shared else (data.test_x, data.test_y)
    values = retrieve(data.test_x, data.test_y, *gallery, itself=not shared)
    queries = int(values.pop("queries"))
    return Outcome(values, {"queries": queries, "gallery": "train" if shared else "test, without the query itself"})
