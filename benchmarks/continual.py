"""A stream of pairs in three phases: what Mod-X keeps of the first, and what plain fine-tuning loses. Three seeds.

    python benchmarks/continual.py --work FOLDER --seeds 0 1 2

The pairs are emoji on a coloured ground at one of nine places, captioned "a comet on green, top left"; each phase has emoji
of its own. Every method starts from the same first model and sees the same batches. Runs lie below FOLDER: what was cut off
goes on there, and what is written down in `benchmarks/results/continual.json` is not measured again. `--table` prints what was
found.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import layout
import numpy as np
import torch
from pairs import RESULTS
from PIL import Image

import tacit
from tacit.core import files
from tacit.data.open import open_data
from tacit.data.phases import bounds
from tacit.data.samples import SAMPLES
from tacit.data.text.wording import captions_of
from tacit.evaluation.angles import deviation, rotation, topology_change
from tacit.evaluation.recall import recall
from tacit.train.folder import RunFolder, read_table
from tacit.train.machine import describe
from tacit.use.run import OpenRun
from tacit.use.towers import Towers

FILE = RESULTS / "continual.json"
PHASES, SIDE, TEST = 3, 32, 256
GROUNDS = {
    "red": (220, 60, 60), "green": (70, 170, 80), "blue": (60, 90, 210), "yellow": (235, 215, 70), "purple": (140, 70, 180),
    "orange": (240, 150, 50), "pink": (245, 160, 200), "brown": (130, 90, 60), "grey": (150, 150, 150), "black": (20, 20, 20),
}  # fmt: skip
PLACES = [f"{row} {column}" for row in ("top", "middle", "bottom") for column in ("left", "centre", "right")]
EMOJI = 24
"""Of each phase."""

SHARED: dict[str, Any] = {
    "encoder": "clip-vit-micro/4", "size": SIDE, "batch": 64, "precision": "float32", "held_back": 64, "stop_on": "none",
    "area": 1.0, "flip": 0.0, "checkpoint_every": "2m",
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "fine-tuning": {"alpha": 0.0},
    "mod-x": {},
    "mod-x, not screened": {"screen": False},
    "jointly": {"alpha": 0.0},
}
"""Options of the phases after the first; `jointly` is trained on the pairs of all phases together, once."""

Features = tuple[torch.Tensor, torch.Tensor]


# The stream -----------------------------------------------------------------------------------------------------------


def made(folder: Path) -> None:
    """The pictures, a manifest of each phase, of each phase's test pairs, and of all phases together."""
    source = SAMPLES["emoji_names"].folder
    with np.load(source / "images.npz") as arrays, open(source / "manifest.csv", newline="") as table:
        blob, starts = arrays["blob"], arrays["offset"]
        named = [(row["caption"], number) for number, row in enumerate(csv.DictReader(table)) if row["caption"].isalpha()]
    chosen = np.random.default_rng(0).permutation(len(named))[: PHASES * EMOJI]
    whole: list[tuple[str, str]] = []
    for phase, emoji in enumerate(chosen.reshape(PHASES, EMOJI)):
        pairs = []
        for which, ground, place in itertools.product(emoji, GROUNDS, range(len(PLACES))):
            caption, number = named[which]
            path = f"{phase}/{caption}-{ground}-{place}.png"
            glyph = Image.open(io.BytesIO(blob[starts[number] : starts[number + 1]].tobytes()))
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(drawn(glyph, GROUNDS[ground], divmod(place, 3)))
            pairs.append((path, f"a {caption} on {ground}, {PLACES[place]}"))
        order = np.random.default_rng(phase).permutation(len(pairs))
        written(folder / f"test-{phase}.csv", [pairs[row] for row in order[:TEST]])
        whole += [pairs[row] for row in order[TEST:]]
    cuts = bounds(len(whole), PHASES)
    for phase, (start, stop) in enumerate(itertools.pairwise(cuts)):
        written(folder / f"phase-{phase}.csv", whole[start:stop])
    written(folder / "all.csv", whole)


