"""Whatever a person points at becomes the same collection: the samples that lie there, in a fixed order."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tacit.core.errors import TacitError
from tacit.data.open import open_data
from tacit.data.samples import SAMPLES
from tacit.data.sources import folder as folder_source
from tacit.data.sources.shards import expanded

RANDOM = np.random.default_rng(1)
PICTURES = [RANDOM.integers(0, 256, (8 + i, 9, 3), dtype=np.uint8) for i in range(6)]
LABELS = ["cat", "dog", "cat", "dog", "cat", "dog"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def written(root: Path, names: list[str]) -> Path:
    for name, array in zip(names, PICTURES, strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(array))
    return root


def shown(collection) -> list[int]:
    """Which of PICTURES each row decodes to."""
    decoded = [collection.decode(row) for row in range(len(collection))]
    return [next(i for i, p in enumerate(PICTURES) if np.array_equal(p, d)) for d in decoded]


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_a_nested_folder_is_listed_whole_and_sorted(tmp_path):
    root = written(tmp_path / "p", ["b.png", "a/2.PNG", "a/1.png", "a/deep/er/3.png"])
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.png").write_bytes(png(PICTURES[0]))
    found = open_data(root)
    assert [os.path.relpath(p, root) for p in found.paths] == ["a/1.png", "a/2.PNG", "a/deep/er/3.png", "b.png"]
    assert shown(found) == [2, 1, 3, 0]
    assert found.labels is None
    assert "1 files of other types left out" in found.description


def test_class_folders_are_labels_and_split_folders_are_splits(tmp_path):
    names = ["train/cat/1.png", "train/dog/2.png", "valid/cat/3.png", "Test/dog/4.png"]
    found = open_data(written(tmp_path / "p", names))
    assert dict(zip(found.index.strings("split"), found.labels, strict=True)) == {"train": "dog", "val": "cat", "test": "dog"}
    assert found.index.splits == {"train": 2, "val": 1, "test": 1}
    assert sorted(open_data(tmp_path / "p", split="train").labels) == ["cat", "dog"]
    assert len(open_data(tmp_path / "p", split="validation")) == 1
    with pytest.raises(TacitError, match=r"no split 'tran'.*did you mean 'train'"):
        open_data(tmp_path / "p", split="tran")


def test_splits_may_lie_within_class_folders(tmp_path):
    found = open_data(written(tmp_path / "p", ["cat/train/1.png", "cat/test/2.png", "dog/train/3.png", "dog/test/4.png"]))
    assert found.labels.tolist() == ["cat", "cat", "dog", "dog"]
    assert found.index.splits == {"train": 2, "test": 2}


def test_one_folder_below_is_no_label(tmp_path):
    assert open_data(written(tmp_path / "p", ["images/1.png", "images/2.png"])).labels is None


def test_odd_names_and_links_are_survived(tmp_path):
    root = written(tmp_path / "p", ["a b\n\t.png", "ü☃.png", "%20{x}.png", "x'\"$(y).png"])
    raw = os.path.join(os.fsencode(root), b"\xff\xfe.png")
    with open(raw, "wb") as file:
        file.write(png(PICTURES[4]))
    (root / "loop").symlink_to(root)
    (root / "dangling.png").symlink_to(root / "nowhere.png")
    (root / "self.png").symlink_to(root / "self.png")
    os.mkfifo(root / "pipe.png")
    found = open_data(root)
    assert sorted(shown(found)) == [0, 1, 2, 3, 4]
    found.index.table["path"].to_pylist()[0].encode("utf-8")


def test_a_linked_folder_is_followed_once(tmp_path):
    far = written(tmp_path / "far", ["1.png", "2.png"])
    near = tmp_path / "near"
    near.mkdir()
    (near / "one").symlink_to(far)
    (near / "two").symlink_to(far)
    assert len(open_data(near)) == 2


@pytest.mark.parametrize("as_url", [False, True])
def test_a_list_of_files_is_taken_in_its_order(tmp_path, as_url):
    root = written(tmp_path / "p", ["1.png", "2.png", "3.png"])
    (root / "list.txt").write_text("3.png\n\n1.png\n")
    assert shown(open_data(root / "list.txt")) == [2, 0]
    prefix = "file://" if as_url else ""
    assert shown(open_data([f"{prefix}{root}/2.png", f"{prefix}{root}/1.png"])) == [1, 0]


@pytest.mark.parametrize("form", ["csv", "tsv", "semicolon", "jsonl", "parquet"])
@pytest.mark.parametrize("name", ["path", "image", "File_Name", "unusual"])
def test_manifests_name_files_labels_and_splits(tmp_path, form, name):
    root = written(tmp_path / "p", [f"sub/{i}.png" for i in range(6)])
    rows = [
        {name: f"sub/{i}.png", "label": LABELS[i], "split": "Training" if i < 4 else "test", "age": 30 + i}
        for i in reversed(range(6))
    ]
    path = root / f"list.{'csv' if form == 'semicolon' else form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter={"csv": ",", "tsv": "\t", "semicolon": ";"}[form])
            writer.writeheader()
            writer.writerows(rows)
    found = open_data(path)
    assert shown(found) == [5, 4, 3, 2, 1, 0]
    assert found.labels.tolist() == LABELS[::-1]
    assert found.index.splits == {"train": 4, "test": 2}
    assert [str(v) for v in found.index.table["age"].to_pylist()] == ["35", "34", "33", "32", "31", "30"]
    assert len(open_data(path, split="test")) == 2


def test_columns_can_be_named(tmp_path):
    root = written(tmp_path / "p", ["1.png", "2.png"])
    (root / "m.csv").write_text("scan,label,dx,size\n1.png,007,sick,big\n2.png,008,well,small\n")
    found = open_data(root / "m.csv", columns={"path": "scan", "label": "dx"})
    assert found.labels.tolist() == ["sick", "well"]
    assert found.index.table["own_label"].to_pylist() == ["007", "008"]
    assert found.index.table["own_size"].to_pylist() == ["big", "small"]
    assert found.index.table["size"].to_pylist() == [len(png(p)) for p in PICTURES[:2]]
    with pytest.raises(TacitError, match=r"no column 'scam'.*did you mean 'scan'"):
        open_data(root / "m.csv", columns={"path": "scam"})
    with pytest.raises(TacitError, match="did you mean 'label'"):
        open_data(root / "m.csv", columns={"lable": "dx"})


def test_a_manifest_without_files_says_what_it_looked_for(tmp_path):
    (tmp_path / "m.csv").write_text("a,b\n1,2\n")
    with pytest.raises(TacitError, match="none of its columns a, b"):
        open_data(tmp_path / "m.csv")
    (tmp_path / "e.csv").write_text("")
    with pytest.raises(TacitError, match="empty"):
        open_data(tmp_path / "e.csv")


def test_parquet_may_hold_the_files_themselves(tmp_path):
    cells = [{"bytes": png(p), "path": f"{i}.png"} for i, p in enumerate(PICTURES)]
    pq.write_table(pa.table({"image": cells, "label": LABELS}), tmp_path / "a.parquet")
    assert shown(open_data(tmp_path / "a.parquet")) == [0, 1, 2, 3, 4, 5]
    pq.write_table(pa.table({"image": [png(p) for p in PICTURES]}), tmp_path / "b.parquet")
    assert shown(open_data(tmp_path / "b.parquet")) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_medmnist_arrays_bring_splits_and_labels(tmp_path, save):
    train, test = (RANDOM.integers(0, 256, (n, 28, 28, 3), dtype=np.uint8) for n in (5, 3))
    save(
        tmp_path / "m.npz",
        train_images=train,
        train_labels=np.arange(5)[:, None],
        test_images=test,
        test_labels=np.zeros((3, 1), int),
    )
    found = open_data(tmp_path / "m.npz")
    assert found.index.splits == {"train": 5, "test": 3}
    assert found.labels.tolist() == ["0", "1", "2", "3", "4", "0", "0", "0"]
    assert np.array_equal(np.stack([found.decode(i) for i in range(8)]), np.concatenate([train, test]))
    assert np.array_equal(open_data(tmp_path / "m.npz", split="test").decode(1), test[1])


def test_plain_arrays_are_samples_in_any_layout(tmp_path):
    grey = RANDOM.integers(0, 60000, (4, 12, 10), dtype=np.uint16)
    np.savez(tmp_path / "g.npz", images=grey, labels=np.array(["a", "b", "a", "b"]))
    found = open_data(tmp_path / "g.npz")
    assert found.labels.tolist() == ["a", "b", "a", "b"]
    assert np.array_equal(found.decode(2)[..., 0], grey[2])
    np.save(tmp_path / "h.npy", np.asfortranarray(grey))
    assert np.array_equal(open_data(tmp_path / "h.npy").decode(3)[..., 0], grey[3])
    np.savez(tmp_path / "f.npz", images=np.asfortranarray(grey))
    assert np.array_equal(open_data(tmp_path / "f.npz").decode(3)[..., 0], grey[3])


def test_a_pack_is_read_with_its_manifest(tmp_path):
    files = [png(p) for p in PICTURES]
    blob, offset = np.frombuffer(b"".join(files), np.uint8), np.cumsum([0, *map(len, files)])
    np.savez_compressed(tmp_path / "images.npz", blob=blob, offset=offset)
    (tmp_path / "manifest.csv").write_text("file,label\n" + "".join(f"{i}.png,{LABELS[i]}\n" for i in range(6)))
    for target in (tmp_path, tmp_path / "images.npz"):
        found = open_data(target)
        assert shown(found) == [0, 1, 2, 3, 4, 5]
        assert found.labels.tolist() == LABELS
        assert found.index.table["path"].to_pylist()[0] == "0.png"


@pytest.mark.parametrize("name", ["clouds.npz", "clouds.npy"])
def test_the_only_arrays_beside_a_manifest_are_its_samples(tmp_path, name):
    clouds = RANDOM.normal(size=(6, 60, 3)).astype(np.float32)
    np.savez(tmp_path / name, points=clouds) if name.endswith("z") else np.save(tmp_path / name, clouds)
    rows = "".join(f"{i},{LABELS[i]}\n" for i in range(6))
    (tmp_path / "manifest.csv").write_text(f"index,label\n{rows}")
    found = open_data(tmp_path)
    assert (found.kind.name, found.labels.tolist()) == ("points", LABELS)
    assert np.array_equal(found.decode(4), clouds[4])
    (tmp_path / "manifest.csv").write_text("index,label\n0,a\n")
    assert len(open_data(tmp_path, kind="volume")) == 1
    np.save(tmp_path / "further.npy", clouds[0])
    assert len(open_data(tmp_path, kind="volume")) == 2


@pytest.mark.parametrize("ending", ["h5", "npz"])
def test_files_with_a_label_for_each_sample_hold_many(tmp_path, ending):
    """ModelNet's form; without labels each file is one sample."""
    clouds = RANDOM.normal(size=(6, 60, 3)).astype(np.float32)
    for name, part in (("shapes_train0", slice(0, 3)), ("shapes_train1", slice(3, 5)), ("shapes_test0", slice(5, 6))):
        held = {"data": clouds[part], "label": np.arange(6, dtype=np.uint8)[part, None]}
        if ending == "npz":
            np.savez_compressed(tmp_path / f"{name}.npz", **held)
            continue
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            for key, array in held.items():
                file.create_dataset(key, data=array, compression="gzip")
    found = open_data(tmp_path)
    assert (found.kind.name, found.index.splits) == ("points", {"train": 5, "test": 1})
    assert found.labels.tolist() == ["5", "0", "1", "2", "3", "4"]
    assert np.array_equal(found.decode(4), clouds[3])
    assert len(open_data(tmp_path / f"shapes_train0.{ending}")) == 3
    if ending == "h5":
        with h5py.File(tmp_path / "further.h5", "w") as file:
            file["data"] = clouds
        assert len(open_data(tmp_path, kind="volume")) == 4


