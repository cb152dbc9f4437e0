"""What is attacked of the kinds beside images: their formats, and what a run keeps of captions."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

import tacit
from tacit.core.draws import Draws
from tacit.data.collection import Collection
from tacit.data.kinds.kind import choose
from tacit.data.open import open_data
from tacit.data.payload import Unreadable
from tacit.data.text.tokenizer import Tokenizer
from tacit.data.text.wording import Wording, Words, every_caption
from tacit.data.window import Box, Clip, Spread, Window, cut
from tacit.train.loop import Loop
from tests.fuzz import seeds, seeds_kinds
from tests.fuzz.target import ROWS, SMALL, Enough, Target, file, once

WORDING = Wording(vocabulary=600, context=8)
WINDOWS: dict[str, Window] = {"video": Clip(4, 2), "channels": Box((2, 5, 7)), "volume": Box((3, 4, 5)), "points": Spread(5)}
"""What a view would be cut from."""


def targets() -> Iterator[Target]:
    """All of them."""
    formats = {
        "video": seeds_kinds.films(),
        "channels": seeds_kinds.stacks(),
        "volume": seeds_kinds.volumes(),
        "points": seeds_kinds.clouds(),
    }
    for kind, files in formats.items():
        for name, content in files.items():
            yield Target(
                f"{kind}/{name}", file(f"data/{name}", content), lambda folder, kind=kind: _seen(folder / "data", kind)
            )
    for name, packed in (("series.dcm", False), ("rle.dcm", True)):
        yield Target(f"volume/{name}", _series(packed), lambda folder: _seen(folder / "data", "volume"))
    for kind, axes in (("channels", "cyx"), ("volume", "zyx")):
        for name in seeds_kinds.STORED:
            yield Target(f"{kind}/zarr-{name}", _store(axes, name), lambda folder, kind=kind: _seen(folder / "data", kind))
    for name, content in seeds_kinds.pairs().items():
        yield Target(f"pair/{name}", file(name, content, beside=True), lambda folder, name=name: _paired(folder / name))
    yield from _runs()


def _series(packed: bool) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        (folder / "data").mkdir()
        for number, content in enumerate(seeds_kinds.slices(packed=packed)):
            (folder / "data" / f"{number}.dcm").write_bytes(content)
        return folder / "data" / "1.dcm"

    return prepare


def _store(axes: str, name: str) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        version, attacked = seeds_kinds.STORED[name]
        seeds_kinds.store(folder / "data" / "scan.zarr", axes, version, (2, 24, 20) if name == "shard" else None)
        return folder / "data" / "scan.zarr" / attacked

    return prepare


def _seen(data: Path, kind: str) -> None:
    """Sniffed, listed, decoded in part and whole."""
    path = min(data.iterdir(), key=lambda path: path.name != "1.dcm")
    if path.is_file():
        choose([path.name], path.read_bytes())
    found = open_data(data, kind=kind, limits=SMALL)
    window, seen = WINDOWS[kind], {}

    def part(extent: Sequence[int]) -> tuple[np.ndarray, ...]:
        seen["places"] = window(extent, [0.5] * window.drawn)
        return seen["places"]

    bad = None
    try:
        seen["part"] = _sound(found, found.decode(0, part=part))
        assert seen["part"].shape[: len(seen["places"])] == tuple(map(len, seen["places"]))
    except Unreadable as problem:
        bad = problem
    whole = _sound(found, found.decode(0))
    found.glance(0, side=12)
    if "part" in seen and kind != "video":  # what can be decoded of a broken film depends on where one begins
        assert np.array_equal(seen["part"], cut(whole, seen["places"]))
    if bad is not None:
        raise bad


def _sound(found: Collection, sample: np.ndarray) -> np.ndarray:
    """A decoded sample that is what samples are."""
    assert sample.dtype == found.form.dtype
    assert sample.shape[-1] == found.form.channels
    assert 0 < math.prod(sample.shape) * sample.dtype.itemsize <= 4 * SMALL.file_bytes
    assert np.isfinite(sample).all()
    return sample


def _paired(data: Path) -> None:
    """Pictures decoded, and their captions made tokens by a tokenizer that learned from them."""
    found = open_data(data, kind="pair", limits=SMALL)
    words = Words(WORDING.trained(list(every_caption(found.index.table))), WORDING)
    worded = replace(found, words=words).select(range(min(len(found), ROWS)))
    tokens = worded.extra(Draws(0, 0, torch.arange(len(worded))))["tokens"]
    assert tokens.shape == (len(worded), WORDING.context)
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < WORDING.vocabulary
    for row in range(len(worded)):
        worded.decode(row)


def _runs() -> Iterator[Target]:
    """What a run that reads captions keeps."""

    def finished(folder: Path, name: str) -> Path:
        shutil.copytree(once("captioned", _train), folder / "captioned")
        return folder / "captioned" / "run" / name

    def asked(folder: Path) -> None:
        tacit.load(folder / "captioned" / "run", device="cpu").search("text:a red fox", k=2)

    def unfinished(folder: Path) -> Path:
        tokenizer = finished(folder, "tokenizer.json")
        tokenizer.with_name("encoder.json").unlink()
        return tokenizer

    def resumed(folder: Path) -> None:
        with mock.patch.object(Loop, "run", side_effect=Enough("this is where training would go on")):
            tacit.resume(folder / "captioned" / "run")

    def tokenizer(folder: Path) -> Path:
        Tokenizer.train(seeds_kinds.CAPTIONS * 2, WORDING.vocabulary).save(folder / "tokenizer.json")
        return folder / "tokenizer.json"

    def read(folder: Path) -> None:
        made = Tokenizer.load(folder / "tokenizer.json")
        assert made(seeds_kinds.CAPTIONS, WORDING.context).shape == (len(seeds_kinds.CAPTIONS), WORDING.context)
        assert Tokenizer(made.content).ids(["a fox"]) == made.ids(["a fox"])

    yield Target("text/tokenizer.json", tokenizer, read)
    for name in ("reader.json", "reader.safetensors", "tokenizer.json"):
        yield Target(f"search/{name}", lambda folder, name=name: finished(folder, name), asked)
    yield Target("resume/tokenizer.json", unfinished, resumed)


def _train(folder: Path) -> None:
    """A run of two steps over a few pictures with captions."""
    folder.mkdir()
    with open(folder / "pairs.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "caption"])
        for number in range(24):
            Image.fromarray(np.roll(seeds.noise(16, 16, 3), number)).save(folder / f"{number}.png")
            table.writerow([f"{number}.png", f"{seeds_kinds.CAPTIONS[number % 4]} {number}"])
    options = {
        "precision": "float32", "batch": 8, "size": 16, "encoder": "clip-vit-micro/8", "held_back": 8, "checkpoint_every": "1",
        "vocabulary": WORDING.vocabulary, "context": WORDING.context,
    }  # fmt: skip
    tacit.pretrain("clip", folder / "pairs.csv", out=folder / "run", steps=2, options=options, device="cpu")
