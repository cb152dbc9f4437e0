"""What holds for every registered method. A new method is good when this passes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from grounds import data_of, encoders, ground
from lightning_fabric import Fabric
from PIL import Image

import tacit
from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.open import open_data
from tacit.data.spec import Batch, Spec
from tacit.evaluation.features import features_of
from tacit.methods import catalogue
from tacit.methods.method import Facts, Method, Progress, Terms
from tacit.methods.registry import METHODS, method
from tacit.train.config import Training
from tacit.train.folder import read_table
from tacit.train.session import build_method
from tacit.train.step import Step
from tacit.views.sight import sight

CASES = [(name, encoder) for name in METHODS for encoder in encoders(name)]
STEPS = 5
SMALL: dict[str, Any] = {"batch": 32, "held_back": 32, "precision": "float32", "checkpoint_every": "2"}

each = pytest.mark.parametrize("case", CASES, ids="-".join)
each_method = pytest.mark.parametrize("name", METHODS)


# Runs -----------------------------------------------------------------------------------------------------------------


def train(case: tuple[str, str], out: Path, data: Any = None, steps: int = STEPS, **options: Any) -> tacit.Run:
    stand = ground(case[0])
    known = {*method(case[0]).Options.model_fields, *Training.model_fields}
    small = {key: value for key, value in stand.small.items() if key in known}
    given = SMALL | {"size": stand.size} | small | {"encoder": case[1], "stop_on": "none"} | options
    return tacit.pretrain(case[0], data or data_of(case[0]), out=out, steps=steps, options=given, device="cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Callable[[tuple[str, str]], tacit.Run]:
    """The finished run of a case, made once."""
    runs: dict[tuple[str, str], tacit.Run] = {}

    def run(case: tuple[str, str]) -> tacit.Run:
        if case not in runs:
            runs[case] = train(case, tmp_path_factory.mktemp("run") / "out")
        return runs[case]

    return run


def same_files(one: Path, other: Path, names: tuple[str, ...] = ("metrics.csv", "figures.csv", "encoder.safetensors")) -> None:
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@each
def test_trains_on_its_smallest_real_sample(case, finished):
    run = finished(case)
    metrics = read_table(run.path / "metrics.csv")
    assert metrics["step"] == list(range(STEPS))
    assert all(math.isfinite(value) for column in metrics.values() for value in column if value is not None)
    assert run.verdict["verdict"] in ("learned", "undecided", "collapsed", "diverged")
    untrained = run._open.untrained.state_dict()
    assert any(not torch.equal(value, untrained[name]) for name, value in run.encoder.state_dict().items())


@each
def test_the_same_run_twice_is_the_same_bit_by_bit(case, finished, tmp_path):
    again = train(case, tmp_path / "again")
    same_files(finished(case).path, again.path)


@each
def test_an_interrupted_run_goes_on_to_the_same_end_bit_by_bit(case, finished, tmp_path, monkeypatch):
    """It breaks off in the fourth step; the last checkpoint is from the end of the second."""

    class PowerCut(Exception):
        pass

    step, whole = Step.__call__, finished(case)

    def until_the_fourth(self: Step, batch: Batch, progress: Progress) -> Terms:
        terms = step(self, batch, progress)
        if progress.step == 3:
            raise PowerCut
        return terms

    with monkeypatch.context() as patch:
        patch.setattr(Step, "__call__", until_the_fourth)
        with pytest.raises(PowerCut):
            train(case, tmp_path / "cut", checkpoint_every="2")
    resumed = tacit.resume(tmp_path / "cut")
    same_files(whole.path, resumed.path)
    ours, theirs = (torch.load(run.path / "checkpoints/last.pt", weights_only=True) for run in (whole, resumed))
    for name, value in ours["method"].items():
        assert torch.equal(value, theirs["method"][name]), name
    assert [p.name for p in (resumed.path / "pictures").iterdir()] == [p.name for p in (whole.path / "pictures").iterdir()]


@each_method
def test_no_label_is_read(name, tmp_path):
    """Right labels, wrong labels and no labels: the same run, bit by bit."""
    count, paths = ground(name).plenty, []
    labels = np.arange(count) % 7
    wrong = np.random.default_rng(0).permutation(labels)
    for kind, given in {"right": labels, "wrong": wrong, "none": None}.items():
        (tmp_path / kind).mkdir()
        data = ground(name).several(tmp_path / kind, count, None if given is None else [str(label) for label in given])
        run = train((name, encoders(name)[0]), tmp_path / kind / "run", data, steps=2, held_back=16)
        paths.append(run.path)
    same_files(paths[0], paths[1])
    same_files(paths[0], paths[2])


@pytest.fixture(scope="module")
def alone(finished, tmp_path_factory) -> dict[str, np.ndarray]:
    """Features of one input by every case's encoder, rebuilt by a process that imports no method."""
    folder = tmp_path_factory.mktemp("alone")
    torch.save({str(finished(case).path): probe(finished(case)) for case in CASES}, folder / "inputs.pt")
    program = """
import json, sys, torch
from safetensors.torch import load_file
from tacit.nn import build
folder, *runs = sys.argv[1:]
x = torch.load(folder + "/inputs.pt", weights_only=True)
features = {}
for run in runs:
    encoder = build.encoder(**json.load(open(run + "/encoder.json"))["encoder"]).eval()
    encoder.load_state_dict(load_file(run + "/encoder.safetensors"))
    with torch.no_grad():
        features[run] = encoder(x[run]).pooled
assert not [name for name in sys.modules if name.startswith(("tacit.methods", "tacit.train"))]
torch.save(features, folder + "/features.pt")
"""
    runs = [str(finished(case).path) for case in CASES]
    subprocess.run([sys.executable, "-c", program, str(folder), *runs], check=True)
    return torch.load(folder / "features.pt", weights_only=True)