def test_labelled_files_have_to_fit_into_memory_together(tmp_path, monkeypatch):
    monkeypatch.setattr("tacit.data.sources.arrays.memory", lambda: 6 << 20)
    for number in range(2):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["data"], file["label"] = np.zeros((2, 512, 512), np.float32), [0, 1]
    assert len(open_data(tmp_path / "0.h5")) == 2
    with pytest.raises(TacitError, match="do not fit into memory: give fewer"):
        open_data(tmp_path)


def test_what_cannot_be_read_is_named_with_its_fault_and_the_kind_that_was_tried(tmp_path):
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "words.parquet")
    with pytest.raises(TacitError, match=r"'points', such as words.parquet: no x, y and z .*; name another kind with --kind"):
        open_data(tmp_path, kind="points")


def shards(root: Path) -> Path:
    root.mkdir(parents=True)
    for shard in range(3):
        members = {}
        for i in (2 * shard, 2 * shard + 1):
            members |= {f"s/{i:03}.mask.png": png(PICTURES[0]), f"s/{i:03}.png": png(PICTURES[i])}
            members |= {f"s/{i:03}.cls": LABELS[i].encode(), f"s/{i:03}.txt": f"number {i}".encode()}
        if shard:
            members.pop(f"s/{2 * shard:03}.mask.png")
        tar(root / f"x-{shard:03}.tar", members)
    return root


