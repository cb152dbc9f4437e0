"""Every format and artefact, broken blindly: read, or refused in one line; nothing else happens, and nothing waits for ever.

A few inputs each; `python -m benchmarks.hostile` tries 500 of each, in processes with limits. `make fuzz` looks for more.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.fuzz import seeds
from tests.fuzz.mutations import mutations
from tests.fuzz.targets import Target, refusal, targets
from tests.verbs.conftest import Tacit

import tacit
from tacit.core.errors import TacitError

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
TARGETS = targets()
FORMATS = ("image/", "source/", "video/", "channels/", "volume/", "points/", "pair/", "text/")
OF_RUNS = [name for name in TARGETS if not name.startswith(FORMATS)]
REMADE = ("cache/", "store/", "search/features", "resume/metrics")
"""What is made again, or not needed, where it is damaged."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore")
def test_a_mutated_file_is_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    target = TARGETS[name]
    attacked = target.prepare(tmp_path)
    sound = attacked.read_bytes()
    assert refusal(target, tmp_path) is None
    for content in mutations(sound, 12 if name in OF_RUNS else 30):
        attacked.parent.mkdir(parents=True, exist_ok=True)
        attacked.write_bytes(content)
        refusal(target, tmp_path)


@pytest.mark.parametrize("found", sorted(path for path in CORPUS.rglob("*") if path.is_file()), ids=lambda path: path.name)
def test_what_once_broke_a_parser_breaks_it_no_more(tmp_path: Path, found: Path) -> None:
    target = TARGETS[found.parent.relative_to(CORPUS).as_posix()]
    target.prepare(tmp_path).write_bytes(found.read_bytes())
    refusal(target, tmp_path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", OF_RUNS)
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    target = TARGETS[name]
    attacked = target.prepare(tmp_path)
    attacked.unlink()
    os.mkfifo(attacked)
    assert refusal(target, tmp_path) is not None or name.startswith((*REMADE, "report/"))


@pytest.mark.parametrize("opening", [b"[", b'{"a":'], ids=["lists", "objects"])
@pytest.mark.parametrize("name", [name for name in TARGETS if name.endswith((".json", ".jsonl"))])
def test_json_without_a_bottom_is_refused_in_one_line(tmp_path: Path, name: str, opening: bytes) -> None:
    assert loaded(TARGETS[name], tmp_path, opening * 100_000) is not None or name.startswith((*REMADE, "report/"))


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch exploded",)


def loaded(target: Target, folder: Path, content: bytes) -> str | None:
    attacked = target.prepare(folder)
    attacked.write_bytes(content)
    return refusal(target, folder)


@pytest.mark.parametrize("name", OF_RUNS)
def test_a_pickle_in_the_place_of_a_file_is_never_opened(tmp_path: Path, name: str) -> None:
    loaded(TARGETS[name], tmp_path, pickle.dumps(Bomb()))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["resume/last.pt", "init/weights.pt", "init/weights.pth", "init/weights.safetensors"])
@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_among_weights_is_never_opened(tmp_path: Path, name: str, old: bool) -> None:
    torch.save(
        {"model": {"patch_embed.proj.weight": Bomb()}, "state": Bomb()}, "bomb.pt", _use_new_zipfile_serialization=not old
    )
    assert loaded(TARGETS[name], tmp_path, (tmp_path / "bomb.pt").read_bytes())
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["search/features.npz", "features/f.npy"])
def test_a_pickle_among_features_is_never_opened(tmp_path: Path, name: str) -> None:
    explosive = np.array([Bomb()], dtype=object)
    content = seeds.npy(explosive) if name.endswith("npy") else seeds.npz(ids=explosive, vectors=explosive)
    loaded(TARGETS[name], tmp_path, content)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["resume/last.pt", "init/weights.pt"])
