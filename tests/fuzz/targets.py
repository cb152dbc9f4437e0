"""What is attacked: for every format and artefact, sound bytes, and how they are read by those who read them in use."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np

import tacit
from tacit.data import store as stores
from tacit.data.cache import cache_folder
from tacit.data.kinds import image
from tacit.data.open import open_data
from tacit.data.payload import Unreadable
from tacit.nn import build
from tacit.train.loop import Loop
from tacit.use import embed_files
from tacit.use.compare import Comparison
from tacit.use.report import ReportContent
from tacit.use.report_page import page
from tests.fuzz import seeds, targets_kinds
from tests.fuzz.target import ROWS, SMALL, Enough, Target, file, once, refusal

__all__ = ["Target", "refusal", "targets"]


def targets() -> dict[str, Target]:
    """All of them by name."""
    found = [*_pictures(), *_sources(), *_saved(), *_caches(), *_runs(), *_weights(), *_features(), *targets_kinds.targets()]
    return {target.name: target for target in found}


def _pictures() -> Iterator[Target]:
    for name, content in seeds.pictures().items():

        def read(folder: Path, name: str = name) -> None:
            decoded = image.decode((folder / name).read_bytes(), name=f"x.{name}", limits=SMALL)
            assert decoded.ndim == 3
            assert decoded.dtype in (np.uint8, np.uint16, np.float32)
            assert decoded.shape[0] * decoded.shape[1] <= SMALL.pixels
            assert decoded.dtype != np.float32 or np.isfinite(decoded).all()

        yield Target(f"image/{name}", file(name, content), read)


def _sources() -> Iterator[Target]:
    for name, content in seeds.sources().items():
        yield Target(f"source/{name}", file(name, content, beside=True), lambda folder, name=name: _look(folder / name))


def _saved() -> Iterator[Target]:
    def read(folder: Path) -> None:
        _look(folder / "set")

    parts = ("dataset_dict.json", "train/state.json", "train/dataset_info.json", "train/data-00000-of-00001.arrow")
    for part in parts:

        def prepare(folder: Path, part: str = part) -> Path:
            shutil.copytree(once("saved", seeds.saved_data_set), folder / "set")
            return folder / "set" / part

        yield Target(f"huggingface/{part}", prepare, read)


def _caches() -> Iterator[Target]:
    """What tacit keeps itself, once it is damaged: made again or refused, but never wrong."""

    def folder_of(kind: str) -> Callable[[Path], object]:
        def read(folder: Path) -> None:
            found = open_data(folder / kind, limits=SMALL)
            for row in range(ROWS):
                found.decode(row)

        return read

    def listing(folder: Path, ending: str) -> Path:
        seeds.folder_of_pictures(folder / "photos")
        with mock.patch("tacit.data.sources.folder.SETTLED", -1 << 62):
            open_data(folder / "photos")
        return next(p for p in (cache_folder() / "listings").glob("*.arrow") if ("-folders" in p.name) == (ending == "folders"))

    def members(folder: Path) -> Path:
        (folder / "s.tar").write_bytes(seeds.shard())
        open_data(folder / "s.tar")
        return next((cache_folder() / "shards").glob("*.arrow"))

    yield Target("cache/listing.arrow", lambda folder: listing(folder, "files"), folder_of("photos"), mends=True)
    yield Target("cache/listing-folders.arrow", lambda folder: listing(folder, "folders"), folder_of("photos"), mends=True)
    yield Target("cache/shards.arrow", members, folder_of("s.tar"), mends=True)

    def built(folder: Path) -> stores.Store:
        return stores.build(open_data(folder / "photos"), None, cache_folder() / "stores", 1 << 40)

    def store(folder: Path, name: str) -> Path:
        seeds.folder_of_pictures(folder / "photos")
        return built(folder).folder / name

    def right(folder: Path) -> None:
        made, collection = built(folder), open_data(folder / "photos")
        assert np.array_equal(made.sample(5), np.moveaxis(collection.decode(5), -1, 0))

    for name in ("samples.bin", "journal.jsonl", "store.json", "begun.json"):
        yield Target(f"store/{name}", lambda folder, name=name: store(folder, name), right, mends=True)


def _runs() -> Iterator[Target]:
    def finished(folder: Path, name: str) -> Path:
        shutil.copytree(once("run", _train) / "run", folder / "run")
        return folder / "run" / name

    def used(folder: Path) -> None:
        tacit.load(folder / "run", device="cpu").features(seeds.noise(4, 16, 16, 3))

    def shown(folder: Path) -> None:
        page(ReportContent.from_folder(folder / "run"))
        Comparison.of([folder / "run", once("run", _train) / "run"]).write(folder / "compared.html")

    def searched(folder: Path) -> None:
        tacit.load(folder / "run", device="cpu").search("row:0", k=2)

    def unfinished(folder: Path, name: str) -> Path:
        finished(folder, name)
        (folder / "run" / "encoder.json").unlink()
        return folder / "run" / name

    def resumed(folder: Path) -> None:
        with mock.patch.object(Loop, "run", side_effect=Enough("this is where training would go on")):
            tacit.resume(folder / "run")

    for name in ("encoder.safetensors", "encoder.json"):
        yield Target(f"run/{name}", lambda folder, name=name: finished(folder, name), used)
    for name in (
        "config.toml", "run.json", "verdict.json", "metrics.csv", "figures.csv", "speed.csv", "skipped.tsv",
        "evaluations/photos.json", "pictures/captions.json", "pictures/1.png",
    ):  # fmt: skip
        yield Target(f"report/{name}", lambda folder, name=name: finished(folder, name), shown)
    yield Target("search/config.toml", lambda folder: finished(folder, "config.toml"), searched)
    yield Target("search/features.npz", lambda folder: next((finished(folder, "search")).glob("*.npz")), searched)
    yield Target("resume/config.toml", lambda folder: unfinished(folder, "config.toml"), resumed)
    yield Target("resume/last.pt", lambda folder: unfinished(folder, "checkpoints/last.pt"), resumed)
    yield Target("resume/metrics.csv", lambda folder: unfinished(folder, "metrics.csv"), resumed)


def _weights() -> Iterator[Target]:
    """Files for `--init`."""
    import torch
    from safetensors.torch import save_file

    def prepare(folder: Path, ending: str) -> Path:
        path = folder / f"weights{ending}"
        state = build.encoder("vit-micro/8", 3, 16, seed=1).state_dict()
        if ending == ".safetensors":
            save_file(state, path)
        else:
            torch.save({"model": state, "epoch": 3}, path, _use_new_zipfile_serialization=ending == ".pt")
        return path

    for ending in (".safetensors", ".pt", ".pth"):
        yield Target(
            f"init/weights{ending}",
            lambda folder, ending=ending: prepare(folder, ending),
            lambda folder, ending=ending: build.initialise(build.encoder("vit-micro/8", 3, 16), folder / f"weights{ending}"),
        )


def _features() -> Iterator[Target]:
    def written(folder: Path, name: str, attacked: str) -> Path:
        tacit.load(once("run", _train) / "run", device="cpu").embed(seeds.noise(20, 16, 16, 3), out=folder / name)
        return folder / attacked

    files = {"f.parquet": "f.parquet", "f.h5": "f.h5", "f.npy": "f.npy", "f.npy.ids.tsv": "f.npy"}
    for attacked, name in files.items():
        yield Target(
            f"features/{attacked}",
            lambda folder, name=name, attacked=attacked: written(folder, name, attacked),
            lambda folder, name=name: embed_files.read(folder / name),
        )


def _look(data: Path) -> None:
    found = open_data(data, limits=SMALL)
    assert found.fingerprint
    bad = None
    for row in range(min(len(found), ROWS)):
        try:
            found.decode(row)
        except Unreadable as problem:
            bad = problem
    assert found.labels is None or len(found.labels) == len(found)
    if bad is not None:
        raise bad


def _train(folder: Path) -> None:
    """A run of two steps with everything in it that a report reads."""
    photos = seeds.folder_of_pictures(folder / "photos")
    options = {
        "precision": "float32", "batch": 8, "size": 16, "encoder": "vit-micro/4", "held_back": 4, "checkpoint_every": "1",
    }  # fmt: skip
    run = tacit.pretrain("mae", photos, out=folder / "run", steps=2, options=options, device="cpu")
    run.evaluate(photos, protocols=["knn"])
    run.search("row:0", k=2)
    (folder / "run" / "skipped.tsv").write_text("path\treason\nphotos/broken.png\ttruncated\n")
