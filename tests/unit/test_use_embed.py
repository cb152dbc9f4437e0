from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from tacit.core import files
from tacit.core.errors import TacitError
from tacit.data.collection import Collection
from tacit.data.open import open_data
from tacit.data.spec import Batch
from tacit.use import embed as embed_module
from tacit.use.embed import embed
from tacit.use.embed_files import read


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch):
    monkeypatch.setattr(embed_module, "GROUP_BATCHES", 2)


@pytest.fixture
def folder(tmp_path) -> Path:
    draws = np.random.default_rng(0)
    for number in range(22):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 255, (6, 7, 3), dtype=np.uint8)).save(path)
    return tmp_path / "data"


def encode(batch: Batch) -> Tensor:
    return torch.cat([batch.data.float().mean((2, 3)), batch.data.float().std((2, 3))], dim=1)


def all_features(collection: Collection) -> np.ndarray:
    return np.concatenate(
        [
            encode(Batch.padded(torch.tensor([row]), [np.moveaxis(collection.decode(row), -1, 0)]))
            for row in range(len(collection))
        ]
    )


@pytest.mark.parametrize("ending", [".parquet", ".npy", ".h5"])
def test_every_format_gives_back_what_the_encoder_said_of_each_sample(folder, tmp_path, ending):
    collection = open_data(folder)
    made = embed(encode, collection, tmp_path / f"f{ending}", batch_size=4)
    found = read(made.path)
    assert (made.rows, made.width) == found.vectors.shape == (22, 6)
    assert np.allclose(found.vectors, all_features(collection), atol=1e-4)
    assert found.ids.tolist() == list(range(22))
    assert found.paths == collection.index.table["path"].to_pylist()


def test_parquet_holds_the_columns_that_other_tools_expect(folder, tmp_path):
    path = embed(encode, open_data(folder), tmp_path / "f.parquet", batch_size=4).path
    schema = pq.read_schema(path)
    assert schema.names[:2] == ["id", "path"]
    assert "label" in schema.names
    assert schema.field("embedding").type == pa.list_(pa.float32(), 6)
    assert pq.ParquetFile(path).num_row_groups == 3


def test_parquet_keeps_features_as_they_are_and_not_in_a_dictionary(folder, tmp_path):
    path = embed(encode, open_data(folder), tmp_path / "f.parquet", batch_size=4).path
    group = pq.ParquetFile(path).metadata.row_group(0).to_dict()
    (column,) = (column for column in group["columns"] if column["path_in_schema"].startswith("embedding"))
    assert not {"PLAIN_DICTIONARY", "RLE_DICTIONARY"} & set(column["encodings"])


@pytest.mark.parametrize("ending", [".parquet", ".npy", ".h5"])
@pytest.mark.parametrize("survived", [1, 3, 5])
def test_a_call_that_was_killed_goes_on_and_ends_with_the_same_bytes(folder, tmp_path, ending, survived):
    collection = open_data(folder)
    whole = embed(encode, collection, tmp_path / f"whole{ending}", batch_size=4).path
    calls = []

    def dies(batch: Batch) -> Tensor:
        calls.append(batch.ids)
        if len(calls) > survived:
            raise KeyboardInterrupt
        return encode(batch)

    broken = tmp_path / f"broken{ending}"
    with pytest.raises(KeyboardInterrupt):
        embed(dies, collection, broken, batch_size=4)
    assert not broken.exists()
    again = []
    made = embed(lambda batch: again.append(batch.ids) or encode(batch), collection, broken, batch_size=4)
    assert made.resumed == survived // 2 * 8
    assert len(again) == 6 - survived // 2 * 2
    assert broken.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.parts"))


def test_unfinished_work_of_another_encoder_is_not_gone_on_with(folder, tmp_path):
    collection, path = open_data(folder), tmp_path / "f.npy"
    batches = []

    def dies(batch: Batch) -> Tensor:
        batches.append(batch)
        if len(batches) > 2:
            raise KeyboardInterrupt
        return torch.zeros(len(batch), 6)

    with pytest.raises(KeyboardInterrupt):
        embed(dies, collection, path, batch_size=4, fingerprint="old")
    made = embed(encode, collection, path, batch_size=4, fingerprint="new")
    assert made.resumed == 0
    assert (read(path).vectors[:8] != 0).any(axis=1).all()


def killed(collection: Collection, path: Path, survived: int, **how) -> None:
    """A call that ends after so many batches of four."""
    batches = []

    def dies(batch: Batch) -> Tensor:
        batches.append(batch)
        if len(batches) > survived:
            raise KeyboardInterrupt
        return encode(batch)

    with pytest.raises(KeyboardInterrupt):
        embed(dies, collection, path, batch_size=4, **how)


def test_a_damaged_part_is_computed_again(folder, tmp_path):
    collection = open_data(folder)
    whole = embed(encode, collection, tmp_path / "whole.npy", batch_size=4).path
    path = tmp_path / "f.npy"
    killed(collection, path, survived=5)
    part = path.with_name("f.npy.parts") / "00000.npz"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    made = embed(encode, collection, path, batch_size=4)
    assert made.resumed == 8
    assert path.read_bytes() == whole.read_bytes()


def test_another_batch_size_begins_anew(folder, tmp_path):
    collection = open_data(folder)
    killed(collection, tmp_path / "f.npy", survived=5)
    assert embed(encode, collection, tmp_path / "f.npy", batch_size=2).resumed == 0


