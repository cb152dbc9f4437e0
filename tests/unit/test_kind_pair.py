"""Pictures with captions: where captions come from, how they reach a batch, and what a run keeps of them."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import tacit
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.collection import Collection
from tacit.data.kinds import image, pair
from tacit.data.kinds.kind import as_taken, choose
from tacit.data.loader import Loader
from tacit.data.open import measure, open_data
from tacit.data.store import prepare
from tacit.data.survey import survey
from tacit.data.text.wording import Wording, Words, captions_of, drawn_captions, every_caption
from tacit.methods.clip import CLIP
from tacit.train.config import Training
from tacit.train.session import build_method
from tacit.train.step import Step

COLOURS = ["red", "green", "blue", "grey", "pink", "brown"]
SHAPES = ["ball", "box", "star", "tree"]
SAYS = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
WORDING = Wording(600, 8)


def picture(number: int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def manifest(folder: Path, column: str = "caption", says: list[str] = SAYS) -> Path:
    for number in range(len(says)):
        (folder / f"{number}.png").write_bytes(picture(number))
    rows = [f"{number}.png,{said}" for number, said in enumerate(says)]
    (folder / "pairs.csv").write_text("\n".join([f"path,{column}", *rows, ""]))
    return folder / "pairs.csv"


def shard(folder: Path) -> Path:
    with tarfile.open(folder / "pairs-0.tar", "w") as file:
        for number, said in enumerate(SAYS):
            for ending, content in ((".png", picture(number)), (".txt", said.encode())):
                info = tarfile.TarInfo(f"{number:03d}{ending}")
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return folder / "pairs-0.tar"


def several(folder: Path) -> Path:
    """Every picture with three captions, in a list."""
    files = manifest(folder).parent
    table = pa.table({"path": [f"{n}.png" for n in range(len(SAYS))], "caption": [[s, f"{s} again", f"no {s}"] for s in SAYS]})
    pq.write_table(table, files / "several.parquet")
    return files / "several.parquet"


def worded(data: Path) -> Collection:
    collection = open_data(data, kind="pair")
    return replace(collection, words=Words(WORDING.trained(list(every_caption(collection.index.table))), WORDING))


def loader(collection: Collection, **how) -> Loader:
    return Loader(collection, None, None, 6, 0, **how)


# Where captions come from ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["caption", "text", "Description"])
def test_a_manifest_has_a_column_of_captions(column, tmp_path):
    collection = open_data(manifest(tmp_path, column), kind="pair")
    assert [captions_of(collection.index.table, row) for row in range(len(SAYS))] == [[said] for said in SAYS]


def test_a_column_can_be_named(tmp_path):
    collection = open_data(manifest(tmp_path, "words"), kind="pair", columns={"caption": "words"})
    assert captions_of(collection.index.table, 3) == [SAYS[3]]


def test_shards_have_a_text_beside_each_picture(tmp_path):
    collection = open_data(shard(tmp_path), kind="pair")
    assert list(every_caption(collection.index.table)) == SAYS


def test_the_bundled_emoji_have_their_names():
    collection = open_data("sample:emoji_names", kind="pair")
    assert "north west arrow" in every_caption(collection.index.table)


def test_missing_captions_are_without_words_and_teach_nothing(tmp_path):
    data = manifest(tmp_path, says=["a red ball", "", "a box"])
    table = open_data(data, kind="pair").index.table
    assert [captions_of(table, row) for row in range(3)] == [["a red ball"], [""], ["a box"]]
    assert list(every_caption(table)) == ["a red ball", "a box"]


def test_pictures_with_captions_are_pictures_until_they_are_asked_for_as_pairs(tmp_path):
    assert open_data(manifest(tmp_path)).kind.name == "image"
    assert choose(["a.png"], None)[0].name == "image"
    assert as_taken("image", ("pair",)) == "pair"
    assert as_taken("image", ("image", "pair")) == "image"
    assert as_taken("video", ("pair",)) == "video"


def test_the_picture_is_an_image_in_every_respect(tmp_path):
    pairs, images = open_data(manifest(tmp_path), kind="pair"), open_data(tmp_path / "pairs.csv")
    assert np.array_equal(pairs.decode(5), images.decode(5))
    assert pairs.form == images.form
    assert pair.decode is image.decode
    assert measure(pairs) == replace(measure(images), kind="pair")


def test_other_captions_are_other_data(tmp_path):
    before = open_data(manifest(tmp_path)).fingerprint
    stamp = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.png")}
    text = (tmp_path / "pairs.csv").read_text().replace("a red ball", "a red bell")
    (tmp_path / "pairs.csv").write_text(text)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.png")} == stamp
    assert open_data(tmp_path / "pairs.csv").fingerprint != before


def test_lists_of_captions_belong_to_the_data_too(tmp_path):
    before = open_data(several(tmp_path)).fingerprint
    table = pq.read_table(tmp_path / "several.parquet")
    said = table["caption"].to_pylist()
    said[3][1] = "another"
    pq.write_table(table.set_column(1, "caption", pa.array(said)), tmp_path / "several.parquet")
    assert open_data(tmp_path / "several.parquet").fingerprint != before


def test_doctor_says_what_captions_are_like(tmp_path):
    collection = open_data(manifest(tmp_path, says=["a red ball", "a red ball", "", "a box"]), kind="pair")
    notes = " ".join(survey(collection, measure(collection)).notes)
    assert "25.0% of the pictures have no caption" in notes
    assert "2 of 3 captions differ" in notes
    (tmp_path / "pairs.csv").write_text("path\n0.png\n1.png\n")
    silent = open_data(tmp_path / "pairs.csv", kind="pair")
    assert any("there are no captions" in note for note in survey(silent, measure(silent)).notes)


# Tokens of a batch ----------------------------------------------------------------------------------------------------


def test_start_and_end_are_the_two_largest_ids_and_end_is_last():
    words = Words(WORDING.trained(SAYS), WORDING)
    rows = words(["a red ball", "", "a red ball " * 10])
    assert rows.shape == (3, WORDING.context)
    assert rows.dtype == torch.int64
    assert (rows[:, 0] == WORDING.vocabulary - 2).all()
    assert (rows == WORDING.vocabulary - 1).sum(1).tolist() == [1, 1, 1]
    assert rows[1, 1] == rows[2, -1] == rows.max()


def test_a_batch_has_the_tokens_of_its_own_captions(tmp_path):
    collection = worded(manifest(tmp_path))
    for step in range(4):
        batch = loader(collection).batch(step)
        expected = collection.words([SAYS[row] for row in batch.ids.tolist()])
        assert torch.equal(batch.extra["tokens"], expected)


def test_a_batch_from_a_store_has_them_too(tmp_path):
    collection = worded(manifest(tmp_path))
    store, _ = prepare(collection, None, tmp_path / "stores", None)
    one, other = loader(collection).batch(2), Loader(collection, store, None, 6, 0).batch(2)
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.extra["tokens"], other.extra["tokens"])


def test_the_caption_of_what_stands_in_for_a_broken_picture_is_its_own(tmp_path):
    data = manifest(tmp_path)
    (tmp_path / "3.png").write_bytes(b"no picture")
    collection = worded(data)
    made = loader(collection, max_bad=1.0)
    for step in range(4):
        batch = made.batch(step)
        assert 3 not in batch.ids
        assert torch.equal(batch.extra["tokens"], collection.words([SAYS[row] for row in batch.ids.tolist()]))


def test_where_nobody_reads_captions_there_are_no_tokens(tmp_path):
    assert loader(open_data(manifest(tmp_path), kind="pair")).batch(0).extra == {}


def test_of_several_captions_each_is_drawn_as_often_and_by_the_sample_alone(tmp_path):
    table = open_data(several(tmp_path), kind="pair").index.table
    rows, counts = torch.arange(len(SAYS)), Counter()
    for epoch in range(100):
        for row, said in zip(rows.tolist(), drawn_captions(table, Draws(0, epoch, rows)), strict=True):
            counts[captions_of(table, row).index(said)] += 1
    assert all(abs(times - 800) < 100 for times in counts.values())
    drawn = drawn_captions(table, Draws(0, 5, rows))
    assert drawn_captions(table, Draws(0, 5, rows.flip(0)))[::-1] == drawn
    assert drawn_captions(table, Draws(0, 6, rows)) != drawn


def test_every_rank_has_the_captions_of_its_own_part(tmp_path):
    collection = worded(several(tmp_path))
    whole = loader(collection).batch(1)
    parts = [loader(collection, rank=rank, world=2).batch(1) for rank in range(2)]
    assert torch.equal(torch.cat([part.extra["tokens"] for part in parts]), whole.extra["tokens"])


# Runs -----------------------------------------------------------------------------------------------------------------

SMALL = {
    "batch": 8, "size": 16, "encoder": "clip-vit-micro/8", "held_back": 8, "precision": "float32", "stop_on": "none",
    "store": "never",
}  # fmt: skip


def train(data: Path, out: Path, steps: int = 2, **options) -> tacit.Run:
    return tacit.pretrain("clip", data, out=out, steps=steps, options=SMALL | options, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tacit.Run:
    folder = tmp_path_factory.mktemp("pairs")
    return train(manifest(folder), folder / "run")


def test_a_run_keeps_its_tokenizer_and_what_reads(run):
    assert run.config["data"]["kind"] == "pair"
    assert json.loads((run.path / "tokenizer.json").read_text())["model"]["type"] == "BPE"
    assert json.loads((run.path / "reader.json").read_text())["out"] == 64


def test_a_sentence_finds_pictures(run):
    hits = run.search("text:a red ball", k=5)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert [hit.path for hit in run.search("text:a red ball", k=5)] == [hit.path for hit in hits]
    assert [hit.score for hit in run.search("text:a pink tree", k=5)] != scores


def test_a_sentence_is_compared_where_pictures_and_captions_meet(run):
    """By hand: the method as its checkpoint holds it."""
    made = build_method(CLIP, CLIP.Options(**run.config["method"]), Training(**run.config["train"]), run._open.spec)
    made.load_state_dict(torch.load(run.path / "checkpoints/last.pt", weights_only=True)["method"])
    words = worded(Path(run.config["data"]["path"])).words
    wording = made.wording(made.options)
    made.eval()
    with torch.no_grad():
        text = made.of_text(Words(words.tokenizer, wording)(["a red ball"]))
        pictures = torch.from_numpy(run.features(run.config["data"]["path"]))
        cosine = torch.nn.functional.normalize(made.image_head(pictures), dim=1) @ text[0]
    hits = run.search("text:a red ball", k=3)
    assert [hit.id for hit in hits] == cosine.topk(3).indices.tolist()
    assert hits[0].score == pytest.approx(float(cosine.max()), abs=1e-5)


def test_a_run_that_read_nothing_knows_no_sentence(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run/reader.json").unlink()
    with pytest.raises(TacitError, match="has not learned from captions"):
        tacit.load(tmp_path / "run").search("text:a red ball")


@pytest.mark.parametrize("file", ["reader.json", "reader.safetensors", "tokenizer.json"])
def test_damaged_files_of_a_reader_are_told_in_one_line(file, run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / file).write_bytes(b'{"vocabulary": 1000000000}')
    with pytest.raises(TacitError) as problem:
        tacit.load(tmp_path / "run").search("text:a red ball")
    assert "\n" not in str(problem.value)


def test_a_run_goes_on_with_its_own_tokenizer_and_no_other(tmp_path):
    data, out = manifest(tmp_path), tmp_path / "run"
    train(data, out)
    (out / "encoder.json").unlink()  # as if it had not come to its end
    text = (out / "tokenizer.json").read_text()
    (out / "tokenizer.json").write_text(text.replace('"id": 0', '"id": 1', 1).replace("<start>", "<begin>", 1))
    with pytest.raises(TacitError, match="was begun with"):
        tacit.resume(out)
    (out / "tokenizer.json").write_text(text)
    tacit.resume(out)


def test_a_run_that_breaks_off_goes_on_to_the_same_end(tmp_path, monkeypatch):
    data = several(tmp_path)
    whole, step = train(data, tmp_path / "whole", steps=4, checkpoint_every="2"), Step.__call__

    class PowerCut(Exception):
        pass

    def until_the_fourth(self, batch, progress):
        if progress.step == 3:
            raise PowerCut
        return step(self, batch, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "__call__", until_the_fourth)
        with pytest.raises(PowerCut):
            train(data, tmp_path / "cut", steps=4, checkpoint_every="2")
    resumed = tacit.resume(tmp_path / "cut")
    for name in ("encoder.safetensors", "reader.safetensors", "metrics.csv", "tokenizer.json"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_pictures_without_captions_are_refused_before_anything_is_written(tmp_path):
    manifest(tmp_path)
    (tmp_path / "pairs.csv").write_text("\n".join(["path", *(f"{n}.png" for n in range(20)), ""]))
    with pytest.raises(TacitError, match="needs a caption for each sample"):
        train(tmp_path / "pairs.csv", tmp_path / "run")
    assert not (tmp_path / "run").exists()
