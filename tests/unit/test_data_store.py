"""A store holds what decoding gives, survives being cut off, and notices when it was damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from tacit.core.errors import TacitError
from tacit.data import chunks, store
from tacit.data.open import open_data

RANDOM = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(40):
        Image.fromarray(RANDOM.integers(0, 256, (20 + i % 5, 24, 3), dtype=np.uint8)).save(root / f"{i:02}.png")
    return root


def only(folder):
    found = [f for f in folder.iterdir() if (f / "store.json").exists()]
    assert len(found) == 1
    return found[0]


def decodes(monkeypatch) -> list[int]:
    """The rows that are decoded from now on."""
    rows = []
    before = store.Collection.decode
    monkeypatch.setattr(
        store.Collection, "decode", lambda self, row, side=None, *part: (rows.append(row), before(self, row, side, *part))[1]
    )
    return rows


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_what_is_stored_is_what_decoding_gives(tmp_path, dtype, channels):
    data = (RANDOM.random((7, 12, 10, channels)) * 200).astype(dtype)
    collection = open_data(data)
    kept = store.build(collection, None, tmp_path, 10**9)
    batch = kept.batch(np.array([6, 0, 3]))
    assert kept.fixed
    assert batch.ids.tolist() == [6, 0, 3]
    assert np.array_equal(batch.data.numpy(), data[[6, 0, 3]].transpose(0, 3, 1, 2))
    assert batch.data.numpy().dtype == dtype


def test_different_sizes_are_kept_and_padded(tmp_path, photos):
    collection = open_data(photos)
    kept = store.build(collection, 16, tmp_path / "s", 10**9)
    assert not kept.fixed
    batch = kept.batch(np.arange(5))
    for row in range(5):
        decoded = collection.decode(row, 16)
        assert batch.sizes[row].tolist() == list(decoded.shape[:2])
        assert np.array_equal(batch.data[row, :, : decoded.shape[0], : decoded.shape[1]].numpy(), decoded.transpose(2, 0, 1))


def test_a_finished_store_is_opened_without_decoding(tmp_path, photos, monkeypatch):
    first = store.build(open_data(photos), None, tmp_path / "s", 10**9)
    rows = decodes(monkeypatch)
    again = store.build(open_data(photos), None, tmp_path / "s", 10**9)
    assert rows == []
    assert np.array_equal(again.batch(np.arange(40)).data, first.batch(np.arange(40)).data)


def test_other_content_side_or_channels_make_another_store(tmp_path, photos):
    folders = set()
    for make in (
        lambda: (open_data(photos), None),
        lambda: (open_data(photos), 16),
        lambda: (open_data(photos).select(range(5)), None),
    ):
        folders.add(store.build(*make(), tmp_path / "s", 10**9).folder)
    Image.fromarray(RANDOM.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(photos / "00.png")
    changed = store.build(open_data(photos), None, tmp_path / "s", 10**9)
    assert changed.folder not in folders
    assert changed.sizes[0].tolist() == [9, 9]


def test_the_store_of_files_that_have_changed_is_removed(tmp_path, photos):
    old = store.build(open_data(photos), None, tmp_path / "s", 10**9).folder
    other = store.build(open_data(photos), 16, tmp_path / "s", 10**9).folder
    Image.fromarray(RANDOM.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(photos / "00.png")
    store.build(open_data(photos), None, tmp_path / "s", 10**9)
    assert not old.exists()
    assert other.exists()


def test_a_build_that_was_cut_off_goes_on_after_its_last_whole_chunk(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 8)

    def stop(done, total):
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build(open_data(photos), None, tmp_path / "s", 10**9, progress=stop)
    (folder,) = (tmp_path / "s").iterdir()
    with open(folder / "samples.bin", "ab") as file:
        file.write(b"half a chunk")
    with open(folder / "journal.jsonl", "a") as file:
        file.write('{"bytes": 12, "check')
    rows = decodes(monkeypatch)
    kept = store.build(open_data(photos), None, tmp_path / "s", 10**9)
    assert sorted(rows) == list(range(16, 40))
    collection = open_data(photos)
    assert all(np.array_equal(kept.sample(r).transpose(1, 2, 0), collection.decode(r)) for r in range(40))


def test_a_build_that_was_killed_goes_on(tmp_path, photos):
    code = (
        "import sys, time; from tacit.data import chunks, store; from tacit.data.open import open_data\n"
        "chunks.CHUNK_ROWS = 4\n"
        "def slow(done, total): print(done, flush=True); time.sleep(0.2)\n"
        f"store.build(open_data({str(photos)!r}), None, {str(tmp_path / 's')!r}, 10**9, progress=slow)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while int(process.stdout.readline()) < 12:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = []
    kept = store.build(open_data(photos), None, tmp_path / "s", 10**9, progress=lambda d, t: done.append(d))
    assert len(kept) == 40
    assert len(done) == 1
    assert np.array_equal(kept.sample(39).transpose(1, 2, 0), open_data(photos).decode(39))


@pytest.mark.parametrize("damage", ["flip", "truncate", "longer", "journal", "heading", "gone"])
def test_a_damaged_store_is_made_again(tmp_path, photos, damage, monkeypatch):
    good = store.build(open_data(photos), None, tmp_path / "s", 10**9).batch(np.arange(40))
    folder = only(tmp_path / "s")
    samples = folder / "samples.bin"
    if damage == "flip":
        content = bytearray(samples.read_bytes())
        content[5000] ^= 1
        samples.write_bytes(content)
    elif damage == "truncate":
        os.truncate(samples, 3000)
    elif damage == "longer":
        samples.write_bytes(samples.read_bytes() + b"\0")
    elif damage == "journal":
        (folder / "journal.jsonl").write_text("{}\n")
    elif damage == "heading":
        (folder / "store.json").write_text(json.dumps({"version": 0}))
    else:
        samples.unlink()
    rows = decodes(monkeypatch)
    again = store.build(open_data(photos), None, tmp_path / "s", 10**9).batch(np.arange(40))
    assert len(rows) == 40
    assert np.array_equal(again.data, good.data)


def test_a_journal_with_a_digit_changed_is_not_believed(tmp_path, photos, monkeypatch):
    """As many bytes as before, so that nothing else could tell."""
    good = store.build(open_data(photos), None, tmp_path / "s", 10**9).batch(np.arange(40))
    journal = only(tmp_path / "s") / "journal.jsonl"
    journal.write_text(journal.read_text().replace("[20, 24]", "[24, 20]", 1))
    rows = decodes(monkeypatch)
    again = store.build(open_data(photos), None, tmp_path / "s", 10**9).batch(np.arange(40))
    assert len(rows) == 40
    assert torch.equal(again.data, good.data)


def test_the_budget_decides_and_says_why(tmp_path, photos):
    collection = open_data(photos)
    kept, why = store.prepare(collection, None, tmp_path / "s", 10**9)
    assert kept is not None
    assert "decoded once" in why
    kept, why = store.prepare(collection, None, tmp_path / "t", 1000)
    assert kept is None
    assert "63.4 kB of 1 kB" in why
    assert abs(store.expected_bytes(collection, None) - 40 * 22 * 24 * 3) < 0.05 * 40 * 22 * 24 * 3
    # Headers can deceive: what is there is counted again while it is written.
    with pytest.raises(store.OverBudget):
        store.build(collection, None, tmp_path / "u", 1000)
    assert not list((tmp_path / "u").glob("*/samples.bin"))


def test_a_full_disk_is_one_line_and_the_build_goes_on_later(tmp_path, photos, monkeypatch):
    import errno

    def full(done, total):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(chunks, "CHUNK_ROWS", 8)
    with pytest.raises(TacitError, match="no space left") as problem:
        store.build(open_data(photos), None, tmp_path / "s", 10**9, progress=full)
    assert "\n" not in str(problem.value)
    rows = decodes(monkeypatch)
    store.build(open_data(photos), None, tmp_path / "s", 10**9)
    assert sorted(rows) == list(range(8, 40))


def test_two_at_once_make_one_store(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 8)
    made = []

    def slow(done, total):
        made.append(done)
        time.sleep(0.05)

    def build(_):
        return store.build(open_data(photos), None, tmp_path / "s", 10**9, progress=slow).batch(np.arange(40)).data

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(build, range(2))
    assert made == [8, 16, 24, 32, 40]
    assert torch.equal(first, second)


def test_the_budget_by_default_leaves_room(tmp_path):
    import shutil

    assert 0 < store.default_budget(tmp_path / "not" / "there") <= shutil.disk_usage(tmp_path).free