def drawn(glyph: Image.Image, ground: tuple[int, int, int], cell: tuple[int, int]) -> bytes:
    """The glyph at its place on the ground, which shows through where the glyph is white: a PNG."""
    side = SIDE // 2
    small = np.asarray(glyph.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    picture = np.broadcast_to(np.array(ground, dtype=np.float32), (SIDE, SIDE, 3)).copy()
    top, left = (index * (SIDE - side) // 2 for index in cell)
    picture[top : top + side, left : left + side] *= small
    file = io.BytesIO()
    Image.fromarray(picture.round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def written(path: Path, pairs: Sequence[tuple[str, str]]) -> None:
    with io.StringIO(newline="") as text:
        csv.writer(text).writerows([("path", "caption"), *pairs])
        files.write_text(path, text.getvalue())


# Runs -----------------------------------------------------------------------------------------------------------------


def features(run: Path, data: Path) -> Features:
    """Of the pictures and of their captions, by the towers of a run."""
    opened, collection = OpenRun(run, "cpu"), open_data(data, kind="pair")
    towers = Towers(opened).trained()
    pictures = torch.cat([towers.pictures(batch) for batch in opened.loader(collection)])
    return pictures, towers.read([captions_of(collection.index.table, row)[0] for row in range(len(collection))])


def found(pair: Features) -> float:
    """Recall@1, the mean of both directions, in per cent."""
    return 50 * sum(direction.at(1) for direction in recall(*pair))


def measure(name: str, seed: int, folder: Path, first_steps: int, steps: int) -> dict[str, Any]:
    """All phases of one method, from a first model that is shared by all."""
    work = folder / f"seed-{seed}"

    def trained(method: str, data: str, out: str, count: int, **more: Any) -> Path:
        run = tacit.pretrain(
            method, folder / data, out=work / out, steps=count, options=SHARED | {"seed": seed} | more.pop("options", {}),
            device="cpu", resume=True, **more,
        )  # fmt: skip
        return run.path

    first = trained("clip", "phase-0.csv", "first", first_steps)
    previous, row = first, {"method": name, "seed": seed, "first": found(features(first, folder / "test-0.csv")), "phases": []}
    stages = [("all.csv", PHASES - 1)] if name == "jointly" else [(f"phase-{phase}.csv", phase) for phase in range(1, PHASES)]
    for data, phase in stages:
        count = steps * (PHASES - 1) if name == "jointly" else steps
        out = f"{name.replace(', ', '-').replace(' ', '-')}-{phase}"
        run = trained("mod-x", data, out, count, options=METHODS[name], needs={"previous": previous})
        row["phases"].append({"phase": phase, **after(run, first, folder, phase)})
        previous = run
    return row


def after(run: Path, first: Path, folder: Path, phase: int) -> dict[str, Any]:
    """What a model is like after a phase, beside the first one."""
    old, new = (features(model, folder / "test-0.csv") for model in (first, run))
    watched = read_table(RunFolder(run).metrics)
    turned = {side: rotation(old[which], new[which]).median() for which, side in enumerate(("pictures", "captions"))}
    change = {side: topology_change(old[which], new[which]) for which, side in enumerate(("pictures", "captions"))}
    said = ("kept_pictures", "kept_captions", "align_share")
    return {
        "old": found(new),
        "new": found(features(run, folder / f"test-{phase}.csv")),
        "all": statistics.fmean(found(features(run, folder / f"test-{each}.csv")) for each in range(phase + 1)),
        "deviation": float(deviation(old[0], new[0], old[1], new[1]).median()),
        "rotation": {side: float(value) for side, value in turned.items()},
        "topology": {side: float(value) for side, value in change.items()},
        **{name: statistics.fmean(value for value in watched[name] if value is not None) for name in said if name in watched},
    }


# What was found -------------------------------------------------------------------------------------------------------

Row = dict[str, Any]


def over(rows: list[Row], name: str, figure: Callable[[Row], float]) -> list[float]:
    """A figure of a method, seed by seed."""
    return [figure(row) for row in sorted(rows, key=lambda row: row["seed"]) if row["method"] == name]


def spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def last(figure: str) -> Callable[[Row], float]:
    return lambda row: row["phases"][-1][figure]


def mean(figure: str) -> Callable[[Row], float]:
    """Over the phases after the first."""
    return lambda row: statistics.fmean(phase[figure] for phase in row["phases"])


def claims(rows: list[Row]) -> list[tuple[str, str, bool]]:
    """What the paper says, what was found, and whether that shows it."""

    def gain(one: str, other: str, figure: Callable[[Row], float]) -> float:
        pairs = zip(over(rows, one, figure), over(rows, other, figure), strict=True)
        return statistics.fmean(mine - theirs for mine, theirs in pairs)

    forgotten = statistics.fmean(over(rows, "fine-tuning", lambda row: row["first"] - row["phases"][-1]["old"]))
    old, new = gain("mod-x", "fine-tuning", mean("old")), gain("mod-x", "fine-tuning", mean("new"))
    free = gain("mod-x", "mod-x, not screened", mean("new"))
    apart = gain("mod-x", "fine-tuning", last("deviation"))
    turn = statistics.fmean(
        statistics.fmean(row["phases"][-1]["rotation"].values()) for row in rows if row["method"] == "mod-x"
    )
    form = statistics.fmean(
        statistics.fmean(row["phases"][-1]["topology"].values()) for row in rows if row["method"] == "mod-x"
    )
    return [
        (
            "Fine-tuning forgets: 5 points or more of the first pairs (else the stream is too easy)",
            f"{forgotten:.1f}",
            forgotten >= 5,
        ),
        ("Mod-X forgets less: 3 points or more", f"{old:+.1f}", old >= 3),
        ("It learns the new pairs as well: within 2 points", f"{new:+.1f}", new >= -2),
        ("Without screening new pairs are learned worse", f"{free:+.1f} with it", free > 0),
        ("Its two towers turn less differently", f"{apart:+.1f} degrees", apart < 0),
        (
            "Angles among samples change by less than half of what samples turn",
            f"{form:.1f} of {turn:.1f} degrees",
            form < turn / 2,
        ),
    ]


def table(rows: list[Row]) -> str:
    """Markdown: recall of old and new pairs after each phase, how the towers turned, and the claims."""
    heads = [f"{which} {phase + 1}" for phase in range(1, PHASES) for which in ("old after phase", "new after phase")]
    lines = []
    for name in METHODS:
        mine = [row for row in rows if row["method"] == name]
        if not mine:
            lines.append([name, *[""] * (len(heads) + 4)])
            continue
        cells = [spread([row["first"] for row in mine])]
        for phase, which in itertools.product(range(1, PHASES), ("old", "new")):
            values = [stage[which] for row in mine for stage in row["phases"] if stage["phase"] == phase]
            cells.append(spread(values) if values else "")
        turned = [spread([row["phases"][-1]["rotation"][side] for row in mine]) for side in ("pictures", "captions")]
        cells += [spread(over(rows, name, last("all"))), spread(over(rows, name, last("deviation"))), " / ".join(turned)]
        lines.append([name, *cells])
    text = layout.table(["method", "first", *heads, "all", "deviation", "pictures / captions turned"], lines)
    whole = set.intersection(*({row["seed"] for row in rows if row["method"] == name} for name in METHODS))
    if whole:
        found = claims([row for row in rows if row["seed"] in whole])
        shown = ((says, str(value), "yes" if shown else "no") for says, value, shown in found)
        text += "\n\n" + layout.table(["claim", "found", "shown"], shown)
    return text


def main() -> None:
    """Measure what is missing, and print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tacit-continual")
    words.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    words.add_argument("--first", type=int, default=600, help="steps of the first model")
    words.add_argument("--steps", type=int, default=400, help="steps of a phase")
    words.add_argument("--out", type=Path, default=FILE)
    words.add_argument("--table", action="store_true")
    asked = words.parse_args()
    content = json.loads(asked.out.read_text()) if asked.out.exists() else {"machine": describe(), "runs": []}
    if not asked.table:
        content["steps"] = [asked.first, asked.steps]
        if not (asked.work / "all.csv").exists():
            made(asked.work)
        for seed, name in itertools.product(asked.seeds, METHODS):
            if any((row["method"], row["seed"]) == (name, seed) for row in content["runs"]):
                continue
            content["runs"].append(measure(name, seed, asked.work, asked.first, asked.steps))
            files.write_json(asked.out, content)
            print(json.dumps(content["runs"][-1]), flush=True)
    print(table(content["runs"]))


if __name__ == "__main__":
    main()
