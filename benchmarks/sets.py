"""The sets of the benchmarks of quality: those that `auto`'s rules were made with, and others that nobody looked at then."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tacit.data.open import measure, open_data
from tacit.evaluation.task import Task

SETS = (
    "cifar10_subset", "omniglot_small", "clothing96", "flowers96",
    "fashion_mnist_sprite", "birds10", "yeast_cells", "wbc_types",
)  # fmt: skip
UNSEEN = ("faces_orl", "emoji_groups", "street_patches", "spoken_digits")
STREET = {0: "sky", 1: "building", 3: "road", 4: "pavement", 5: "tree", 8: "car"}
"""What is on at least half of a patch of 32 pixels often enough to be asked for, by its number in the masks."""

Made = tuple[np.ndarray, list[dict[str, Any]]]
"""Pixels `[N, H, W, C]`, and a row for each with its `label` and `split`."""


class Sets:
    """The sets by name, below a folder; what has to be converted first is written to another one."""

    def __init__(self, folder: Path, made: Path) -> None:
        self.folder, self.made = folder, made
        self.converted: dict[str, Callable[[], Made]] = {
            "yeast_cells": self.yeast,
            "emoji_groups": self.emoji,
            "street_patches": self.street,
            "spoken_digits": self.spoken,
        }

    @cache  # noqa: B019 - there is one for the whole command
    def __call__(self, name: str) -> str:
        if name not in self.converted:
            return str(self.folder / name)
        pixels, rows = self.converted[name]()
        out = self.made / name
        out.mkdir()
        np.savez(out / "images.npz", images=pixels)
        with (out / "manifest.csv").open("w") as manifest:
            kept = csv.DictWriter(manifest, ["index", "label", "split"])
            kept.writeheader()
            kept.writerows({"index": i, "label": row["label"], "split": row["split"]} for i, row in enumerate(rows))
        return str(out)

    @cache  # noqa: B019
    def pictures(self, name: str) -> Path:
        """A folder with all pictures in three channels, for `peers/train.py`; grey three times, a third channel empty."""
        data, pixels = open_data(self(name)), decoded(self(name))
        missing = 3 - pixels.shape[-1]
        full = np.repeat(pixels, 3, axis=-1) if missing == 2 else np.pad(pixels, [(0, 0)] * 3 + [(0, missing)])
        out = self.made / f"{name}-pictures"
        out.mkdir()
        np.save(out / "images.npy", full)
        np.save(out / "train.npy", Task.of(name, data, measure(data)).split.train.numpy())
        return out

    def yeast(self) -> Made:
        """The yeast cells of `multichannel_cells`: two channels, and the protein that glows as the label."""
        rows = [row for row in table(self.folder / "multichannel_cells/manifest.csv") if row["source"] == "yeast"]
        rows.sort(key=lambda row: int(row["index"]))
        return np.load(self.folder / "multichannel_cells/yeast.npz")["images"].transpose(0, 2, 3, 1), rows

    def emoji(self) -> Made:
        """Emoji, and the group that a word of their name puts them into."""
        source = self.folder / "emoji_names"
        rows = [row | {"label": row["group"]} for row in table(source / "manifest.csv")]
        return decoded(source), rows

    def street(self) -> Made:
        """Patches of 32 pixels of `camvid_small` of which at least half shows the same."""
        source, pixels, rows = self.folder / "camvid_small", [], []
        frames = zip(decoded(source), decoded(source / "masks.npz")[..., 0], table(source / "manifest.csv"), strict=True)
        for shown, kinds, row in frames:
            for y in range(0, shown.shape[0] - 31, 32):
                for x in range(0, shown.shape[1] - 31, 32):
                    counts = np.bincount(kinds[y : y + 32, x : x + 32].ravel())
                    if counts.max() >= 512 and (most := int(counts.argmax())) in STREET:
                        pixels.append(shown[y : y + 32, x : x + 32])
                        rows.append({"label": STREET[most], "split": row["split"]})
        return np.stack(pixels), rows

    def spoken(self) -> Made:
        """Spoken digits as pictures of 64 pixels: time to the right, pitch upwards to 4 kHz, brightness for 80 dB."""
        source = self.folder / "spoken_digits"
        rows = list(table(source / "manifest.csv"))
        sound = {name: heard(source / name) for name in {row["file"] for row in rows}}
        window, pixels = torch.hann_window(254), []
        for row in rows:
            clip = sound[row["file"]][int(row["start"]) : int(row["end"])]
            loud = 20 * torch.stft(clip, 254, 64, window=window, return_complex=True).abs().clamp(min=1e-6).log10()
            grey = ((loud - loud.max()) / 80 + 1).clamp(0, 1).flip(0)  # [128, frames]
            picture = Image.fromarray((255 * grey).round().byte().numpy())
            pixels.append(np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR))[..., None])
        return np.stack(pixels), rows


def table(file: Path) -> Iterable[dict[str, str]]:
    """The rows of a CSV file."""
    with file.open() as lines:
        yield from csv.DictReader(lines)


def decoded(data: str | Path) -> np.ndarray:
    """All samples, `[N, H, W, C]`, which are of one size."""
    collection = open_data(data)
    return np.stack([collection.decode(row) for row in range(len(collection))])


def heard(file: Path) -> torch.Tensor:
    """A recording of one voice, between -1 and 1."""
    import av  # which all other sets do without

    with av.open(str(file)) as recording:
        frames = [frame.to_ndarray().ravel() for frame in recording.decode(audio=0)]
    return torch.from_numpy(np.concatenate(frames)).float()