@each
def test_the_encoder_alone_reloads_and_gives_the_same_features(case, finished, alone):
    """Those of the method that the last checkpoint holds, and those of the run as it is opened."""
    run = finished(case)
    config = run.config
    options, training = method(case[0]).Options(**config["method"]), Training(**config["train"])
    made = built(case[0], options, training, Spec.from_dict(config["spec"]))
    made.load_state_dict(torch.load(run.path / "checkpoints/last.pt", weights_only=True)["method"])
    with torch.no_grad():
        kept, opened = made.encoder.eval()(probe(run)).pooled, run.encoder(probe(run)).pooled
    assert torch.equal(alone[str(run.path)], kept)
    assert torch.equal(opened, kept)


def probe(run: tacit.Run) -> torch.Tensor:
    return ground(run.config["run"]["method"]).probe(run.config["spec"]["channels"])


@each_method
def test_features_are_made_of_samples_normalised_as_in_training(name, tmp_path):
    run, data = train((name, encoders(name)[0]), tmp_path / "run", steps=1, **PLAIN.get(name, {})), data_of(name)
    opened = run._open
    batch = opened.loader(open_data(data), batch=16).batch(0)
    still, spec = sight(opened.spec.kind).still(opened.extent), opened.spec
    if name in PLAIN:
        spec = replace(spec, mean=(0.0,), std=(1.0,))
    with torch.no_grad():
        expected = features_of(lambda look: run.encoder(still(look, Draws(0, 0, look.ids), spec)).pooled, batch)
    torch.testing.assert_close(torch.from_numpy(run.features(data)[:16]), expected)


@each_method
def test_pictures_lie_in_the_run_with_their_captions(name, finished):
    run = finished((name, encoders(name)[0]))
    captions = json.loads((run.path / "pictures/captions.json").read_text())
    assert captions
    for file, caption in captions.items():
        assert caption
        with Image.open(run.path / "pictures" / file) as picture:
            assert picture.mode in ("L", "RGB")
            assert min(picture.size) >= 16


@each_method
def test_export_to_onnx_gives_the_same_features(name, finished):
    run = finished((name, encoders(name)[0]))
    exported = run.export("onnx")
    assert exported.path.is_file()
    assert exported.difference <= 1e-3 * exported.largest


# Forward passes -------------------------------------------------------------------------------------------------------


def facts(name: str, channels: int | None, encoder: str, size: int | None = None, **known: Any) -> Facts:
    stand, usual = ground(name), {
        "samples": 800, "duplicates": 0.0, "sparse": 0.0, "flat": 0.0, "mirrored": None, "batch": 32, "steps": 200,
        "width": 64, "device": "cpu",
    }  # fmt: skip
    size = size or stand.size
    extent = stand.extent(size)
    return Facts(spec=spec(name, channels), size=size, extent=extent, encoder=encoder, **{**usual, **known})


