"""The protocols on a labelled collection, through encode functions."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tacit.core.errors import TacitError
from tacit.data.open import measure, open_data
from tacit.data.spec import Batch, Spec
from tacit.evaluation.features import Split, extract
from tacit.evaluation.finetune import LAYER_DECAY, finetune, layer_groups
from tacit.evaluation.input import raw_input
from tacit.evaluation.outcome import Outcome
from tacit.evaluation.protocol import DEFAULT, PROTOCOLS, run_protocols
from tacit.evaluation.schedule import warmed_cosine
from tacit.evaluation.subject import Subject, Tuning
from tacit.evaluation.task import Task
from tacit.nn import build
from tacit.views.image import CentreView, ImageView


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """48 + 24 pictures of noise, 32 x 32, of three classes that differ in the colour that is brightest."""
    generator = np.random.default_rng(0)
    y = np.arange(72) % 3
    x = generator.integers(0, 150, (72, 32, 32, 3), dtype=np.uint8)
    x[np.arange(72), :, :, y] += 60
    path = tmp_path_factory.mktemp("data") / "colours.npz"
    np.savez(path, train_images=x[:48], train_labels=y[:48, None], test_images=x[48:], test_labels=y[48:, None])
    collection = open_data(path)
    return Task.of("colours", collection, measure(collection))


def colour(batch: Batch) -> Tensor:
    return batch.data.float().mean(dim=(2, 3))


def nothing(batch: Batch) -> Tensor:
    return torch.ones(len(batch), 3)


def tuning(seed: int = 0) -> Tuning:
    encoder = build.encoder(name="vit-mini/8", channels=3, size=32, seed=seed)
    return Tuning(lambda: copy.deepcopy(encoder), ImageView(32, area=(0.5, 1.0)), CentreView(32))


def figures_of(records) -> dict[tuple[str, str, str], float | None]:
    return {(record.protocol, record.metric, record.encoder): record.value for record in records}


def test_every_figure_of_every_encoder_is_a_record_of_its_own(task: Task):
    subjects = {"run": Subject(colour), "untrained": Subject(nothing), "input": raw_input(task.spec)}
    records = run_protocols(DEFAULT, subjects, task, seed=3)
    found = figures_of(records)
    assert len(found) == len(records)
    assert {record.protocol for record in records} == set(DEFAULT)
    for encoder in subjects:
        assert {"top1", "balanced"} <= {metric for p, metric, e in found if (p, e) == ("knn", encoder)}
    first = records[0].to_dict()
    assert first.keys() >= {"protocol", "metric", "value", "encoder", "data", "split", "seed", "seconds"}
    assert (first["data"], first["split"], first["seed"]) == ("colours", "given train / test", 3)
    json.dumps([record.to_dict() for record in records], allow_nan=False)


def test_an_encoder_that_sees_the_classes_beats_one_that_sees_nothing(task: Task):
    found = figures_of(run_protocols(["knn", "linear"], {"run": Subject(colour), "untrained": Subject(nothing)}, task))
    for protocol in ("knn", "linear"):
        assert found[protocol, "top1", "run"] == 1
        assert found[protocol, "top1", "untrained"] == pytest.approx(1 / 3)


def test_results_do_not_depend_on_what_else_is_run(task: Task):
    subjects = {"run": Subject(colour), "input": raw_input(task.spec)}
    together = figures_of(run_protocols(DEFAULT, subjects, task))
    alone = {}
    for name in reversed(DEFAULT):
        for encoder, subject in reversed(subjects.items()):
            alone |= figures_of(run_protocols([name], {encoder: subject}, task))
    assert alone == together


def test_features_are_taken_once_for_each_encoder(task: Task):
    seen: list[int] = []

    def counted(batch: Batch) -> Tensor:
        seen.extend(batch.ids.tolist())
        return colour(batch)

    run_protocols(DEFAULT, {"run": Subject(counted)}, task)
    assert sorted(seen) == sorted(task.split.ids.tolist())


def test_second_views_are_looked_for_where_there_are_any(task: Task):
    records = run_protocols(["figures"], {"input": raw_input(task.spec), "run": Subject(colour)}, task)
    found = figures_of(records)
    assert 10 / 72 < (found["figures", "second_view", "input"] or 0) < 1
    assert ("figures", "second_view", "run") not in found
    detail = next(record.detail for record in records if record.metric == "second_view")
    assert detail["second_view_chance"] == pytest.approx(1 / 72)


def test_an_unknown_protocol_is_refused_with_the_nearest(task: Task):
    with pytest.raises(TacitError, match="did you mean 'linear'"):
        run_protocols(["liner"], {"run": Subject(colour)}, task)


def test_features_that_are_not_finite_are_refused_with_the_encoder_s_name(task: Task):
    with pytest.raises(TacitError, match="features of 'run' are not finite for 72 of 72"):
        run_protocols(["knn"], {"run": Subject(lambda batch: colour(batch) * math.nan)}, task)


def test_a_protocol_that_learns_classes_refuses_a_test_without_them(task: Task):
    strange = Task(task.name, task.collection, task.spec, _renamed(task))
    with pytest.raises(TacitError, match="choose among retrieval, clustering, figures"):
        run_protocols(["knn"], {"run": Subject(colour)}, strange)
    assert run_protocols(["retrieval"], {"run": Subject(colour)}, strange)


def _renamed(task: Task) -> Split:
    return replace(task.split, train_y=task.split.train_y % 2, test_y=task.split.test_y * 0 + 2)


def test_every_protocol_says_what_it_answers_and_what_it_costs():
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.says.endswith("?")
        assert protocol.cost


def test_raw_input_is_the_pixels_at_32_by_32(task: Task):
    batch = next(iter(task.batches(torch.tensor([4, 9]))))
    found = extract(raw_input(task.spec).encode, [batch]).values
    plain = Spec(**(task.spec.to_dict() | {"mean": (0.0,), "std": (1.0,)}))
    assert found.shape == (2, 3 * 32 * 32)
    pixels = extract(raw_input(plain).encode, [batch]).values
    assert torch.allclose(pixels, batch.data.flatten(1) / 255, atol=1e-4)


def test_fine_tuning_learns_the_classes_and_leaves_the_encoder_alone(task: Task):
    made = tuning()
    before = copy.deepcopy(made.fresh().state_dict())
    found = finetune(made, task, epochs=4)
    assert found.values["top1"] > 0.8
    assert all(torch.equal(value, before[name]) for name, value in made.fresh().state_dict().items())


def test_fine_tuning_twice_gives_the_same_figures(task: Task):
    assert finetune(tuning(), task, epochs=1) == finetune(tuning(), task, epochs=1)


def test_raw_input_is_left_out_of_fine_tuning(task: Task, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tacit.evaluation.protocol.finetune", lambda tuning, task, seed: Outcome({"top1": 1.0}))
    subjects = {"run": Subject(colour, tuning=tuning()), "input": raw_input(task.spec)}
    assert {record.encoder for record in run_protocols(["finetune"], subjects, task)} == {"run"}
    with pytest.raises(TacitError, match="needs an encoder that can be trained"):
        run_protocols(["finetune"], {"input": raw_input(task.spec)}, task)


def test_deeper_layers_learn_faster_and_norms_do_not_decay():
    encoder = tuning().fresh()
    head = torch.nn.Linear(encoder.width, 3)
    groups = layer_groups(encoder, head)
    found = {id(p): (group["scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(found) == len([*encoder.parameters(), *head.parameters()]) - sum(
        not parameter.requires_grad for parameter in encoder.parameters()
    )
    named = dict(encoder.named_parameters())
    assert found[id(head.weight)] == (1.0, 0.05)
    assert found[id(head.bias)] == (1.0, 0.0)
    assert found[id(named["patch_embed.proj.weight"])] == (pytest.approx(LAYER_DECAY ** (encoder.depth + 1)), 0.05)
    last = f"blocks.{encoder.depth - 1}"
    assert found[id(named[f"{last}.norm1.weight"])] == (pytest.approx(LAYER_DECAY), 0.0)


def test_the_rate_warms_up_and_falls_to_nothing():
    assert warmed_cosine(0, 0.1) == 0
    assert warmed_cosine(0.05, 0.1) == pytest.approx(0.5)
    assert warmed_cosine(0.1, 0.1) == 1
    assert warmed_cosine(0.55, 0.1) == pytest.approx(0.5)
    assert warmed_cosine(1 - 1e-9, 0.1) == pytest.approx(0, abs=1e-9)


def test_samples_that_cannot_be_read_are_left_out(tmp_path: Path):
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(30):
            value = 40 * (name == "b") + i
            Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(tmp_path / name / f"{i:02}.png")
    broken = tmp_path / "a" / "07.png"
    broken.write_bytes(broken.read_bytes()[:40])
    collection = open_data(tmp_path, kind="image")
    task = Task.of("folder", collection, measure(collection))
    records = run_protocols(["knn"], {"run": Subject(colour)}, task)
    assert "1 of 60 samples cannot be read" in records[0].split


def test_draws_of_a_view_decide_second_views(task: Task):
    batch = next(iter(task.batches(task.split.train)))
    second = raw_input(task.spec, seed=0).second
    other = raw_input(task.spec, seed=1).second
    assert second is not None
    assert other is not None
    assert torch.equal(second(batch), second(batch))
    assert not torch.equal(second(batch), other(batch))


def test_second_views_are_paired_with_their_first_where_test_comes_before_train(tmp_path: Path):
    generator = np.random.default_rng(1)
    coarse = generator.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    x = coarse.repeat(8, axis=1).repeat(8, axis=2)
    y = np.arange(60) % 3
    np.savez(tmp_path / "late.npz", test_images=x[:20], test_labels=y[:20], train_images=x[20:], train_labels=y[20:])
    collection = open_data(tmp_path / "late.npz")
    task = Task.of("late", collection, measure(collection))
    found = figures_of(run_protocols(["figures"], {"input": raw_input(task.spec)}, task))
    assert (found["figures", "second_view", "input"] or 0) > 0.3
