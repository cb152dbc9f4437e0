"""Every method's whole step, beside a bare forward and backward pass of the very same modules; and how a step grows.

    python benchmarks/steps.py [--pairs 7] [--method mae]

Encoders, options and the precision, measured, are those that `auto` takes on a processor: hosts on noise of 32 pixels, the
other methods on a bundled sample of their kind. A whole step makes views, computes the loss, looks whether it is finite, clips,
and moves teachers. The bare one (`bare.py`) sends the same inputs through the same modules, a teacher's without gradient, and
gives the same gradients to what comes out; of points it makes the tokens, too, which is work of the encoder. The optimiser's
step is part of both. Goal: at least 0.9 of the bare speed for hosts, a step of at most 1.2 times the bare one for the others,
and views that take at most 15 % of a step.

The growth of hosts, seconds of a whole step against batch and against size of the views, lies in the same JSON, without a goal.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bare import bare
from built import HALFWAY, built, pictures
from pairs import RESULTS, alternate, asked, keep, row, show, summary, times

from tacit.core.allocator import keep_freed_memory
from tacit.core.errors import TacitError
from tacit.data.kinds.kind import kind_named
from tacit.data.spec import Batch
from tacit.train.step import Step

HOSTS = {"simclr": 128, "moco-v3": 128, "dino": 64, "mae": 128}
"""With their batches."""

OTHERS = {
    "child-video": "sample:motion_sim",
    "rspnet": "sample:motion_sim",
    "chada-vit": "sample:cells",
    "polar-mae": "sample:particle_events",
    "anatomy": "sample:hearts_sim",
    "alice": "sample:hearts_sim",
    "clip": "sample:emoji_names",
    "mod-x": "sample:emoji_names",
}
LARGER = {"child-video": {"encoder": "video-vit-small/2x8", "batch": 8}, "rspnet": {"encoder": "r3d18", "batch": 8}}
"""Encoders nearer to the published ones, beside which what is not a module weighs less."""

SIDE, SAMPLES = 32, 4096
GROWING_BATCHES, GROWING_SIDES, AT = (16, 32, 64, 128, 256), (16, 32, 48, 64), 64
"""For growth: batches of samples with `SIDE` pixels, and sides of batches of `AT`."""

OF_HOSTS, OF_OTHERS, VIEWS = 1 / 0.9, 1.2, 15.0


def beside_bare(method: str, data: str | Path, most: float, pairs: int, **given: Any) -> tuple[list[dict[str, Any]], str]:
    """Rows of the table, of the step and of its views, and the precision that was quicker."""
    made = built(method, data, **given)
    step, twin, t = made.step(), made.step(), made.training
    batch = made.batch(step)
    sides = {
        "step": lambda: step(batch, HALFWAY),
        "bare": with_tokens(twin, batch, bare(twin, batch)),
        "views": lambda: step.see(batch, 0),
    }
    seconds = alternate(sides, pairs)
    show(seconds)
    what = f"{method}, {t.encoder} at {t.size} {kind_named(made.spec.kind).unit}, batch {t.batch}, in {t.precision}"
    share = [100 * each for each in times(seconds, "views", "step")]
    rows = [
        row(f"step of {what}", "forward and backward of the same modules, update", times(seconds, "step", "bare"), most),
        row(f"views of {what}", "that step, whole", share, VIEWS, "%"),
    ]
    return [found | {"seconds": summary(seconds)} for found in rows], t.precision


def with_tokens(step: Step, batch: Batch, modules: Callable[[], object]) -> Callable[[], object]:
    """The modules, and what an encoder of points does before its first one: finding the points of each token."""
    group = getattr(step.method.student, "group", None)
    if group is None:
        return modules
    views, _ = step.see(batch, 0)

    def call() -> None:
        for view in views.values():
            group(view)
        modules()

    return call


def growth(method: str, folder: Path, precision: str, pairs: int) -> dict[str, Any]:
    """Seconds of a step for each batch and for each side, everything else being the same."""
    given: dict[str, Any] = {"precision": precision}
    if method == "mae":
        given |= {"encoder": "vit-mini/4", "mask_ratio": 0.75}  # `auto` would change them with the number of patches

    def seconds(settings: dict[int, tuple[int, int]]) -> dict[str, Any]:
        sides: dict[str, Callable[[], object]] = {}
        for name, (batch, side) in settings.items():
            try:
                made = built(method, pictures(folder, side, SAMPLES), batch=batch, size=side, **given)
            except TacitError:  # too few negatives
                continue
            step = made.step()
            data = made.batch(step)
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
    """All methods, or one, whose rows take the place of those that were kept."""
    words = asked(pairs=7, method="")
    keep_freed_memory()  # as in a run
    kept = json.loads((RESULTS / "steps.json").read_text()) if words.method else {"rows": [], "growth": {}}
    rows = {name: [each for each in kept["rows"] if f" of {name}, " in each["what"]] for name in (*HOSTS, *OTHERS)}
    grown = kept["growth"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TACIT_CACHE"] = name
        for method, batch in HOSTS.items():
            if words.method in ("", method):
                data = pictures(folder, SIDE, SAMPLES)
                rows[method], precision = beside_bare(method, data, OF_HOSTS, words.pairs, batch=batch, size=SIDE)
                grown[method] = {"precision": precision, **growth(method, folder, precision, pairs=3)}
        for method, data in OTHERS.items():
            if words.method in ("", method):
                rows[method] = beside_bare(method, data, OF_OTHERS, words.pairs)[0]
                if method in LARGER:
                    rows[method] += beside_bare(method, data, OF_OTHERS, words.pairs, **LARGER[method])[0]
    keep(
        "steps",
        {
            "rows": [each for found in rows.values() for each in found],
            "growth": grown,
            "growth_at": {"batch": AT, "side": SIDE},
        },
    )


if __name__ == "__main__":
    main()
