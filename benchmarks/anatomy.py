"""Whether a trained anatomy finds the same place in another body (claim 2 of Alice's card), three seeds.

    python benchmarks/anatomy.py DATA --seeds 0 1 2

DATA is a folder of volumes (NIfTI) with label maps of the same grid, and a `manifest.csv` with the columns `file`, `seg` and
`split`. The anatomy is trained on the volumes of `train`, without a label. Landmarks are the centroids of labels: each one of
each volume of `test` is looked for in every other volume of `test`, and the error is the distance to that volume's own
centroid. Beside it: the same relative position in the body's box, and the network before training. Runs are counted in steps,
so that the figures do not depend on the machine. Writes `benchmarks/results/anatomy.json`; a file that exists is added to, so
that a cut-off benchmark goes on. `--table` prints what was found.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import layout
import nibabel
import numpy as np
import torch
from cells import Cells, attempted

import tacit
from tacit.core import files
from tacit.data.spec import Batch, Spec
from tacit.methods.anatomy import Anatomy
from tacit.nn.anatomy import FINE
from tacit.train import needs
from tacit.train.folder import RunFolder
from tacit.views.volume import to_unit
from tacit.views.volume_crops import body_box, descriptors, match, same_position

RESULTS = Path(__file__).parent / "results" / "anatomy.json"
WAYS = {
    "trained": "found by the trained anatomy",
    "position": "at the same relative position",
    "untrained": "found by the untrained network",
}
SHOWN = {"": "volumes as they lie", "cut ": "volumes cut at random"}
OFF = 0.25
"""The largest share of a volume that is taken off at one side."""


class Scan(NamedTuple):
    """A volume `[1, D, H, W]` as tacit turns it, centroids of its labels in voxels `[L, 3]`, and millimetres to a voxel."""

    voxels: np.ndarray
    centres: np.ndarray
    spacing: np.ndarray

    def cut(self, drawn: np.random.Generator) -> Scan:
        """The same scan with less around it: up to a quarter of each axis off either end, never a landmark."""
        sides = np.array(self.voxels.shape[1:])
        low = (drawn.random(3) * np.minimum(OFF * sides, self.centres.min(axis=0))).astype(int)
        high = sides - (drawn.random(3) * np.minimum(OFF * sides, sides - 1 - self.centres.max(axis=0))).astype(int)
        kept = self.voxels[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        return Scan(kept, self.centres - low, self.spacing)


def scan(folder: Path, row: dict[str, str]) -> Scan:
    """The scan that a row of the manifest names."""
    image, labels = (nibabel.as_closest_canonical(nibabel.load(folder / row[name])) for name in ("file", "seg"))
    voxels, marks = (np.asarray(each.dataobj).transpose(2, 1, 0) for each in (image, labels))
    centres = [np.argwhere(marks == label).mean(axis=0) for label in np.unique(marks) if label]
    return Scan(voxels[None], np.array(centres), np.array(image.header.get_zooms()[2::-1]))


def errors(scans: list[Scan], spec: Spec, anatomies: dict[str, Anatomy]) -> dict[str, list[float]]:
    """Millimetres between where a landmark is found and where it lies, of every ordered pair of scans, by way."""
    batch = Batch.padded(torch.arange(len(scans)), [each.voxels for each in scans])
    said = {
        way: [descriptors(*(torch.from_numpy(each)[None] for each in maps)) for _, maps in anatomy.describe([batch])]
        for way, anatomy in anatomies.items()
    }
    boxes = [body_box(to_unit(torch.from_numpy(each.voxels)[None], spec)) for each in scans]
    same = torch.ones(1, 3)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for i, (_, here, _) in enumerate(scans):
        points = torch.from_numpy(here.round()).long()[None]
        for j, (_, there, spacing) in enumerate(scans):
            if i == j:
                continue
            places = {"position": same_position(points, boxes[i], boxes[j])}
            for way, maps in said.items():
                cells, _ = match(maps[i], maps[j], points, same, same, FINE, batch.sizes[j : j + 1])
                places[way] = cells + (FINE - 1) / 2  # the middle of the cell
            for way, place in places.items():
                found[way] += np.linalg.norm((place[0].numpy() - there) * spacing, axis=1).tolist()
    return found


def measure(folder: Path, seed: int, steps: int) -> dict[str, Any]:
    """Mean errors of one seed, in millimetres."""
    with open(folder / "manifest.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    with tempfile.TemporaryDirectory() as place:
        names = [str((folder / row["file"]).absolute()) for row in rows if row["split"] == "train"]
        files.write_text(Path(place) / "train.csv", "\n".join(["path", *names]) + "\n")
        options = {"seed": seed, "batch": 8, "held_back": 4, "precision": "float32", "stop_on": "none"}
        run = tacit.pretrain("anatomy", Path(place) / "train.csv", out=Path(place) / "run", steps=steps, options=options)
        folder_of = RunFolder(run.path)
        anatomies: dict[str, Any] = {
            "trained": needs.trained(folder_of, {"anatomy": {"path": "."}})["anatomy"],
            "untrained": needs.untrained({"anatomy": needs.given("anatomy", run.path, "anatomy")})["anatomy"],
        }
        whole = [scan(folder, row) for row in rows if row["split"] == "test"]
        drawn = np.random.default_rng(seed)
        row: dict[str, Any] = {"verdict": run.verdict["verdict"]}
        for shown, scans in zip(SHOWN, (whole, [each.cut(drawn) for each in whole]), strict=True):
            found = errors(scans, Spec.from_dict(run.config["spec"]), anatomies)
            row |= {f"{shown}{way} mm": round(statistics.fmean(each), 3) for way, each in found.items()}
            row |= {f"{shown}{way} median mm": round(statistics.median(each), 3) for way, each in found.items()}
            row["pairs"] = len(found["trained"])
        return row


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: mean error by way, over seeds, and whether the claim showed."""
    done = [row for row in found if "stopped" not in row]
    if not done:
        return "Not measured yet."
    lines = []
    for way, says in WAYS.items():
        cells = []
        for shown in SHOWN:
            means, medians = ([row[f"{shown}{way} {figure}"] for row in done] for figure in ("mm", "median mm"))
            spread = f" ± {statistics.stdev(means):.2f}" if len(set(means)) > 1 else ""
            cells += [f"{statistics.fmean(means):.2f}{spread}", f"{statistics.fmean(medians):.2f}"]
        lines.append([says, *cells])
    head = [
        "landmarks of the other body",
        *(f"{says}: {what}" for says in SHOWN.values() for what in ("mean error in mm", "median")),
    ]
    claims = " ".join(claimed(done, shown) for shown in SHOWN)
    seeds, pairs, steps = len(done), done[0]["pairs"], done[0]["steps"]
    text = layout.table(head, lines)
    return f"{text}\n\n{claims} {seeds} seed(s), {steps} steps each, {pairs} landmarks looked for."


def claimed(done: list[dict[str, Any]], shown: str) -> str:
    """Whether the error is less by a fifth than at the same relative position, in a sentence."""
    trained, position = (statistics.fmean(row[f"{shown}{way} mm"] for row in done) for way in ("trained", "position"))
    fall = 1 - trained / position
    way = "falls" if fall >= 0 else "rises"
    answer = "yes" if fall >= 0.2 else "no"
    found = f"the error {way} by {abs(fall):.0%} against the same relative position"
    return f"Shown on {SHOWN[shown]}: {answer}; {found} (claimed: it falls by 20 %)."


def main() -> None:
    """Run what is missing, and print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("data", nargs="?", type=Path)
    words.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    words.add_argument("--steps", type=int, default=400)
    words.add_argument("--table", action="store_true", help="only print the table of what was measured")
    asked = words.parse_args()
    cells = Cells(RESULTS)
    for seed in asked.seeds if not asked.table else ():
        cell = {"data": asked.data.name, "seed": seed, "steps": asked.steps}
        if cells.missing(cell):
            cells.add(cell, attempted(cell, partial(measure, asked.data, seed, asked.steps)))
    print(table(cells.content["runs"]))


if __name__ == "__main__":
    main()
