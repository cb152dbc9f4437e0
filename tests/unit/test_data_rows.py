"""Rows that are computed are those that a list of them would hold; and which rows are trained on."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
import torch

from tacit.core.draws import Order
from tacit.data import index
from tacit.data.index import Index
from tacit.data.open import open_data
from tacit.data.rows import Rows
from tacit.train.config import Training
from tacit.train.plan import training_part
from tacit.train.session import divide


@pytest.mark.parametrize("without", [[], [0], [9], [3, 4, 7], [7, 3, 4, 3], [0, 1, 2], list(range(10))])
def test_rows_are_the_numbers_but_for_those_left_out(without):
    rows, expected = Rows(10, without), [number for number in range(10) if number not in without]
    assert len(rows) == len(expected)
    assert np.asarray(rows).tolist() == expected
    assert [int(rows[place]) for place in range(len(rows))] == expected


def test_what_is_held_back_and_what_is_kept_are_all_rows_and_none_twice():
    held, kept = divide(1000, Training(held_back=60, seed=5))
    whole = Order(5, 0, 1000, "held back")(torch.arange(1000)).numpy()
    assert held.tolist() == sorted(whole[:60].tolist())
    assert sorted([*held, *np.asarray(kept)]) == list(range(1000))


def test_what_is_called_test_is_never_trained_on():
    found = open_data("sample:fashion_mnist_sprite")
    kept = training_part(found)
    assert kept.index.splits == {"train": found.index.splits["train"]}
    assert len(training_part(kept.select(range(9)))) == 9


def test_a_billion_rows_take_no_memory():
    held, kept = divide(10**9, Training())
    assert len(held) == 512
    assert len(kept) == 10**9 - 512
    assert int(kept[len(kept) - 1]) >= 10**9 - 513


def test_the_hash_of_a_table_does_not_depend_on_how_it_is_looked_at(monkeypatch):
    paths = [f"a/{number}é.png" if number % 7 else None for number in range(100)]
    sizes = [number if number % 5 else None for number in range(100)]
    table = pa.table({"path": paths, "size": pa.array(sizes, pa.int64())})
    digest = hashlib.blake2b(b"path" + "\0".join(path or "" for path in paths).encode() + b"size", digest_size=16)
    digest.update(np.array([-1 if size is None else size for size in sizes], dtype="<i8").tobytes())
    assert Index(table).fingerprint == digest.hexdigest()
    monkeypatch.setattr(index, "AT_ONCE", 7)
    in_chunks = pa.concat_tables([table.slice(0, 30), table.slice(30)])
    assert Index(in_chunks).fingerprint == digest.hexdigest()
