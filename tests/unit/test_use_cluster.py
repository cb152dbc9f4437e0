"""Embedding with Ray: a worker by itself, and (slow) a real local cluster of two processors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from PIL import Image
from ray import cloudpickle
from torch import Tensor

import tacit
from tacit.core.errors import TacitError
from tacit.data.collection import Collection
from tacit.data.open import open_data
from tacit.data.spec import Batch
from tacit.use import embed as embed_module
from tacit.use.cluster import Cluster, Worker
from tacit.use.embed import embed
from tacit.use.embed_groups import Work

SAMPLE = "sample:fashion_mnist_sprite"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embed_module, "GROUP_BATCHES", 2)


@pytest.fixture
def pictures(tmp_path: Path) -> Collection:
    draws = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for number in range(43):
        picture = draws.integers(0, 255, (*draws.integers(5, 12, 2), 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "data" / f"{number:02d}.png")
    (tmp_path / "data" / "17.png").write_bytes(b"no picture")
    return open_data(tmp_path / "data")


def encode(batch: Batch) -> Tensor:
    return torch.cat([batch.data.float().mean((2, 3)), batch.sizes.float()], dim=1)


def broken(batch: Batch) -> Tensor:
    return encode(batch).masked_fill((batch.ids == 30)[:, None], float("nan"))


def work(collection: Collection, encode=encode) -> Work:
    return Work(encode, collection, 0, len(collection), batch_size=4, batches=2)


@pytest.fixture
def worker(pictures: Collection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A worker made from what is sent over a network."""
    monkeypatch.setattr(ray, "get", lambda packed: packed)
    monkeypatch.chdir(tmp_path)
    return lambda encode=encode: Worker(cloudpickle.dumps(work(pictures, encode)), str(tmp_path), torch.get_num_threads())


def deal(*numbers: int) -> dict[str, np.ndarray]:
    return {"numbers": np.array([numbers])}


def test_a_worker_gives_the_groups_that_this_process_would(pictures: Collection, worker):
    here = dict(work(pictures)(range(6)))
    rows = [row for hand in (deal(5, 1), deal(3), deal(0, 2, 4)) for row in worker()(hand)]
    there = {int(row["number"][0]): row["content"][0] for row in rows}
    assert there == here


def test_what_a_worker_meets_is_told_and_not_raised(worker):
    row = next(worker(broken)(deal(3)))
    assert "not finite, first" in row["problem"][0]
    assert "30.png" in row["problem"][0]


def test_a_run_sent_to_another_process_is_opened_there(tmp_path: Path):
    options = {"precision": "float32", "batch": 64, "size": 16, "encoder": "resnet-mini"}
    run = tacit.pretrain("simclr", SAMPLE, out=tmp_path / "run", steps=1, options=options, device="cpu")
    here = run._open.encode()
    sent = cloudpickle.dumps(here)
    assert len(sent) < 2000  # no weights: every machine takes them from the folder, to a device of its own
    there = cloudpickle.loads(sent)
    assert isinstance(there, partial)
    batch = next(iter(run._open.loader(open_data(SAMPLE))))
    assert torch.equal(here(batch), there(batch))


def test_without_ray_one_line_says_how_to_get_it(pictures: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TacitError, match=r"pip install 'tacit\[cluster\]'"):
        embed(encode, pictures, tmp_path / "f.npy", cluster=Cluster("local"))


def test_data_that_cannot_be_sent_is_refused_in_one_line(tmp_path: Path):
    collection = open_data(np.zeros((20, 8, 8), np.uint8))
    with pytest.raises(TacitError, match="cannot be sent to other machines"):
        embed(encode, collection, tmp_path / "f.npy", cluster=Cluster("local"))


@pytest.mark.slow
def test_no_cluster_at_an_address_is_one_line(pictures: Collection, tmp_path: Path):
    with pytest.raises(TacitError, match="no Ray cluster at 'auto'"):
        embed(encode, pictures, tmp_path / "f.npy", cluster=Cluster("auto"))


# A real cluster -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_processors() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # its functions are nowhere to be imported from
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("two_processors")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_cluster_writes_the_very_same_files(pictures: Collection, tmp_path: Path, threads: int):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for ending in (".parquet", ".npy", ".h5"):
            plain = embed(encode, pictures, tmp_path / f"plain{ending}", batch_size=4)
            found = embed(encode, pictures, tmp_path / f"cluster{ending}", batch_size=4, cluster=Cluster("local"))
            assert found.path.read_bytes() == plain.path.read_bytes()
            assert found.skipped == plain.skipped
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("two_processors")
def test_what_a_cluster_has_done_is_not_done_again(pictures: Collection, tmp_path: Path):
    whole = embed(encode, pictures, tmp_path / "whole.npy", batch_size=4).path
    with pytest.raises(TacitError, match=r"not finite, first .*30\.png"):
        embed(broken, pictures, tmp_path / "f.npy", batch_size=4, cluster=Cluster("local"))
    kept = sorted(path.name for path in (tmp_path / "f.npy.parts").glob("*.npz"))
    found = embed(encode, pictures, tmp_path / "f.npy", batch_size=4, cluster=Cluster("local"))
    assert "00003.npz" not in kept
    assert found.resumed == 8 * len(kept)
    assert found.path.read_bytes() == whole.read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("two_processors")
def test_run_embed_with_a_cluster_is_run_embed(tmp_path: Path):
    options = {"precision": "float32", "batch": 64, "size": 16, "encoder": "resnet-mini"}
    run = tacit.pretrain("simclr", SAMPLE, out=tmp_path / "run", steps=1, options=options, device="cpu")
    plain = run.embed(SAMPLE, out=tmp_path / "plain.parquet")
    assert run.embed(SAMPLE, out=tmp_path / "f.parquet", cluster="local").read_bytes() == plain.read_bytes()
