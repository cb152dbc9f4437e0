"""How long a step takes when more of its tokens are hidden, beside the share of tokens that are seen.

python benchmarks/masking.py [--pairs 5] [--size tiny] [--batch 32]

Whole steps on bundled samples, with the options that `auto` takes but for the encoder, which has the same width and depth
everywhere. Something has to be hidden for a loss: 2 % stand for nothing. Decoders see all tokens whatever is hidden.
`alice` is not here: its student sees hidden voxels as zeros, in windows that need a whole grid, so that hiding saves nothing.
Goal: with three quarters hidden, at most 0.6 times as long (what the card of MAE asks for).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from built import HALFWAY, built
from lines import Panel, drawn
from pairs import RESULTS, alternate, asked, keep, row, show, summary, times

from tacit.core.allocator import keep_freed_memory

PICTURE = Path(__file__).parents[1] / "docs/images/masking.svg"
TITLE, DRAWN = "Time of a step against the share of hidden tokens, beside the share of tokens that are seen", ("masking",)
"""Of the picture, and which results it is drawn from."""

RATIOS = (0.02, 0.25, 0.5, 0.75, 0.9)
LEAST, JUDGED, MOST = RATIOS[0], 0.75, 0.6


class Case(NamedTuple):
    """What a method is measured with; everything else is what `auto` takes. Of encoders, what stands around their size."""

    data: str
    encoder: str
    given: dict[str, Any]


CASES = {
    "mae": Case("sample:clothing96", "vit-{}/8", {"size": 96}),
    "child-video": Case("sample:motion_sim", "video-vit-{}/2x8", {}),
    "polar-mae": Case("sample:particle_events", "point-vit-{}", {}),
}


def steps_of(name: str, case: Case, size: str, batch: int) -> tuple[dict[float, Callable[[], object]], str]:
    """A step for each ratio, all on one batch and from the same first weights; and what they are, in words."""
    encoder = case.encoder.format(size)
    made = built(name, case.data, encoder=encoder, batch=batch, precision="float32", **case.given)
    steps = {ratio: made.step(mask_ratio=ratio) for ratio in RATIOS}
    samples = made.batch(steps[LEAST])
    said = f"{name}, {encoder}, batch {batch}, in float32"
    return {ratio: lambda step=step: step(samples, HALFWAY) for ratio, step in steps.items()}, said


def case(name: str, size: str, batch: int, pairs: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of the table, and seconds for each ratio."""
    steps, said = steps_of(name, CASES[name], size, batch)
    seconds = alternate({str(ratio): step for ratio, step in steps.items()}, pairs)
    show(seconds)
    what, beside = f"step of {said}, with {JUDGED:.0%} of the tokens hidden", f"the same step with {LEAST:.0%} hidden"
    return row(what, beside, times(seconds, str(JUDGED), str(LEAST)), MOST), summary(seconds)


def chart() -> str:
    """Each method's step in per cent of the one that hides least, and the share of tokens that are seen."""
    panels = []
    for name, found in json.loads((RESULTS / f"{DRAWN[0]}.json").read_text())["seconds"].items():
        whole = found[str(LEAST)]["median"]
        lines = [(100 * float(ratio), 100 * spread["median"] / whole) for ratio, spread in found.items()]
        expected = [(at, 100 * (100 - at) / (100 - 100 * LEAST)) for at, _ in lines]
        panels.append(Panel(f"{name}: % of a step", "% of the tokens hidden", {name: lines}, {name: expected}))
    return drawn(TITLE, panels)


def main() -> None:
    """All methods."""
    words = asked(pairs=5, size="tiny", batch=32)
    keep_freed_memory()  # as in a run
    rows, seconds = [], {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TACIT_CACHE"] = folder
        for name in CASES:
            found, seconds[name] = case(name, words.size, words.batch, words.pairs)
            rows.append(found)
    keep("masking", {"rows": rows, "seconds": seconds})


if __name__ == "__main__":
    main()
