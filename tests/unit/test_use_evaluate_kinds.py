"""What a run measures beside classes: films through several clips, pictures and captions through both towers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tacit
from tacit import cli
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.kinds import video
from tacit.data.open import open_data
from tacit.data.spec import Batch
from tacit.evaluation.features import extract
from tacit.evaluation.protocol import DEFAULT, PROTOCOLS
from tacit.evaluation.task import Task
from tacit.methods.clip import CLIP
from tacit.train.config import Training
from tacit.train.session import build_method
from tacit.use import embed as embed_module
from tacit.use.embed import embed
from tacit.use.embed_files import read
from tacit.use.evaluate import table
from tacit.use.towers import Towers
from tacit.views.sight import sight, windows_of


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TACIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


# Films


class Films:
    """Twenty films of 7 to 9 frames of noise that gets brighter or darker."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        if not 0 <= row < len(self):
            raise IndexError
        noise = np.random.default_rng(row).integers(0, 60, (7 + row % 3, 16, 16, 3), dtype=np.uint8)
        rising = np.arange(len(noise), dtype=np.uint8)[:, None, None, None] * 20
        return noise + (rising if row % 2 else rising[::-1]), row % 2


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tacit.Run:
    options = {
        "precision": "float32", "batch": 8, "size": 8, "encoder": "r3d-mini", "frames": 4, "stride": 1, "queue": 16,
        "held_back": 4, "stop_on": "none",
    }  # fmt: skip
    return tacit.pretrain(
        "rspnet", Films(), out=tmp_path_factory.mktemp("films") / "run", steps=1, options=options, device="cpu"
    )


def test_a_film_s_features_are_the_mean_over_its_clips_however_they_are_read(films: tacit.Run):
    run, collection = films._open, open_data(Films())
    clips = sight("video").looks(run.spec, run.extent)
    assert len(clips) == run.spec.size[0] - 4 + 1 == 5
    task = Task.of("films", collection, run.spec, windows=windows_of(run.spec, run.extent))
    found = extract(run.encode(), task.shown(torch.arange(20)))
    for row in (0, 5, 19):
        whole = collection.decode(row)
        each = []
        for clip in clips:
            (frames,) = clip(whole.shape, [])
            data = torch.from_numpy(np.ascontiguousarray(np.moveaxis(whole[frames], -1, 0)))[None]
            each.append(run.encode()(Batch(torch.tensor([row]), data, torch.tensor([[4, 16, 16]], dtype=torch.int32))))
        torch.testing.assert_close(found.values[row], torch.cat(each).mean(0), rtol=1e-5, atol=1e-6)


def test_what_is_embedded_and_searched_is_what_was_judged(films: tacit.Run, tmp_path: Path):
    run, collection = films._open, open_data(Films())
    task = Task.of("films", collection, run.spec, windows=run.windows, side=run.side(collection))
    judged = extract(run.encode(), task.shown(torch.arange(20))).values.numpy()
    found = {"features": films.features(Films()), "embed": read(films.embed(Films(), tmp_path / "films.npy")).vectors}
    for said, values in found.items():
        np.testing.assert_allclose(values, judged, rtol=1e-4, atol=1e-5, err_msg=said)
    first = films.search(collection.decode(5), data=Films(), k=1)[0]
    assert (first.id, first.score) == (5, pytest.approx(1, abs=1e-5))


