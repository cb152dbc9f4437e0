"""The claims of ChAda-ViT that can be seen on a few hundred real cells, of which pictures with fewer channels are made, too."""

from __future__ import annotations

import csv
import statistics
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claim import Claim, Figures, Run, top1

import tacit
from tacit.core.draws import Draws
from tacit.data.open import open_data
from tacit.nn.channel_vit import ChannelViT
from tacit.use.run import OpenRun

TITLE = "ChAda-ViT"
SOURCES = ("yeast", "hpa_human", "nf1_schwann", "pediatric_atlas", "jump_cp", "imc_tissue")
FOLDS, SPLITS = 4, 3
"""Into how many parts cells are put, each once sought among the others; and how many times they are divided at random."""


def made(manifest: str, folder: Path, out: Path) -> Path:
    """The cells of `multichannel_cells` as files of their own, and a manifest for every question that is asked of them.

    `experiments` are all cells, of 2, 3, 5 and 6 channels, and which of 6 experiments they come from. The others are the yeast
    cells and which of 5 proteins glows in the first channel, while the second shows the cell: `two` channels, `one`, both
    `versions` side by side, one of the two made dark (`no protein`, `no cell`), and `joint-N`, where cells of one channel are
    sought among others of two. But for these there are no splits: cells are few, and one split says little.
    """
    source = folder / "multichannel_cells"
    with (source / "manifest.csv").open() as file:
        known = list(csv.DictReader(file))
    images = {name: np.load(source / f"{name}.npz")["images"] for name in SOURCES}
    sets: dict[str, list[tuple[str, ...]]] = {}

    def put(where: str, name: str, image: np.ndarray, *said: str) -> None:
        np.save(out / f"{name}.npy", image)
        sets.setdefault(where, []).append((f"{name}.npy", *said))

    for number, row in enumerate(known):
        of, label = row["source"], row["label"]
        image = images[of][int(row["index"])]
        put("experiments", f"{number}", image, of)
        if of != "yeast":
            continue
        put("two", f"{number}", image, label)
        put("one", f"{number}-one", image[:1], label)
        put("no protein", f"{number}-no-protein", image * np.array([0, 1], np.uint8)[:, None, None], label)
        put("no cell", f"{number}-no-cell", image * np.array([1, 0], np.uint8)[:, None, None], label)
        for fold in range(FOLDS):
            sought = number % FOLDS == fold
            name = f"{number}-one.npy" if sought else f"{number}.npy"
            sets.setdefault(f"joint-{fold}", []).append((name, label, "test" if sought else "train"))
    sets["versions"] = sets["two"] + sets["one"]
    for name, rows in sets.items():
        with (out / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "split")[: len(rows[0])], *rows])
    return out / f"{manifest}.csv"


def drawn(run: tacit.Run, data: str, manifest: str, protocols: Sequence[str] = ("knn",)) -> dict[str, float]:
    """Probes on another manifest beside the data: the mean over several drawn splits."""
    path = str(Path(data).with_name(f"{manifest}.csv"))
    return averaged([top1(run.evaluate(path, protocols=protocols, seed=split)) for split in range(SPLITS)], manifest)


def averaged(found: Sequence[dict[str, float]], name: str) -> dict[str, float]:
    """The means of the same figures, followed by a name."""
    return {f"{figure}, {name}": statistics.fmean(each[figure] for each in found) for figure in found[0]}


