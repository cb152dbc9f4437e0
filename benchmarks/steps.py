"""Every method's whole step, beside a bare forward and backward pass of the very same modules; and how a step grows.

    python benchmarks/steps.py [--pairs 7]

Encoders, options and the precision, measured, are those that `auto` takes on a processor for images of 32 pixels. A whole
step makes views, computes the loss, looks whether it is finite, clips, and moves teachers. The bare one is given its views,
sends the same tokens through the same modules (a teacher's without gradient), and gives a fixed gradient to what comes out;
there is no loss. The optimiser's step is part of both. Goal: at least 0.9 of the bare speed.

The growth, seconds of a whole step against batch and against size of the views, lies in the same JSON, without a goal.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import alternate, asked, keep, row, show, summary, times
from torch import Tensor

from tacit.core.allocator import keep_freed_memory
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.open import measure, open_data
from tacit.data.spec import Batch
from tacit.data.survey import survey
from tacit.methods.method import Progress
from tacit.methods.registry import method as method_class
from tacit.train import ranks
from tacit.train.plan import Found, Request, decide
from tacit.train.session import build_method
from tacit.train.situation import Budget
from tacit.train.step import Step

BATCHES = {"simclr": 128, "moco-v3": 128, "dino": 64, "mae": 128}
SIDE, SAMPLES, STEPS = 32, 4096, 2000
GROWING_BATCHES, GROWING_SIDES, AT = (16, 32, 64, 128, 256), (16, 32, 48, 64), 64
"""For growth: batches of samples with `SIDE` pixels, and sides of batches of `AT`."""

HALFWAY = Progress(STEPS // 2, STEPS, STEPS // 10)
CPU = torch.device("cpu")


def built(method: str, folder: Path, batch: int, side: int = SIDE, **given: Any) -> tuple[Step, Batch]:
    """A step with the values of `auto`, and a batch for it."""
    data = folder / f"{side}.npy"
    if not data.exists():
        np.save(data, np.random.default_rng(0).integers(0, 256, (SAMPLES, side, side, 3), dtype=np.uint8))
    collection = open_data(data)
    spec, kind = measure(collection), method_class(method)
    request = Request(method, data, budget=Budget(steps=STEPS), given={"batch": batch, **given})
    found = Found(collection, spec, survey(collection, spec, sample=256))
    recipe = decide(found, request, CPU, time.monotonic(), {})
    step = Step(build_method(kind, recipe.options, recipe.training, spec), recipe.training, spec, ranks.alone(CPU))
    pixels = torch.from_numpy(np.load(data, mmap_mode="r")[:batch].copy()).permute(0, 3, 1, 2).contiguous()
    return step, Batch(torch.arange(batch), pixels, torch.tensor([[side, side]] * batch, dtype=torch.int32))


def forward(method: Any, views: dict[str, Tensor], draws: Draws) -> Callable[[], list[Tensor]]:
    """A method's modules on views that lie ready, up to its loss; a call gives what comes out with a gradient."""
    if method.name == "simclr":
        both = torch.cat([views["view1"], views["view2"]])
        return lambda: [method.head(method.student(both).pooled)]
    if method.name == "mae":
        hidden = method.hide(draws, method.options.mask_ratio)
        return lambda: [method.predict(views["view"], hidden)]
    if method.name == "moco-v3":

        def contrasted() -> list[Tensor]:
            queries = [method.query(view) for view in views.values()]
            with torch.no_grad():
                [method.key(view) for view in views.values()]
            return queries

        return contrasted
    large = torch.cat([views["global1"], views["global2"]])
    small = [view for name, view in views.items() if name.startswith("local")]

    def distilled() -> list[Tensor]:
        student = method.says(large, small, draws)
        with torch.no_grad():
            method.teacher_head(method.teacher(large).pooled)
        return [student]

    return distilled


def bare(step: Step, batch: Batch) -> Callable[[], object]:
    """Forward, backward and the optimiser's step."""
    passed = forward(step.method, *step.see(batch, 0))
    low = step.training.precision == "bfloat16"
    gradients: list[Tensor] = []

    def call() -> None:
        step.optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            found = passed()
        if not gradients:
            gradients.extend(torch.randn_like(each) / each.numel() for each in found)
        torch.autograd.backward(found, gradients)
        step.optimiser.step()

    return call


def beside_bare(method: str, folder: Path, pairs: int) -> tuple[dict[str, Any], str]:
    """A row of the table, and the precision that was quicker."""
    step, batch = built(method, folder, BATCHES[method])
    training = step.training
    twin, _ = built(method, folder, BATCHES[method], precision=training.precision)
    seconds = alternate({"step": lambda: step(batch, HALFWAY), "bare": bare(twin, batch)}, pairs)
    show(seconds)
    what = f"step of {method}, {training.encoder} at {SIDE} pixels, batch {training.batch}, in {training.precision}"
    found = row(what, "forward and backward of the same modules, update", times(seconds, "step", "bare"), most=1 / 0.9)
    return found | {"seconds": summary(seconds)}, training.precision


def growth(method: str, folder: Path, precision: str, pairs: int) -> dict[str, Any]:
    """Seconds of a step for each batch and for each side, everything else being the same."""
    given: dict[str, Any] = {"precision": precision}
    if method == "mae":
        given |= {"encoder": "vit-mini/4", "mask_ratio": 0.75}  # `auto` would change them with the number of patches

    def seconds(settings: dict[int, tuple[int, int]]) -> dict[str, Any]:
        sides: dict[str, Callable[[], object]] = {}
        for name, (batch, side) in settings.items():
            try:
                step, data = built(method, folder, batch, side, **given)
            except TacitError:  # too few negatives
                continue
            sides[str(name)] = lambda step=step, data=data: step(data, HALFWAY)
        return summary(alternate(sides, pairs))

    found = {
        "batch": seconds({batch: (batch, SIDE) for batch in GROWING_BATCHES}),
        "side": seconds({side: (AT, side) for side in GROWING_SIDES}),
    }
    for name, spread in found.items():
        print(f"{method}, s by {name}: " + ", ".join(f"{value}: {s['median']:.3f}" for value, s in spread.items()))
    return found


def main() -> None:
    """All methods."""
    pairs = asked(pairs=7).pairs
    keep_freed_memory()  # as in a run
    rows, grown = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for method in BATCHES:
            found, precision = beside_bare(method, Path(folder), pairs)
            rows.append(found)
            grown[method] = {"precision": precision, **growth(method, Path(folder), precision, pairs=3)}
    keep("steps", {"rows": rows, "growth": grown, "growth_at": {"batch": AT, "side": SIDE}})


if __name__ == "__main__":
    main()