def spec(name: str, channels: int | None = None) -> Spec:
    return Spec(method(name).kinds[0], channels or ground(name).channels[0], ground(name).sample, mean=(0.5,), std=(0.25,))


def samples(case: tuple[str, str], count: int, first: int = 0, channels: int | None = None) -> Batch:
    return ground(case[0]).batch(count, first, channels)


def tiny(case: tuple[str, str], channels: int | None = None, **options: Any) -> Method:
    """A method as `auto` would make it, small."""
    training = Training(encoder=case[1], size=ground(case[0]).size, batch=32)
    return built(case[0], own_options(case, channels, **options), training, spec(case[0], channels))


def own_options(case: tuple[str, str], channels: int | None = None, **options: Any) -> Any:
    """Those of `auto`, the small ones of the ground, and these."""
    name, encoder = case
    chosen = {key: value.value for key, value in method(name).auto(facts(name, channels, encoder)).items()}
    small = {key: value for key, value in ground(name).small.items() if key in method(name).Options.model_fields}
    return method(name).Options(**{key: value for key, value in chosen.items() if "." not in key} | small | options)


def built(name: str, options: Any, training: Training, spec: Spec) -> Method:
    """A method with its first weights; so are its needs, with its own encoder and options as far as they have such."""
    needs = {}
    for need, maker in method(name).needs.items():
        case = maker, training.encoder if training.encoder in encoders(maker) else encoders(maker)[0]
        shared = {key: value for key, value in options if key in method(maker).Options.model_fields}
        own = own_options(case, spec.channels, **shared)
        needs[need] = built(maker, own, training.model_copy(update={"encoder": case[1]}), spec)
    return build_method(method(name), options, training, spec, needs)


def stepper(made: Method, **training: Any) -> Step:
    usual = {"size": ground(made.name).size, "batch": 32}
    return Step(made, Training(**{**usual, **training}), made.spec, Fabric(accelerator="cpu", devices=1))


def seen(made: Method, batch: Batch) -> tuple[dict[str, torch.Tensor], Draws]:
    """Views in the method's own precision, and the draws they were made with."""
    draws, dtype = Draws(0, 0, batch.ids), next(made.parameters()).dtype
    views = {name: view(batch, draws.within(name), made.spec) for name, view in made.views().items()}
    return {name: x.to(dtype) if x.is_floating_point() else x for name, x in views.items()}, draws


FIRST = Progress(0, 20, 5)


@each
def test_terms_are_finite_and_add_up_and_chance_is_said(case):
    made = tiny(case)
    terms = made(*seen(made, samples(case, 8)), FIRST)
    assert terms.total.ndim == 0
    assert torch.isfinite(terms.total)
    assert terms.parts
    torch.testing.assert_close(sum(terms.parts.values()), terms.total.detach())
    assert not any(value.requires_grad for value in [*terms.parts.values(), *terms.watch.values()])
    assert all(bool(torch.isfinite(value).all()) for value in terms.watch.values())
    assert terms.watch if terms.chance is None else terms.chance > 0  # else what the data itself gives is watched


@each
def test_what_is_trained_gets_a_gradient_and_a_teacher_gets_none(case):
    made = tiny(case)
    made(*seen(made, samples(case, 8)), FIRST).total.backward()
    for name, parameter in made.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} is trained by nothing"
            assert bool(torch.isfinite(parameter.grad).all())
        else:
            assert parameter.grad is None, f"{name} got a gradient"
    assert not any(p.requires_grad for name, p in made.named_parameters() if name.startswith("teacher"))


MOVING_TARGETS = {"alice"}
"""Targets that come through trained modules, without a gradient: a step moves them, too."""


@each
def test_a_small_step_down_the_gradient_lowers_the_loss_by_its_square(case):
    made = tiny(case).double()
    views, draws = seen(made, samples(case, 16))
    before = made(views, draws, FIRST).total
    before.backward()
    square = sum(float(grad.square().sum()) for grad in grads(made).values())
    rate = 1e-10  # short of the next kink of a ReLU
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.grad is not None:
                parameter -= rate * parameter.grad
    gain = float((before - made(views, draws, FIRST).total).detach())
    if case[0] in MOVING_TARGETS:
        assert gain > 0
    else:
        assert gain == pytest.approx(rate * square, rel=0.01)


