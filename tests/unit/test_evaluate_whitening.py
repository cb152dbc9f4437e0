from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import tacit
from tacit.core.errors import TacitError
from tacit.data.open import open_data
from tacit.evaluation.features import extract
from tacit.evaluation.whitening import Whitening
from tacit.use.run import OpenRun

SAMPLE = "sample:fashion_mnist_sprite"


def stretched(samples: int, deviations: list[float]) -> torch.Tensor:
    """Features far from 0 whose principal components have about these deviations."""
    generator = torch.Generator().manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(len(deviations), len(deviations), generator=generator))
    return (torch.randn(samples, len(deviations), generator=generator) * torch.tensor(deviations)) @ turn + 7.0


def test_components_end_with_the_square_root_of_their_deviations():
    features = stretched(4000, [9.0, 4.0, 1.0, 0.25])
    white = Whitening.of(features)(features).double()
    assert torch.allclose(white.mean(dim=0), torch.zeros(4, dtype=torch.float64), atol=1e-4)
    covariance = torch.cov(white.T)
    assert torch.allclose(covariance, torch.diag(covariance.diag()), atol=1e-3)
    expected = torch.linalg.svdvals((features - features.mean(dim=0)).double()).div(3999**0.5)
    assert torch.allclose(covariance.diag(), expected, rtol=0.05)


def test_what_the_samples_do_not_vary_in_is_left_out_and_never_blown_up():
    features = stretched(5, [1.0] * 12)
    white = Whitening.of(features)
    assert white(features).shape == (5, 5)
    assert white(features + 1e-3 * torch.randn(5, 12, generator=torch.Generator().manual_seed(1))).abs().max() < 10
    constant = torch.full((6, 3), 2.5)
    assert torch.equal(Whitening.of(constant)(constant), torch.zeros(6, 3))


def test_neighbours_are_told_apart_by_more_than_the_widest_directions():
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(300) % 3
    features = torch.cat([10 * torch.randn(300, 4, generator=generator), torch.nn.functional.one_hot(classes, 3)], dim=1)
    features = features + 0.1 * torch.randn(300, 7, generator=generator)

    def right(x: torch.Tensor) -> float:
        unit = torch.nn.functional.normalize(x, dim=1)
        nearest = (unit @ unit.T).fill_diagonal_(-2).argmax(dim=1)
        return (classes[nearest] == classes).float().mean().item()

    assert right(features - features.mean(dim=0)) < 0.4 < 0.7 < right(Whitening.of(features)(features))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    options = {"precision": "float32", "batch": 32, "size": 16, "encoder": "resnet-mini"}
    tacit.pretrain("simclr", SAMPLE, out=out, steps=2, options=options, device="cpu")
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenRun:
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))
    return OpenRun(shutil.copytree(trained, tmp_path / "run"), "cpu")


def test_embedding_searching_and_judging_see_the_same_whitened_features(run: OpenRun, tmp_path: Path):
    opened, data = tacit.load(run.folder.path, device="cpu"), open_data(SAMPLE)
    plain, white = opened.features(SAMPLE), opened.features(SAMPLE, features="whitened")
    assert white.shape == plain.shape
    opened.embed(SAMPLE, out=tmp_path / "white.npy", features="whitened")
    assert np.array_equal(np.load(tmp_path / "white.npy"), white)
    unit = white / np.linalg.norm(white, axis=1, keepdims=True)
    nearest = np.argsort(-(unit @ unit[5]), kind="stable")[1:4]
    assert [hit.id for hit in opened.search("row:5", SAMPLE, k=3, features="whitened")] == nearest.tolist()
    by_array = opened.search(data.decode(5), SAMPLE, k=4, features="whitened")
    assert [hit.id for hit in by_array] == [5, *nearest.tolist()]
    assert [hit.id for hit in opened.search("row:5", SAMPLE, k=3)] != nearest.tolist()


def test_baselines_are_whitened_too_and_records_say_so(run: OpenRun):
    opened = tacit.load(run.folder.path, device="cpu")
    values = {}
    for features in ("pooled", "whitened"):
        records = opened.evaluate(SAMPLE, protocols=["knn", "figures"], features=features)
        values[features] = {(r.metric, r.encoder): r.value for r in records}
        assert {r.detail.get("features") for r in records if r.encoder == "run"} == {features}
    for encoder in ("run", "untrained", "input"):
        assert values["pooled"]["top1", encoder] != values["whitened"]["top1", encoder]


def test_what_was_kept_is_used_where_the_data_is_gone_and_taken_again_where_it_is_damaged(
    run: OpenRun, monkeypatch: pytest.MonkeyPatch
):
    batch = next(iter(run.loader(open_data(SAMPLE), np.arange(4))))
    first = run.encode("whitened")(batch)
    (kept,) = run.folder.path.glob("search/whitening-*.npz")
    cut, other = kept.read_bytes()[:200], io.BytesIO()
    np.savez(other, mean=np.zeros(3, np.float32), matrix=np.eye(3, dtype=np.float32))
    for damaged in (cut, other.getvalue()):
        kept.write_bytes(damaged)
        assert torch.equal(OpenRun(run.folder.path, "cpu").encode("whitened")(batch), first)

    def gone(_: OpenRun) -> None:
        raise TacitError("no such data")

    monkeypatch.setattr(OpenRun, "data", gone)
    assert torch.equal(OpenRun(run.folder.path, "cpu").encode("whitened")(batch), first)
    kept.unlink()
    with pytest.raises(TacitError, match="no such data"):
        OpenRun(run.folder.path, "cpu").encode("whitened")


def test_it_finds_its_way_to_other_processes(run: OpenRun):
    batch = next(iter(run.loader(open_data(SAMPLE), np.arange(4))))
    encode = run.encode("whitened")
    assert torch.equal(pickle.loads(pickle.dumps(encode))(batch), encode(batch))
    assert torch.equal(extract(encode, [batch]).values, encode(batch))


def test_names_that_are_none_are_refused_with_the_nearest(run: OpenRun):
    opened = tacit.load(run.folder.path, device="cpu")
    with pytest.raises(TacitError, match="did you mean 'whitened'"):
        opened.features(SAMPLE, features="whitned")
    with pytest.raises(TacitError, match="pooled"):
        opened.search("row:5", features="class")