def test_a_killed_embedding_of_films_goes_on_and_ends_with_the_same_bytes(
    films: tacit.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(embed_module, "GROUP_BATCHES", 1)
    run, collection, asked = films._open, open_data(Films()), []

    def embedded(name: str, most: int) -> Path:
        def encode(batch: Batch) -> torch.Tensor:
            asked.append(len(batch))
            if len(asked) > most:
                raise KeyboardInterrupt
            return run.encode()(batch)

        asked.clear()
        return embed(encode, collection, tmp_path / name, batch_size=20, windows=run.windows).path

    whole = embedded("whole.npy", 25)
    assert asked == [4] * 25  # five clips of each film, no more than twenty at once
    with pytest.raises(KeyboardInterrupt):
        embedded("broken.npy", 12)
    assert embedded("broken.npy", 15).read_bytes() == whole.read_bytes()
    assert len(asked) == 15


def test_every_protocol_sees_the_clips_of_films(films: tacit.Run, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[int, ...]] = []
    original = video.decode

    def counted(payload, form=None, side=None, name="", limits=None, part=None):
        if part is not None:
            asked.append(tuple(part((9, 16, 16))[0]))
        return original(payload, form, side, name, limits, part)

    monkeypatch.setattr(video, "decode", counted)
    monkeypatch.setattr("tacit.use.evaluate.decoded_once", lambda task: task)
    records = films.evaluate(Films(), protocols=["retrieval"], baselines="none")
    assert {record.metric for record in records} >= {"recall@1", "recall@5", "recall@10"}
    starts = {frames[0] for frames in asked if len(frames) == 4}
    assert starts == {0, 1, 2, 4, 5}
    assert len(asked) == 5 * 20


# Pictures with captions

COLOURS = ["red", "green", "blue", "grey"]
SAYS = [f"a {colour} {shape}" for colour in COLOURS for shape in ("ball", "box", "star", "tree", "ring")]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for number in range(len(SAYS)):
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    rows = [f"{n}.png,{said},{said.split()[1]},{'test' if n % 2 else 'train'}" for n, said in enumerate(SAYS)]
    (folder / "pairs.csv").write_text("\n".join(["path,caption,label,split", *rows]))
    (folder / "bare.csv").write_text("\n".join(["path,caption", *(",".join(row.split(",")[:2]) for row in rows)]))
    return folder


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory, pairs: Path) -> tacit.Run:
    options = {
        "batch": 8, "size": 8, "encoder": "clip-vit-micro/8", "held_back": 2, "precision": "float32", "stop_on": "none",
        "store": "never",
    }  # fmt: skip
    out = tmp_path_factory.mktemp("runs") / "clip"
    return tacit.pretrain("clip", pairs / "bare.csv", out=out, steps=1, options=options, device="cpu")


def test_pictures_with_captions_are_read_as_pairs_and_captions_are_measured(towers: tacit.Run, pairs: Path):
    records = towers.evaluate(pairs / "pairs.csv", protocols=["knn", "captions", "zero-shot"])
    assert {record.protocol for record in records} == {"knn", "captions", "zero-shot"}
    of_captions = [record for record in records if record.protocol == "captions"]
    assert {record.encoder for record in of_captions} == {"run", "untrained"}
    assert {record.metric for record in of_captions} == {
        f"{figure}_to_{side}"
        for figure in ("recall@1", "recall@5", "recall@10", "mean_rank", "median_rank")
        for side in ("caption", "picture")
    }
    first = next(record for record in of_captions if record.metric == "recall@1_to_caption")
    assert (first.split, first.detail["pictures"], first.detail["chance"]) == ("given train / test", 10, pytest.approx(0.1))
    kept = json.loads((towers.path / "evaluations/pairs.json").read_text())
    assert sum(record["protocol"] == "captions" for record in kept) == len(of_captions)
    shown = table(records)
    assert [column.header for column in shown.columns] == ["protocol", "figure", "run", "untrained", "input", "chance"]
    assert "captions" in towers.report().read_text()


def test_without_labels_captions_are_what_is_measured(
    towers: tacit.Run, pairs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["tacit", "evaluate", str(towers.path), str(pairs / "bare.csv"), "--device", "cpu"])
    cli.main()
    said = capsys.readouterr().out
    assert "recall@10_to_picture" in said
    assert "knn" not in said
    assert {*DEFAULT, "captions"} <= PROTOCOLS.keys()