@each
def test_the_order_of_the_batch_does_not_matter(case):
    turn = torch.tensor([3, 7, 0, 2, 6, 1, 5, 4])
    found = []
    for order in (torch.arange(8), turn):
        made, batch = tiny(case).double(), samples(case, 8)
        batch = batch.each(lambda tensor, order=order: tensor[order])
        terms = made(*seen(made, batch), FIRST)
        terms.total.backward()
        made.after_step(FIRST)
        found.append((terms.total.detach(), grads(made), buffers(made)))
    assert_near(*found)


@each
def test_other_draws_are_another_loss_and_no_global_generator_is_read(case):
    made = tiny(case).double()
    batch, before = samples(case, 8), torch.get_rng_state()
    first = made(*seen(made, batch), FIRST).total
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(made(*seen(made, samples(case, 8, first=100)), FIRST).total, first)


@each_method
def test_a_compiled_encoder_is_one_graph_and_learns_the_same(name):
    case = name, encoders(name)[0]
    chance = {"drop_path": 0.3} if "drop_path" in method(name).Options.model_fields else {}
    plain, compiled = (tiny(case, **chance) for _ in range(2))
    compiled.student.compile(backend="eager", fullgraph=True)  # what is drawn inside must not break the graph
    batch = samples(case, 8)
    losses = [made(*seen(made, batch), FIRST).total for made in (plain, compiled)]
    torch.testing.assert_close(*losses)


@each
def test_half_precision_has_wide_losses(case):
    """Autocast may round features; total, terms, centres and copies stay float32, and near those in float32."""
    made, low = tiny(case), tiny(case)
    views, draws = seen(made, samples(case, 16))
    expected = made(views, draws, FIRST)
    with torch.autocast("cpu", torch.bfloat16):
        terms = low(views, draws, FIRST)
    low.after_step(FIRST)
    assert terms.total.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in [*terms.parts.values(), *terms.watch.values()])
    assert all(value.dtype == torch.float32 for value in low.state_dict().values() if value.is_floating_point())
    assert float(terms.total.detach()) == pytest.approx(float(expected.total.detach()), rel=0.05)


@pytest.mark.parametrize(("case", "channels"), [(case, count) for case in CASES for count in ground(case[0]).channels])
def test_any_number_of_channels_is_trained_on_and_drawn(case, channels):
    made = tiny(case, channels)
    batch = samples(case, 8, channels=channels)
    views, draws = seen(made, batch)
    assert torch.isfinite(made(views, draws, FIRST).total)
    with torch.no_grad():
        pictures = made.eval().pictures(views, draws)
    assert pictures
    for caption, picture in pictures.items():
        assert caption
        assert picture.ndim == 3
        assert picture.shape[0] in (1, 3)
        assert picture.dtype == torch.float32
        assert 0 <= float(picture.min()) <= float(picture.max()) <= 1
        assert float(picture.max()) > float(picture.min())


# Ranks ----------------------------------------------------------------------------------------------------------------

ROWS = 16
Found = tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]


def grads(made: Method) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}


def buffers(made: Method) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in made.named_buffers()}


