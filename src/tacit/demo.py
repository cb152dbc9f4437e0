"""The whole way once, on bundled real images: `make demo`."""

from __future__ import annotations

import time

import tacit
from tacit.terminal import Terminal

DATA = "sample:omniglot_small"


def main() -> None:
    """Pretrain, evaluate, embed, search, report; print a short table and where the report lies."""
    from rich.console import Console

    from tacit.use.evaluate import table

    start = time.monotonic()
    run = tacit.pretrain("simclr", DATA, minutes=1.5, listener=Terminal())
    records = run.evaluate(DATA, protocols=["knn", "linear"])
    features = run.embed(DATA, out=run.path / "embeddings.parquet")
    hits = run.search("row:0", k=5)
    page = run.report()

    print()
    Console().print(table([record for record in records if record.metric == "top1"]))
    print(f"verdict   {run.verdict['verdict']}: {run.verdict['reasons'][0]}")
    print(f"features  {features}")
    print(f"nearest   to the first sample: {', '.join(f'{hit.path} ({hit.score:.2f})' for hit in hits)}")
    print(f"report    {page}")
    print(f"          after {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
