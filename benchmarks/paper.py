"""A few steps of every host's published recipe at its full size: views, encoder, heads and losses, of a smaller batch.

    python benchmarks/paper.py

Each method steps in a process of its own, which tells its greatest memory. Writes `benchmarks/results/paper.json`.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import layout
import torch
from pairs import keep

from tacit.core.allocator import keep_freed_memory
from tacit.data.spec import Batch, Spec
from tacit.methods.method import Progress
from tacit.methods.registry import METHODS, method
from tacit.nn.vit import VisionTransformer
from tacit.train import ranks
from tacit.train.recipe import resolve
from tacit.train.session import build_method
from tacit.train.situation import Budget, Situation
from tacit.train.step import Step

PHOTOGRAPHS = Spec("image", 3, (256, 256))


def measure(name: str, batch: int, steps: int) -> dict[str, Any]:
    """Weights, tokens, seconds and memory of the published recipe on made-up photographs."""
    keep_freed_memory()
    seen: Any = SimpleNamespace(samples=1_281_167)
    situation = Situation(method(name), PHOTOGRAPHS, seen, None, Budget(), "cpu", measure=lambda options, training: math.nan)
    recipe = resolve("paper", situation, {"batch": batch})
    made = build_method(method(name), recipe.options, recipe.training, PHOTOGRAPHS)
    trained = sum(p.numel() for p in made.parameters() if p.requires_grad)
    step = Step(made, recipe.training, PHOTOGRAPHS, ranks.alone(torch.device("cpu")))
    pixels = torch.randint(0, 256, (batch, 3, 256, 256), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    photographs = Batch(torch.arange(batch), pixels, torch.full((batch, 2), 256, dtype=torch.int32))
    seconds, found = [], []
    for number in range(steps):
        start = time.perf_counter()
        found.append(step(photographs, Progress(number, recipe.training.steps, recipe.training.steps)))
        seconds.append(time.perf_counter() - start)
    return {
        "method": name,
        "encoder": recipe.training.encoder,
        "weights": sum(p.numel() for p in made.student.parameters()),
        "trained": trained,
        "batch": batch,
        "published_batch": method(name).paper_training["batch"],
        "tokens": _tokens(made),
        "seconds": {"median": statistics.median(seconds[1:]), "least": min(seconds[1:]), "greatest": max(seconds[1:])},
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "losses": [terms.total.item() for terms in found],
        "chance": found[0].chance,
    }


def _tokens(made: Any) -> dict[str, int]:
    """Tokens of each view of a transformer, class token included."""
    if not isinstance(made.student, VisionTransformer):
        return {}
    return {name: math.prod(made.student.grid([view.size] * 2)) + made.student.prefix for name, view in made.views().items()}


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: a line per method."""
    head = ["method", "encoder", "weights", "tokens", "samples in a step (published)", "seconds a step", "most memory"]
    lines = []
    for row in found:
        tokens = " + ".join(f"{number} {side}" for side, number in _told(row["tokens"]).items()) or "-"
        batch, seconds = f"{row['batch']} ({row['published_batch']:,})", f"{row['seconds']['median']:.1f}"
        weights, memory = f"{row['weights'] / 1e6:.1f} M", f"{row['peak_mb'] / 1024:.1f} GB"
        lines.append([row["method"], row["encoder"], weights, tokens, batch, seconds, memory])
    return layout.table(head, lines)


def _told(tokens: dict[str, int]) -> dict[str, int]:
    """How many views have so many tokens: `{"x 197": 2, "x 37": 8}`."""
    counts = collections.Counter(tokens.values())
    return {f"x {size}": counts[size] for size in sorted(counts, reverse=True)}


def main() -> None:
    """All hosts, one after the other."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--one", help="measure this method here and print it")
    words.add_argument("--batch", type=int, default=32)
    words.add_argument("--steps", type=int, default=4)
    asked = words.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one, asked.batch, asked.steps)))
        return
    found = []
    for name in (name for name in METHODS if method(name).kinds == ("image",)):
        command = [sys.executable, __file__, "--one", name, "--batch", str(asked.batch), "--steps", str(asked.steps)]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))
        print(found[-1])
    keep("paper", {"runs": found})
    print(table(found))


if __name__ == "__main__":
    main()
