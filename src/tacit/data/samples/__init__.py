"""Small real data sets that come with tacit: `sample:NAME`. This module imports nothing, so that listing them is instant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """A bundled data set.

    Attributes:
        name: as in `sample:NAME`.
        kind: the kind of data.
        count: how many samples, train and test together.
        size: what a sample looks like.
        labels: what its labels say; they serve evaluation only.
        licence: SPDX name.
        source: where it comes from.
        attribution: what the licence asks to be said.
    """

    name: str
    kind: str
    count: int
    size: str
    labels: str
    licence: str
    source: str
    attribution: str

    @property
    def folder(self) -> Path:
        return Path(__file__).parent / self.name


SAMPLES = {
    sample.name: sample
    for sample in (
        Sample(
            "omniglot_small",
            "image",
            4840,
            "35x35 grey",
            "242 characters of 8 alphabets; group: who drew it",
            "MIT",
            "https://github.com/brendenlake/omniglot",
            "Omniglot, Copyright (c) 2015 Brenden Lake; characters averaged from 105 to 35 pixels, ink made bright",
        ),
        Sample(
            "clothing96",
            "image",
            740,
            "96x96 RGB",
            "10 sorts of garment",
            "CC0-1.0",
            "https://github.com/alexeygrigorev/clothing-dataset-small",
            "Clothing dataset (small), collected by Alexey Grigorev and contributors; cut to 96 pixels",
        ),
        Sample(
            "fashion_mnist_sprite",
            "image",
            900,
            "28x28 grey",
            "10 sorts of garment",
            "MIT",
            "https://github.com/zalandoresearch/fashion-mnist",
            "Fashion-MNIST, Copyright (c) 2017 Zalando SE; cut out of the overview picture of its documentation",
        ),
        Sample(
            "bccd_cells",
            "image",
            100,
            "320x240 RGB",
            "none",
            "MIT",
            "https://github.com/Shenggan/BCCD_Dataset",
            "BCCD Dataset, Copyright (c) 2017 shenggan; blood smears halved in size",
        ),
        Sample(
            "emoji_names",
            "image",
            1351,
            "48x48 RGB",
            "groups guessed from words of the Unicode name; caption: the name",
            "Apache-2.0",
            "https://github.com/googlefonts/noto-emoji",
            "Noto Emoji, Copyright 2013 Google LLC; drawn at 48 pixels on white",
        ),
        Sample(
            "cells",
            "channels",
            166,
            "64x64x6, or 3 or 5 channels",
            "which of 4 experiments, and of the first which of 5 wells",
            "BSD-3-Clause AND CC-BY-4.0",
            "https://github.com/cytomining/CytoDataFrame",
            "cells from test data of CytoDataFrame (Cytomining), tissue from TestData, (c) 2021 BodenmillerGroup; cut out",
        ),
        Sample(
            "motion_sim",
            "video",
            168,
            "16 frames of 64x64",
            "8 sorts of motion",
            "Apache-2.0",
            "https://mujoco.org",
            "simulated with MuJoCo for tacit: single bodies that roll, fall, fly, spin, swing, slide and collide",
        ),
        Sample(
            "moving_garments",
            "video",
            640,
            "16 frames of 32x32",
            "8 directions that a garment moves in",
            "MIT",
            "https://github.com/zalandoresearch/fashion-mnist",
            "pictures of Fashion-MNIST, Copyright (c) 2017 Zalando SE, coloured and set in motion: the motions are simulated",
        ),
        Sample(
            "hearts_sim",
            "volume",
            72,
            "36x36x36 at 3.6 mm, with label maps",
            "normal, dilated, hypertrophic or weak; maps of both cavities and the wall",
            "Apache-2.0",
            "simulated for tacit out of ellipsoids",
            "simulated for tacit out of ellipsoids: hearts at the end of a beat, with noise and a bias field; no patient data",
        ),
        Sample(
            "particle_events",
            "points",
            70,
            "typically 1136 points, with an energy",
            "none",
            "Apache-2.0",
            "https://arxiv.org/abs/2502.02558",
            "simulated for tacit, after the form of liquid-argon detector events: tracks and showers of toy physics",
        ),
        Sample(
            "scanned_objects",
            "points",
            166,
            "512 points, one-sided",
            "box or cylinder",
            "BSD-3-Clause",
            "https://github.com/PointCloudLibrary/data",
            "mOSD, Copyright (c) 2013, Point Cloud Library (PCL); objects cut out, thinned to 512 points, scaled",
        ),
    )
}


def overview() -> str:
    """One line per data set, for a terminal."""
    rows = [(f"sample:{s.name}", s.kind, str(s.count), s.size, s.licence, s.labels) for s in SAMPLES.values()]
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(5)]
    lines = ["".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows]
    return "\n".join([*lines, "", "Use one wherever data is asked for: tacit pretrain simclr sample:omniglot_small"])