def test_webdataset_shards_are_read_by_offset_in_every_notation(tmp_path):
    root = shards(tmp_path / "w")
    whole = str(root / "x-{000..002}.tar")
    for target in (whole, root, str(root / "x-{000,001,002}.tar"), whole):
        found = open_data(target)
        assert shown(found) == [0, 1, 2, 3, 4, 5]
        assert found.labels.tolist() == LABELS
        assert found.index.table["caption"].to_pylist()[3] == "number 3"
    assert shown(open_data(root / "x-001.tar")) == [2, 3]
    with pytest.raises(TacitError, match="no such shard"):
        open_data(str(root / "x-{000..003}.tar"))


def test_shards_carry_labels_in_json_and_splits_in_their_names(tmp_path):
    tar(tmp_path / "train-0.tar", {"1.png": png(PICTURES[1]), "1.json": b'{"label": 3, "caption": "a cat"}'})
    tar(tmp_path / "test-0.tar", {"1.png": png(PICTURES[2]), "1.json": b"{broken"})
    found = open_data(str(tmp_path / "{train,test}-0.tar"))
    assert found.labels.tolist() == ["3", ""]
    assert found.index.splits == {"train": 1, "test": 1}


def test_braces_are_expanded_as_webdataset_does():
    assert expanded("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expanded("{a,b}{1..2}") == ["a1", "a2", "b1", "b2"]
    with pytest.raises(TacitError, match="no range"):
        expanded("{5..1}.tar")


def test_a_saved_hugging_face_data_set_is_read_without_the_library(tmp_path, monkeypatch):
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"]), "note": datasets.Value("string")}
    )
    rows = {
        "image": [{"bytes": png(p), "path": None} for p in PICTURES],
        "label": [LABELS.index(v) for v in LABELS],
        "note": LABELS,
    }
    whole = datasets.Dataset.from_dict(rows, features=features)
    whole.save_to_disk(str(tmp_path / "one"), num_shards=2)
    both = datasets.DatasetDict({"train": whole.select(range(4)), "test": whole.select([5, 4])})
    both.save_to_disk(str(tmp_path / "two"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert open_data(tmp_path / "one").labels.tolist() == LABELS
    assert open_data(tmp_path / "two").index.splits == {"train": 4, "test": 2}
    assert shown(open_data(tmp_path / "one")) == [0, 1, 2, 3, 4, 5]
    assert shown(open_data(tmp_path / "two")) == [0, 1, 2, 3, 5, 4]


class Pairs(torch.utils.data.Dataset):
    def __init__(self, first, **more):
        self.first = first
        self.__dict__.update(more)

    def __len__(self):
        return 6

    def __getitem__(self, row):
        return self.first(row), LABELS[row]


@pytest.mark.parametrize(
    "first",
    [
        lambda i: PICTURES[i],
        lambda i: torch.from_numpy(PICTURES[i]).permute(2, 0, 1),
        lambda i: Image.fromarray(PICTURES[i]),
        lambda i: png(PICTURES[i]),
    ],
)
def test_a_torch_dataset_may_give_arrays_tensors_pictures_or_bytes(first):
    found = open_data(Pairs(first))
    assert shown(found) == [0, 1, 2, 3, 4, 5]
    assert found.labels.tolist() == LABELS
    assert found.select([5, 0]).labels.tolist() == ["dog", "cat"]


def test_labels_kept_beside_the_items_of_a_dataset_are_used():
    found = open_data(Pairs(lambda i: PICTURES[i], targets=[0, 1] * 3, classes=["cat", "dog"]))
    assert found.index.strings("label").tolist() == LABELS
    subset = torch.utils.data.Subset(Pairs(lambda i: PICTURES[i], targets=[0, 1] * 3), [3, 2])
    assert open_data(subset).labels.tolist() == ["1", "0"]
    tensors = torch.utils.data.TensorDataset(torch.rand(4, 3, 8, 8), torch.arange(4))
    assert open_data(tensors).labels.tolist() == ["0", "1", "2", "3"]
    assert open_data(tensors).decode(0).dtype == np.float32


def test_a_dataset_with_random_items_is_refused():
    with pytest.raises(TacitError, match="without random transforms"):
        open_data(Pairs(lambda i: RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)))


def test_streams_and_other_things_are_refused_in_one_line():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield 1

    for data, said in ((Stream(), "no length"), (3, "type int"), ([], "empty list"), ("nowhere/", "no such file or folder")):
        with pytest.raises(TacitError, match=said) as problem:
            open_data(data)
        assert "\n" not in str(problem.value)


def test_a_wrong_path_names_the_nearest(tmp_path):
    written(tmp_path / "photos", ["1.png"])
    with pytest.raises(TacitError, match="did you mean 'photos'"):
        open_data(tmp_path / "phots")


def test_empty_and_unsuitable_folders_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TacitError, match="no files"):
        open_data(tmp_path / "empty")
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.md").write_text("x")
    with pytest.raises(TacitError, match="no kind of data"):
        open_data(tmp_path / "text")
    with pytest.raises(TacitError, match="unknown kind"):
        open_data(tmp_path / "text", kind="sound")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TacitError, match="neither a folder nor a regular file"):
        open_data(tmp_path / "pipe")


