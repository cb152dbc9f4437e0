"""Embedding a set, from its file to a Parquet file, beside the bare forward pass of the same encoder on ready tensors.

python benchmarks/embed.py [--pairs 5]

Goal: at least 0.9 of the bare speed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import alternate, asked, keep, row, show, summary, times

CASES = (("simclr", "resnet-mini", 32, 8192), ("simclr", "vit-tiny/4", 32, 4096), ("simclr", "vit-small/16", 224, 384))
"""Method, encoder, side of the samples, how many."""

BATCH = 128


def case(folder: Path, method: str, encoder: str, side: int, count: int, pairs: int) -> dict[str, Any]:
    """One encoder: a run of one step, so that it is embedded with as anybody would."""
    import tacit

    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    data = folder / f"{side}.npy"
    np.save(data, images)
    options = {"encoder": encoder, "size": side, "batch": 32, "held_back": 64, "precision": "float32", "store": "never"}
    run = tacit.pretrain(method, data, out=folder / f"{method}-{encoder.replace('/', '-')}", steps=1, options=options)
    encoder_ = run.encoder
    ready = torch.rand(BATCH, 3, side, side, device=next(encoder_.parameters()).device)

    @torch.no_grad()
    def bare() -> None:
        for _ in range(count // BATCH):
            encoder_(ready).pooled.cpu()

    seconds = alternate({"embed": lambda: run.embed(data, out=folder / "f.parquet"), "forward": bare}, pairs)
    show(seconds)
    what = f"`embed`, {encoder} at {side} pixels, {count:,} samples"
    return row(what, "the bare forward pass", times(seconds, "embed", "forward"), most=1 / 0.9) | {"seconds": summary(seconds)}


def main() -> None:
    """All encoders."""
    pairs = asked(pairs=5).pairs
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TACIT_CACHE"] = f"{folder}/cache"
        keep("embed", {"rows": [case(Path(folder), *settings, pairs) for settings in CASES]})


if __name__ == "__main__":
    main()
