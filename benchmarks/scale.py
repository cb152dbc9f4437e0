"""What grows with the number of samples, and what a checkpoint costs: `python benchmarks/scale.py [--rows 10000000]`.

Everything is made up in a folder that is removed again (about 60 bytes a row, 400 MB for the checkpoint). Every opening is
a process of its own, as it is for a rank: what it holds then is measured by the system.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import layout
import numpy as np
import pyarrow as pa
import torch
from pairs import asked, keep
from PIL import Image

from tacit.core.draws import Order
from tacit.data.cache import cache_folder, keep_table, kept_table
from tacit.data.collection import Collection
from tacit.data.index import Index
from tacit.data.kinds.kind import kind_named
from tacit.data.loader import Loader
from tacit.data.payload import Limits
from tacit.data.rows import Rows
from tacit.data.spec import Spec
from tacit.methods.registry import method
from tacit.train import checkpoint, ranks
from tacit.train.config import Training
from tacit.train.session import build_method, divide
from tacit.train.step import Step

BATCH, SIDE, FAR = 64, 16, 10_000_000
BILLION = 1_000_000_000
BLOCK = 16384
REPEATS = 5
OPENINGS = 3


def index(rows: int) -> dict[str, float]:
    """Write the index of so many images, as a listing of folders of a thousand would."""
    names, folders = np.char.zfill(np.arange(1000).astype("U3"), 3), np.char.zfill(np.arange(rows // 1000).astype("U7"), 7)
    chunks = []
    for start in range(0, len(folders), 1000):
        paths = np.char.add(
            np.char.add(np.repeat(folders[start : start + 1000], 1000), "/"), np.tile(names, len(folders[start : start + 1000]))
        )
        chunks.append(pa.array(np.char.add(paths, ".jpg").tolist()))
    numbers = np.arange(rows, dtype=np.int64)
    table = pa.table({"path": pa.chunked_array(chunks), "size": 100_000 + numbers % 9973, "mtime": 1_700_000_000 + numbers})
    start = time.perf_counter()
    keep_table("scale", table)
    seconds = time.perf_counter() - start
    return {"rows": rows, "write_seconds": seconds, "bytes": (cache_folder() / "scale.arrow").stat().st_size}


def opened(rows: int, step: int) -> dict[str, float]:
    """Open that index in a process of its own, as every rank does, and make the batch of a step."""
    words = [sys.executable, __file__, "--open", str(rows), "--step", str(step)]
    return json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout)


def open_index(rows: int, step: int) -> dict[str, float]:
    picture = io.BytesIO()
    Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)).save(picture, "PNG")
    kind, before, start = kind_named("image"), memory(), time.perf_counter()
    table = kept_table("scale")
    assert table is not None
    found = {"open_seconds": time.perf_counter() - start}
    form = kind.form(picture.getvalue(), "a.png", Limits())
    fetch = lambda row, limits: picture.getvalue()  # noqa: E731 - the same picture for every row
    collection = Collection(kind, Index(table), "made up", form, Rows(rows), fetch, Limits())
    start = time.perf_counter()
    assert len(collection.fingerprint) == 32
    found["fingerprint_seconds"] = time.perf_counter() - start
    start = time.perf_counter()
    _, kept = divide(len(collection), Training())
    loader = Loader(collection, None, kept, BATCH, 0)
    assert len(loader.batch(step)) == BATCH
    found["first_batch_seconds"] = time.perf_counter() - start
    after = memory()
    return found | {"private_bytes": after["private"] - before["private"], "shared_bytes": after["shared"] - before["shared"]}


def memory() -> dict[str, int]:
    """Bytes that this process holds alone, and that it holds of files which others may hold too."""
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    sizes = {words[0]: int(words[1]) * 1024 for words in lines}
    private = sizes["Private_Dirty:"]
    return {"private": private, "shared": sizes["Rss:"] - private}


def order(length: int) -> float:
    """Median seconds of a block of the order of so many samples."""
    places, times = torch.arange(length // 2, length // 2 + BLOCK), []
    for epoch in range(REPEATS):
        start = time.perf_counter()
        Order(0, epoch, length)(places)
        times.append(time.perf_counter() - start)
    return sorted(times)[REPEATS // 2]


def checkpointed(folder: Path) -> dict[str, Any]:
    """Save and load what a run of DINO with a ViT-S keeps: student, teacher, two moments; the seconds are medians."""
    training = Training(encoder="vit-small/16", batch=2, size=224)
    system = build_method(method("dino"), method("dino").Options(prototypes=4096), training, Spec("image", 3, (224, 224)))
    step = Step(system, training, system.spec, ranks.alone(torch.device("cpu")))
    for parameter in system.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    step.optimiser.step()
    path, saves, loads = folder / "last.pt", [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        checkpoint.save(path, step.state_dict())
        saves.append(time.perf_counter() - start)
        start = time.perf_counter()
        step.load_state_dict(checkpoint.load(path))
        loads.append(time.perf_counter() - start)
    found = {"save_seconds": sorted(saves)[REPEATS // 2], "load_seconds": sorted(loads)[REPEATS // 2]}
    parameters = sum(parameter.numel() for parameter in system.parameters() if parameter.requires_grad)
    return {"encoder": training.encoder, "trained_parameters": parameters, "bytes": path.stat().st_size, **found}


def table(found: dict[str, Any]) -> str:
    """What was measured, and the same for a billion samples and the checkpoint of a ViT-L: the table in `docs/scale.md`."""
    index, saved, (near, far) = found["index"], found["checkpoint"], found["start"].values()
    times, large = BILLION / index["rows"], 5.23e9 / saved["bytes"]

    def median(name: str, openings: list[dict[str, float]] = near) -> float:
        return sorted(opening[name] for opening in openings)[len(openings) // 2]

    def seconds(name: str, value: float, factor: float) -> tuple[str, str, str]:
        return name, f"{value:.2f} s", f"{value * factor:.0f} s"

    begun = [f"{1000 * median('first_batch_seconds', openings):.0f} ms" for openings in (near, far)]
    order = [f"{1000 * value:.0f} ms" for value in found["order"].values()]
    rows = [
        ("the index, mapped", f"{index['bytes'] / 1e6:.0f} MB", f"{index['bytes'] * times / 1e9:.0f} GB, once on a machine"),
        ("memory of a process's own", f"{median('private_bytes') / 1e6:.0f} MB", "as much: nothing of it is a row's"),
        seconds("opening and checking the index", median("open_seconds"), times),
        seconds("its hash", median("fingerprint_seconds"), times),
        (f"then the first batch of {found['batch']}, at step 0", begun[0], "as soon"),
        ("the same at step 10,000,000", begun[1], "as soon"),
        (f"{found['block']:,} places of the order", order[0], f"{order[1]}, measured"),
        ("", f"checkpoint of {saved['bytes'] / 1e6:.0f} MB, measured", "of 5.2 GB"),
        seconds("saving it", saved["save_seconds"], large),
        seconds("taking it up", saved["load_seconds"], large),
    ]
    head, machine = ("", f"{index['rows']:,} samples, measured", "a billion"), found["machine"]
    said = f"Medians, on {machine['cores']} cores of {machine['processor']} (`python benchmarks/scale.py`)."
    return f"{layout.table(head, rows)}\n\n{said}"


def main() -> None:
    """Measure everything, and write `results/scale.json`."""
    rows = asked(rows=10_000_000).rows
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TACIT_CACHE"] = folder
        found: dict[str, Any] = {"index": index(rows)}
        print(found)
        found["start"] = {str(step): [opened(rows, step) for _ in range(OPENINGS)] for step in (0, FAR)}
        found["order"] = {str(length): order(length) for length in (10_000_000, BILLION)}
        found["checkpoint"] = checkpointed(Path(folder))
    found["block"], found["batch"] = BLOCK, BATCH
    print(json.dumps(found, indent=1))
    keep("scale", found)


if __name__ == "__main__":
    if "--open" in sys.argv:
        print(json.dumps(open_index(*(int(sys.argv[sys.argv.index(name) + 1]) for name in ("--open", "--step")))))
    else:
        main()