@pytest.mark.parametrize("form", ["folder", "csv", "npz", "tar", "huggingface", "one picture"])
def test_any_url_of_fsspec_works(tmp_path, form):
    memory = fsspec.filesystem("memory")
    memory.rm("/box", recursive=True) if memory.exists("/box") else None
    local = written(tmp_path / "box", [f"{i}.png" for i in range(6)])
    target = "memory://box"
    if form == "csv":
        (local / "m.csv").write_text("path\n" + "".join(f"{i}.png\n" for i in range(6)))
        target += "/m.csv"
    elif form == "npz":
        np.savez(local / "m.npz", images=np.stack([p[:8] for p in PICTURES]))
        target += "/m.npz"
    elif form == "tar":
        tar(local / "m.tar", {f"{i}.png": png(p) for i, p in enumerate(PICTURES)})
        target += "/m.tar"
    elif form == "huggingface":
        import datasets

        shutil.rmtree(local)
        rows = {"image": [{"bytes": png(p), "path": None} for p in PICTURES]}
        datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()})).save_to_disk(str(local))
    elif form == "one picture":
        target += "/3.png"
    memory.put(str(local), "/box", recursive=True)
    found = open_data(target)
    if form == "npz":
        assert np.array_equal(found.decode(4), PICTURES[4][:8])
    else:
        assert shown(found) == ([3] if form == "one picture" else [0, 1, 2, 3, 4, 5])
    if form == "folder":
        assert found.paths[0] == "memory:///box/0.png"