def joint(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """k-NN of cells of one channel among other cells of two, every cell once; and what the largest class alone would give."""
    paths = [Path(data).with_name(f"joint-{fold}.csv") for fold in range(FOLDS)]
    found = averaged([top1(run.evaluate(str(path), protocols=["knn"], seed=seed)) for path in paths], "joint")
    labels = Counter(row["label"] for path in paths for row in csv.DictReader(path.open()))
    return found | {"largest class": max(labels.values()) / labels.total()}


def attended(run: tacit.Run, data: str) -> dict[str, float]:
    """Among how many channels the class token's attention in the last block is spread, in cells of two: exp of its entropy."""
    opened, found = OpenRun(run.path), []
    assert isinstance(opened.encoder, ChannelViT)
    for batch in opened.loader(open_data(str(Path(data).with_name("two.csv")))):
        with torch.no_grad():
            maps = opened.encoder(opened.still(batch, Draws(0, 0, batch.ids), opened.spec), attention=True).attention
        assert maps is not None
        share = maps[:, :, 0, 1:].mean(1).unflatten(1, (2, -1)).sum(2)  # [B, 2]
        found.append(torch.special.entr(share / share.sum(1, keepdim=True)).sum(1).exp())
    return {"channels attended to": torch.cat(found).mean().item(), "channels": 2.0}


def of_experiments(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """Which experiment, and which protein the yeast cells among them have."""
    return drawn(run, data, "experiments") | drawn(run, data, "two", ("knn", "linear"))


def of_versions(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """Which protein: from two channels and from one, with either of two made dark, and from one channel among cells of two."""
    found = joint(run, data, seed) | attended(run, data)
    for manifest in ("two", "one", "no protein", "no cell"):
        found |= drawn(run, data, manifest)
    return found


def of_two(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """Which protein, from two channels."""
    return drawn(run, data, "two", ("knn", "linear"))


def of_one(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """Which protein, from the channel that shows it."""
    return drawn(run, data, "one")


OPTIONS: dict[str, Any] = {"size": 64, "batch": 32, "precision": "bfloat16", "held_back": 32}


def run(manifest: str, figures: Figures, encoder: str = "channel-vit-micro/16") -> Run:
    told = {"steps": 300, "kind": "channels"}  # one channel alone would be taken for something else
    return Run("chada-vit", "multichannel_cells", told, OPTIONS | {"encoder": encoder}, figures, partial(made, manifest))


RUNS = {
    "chada-vit": run("experiments", of_experiments),
    "chada-vit, versions": run("versions", of_versions),
    "chada-vit, two channels": run("two", of_two),
    "chada-vit, one channel": run("one", of_one),
    "chada-vit, channel by channel": run("two", of_two, "one-channel-vit-micro/16"),
}

MIXED, TWO, ONE, APART = (
    "chada-vit, versions",
    "chada-vit, two channels",
    "chada-vit, one channel",
    "chada-vit, channel by channel",
)
CLAIMS = (
    Claim("ChAda-ViT: cells, it beats the untrained encoder, k-NN", (TWO, "knn, two"), (TWO, "knn untrained, two")),
    Claim("ChAda-ViT: cells, it beats raw input, k-NN", (TWO, "knn, two"), (TWO, "knn input, two")),
    Claim("ChAda-ViT: cells, it beats the untrained encoder, linear", (TWO, "linear, two"), (TWO, "linear untrained, two")),
    Claim("ChAda-ViT: cells, it beats raw input, linear", (TWO, "linear, two"), (TWO, "linear input, two")),
    Claim(
        "ChAda-ViT: six experiments of 2 to 6 channels are told better than by the untrained encoder",
        ("chada-vit", "knn, experiments"), ("chada-vit", "knn untrained, experiments"),
    ),
    Claim(
        "ChAda-ViT: and so are the proteins of one of them",
        ("chada-vit", "knn, two"), ("chada-vit", "knn untrained, two"),
    ),
    Claim("ChAda-ViT: one encoder for one and two channels is as good on two", (MIXED, "knn, two"), (TWO, "knn, two"), -5),
    Claim("ChAda-ViT: and on one as one of its own", (MIXED, "knn, one"), (ONE, "knn, one"), -5),
    Claim("ChAda-ViT: it beats a transformer for each channel", (TWO, "knn, two"), (APART, "knn, two")),
    Claim("ChAda-ViT: cells of one channel find cells of two", (MIXED, "knn, joint"), (MIXED, "largest class"), 10),
    Claim("ChAda-ViT: better than untrained", (MIXED, "knn, joint"), (MIXED, "knn untrained, joint")),
    Claim("ChAda-ViT: it needs the protein's channel more", (MIXED, "knn, no cell"), (MIXED, "knn, no protein")),
    Claim("ChAda-ViT: it attends to more than one", (MIXED, "channels attended to"), (MIXED, "channels"), -0.5, 1),
)  # fmt: skip
