"""Nearest neighbours, beside a bare matrix product and `topk`: `python benchmarks/knn.py [--pairs 5]`.

Goal: within 1.2 times, although equal neighbours are put in an order that is the same on every device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pairs import alternate, asked, keep, row, show, summary, times

GALLERY, QUERIES, WIDTH, K = 50_000, 10_000, 384, 20
AT_ONCE = 1000


def main() -> None:
    """Alternate both."""
    from tacit.evaluation.knn import votes

    generator = torch.Generator().manual_seed(0)
    gallery, queries = (torch.randn(count, WIDTH, generator=generator) for count in (GALLERY, QUERIES))
    y, whole, unit = torch.arange(GALLERY) % 10, F.normalize(gallery), F.normalize(queries)

    def bare() -> None:
        for start in range(0, QUERIES, AT_ONCE):
            (unit[start : start + AT_ONCE] @ whole.T).topk(K, dim=1)

    seconds = alternate({"k-NN": lambda: votes(queries, gallery, y, 10, K), "bare": bare}, asked(pairs=5).pairs)
    show(seconds)
    what = f"k-NN, {QUERIES:,} queries in {GALLERY:,} of width {WIDTH}, votes included"
    rows = [row(what, "the bare matrix product and `topk`", times(seconds, "k-NN", "bare"), most=1.2)]
    keep("knn", {"rows": rows, "seconds": summary(seconds)})


if __name__ == "__main__":
    main()