def test_every_bundled_sample_opens_with_its_splits():
    for name, sample in SAMPLES.items():
        found = open_data(f"sample:{name}")
        assert len(found) == sample.count
        assert set(found.index.splits) == {"train", "test"}
        assert (found.labels is None) == (sample.labels == "none")
        assert found.kind.name == sample.kind
        sides = found.form.extent[found.kind.pixels]
        assert "x".join(map(str, sides[::-1])) in sample.size
        assert found.decode(len(found) - 1).ndim == len(found.form.extent) + 1
    with pytest.raises(TacitError, match="did you mean 'clothing96'"):
        open_data("sample:clothing")


def test_bundled_samples_are_small_and_attributed():
    root = Path(__file__).parents[2]
    notice = (root / "NOTICE").read_text()
    assert sum(f.stat().st_size for s in SAMPLES.values() for f in s.folder.rglob("*")) < 20_000_000
    assert all(name in notice and s.source in notice for name, s in SAMPLES.items())


def test_listing_the_samples_imports_nothing_heavy():
    code = "import sys, tacit.data.samples; print([m for m in ('torch', 'numpy', 'pyarrow', 'PIL') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_fingerprint_follows_content_and_not_place(tmp_path):
    root = written(tmp_path / "p", ["1.png", "2.png"])
    before = open_data(root).fingerprint
    assert open_data(root).fingerprint == before
    os.rename(root, tmp_path / "q")
    assert open_data(tmp_path / "q").fingerprint == before
    (tmp_path / "q/2.png").write_bytes(png(PICTURES[5]))
    assert open_data(tmp_path / "q").fingerprint != before
    assert open_data(tmp_path / "q").select([0]).fingerprint != open_data(tmp_path / "q").select([1]).fingerprint