def test_weights_that_unpack_to_anything_are_refused(tmp_path: Path, name: str) -> None:
    import zipfile

    attacked = TARGETS[name].prepare(tmp_path)
    with zipfile.ZipFile(attacked) as sound, zipfile.ZipFile("bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for member in sound.namelist():
            bomb.writestr(member, bytes(40 << 20) if member.endswith("data/0") else sound.read(member))
    (tmp_path / "bomb.pt").replace(attacked)
    assert refusal(TARGETS[name], tmp_path)


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    attacked = TARGETS["resume/last.pt"].prepare(tmp_path)
    content = bytearray(attacked.read_bytes())
    content[len(content) // 2] ^= 1
    attacked.write_bytes(content)
    assert "checksum" in str(refusal(TARGETS["resume/last.pt"], tmp_path))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "change",
    [{"depth": 10**9}, {"depth": 0}, {"width": 10**6}, {"size": [10**6, 10**6]}, {"channels": 10**9}, {"registers": 10**9},
     {"heads": 0}, {"mlp_ratio": 1e9}, {"name": "vit-huge/1"}, {"name": "vit-micro/4", "depth": "7"}, {"seed": 1}],
)  # fmt: skip
def test_an_encoder_larger_than_its_weights_is_never_built(tmp_path: Path, change: dict[str, object]) -> None:
    described = TARGETS["run/encoder.json"].prepare(tmp_path)
    content = json.loads(described.read_text())
    altered = copy.deepcopy(content)
    altered["encoder"] |= change
    described.write_text(json.dumps(altered))
    with pytest.raises(TacitError, match=r"encoder\.json|blocks"):
        _ = tacit.load(described.parent, device="cpu").encoder


NAMES = [
    b"new\nline.png", b"tab\tand\rreturn.png", b"quote'\"`.png", b"emoji \xf0\x9f\x98\x80.png", b"not \xff\xfe utf-8.png",
    b"-rf.png", b"--out.png", b"back\\slash.png", b"like \\udcff.png", b"100%s %n {x} ${HOME}.png",
    b"\x1b]0;title\x07\x1b[31m.png",
    b"<script>alert(1)<", b"<img src=x onerror=alert(1)>.png", b"&amp;.png", b"{{ 7 * 7 }}.png", b"[bold]rich[bold].png",
    b" lead and trail .png", b"comma,semi;colon.png", "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe.png".encode(), b"x" * 251 + b".png",
]  # fmt: skip
NAMES = [name if name.endswith(b".png") else name + b".png" for name in NAMES]


def test_hostile_names_go_through_every_verb(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    command: Tacit = request.getfixturevalue("tacit")  # the name stands for the package here
    seeds.folder_of_pictures(tmp_path / "data", 160)
    for label, picture in zip((b"<b>cats", b"dogs\n"), sorted((tmp_path / "data").iterdir()), strict=True):
        picture.rename(picture.with_name(os.fsdecode(label)))
    pictures = sorted((tmp_path / "data").rglob("*.png"))
    for number, name in enumerate(NAMES):
        shutil.copy(pictures[number % len(pictures)], pictures[number % 2].parent / os.fsdecode(name))
    for name in NAMES[:8]:
        (pictures[0].parent / os.fsdecode(b"bad " + name)).write_bytes(b"no picture")

    def typed(*words: str) -> str:
        answer = command(*words)
        assert not answer.code, answer
        return answer.out

    quick = [f"--set={pair}" for pair in ("precision=float32", "batch=8", "size=16", "held_back=4")]
    typed("pretrain", "mae", "data", "--out", "run", "--steps", "2", "--encoder", "vit-micro/4", *quick)
    typed("evaluate", "run", "data", "--protocol", "knn")
    found = typed("search", "run", "row:0", "-k", "500")
    assert "\x1b" not in found
    assert len(found.splitlines()) == 159 + len(NAMES)
    for ending in ("parquet", "npy", "h5"):
        typed("embed", "run", "data", "--out", f"f.{ending}")
    typed("report", "run")
    page = (tmp_path / "run" / "report.html").read_bytes().decode()
    assert "<img src=x" not in page
    assert page.count("<script") == 2
    typed("doctor", "data", "--device", "cpu")
    lines = (tmp_path / "run" / "skipped.tsv").read_text().splitlines()
    assert len(lines) == 1 + 8
    assert all(line.count("\t") == 1 for line in lines)


def test_what_is_told_of_a_name_is_one_line_without_commands_to_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(TacitError) as told:
        tacit.load(tmp_path / "no\n\x1b[31msuch\trun")
    assert str(told.value).isprintable()