def test_unreadable_samples_of_an_earlier_call_still_count(folder, tmp_path):
    for name in ("a/00", "b/01", "a/02"):
        (folder / f"{name}.png").write_bytes(b"not a picture")
    collection, path = open_data(folder), tmp_path / "f.npy"
    killed(collection, path, survived=5, max_bad=0.2)
    with pytest.raises(TacitError, match="3 of 22 samples cannot be used"):
        embed(encode, collection, path, batch_size=4, max_bad=0.1)
    assert embed(encode, collection, path, batch_size=4, max_bad=0.2).rows == 19


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_the_parts_of_many_ranks_are_the_whole_cut_up(folder, tmp_path, parts):
    collection = open_data(folder)
    whole = read(embed(encode, collection, tmp_path / "whole.parquet", batch_size=4).path)
    made = [embed(encode, collection, tmp_path / "f.parquet", batch_size=4, shard=(k, parts)).path for k in range(parts)]
    assert made[1].name == f"f-00001-of-{parts:05d}.parquet"
    found = [read(path) for path in made]
    assert np.array_equal(np.concatenate([part.vectors for part in found]), whole.vectors)
    assert np.concatenate([part.ids for part in found]).tolist() == whole.ids.tolist()


def test_broken_samples_are_left_out_and_listed(folder, tmp_path):
    (folder / "a" / "04.png").write_bytes(b"not a picture")
    collection = open_data(folder)
    made = embed(encode, collection, tmp_path / "f.parquet", batch_size=4, max_bad=0.1)
    row = collection.index.table["path"].to_pylist().index("a/04.png")
    assert list(made.skipped) == [row]
    assert row not in read(made.path).ids
    listed = (tmp_path / "f.parquet.skipped.tsv").read_text().splitlines()
    assert listed[0] == "path\treason"
    assert listed[1].startswith("a/04.png\t")
    assert len(listed) == 2


def test_a_group_without_one_readable_sample_is_no_obstacle(folder, tmp_path):
    collection = open_data(folder)
    for path in collection.paths[8:16]:
        Path(path).write_bytes(b"")
    for ending in (".parquet", ".npy", ".h5"):
        made = embed(encode, open_data(folder), tmp_path / f"f{ending}", batch_size=4, max_bad=0.5)
        assert read(made.path).ids.tolist() == [*range(8), *range(16, 22)]


def test_paths_say_nothing_about_the_machine_unless_asked(folder, tmp_path):
    files = sorted(folder.rglob("*.png"))
    collection = open_data(files)
    relative = read(embed(encode, collection, tmp_path / "f.parquet", batch_size=4).path)
    assert relative.paths == [str(path.relative_to(folder)) for path in files]
    assert str(tmp_path).encode() not in (tmp_path / "f.parquet").read_bytes()
    absolute = read(embed(encode, collection, tmp_path / "g.parquet", batch_size=4, absolute=True).path)
    assert absolute.paths == [str(path) for path in files]


def test_a_map_adds_two_columns(folder, tmp_path):
    path = embed(encode, open_data(folder), tmp_path / "f.parquet", batch_size=4, map=True).path
    table = pq.read_table(path)
    assert len(set(zip(table["x"].to_pylist(), table["y"].to_pylist(), strict=True))) == 22


def test_progress_ends_with_all_rows_and_never_goes_back(folder, tmp_path):
    told = []
    embed(encode, open_data(folder), tmp_path / "f.npy", batch_size=4, progress=lambda done, of: told.append((done, of)))
    assert told == [(8, 22), (16, 22), (22, 22)]


def test_odd_file_names_come_back_from_the_table_beside_numpy(tmp_path):
    names = ["tab\there.png", "back\\slash.png", "line\u2028.png", "ümlaut.png"]
    for name in names:
        (tmp_path / "data").mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "data" / name)
    found = read(embed(encode, open_data(tmp_path / "data"), tmp_path / "f.npy").path)
    assert sorted(found.paths) == sorted(names)


def test_what_cannot_be_written_is_refused_before_anything_is_computed(folder, tmp_path):
    collection = open_data(folder)

    def never(batch: Batch) -> Tensor:
        raise AssertionError("computed")

    for arguments, said in [
        ({"path": tmp_path / "f.csv"}, "ends in '.csv'"),
        ({"path": tmp_path / "f.npy", "shard": (2, 2)}, "from 0 to 1"),
        ({"path": tmp_path / "f.npy", "shard": (0, 7), "batch_size": 4}, "at most 6 parts"),
        ({"path": tmp_path / "f.npy", "shard": (0, 2), "map": True}, "without shards"),
    ]:
        with pytest.raises(TacitError, match=said):
            embed(never, collection, **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_features_that_are_not_finite_name_the_sample(folder, tmp_path):
    def broken(batch: Batch) -> Tensor:
        return encode(batch).masked_fill((batch.ids == 5)[:, None], float("nan"))

    with pytest.raises(TacitError, match=r"not finite, first .*10\.png"):
        embed(broken, open_data(folder), tmp_path / "f.npy", batch_size=4)
    assert not (tmp_path / "f.npy").exists()


@pytest.mark.parametrize("name", ["absent.parquet", "f.csv"])
def test_reading_what_is_not_there_is_one_line(tmp_path, name):
    with pytest.raises(TacitError, match=r"no such file|ends in"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["f.parquet", "f.npy", "f.h5"])
def test_reading_a_broken_file_is_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of the sort")
    with pytest.raises(TacitError, match="cannot read"):
        read(tmp_path / name)


def test_two_calls_do_not_write_one_file_at_the_same_time(folder, tmp_path):
    with (
        files.locked(tmp_path / "f.npy.parts" / "lock", lambda holder: None),
        pytest.raises(TacitError, match=r"process \d+ on .* is writing .*f\.npy; wait for it"),
    ):
        embed(encode, open_data(folder), tmp_path / "f.npy")
    assert embed(encode, open_data(folder), tmp_path / "f.npy").rows == 22
    assert not list(tmp_path.glob("*.parts"))