def test_a_second_start_reads_no_file_facts_again(tmp_path, monkeypatch):
    root = written(tmp_path / "p", [f"{c}/{i}.png" for c in "ab" for i in range(3)])
    for folder in (root, root / "a", root / "b"):
        os.utime(folder, (1, 1))
    first = open_data(root)
    monkeypatch.setattr(folder_source, "_scan", lambda root: pytest.fail("it was listed again"))
    again = open_data(root)
    assert again.index.table.equals(first.index.table)
    monkeypatch.undo()
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))
    (root / "a/new.png").write_bytes(png(PICTURES[0]))
    assert len(open_data(root)) == 7
    os.utime(root / "a", (1, 1))
    open_data(root)
    (root / "b/0.png").write_bytes(b"changed in place")
    assert "changed in place" in open_data(root).read(list(open_data(root).paths).index(str(root / "b/0.png"))).decode()


def test_an_edit_in_place_is_seen_whichever_file_it_is(tmp_path):
    root = tmp_path / "p"
    root.mkdir()
    for i in range(150):
        (root / f"{i:03}.png").write_bytes(png(PICTURES[0]))
    os.utime(root, (1, 1))
    before = open_data(root).fingerprint
    for row in (0, 1, 77, 149):
        facts = os.stat(root / f"{row:03}.png")
        os.utime(root / f"{row:03}.png", ns=(facts.st_atime_ns, facts.st_mtime_ns + 1000))
        after = open_data(root).fingerprint
        assert after != before, row
        before = after


def test_a_file_of_another_length_is_seen_whatever_its_time_says(tmp_path):
    root = written(tmp_path / "p", ["1.png", "2.png"])
    facts = os.stat(root / "2.png")
    os.utime(root, (1, 1))
    before = open_data(root).fingerprint
    (root / "2.png").write_bytes(png(PICTURES[5]))
    os.utime(root / "2.png", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    os.utime(root, (1, 1))
    found = open_data(root)
    assert found.fingerprint != before
    assert shown(found) == [0, 5]


def test_a_broken_listing_cache_is_no_listing_cache(tmp_path):
    root = written(tmp_path / "p", ["1.png", "2.png"])
    os.utime(root, (1, 1))
    open_data(root)
    for file in (tmp_path / "cache/listings").iterdir():
        file.write_bytes(b"\0" * 50)
    assert len(open_data(root)) == 2


def test_thousands_of_files_are_listed_in_a_moment(tmp_path):
    for folder in range(5):
        (tmp_path / f"p/{folder}").mkdir(parents=True)
        for i in range(800):
            (tmp_path / f"p/{folder}/{i}.png").touch()
    began = time.perf_counter()
    assert len(folder_source._scan(str(tmp_path / "p"))[0]) == 4000
    assert time.perf_counter() - began < 1


def test_columns_are_refused_where_there_are_none(tmp_path):
    written(tmp_path / "p", ["1.png"])
    with pytest.raises(TacitError, match="columns belong to a manifest"):
        open_data(tmp_path / "p", columns={"label": "dx"})


def test_a_file_system_that_cannot_be_reached_is_one_line():
    for url in ("nosuch://bucket/data", "memory://nowhere"):
        with pytest.raises(TacitError) as problem:
            open_data(url)
        assert "\n" not in str(problem.value)