def assert_near(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def part_of_two_steps(case: tuple[str, str]) -> Found:
    """Two steps on this rank's part of the samples, in float64: mean loss, mean gradients, everything else that moved."""
    made, ranks, rank = tiny(case).double(), distributed.world_size(), distributed.rank()
    mine = samples(case, ROWS).rows(rank * ROWS // ranks, (rank + 1) * ROWS // ranks)
    for step in range(2):
        progress = Progress(step, 20, 5)
        made.zero_grad()
        made.before_step(progress)
        loss = made(*seen(made, mine), progress).total
        loss.backward()
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.grad is not None:
                    parameter.grad = distributed.mean(parameter.grad)
                    parameter -= 0.05 * parameter.grad
        made.after_step(progress)
    moved = {name: p.detach().clone() for name, p in made.named_parameters() if not p.requires_grad}
    return distributed.mean(loss), grads(made), buffers(made) | moved


def one_rank(rank: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{ranks}", rank=rank, world_size=ranks)
    torch.save({"-".join(case): part_of_two_steps(case) for case in CASES}, f"{folder}/{ranks}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def together(request, tmp_path_factory) -> list[dict[str, Found]]:
    """What each of several ranks came to, for every case."""
    folder = str(tmp_path_factory.mktemp("ranks"))
    mp.spawn(one_rank, args=(request.param, folder), nprocs=request.param)
    return [torch.load(f"{folder}/{request.param}-{rank}.pt", weights_only=True) for rank in range(request.param)]


@each
def test_many_ranks_compute_what_one_does(case, together):
    """Losses, gradients, running statistics, centres and copies, after two steps."""
    alone = part_of_two_steps(case)
    for rank in together:
        assert_near(rank["-".join(case)], alone)


# Options --------------------------------------------------------------------------------------------------------------


@each_method
def test_options_say_what_they_mean_and_how_auto_chooses_them(name):
    fields, chosen = method(name).Options.model_fields, set()
    for encoder in encoders(name):
        chosen |= set(method(name).auto(facts(name, None, encoder)))
    for option, info in fields.items():
        assert info.description, option
        rule = (info.json_schema_extra or {}).get("auto")
        assert not (option in chosen and not rule), f"{option}: auto chooses it and does not say how"
        assert not (rule and option not in chosen), f"{option}: auto says how and does not choose it"
    assert {option for option in chosen if not option.startswith("train.")} <= set(fields)
    assert {option[6:] for option in chosen if option.startswith("train.")} <= set(Training.model_fields)


COUNTS = [(1, 1), (60, 30), (4000, 2000), (10**5, 15_000), (10**6, 10**6)]
"""Samples, steps."""


@each_method
def test_auto_and_paper_stay_within_the_bounds_whatever_the_facts(name):
    options, training = method(name).Options, Training.model_fields
    assert set(method(name).paper_training) - {"epochs", "warmup_epochs", "lr_per_256"} <= set(training)
    assert options()
    extremes = {"duplicates": 0.5, "flat": 0.5, "sparse": 0.7, "mirrored": False}
    stand = ground(name)
    for size, (samples, steps), channels, encoder in product(stand.sides, COUNTS, stand.channels, stand.many):
        counts = {"samples": samples, "batch": min(256, samples), "steps": steps}
        chosen = method(name).auto(facts(name, channels, encoder, size, **counts, **extremes))
        assert all(choice.reason for choice in chosen.values())
        options(**{key: choice.value for key, choice in chosen.items() if not key.startswith("train.")})
        Training(**{key[6:]: choice.value for key, choice in chosen.items() if key.startswith("train.")})


def test_the_catalogue_is_what_the_methods_say():
    """`make catalogue` writes it."""
    assert catalogue.load() == json.loads(json.dumps(catalogue.describe()))
    for name in METHODS:
        text = catalogue.details(name)
        assert all(option in text for option in method(name).Options.model_fields)


@each_method
def test_a_method_says_where_it_comes_from(name):
    made = method(name)
    assert made.name == name
    assert made.paper.title
    assert made.paper.authors
    assert 1990 < made.paper.year < 2100
    assert made.kinds
    assert sys.modules[made.__module__].__doc__


# Refusals -------------------------------------------------------------------------------------------------------------


def refused(name: str, out: Path, data: Any = None, message: str = "", **options: Any) -> None:
    """In one line, and before anything is written."""
    with pytest.raises(TacitError, match=message) as problem:
        train((name, encoders(name)[0]), out, data, steps=2, **options)
    assert "\n" not in str(problem.value)
    assert problem.value.exit_code == 2
    assert not out.exists()


@each_method
def test_wrong_kinds_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(method(name), "kinds", ("text",))
    refused(name, tmp_path / "run", message=f"{name} takes text, but here are")


@each_method
def test_too_few_samples_are_refused(name, tmp_path):
    refused(name, tmp_path / "run", ground(name).several(tmp_path, 3, None), "3 sample")


PLAIN = {name: {"normalise": "none"} for name in METHODS if "normalise" in method(name).Options.model_fields}
"""How views come without a mean or deviation being taken away, where a method leaves the choice."""

IMPOSSIBLE: tuple[tuple[dict[str, Any], str], ...] = (
    ({"lerning_rate": 1e-3}, "no option 'lerning_rate'"),
    ({"lr": -1.0}, "lr = -1.0, but it should be greater than or equal to 0"),
    ({"batch": 10_000}, "fewer than one batch of 10000"),
    ({"init": "nowhere.pt"}, "no such file of weights: nowhere.pt"),
    ({"accumulate": 3}, r"batch of \d+ .* 3"),
)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [(name, *each) for name in METHODS for each in IMPOSSIBLE + ground(name).refused],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value if value in METHODS else "",
)
def test_what_cannot_be_is_refused_before_anything_is_written(name, options, message, tmp_path):
    refused(name, tmp_path / "run", message=message, **options)
