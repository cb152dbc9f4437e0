"""What people pass on says nothing of the machine it was made on: no folder's name is in any byte of it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import tacit

SECRET = "whose machine is-this"
OPTIONS = {"precision": "float32", "batch": 8, "size": 16, "encoder": "vit-micro/8", "held_back": 4, "max_bad": 0.2}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a name to look for, and a run in it on pictures of which one is broken."""
    folder = tmp_path_factory.mktemp("home") / SECRET
    (folder / "photos" / "cats").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / "photos" / "cats" / f"{number:02}.png")
    (folder / "photos" / "cats" / "broken.png").write_bytes(b"no picture")
    (folder / "listed.txt").write_text("".join(f"{path}\n" for path in sorted((folder / "photos" / "cats").iterdir())))
    (folder / "labelled.csv").write_text(
        "path,label\n" + "".join(f"{folder}/photos/cats/{number:02}.png,{'ab'[number % 2]}\n" for number in range(24))
    )
    for data in ("photos", "listed.txt"):
        options = {**OPTIONS, "init": str(folder / "runs" / "photos")} if data != "photos" else OPTIONS
        run = tacit.pretrain("mae", folder / data, out=folder / "runs" / data.partition(".")[0], steps=2, options=options)
        run.evaluate(folder / "labelled.csv", protocols=["knn"])
    return folder


def said(path: Path) -> bytes:
    """Every byte of a file, unpacked too where it is packed."""
    content = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content += b"".join(archive.read(name) for name in archive.namelist())
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        content += repr((table.schema, table.to_pylist())).encode()
    return content


def assert_silent(*paths: Path) -> None:
    here = str(Path(tacit.__file__).parent).encode()
    for path in paths:
        content = said(path)
        assert content
        for word in (SECRET.encode(), SECRET.replace(" ", "%20").encode(), here):
            at = content.find(word)
            assert at < 0, f"{path.name}: {content[max(0, at - 100) : at + 100]!r}"


@pytest.mark.parametrize("name", ["photos", "listed"])
def test_pages_say_nothing_of_the_machine(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir("/")
    command = f"tacit pretrain mae '{home}/photos' --out='{home}/runs/photos' --set probe='{home}/labelled.csv'"
    run = tacit.load(home / "runs" / name, device="cpu")
    described = (run.path / "run.json").read_text()
    (run.path / "run.json").write_text(described.replace('"command": "', f'"command": "{command} '))
    page = run.report(home / "report.html")
    assert b"broken.png" in page.read_bytes()
    tacit.compare([home / "runs" / "photos", home / "runs" / "listed"], out=home / "compared.html")
    assert_silent(page, home / "compared.html")


@pytest.mark.parametrize("data", ["photos", "listed.txt", "labelled.csv"])
@pytest.mark.parametrize("ending", [".parquet", ".npy", ".h5"])
def test_embeddings_say_nothing_of_the_machine_unless_they_are_asked_to(home: Path, data: str, ending: str) -> None:
    run = tacit.load(home / "runs" / "photos", device="cpu")
    out = run.embed(home / data, out=home / f"silent-{data}{ending}")
    assert_silent(*home.glob(f"silent-{data}{ending}*"))
    out = run.embed(home / data, out=home / f"asked-{data}{ending}", absolute=True)
    assert any(SECRET.encode() in said(path) for path in home.glob(f"{out.name}*"))


def test_the_encoder_its_results_and_its_exports_say_nothing_of_the_machine(home: Path) -> None:
    run = tacit.load(home / "runs" / "photos", device="cpu")
    for form, name in (("onnx", "encoder.onnx"), ("torch", "encoder.pt2"), ("timm", "timm")):
        run.export(form, home / "exported" / name)
    files = [path for path in (home / "exported").rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert_silent(*files, run.path / "encoder.json", run.path / "encoder.safetensors", *run.path.glob("evaluations/*.json"))