def test_untrained_towers_have_the_weights_that_the_run_started_from(towers: tacit.Run):
    run = towers._open
    made = build_method(CLIP, CLIP.Options(**towers.config["method"]), Training(**towers.config["train"]), run.spec).eval()
    joint, tokens = Towers(run).untrained(run.untrained), Towers(run).reading.words(["a red ball", "nothing"])
    with torch.no_grad():
        assert torch.equal(joint.captions(tokens), made.text(tokens))
        batch = Batch(torch.arange(2), torch.arange(384, dtype=torch.uint8).view(2, 3, 8, 8), torch.full((2, 2), 8))
        x = run.still(batch, Draws(0, 0, batch.ids), run.spec)
        torch.testing.assert_close(joint.pictures(batch), made.image_head(made.student(x).pooled))


def test_trained_towers_are_those_that_a_search_compares_with(towers: tacit.Run, pairs: Path):
    joint = Towers(towers._open).trained()
    batches = towers._open.loader(open_data(pairs / "bare.csv", kind="pair"))
    found = extract(joint.pictures, batches)
    cosine = torch.nn.functional.cosine_similarity(found.values, joint.read(["a red ball"]))
    hits = towers.search("text:a red ball", data=str(pairs / "bare.csv"), k=3)
    assert [hit.id for hit in hits] == cosine.topk(3).indices.tolist()


# What cannot be


def test_what_is_of_another_kind_is_refused_in_one_line(films: tacit.Run, towers: tacit.Run, pairs: Path):
    with pytest.raises(TacitError, match="takes pair, but here are"):
        towers.evaluate(Films())
    with pytest.raises(TacitError, match="takes video, but here are"):
        films.features(pairs / "pairs.csv", kind="image")
    with pytest.raises(TacitError, match="takes video, but here are"):
        films.embed(pairs / "pairs.csv", out=pairs / "none.npy", kind="image")
    with pytest.raises(TacitError, match="takes pair, but here are"):
        towers.search("row:0", data=Films())
    with pytest.raises(TacitError, match="'captions' needs a run that learned from captions"):
        films.evaluate(Films(), protocols=["captions"], baselines="none")
    with pytest.raises(TacitError, match=r"no split 'tset'.*did you mean 'test'"):
        towers.evaluate(pairs / "pairs.csv", split="tset")


def test_what_may_be_two_kinds_is_read_as_the_run_s_own(towers: tacit.Run, tmp_path: Path):
    """Numbered pictures that change little look like the frames of films."""
    for number in range(24):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), 3 * number, np.uint8)).save(tmp_path / "ab"[number % 2] / f"{number // 2:02d}.png")
    assert len(towers.features(tmp_path)) == 24


def test_a_query_is_one_sample_of_the_run_s_own_kind(films: tacit.Run, tmp_path: Path):
    decode = open_data(Films()).decode
    for film in (3, 8):
        (tmp_path / str(film)).mkdir()
        for number, frame in enumerate(decode(film)):
            Image.fromarray(frame).save(tmp_path / str(film) / f"{number:02d}.png")
    first = films.search(tmp_path / "8", data=tmp_path, k=1)[0]
    assert (first.path, first.score) == ("8/00.png", pytest.approx(1, abs=1e-5))
    with pytest.raises(TacitError, match=r"00\.png is no use: .* takes video, but here are 1 sample of kind 'image'"):
        films.search(tmp_path / "8" / "00.png", data=Films())
    with pytest.raises(TacitError, match="holds 2 samples; give a single one"):
        films.search(tmp_path, data=Films())


def test_only_one_split_is_used_where_one_is_named(towers: tacit.Run, pairs: Path):
    (record, *_) = towers.evaluate(pairs / "pairs.csv", protocols=["knn"], split="train", baselines="none")
    assert record.split == "drawn 70% / 30% by class, seed 0"
    assert len(towers.features(pairs / "pairs.csv", split="test")) == 10
