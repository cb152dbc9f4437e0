"""Batches are a function of the step, the same from a store and from files, on one rank and on many."""

from __future__ import annotations

import io
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tacit.core.draws import Order
from tacit.core.errors import TacitError
from tacit.data import store
from tacit.data.loader import Loader
from tacit.data.open import measure, open_data
from tacit.data.skipped import screen, write_skipped

RANDOM = np.random.default_rng(2)
BAD = (3, 17, 40)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))


class Pictures:
    """Pictures whose first pixel is their number; some are broken, sizes differ where asked."""

    def __init__(self, count: int = 50, bad=(), ragged: bool = False) -> None:
        self.count, self.bad, self.ragged = count, bad, ragged

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> bytes:
        if not 0 <= row < self.count:
            raise IndexError
        if row in self.bad:
            return b"broken"
        array = np.full((8 + row % 3 if self.ragged else 8, 9, 3), row, dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(array).save(file, "PNG")
        return file.getvalue()


def both(tmp_path, data, **options) -> tuple[Loader, Loader]:
    collection = open_data(data)
    kept = store.build(collection, options.pop("side", None), tmp_path / "stores", 10**9, max_bad=1)
    return (Loader(collection, kept, None, max_bad=1, **options), Loader(collection, None, None, max_bad=1, **options))


def same(a, b) -> bool:
    return (
        torch.equal(a.ids, b.ids)
        and torch.equal(a.data, b.data)
        and torch.equal(a.sizes, b.sizes)
        and a.data.dtype == b.data.dtype
    )


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("bad", [(), BAD])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_store_and_the_files_give_the_same_batches(tmp_path, ragged, bad, shuffle):
    stored, direct = both(tmp_path, Pictures(50, bad, ragged), batch_size=8, seed=1, shuffle=shuffle)
    for step in range(stored.steps_per_epoch):
        assert same(stored.batch(step), direct.batch(step))


def test_a_batch_needs_no_history(tmp_path):
    loader, fresh = (both(tmp_path, Pictures(), batch_size=8, seed=3)[0] for _ in range(2))
    batches = [loader.batch(step) for step in range(20)]
    assert same(fresh.batch(17), batches[17])
    assert all(same(a, b) for a, b in zip(fresh.ahead(5, 9), batches[5:9], strict=True))


def test_every_sample_is_shown_once_an_epoch_in_a_new_order(tmp_path):
    loader, _ = both(tmp_path, Pictures(48), batch_size=8, seed=0)
    epochs = [torch.cat([loader.batch(6 * e + s).ids for s in range(6)]).tolist() for e in range(3)]
    assert all(sorted(epoch) == list(range(48)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    other = both(tmp_path, Pictures(48), batch_size=8, seed=1)[0]
    assert other.batch(0).ids.tolist() != loader.batch(0).ids.tolist()


@pytest.mark.parametrize("block", [1, 7, 100])
def test_the_order_is_that_of_the_draws_however_it_is_computed(block, monkeypatch):
    monkeypatch.setattr("tacit.data.loader.BLOCK", block)
    loader = Loader(open_data(Pictures(50)), None, None, 8, 3)
    for step in (0, 5, 6, 13):
        places = torch.arange(8) + step % 6 * 8
        assert torch.equal(loader.batch(step).ids, Order(3, step // 6, 50)(places))


def test_ids_name_what_is_shown(tmp_path):
    for loader in both(tmp_path, Pictures(50, BAD), batch_size=8, seed=0):
        for step in range(12):
            batch = loader.batch(step)
            assert torch.equal(batch.data[:, 0, 0, 0].long(), batch.ids)


def test_a_sample_s_partner_is_drawn_and_is_another_one(tmp_path):
    """Whatever else is in the batch, with a store and without; and a broken one is none."""
    for loader in both(tmp_path, Pictures(50, BAD), batch_size=8, seed=0, partners=True):
        batch = loader.batch(3)
        partner = batch.parts["partner"]
        assert torch.equal(partner.data[:, 0, 0, 0].long(), partner.ids)
        assert not (partner.ids == batch.ids).any()
        assert not set(partner.ids.tolist()) & set(BAD)
        alone = [loader.batch(step).parts["partner"].ids for step in (3, 9)]
        assert torch.equal(alone[0], partner.ids)
        assert not torch.equal(alone[1], partner.ids)


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_the_batch_of_one_process(tmp_path, world, shuffle):
    whole, _ = both(tmp_path, Pictures(50, BAD), batch_size=8, seed=5, shuffle=shuffle)
    parts = [
        both(tmp_path, Pictures(50, BAD), batch_size=8, seed=5, shuffle=shuffle, rank=r, world=world)[0] for r in range(world)
    ]
    for step in range(whole.steps_per_epoch):
        assert torch.cat([p.batch(step).ids for p in parts]).tolist() == whole.batch(step).ids.tolist()


def test_an_incomplete_batch_is_dropped_when_shuffling_and_kept_in_a_pass(tmp_path):
    shuffled, _ = both(tmp_path, Pictures(50), batch_size=8, seed=0)
    assert shuffled.steps_per_epoch == 6
    ordered, direct = both(tmp_path, Pictures(50, BAD), batch_size=8, seed=0, shuffle=False)
    for loader in (ordered, direct):
        assert torch.cat([b.ids for b in loader]).tolist() == [r for r in range(50) if r not in BAD]
    assert [len(b) for b in both(tmp_path, Pictures(50), batch_size=8, seed=0, shuffle=False)[0]] == [8] * 6 + [2]


def test_rows_restrict_what_is_served_and_what_stands_in(tmp_path):
    collection = open_data(Pictures(50, BAD))
    rows = np.arange(0, 50, 1)[:20]
    for kept in (None, store.build(collection, None, tmp_path, 10**9, max_bad=1)):
        loader = Loader(collection, kept, rows, 4, 0, max_bad=1)
        seen = torch.cat([loader.batch(step).ids for step in range(50)])
        assert set(seen.tolist()) == set(range(20)) - set(BAD)
        assert set(loader.skipped) == {3, 17}


def test_what_stands_in_does_not_depend_on_what_was_seen_before(tmp_path):
    data = Pictures(50, range(0, 50, 3))
    first, again = (both(tmp_path, data, batch_size=10, seed=7)[1] for _ in range(2))
    late = again.batch(37)
    assert same([first.batch(step) for step in range(38)][37], late)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 500))
def test_no_bad_sample_is_ever_shown(seed, step):
    loader = Loader(open_data(Pictures(20, BAD)), None, None, 5, seed, max_bad=1)
    assert not set(loader.batch(step).ids.tolist()) & set(BAD)


def test_too_many_bad_samples_stop_before_training(tmp_path):
    few, many = open_data(Pictures(40, (5,))), open_data(Pictures(40, (5, 6, 7)))
    assert list(screen(few)) == [5]
    store.build(few, None, tmp_path, 10**9)
    said = r"3 of 40 samples cannot be used, more than the allowed 5.0%; the first is Pictures/5 \(not a picture"
    with pytest.raises(TacitError, match=said):
        screen(many)
    with pytest.raises(TacitError, match=said):
        store.build(many, None, tmp_path, 10**9)
    assert len(store.build(many, None, tmp_path, 10**9, max_bad=0.1).bad) == 3
    with pytest.raises(TacitError, match=said):
        list(Loader(many, None, None, 8, 0, shuffle=False))


def test_skipped_files_are_listed_with_path_and_reason(tmp_path):
    (tmp_path / "p").mkdir()
    for i in range(3):
        (tmp_path / f"p/{i}.png").write_bytes(Pictures()[i])
    (tmp_path / "p/tab\tnew\nline.png").write_bytes(b"")
    collection = open_data(tmp_path / "p")
    write_skipped(tmp_path / "skipped.tsv", collection, screen(collection, max_bad=1))
    lines = (tmp_path / "skipped.tsv").read_text().splitlines()
    assert lines == ["path\treason", f"{tmp_path}/p/tab\\tnew\\nline.png\tempty file"]


def test_impossible_batches_are_refused():
    collection = open_data(Pictures(10))
    with pytest.raises(TacitError, match="10 samples are fewer than one batch of 16"):
        Loader(collection, None, None, 16, 0)
    with pytest.raises(TacitError, match="shared evenly by 4"):
        Loader(collection, None, None, 6, 0, world=4)


def test_batches_are_made_ahead_but_only_a_few():
    made = []

    class Counting(Pictures):
        def __getitem__(self, row):
            made.append(row)
            return super().__getitem__(row)

    loader = Loader(open_data(Counting(64)), None, None, 8, 0)
    made.clear()
    batches = loader.ahead(0, 1000)
    next(batches)
    time.sleep(0.3)
    assert 8 * 2 <= len(made) <= 8 * 6
    batches.close()
    time.sleep(0.2)
    stopped = len(made)
    time.sleep(0.2)
    assert len(made) == stopped
    assert sum(t.name.startswith("tacit-decode") for t in threading.enumerate()) < 64


def test_a_failure_in_the_background_reaches_the_one_who_asked():
    loader = Loader(open_data(Pictures(16)), None, None, 8, 0)
    loader.batch = lambda step: 1 / 0
    with pytest.raises(ZeroDivisionError):
        next(iter(loader.ahead(0, 3)))


def test_statistics_are_those_of_the_samples():
    data = RANDOM.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    spec = measure(open_data(data))
    assert (spec.kind, spec.channels, spec.size, spec.low, spec.high) == ("image", 3, (16, 16), 0.0, 255.0)
    assert np.allclose(spec.mean, data.mean(axis=(0, 1, 2)) / 255, atol=1e-5)
    assert np.allclose(spec.std, data.std(axis=(0, 1, 2)) / 255, atol=1e-5)
    assert measure(open_data(data)) == spec


def test_statistics_use_only_the_rows_given():
    data = np.concatenate([np.full((10, 8, 8), 10, np.uint8), np.full((10, 8, 8), 200, np.uint8)])
    assert measure(open_data(data).select(range(10))).mean == (round(10 / 255, 6),)


def test_robust_extremes_mean_nought_and_one_beyond_eight_bits():
    data = RANDOM.normal(100, 5, (20, 32, 32)).astype(np.float32)
    data[0, 0, 0] = 1e9
    spec = measure(open_data(data))
    assert 80 < spec.low < 95
    assert 105 < spec.high < 120
    assert measure(open_data(np.full((4, 8, 8), 7, np.uint16))).std == (0.001,)


def test_grey_data_fits_an_encoder_for_colour_and_nothing_else_does():
    grey = open_data(RANDOM.integers(0, 256, (4, 8, 8), dtype=np.uint8))
    assert grey.with_channels(3).decode(0).shape == (8, 8, 3)
    assert grey.with_channels(1) is grey
    with pytest.raises(TacitError, match="trained on 5"):
        grey.with_channels(5)


def test_a_pass_can_be_cut_short_and_taken_again(tmp_path):
    loader, _ = both(tmp_path, Pictures(50), batch_size=8, seed=0, shuffle=False)
    next(iter(loader))
    assert sum(len(b) for b in loader) == 50


def test_memory_does_not_grow_with_the_number_of_batches():
    loader = Loader(open_data(Pictures(64, (3,), ragged=True)), None, None, 16, 0)

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    for _ in loader.ahead(0, 50):
        pass
    before = resident()
    for _ in loader.ahead(50, 500):
        pass
    assert resident() - before < 20_000_000
