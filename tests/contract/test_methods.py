"""What holds for every registered method. A new method is good when this passes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning_fabric import Fabric
from PIL import Image

import tacit
from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.open import open_data
from tacit.data.samples import SAMPLES
from tacit.data.spec import Batch, Spec
from tacit.methods import catalogue
from tacit.methods.method import Facts, Method, Progress, Terms
from tacit.methods.registry import METHODS, method
from tacit.train.config import Training
from tacit.train.folder import read_table
from tacit.train.session import build_method
from tacit.train.step import Step
from tacit.views.image import CentreView

DATA = "sample:fashion_mnist_sprite"
ENCODERS = ("vit-micro/4", "resnet-mini")
CASES = [(name, encoder) for name in METHODS for encoder in ENCODERS if encoder.startswith("vit") or not method(name).tokens]
STEPS = 5
SMALL: dict[str, Any] = {"batch": 32, "size": 16, "held_back": 32, "precision": "float32", "checkpoint_every": "2"}

each = pytest.mark.parametrize("case", CASES, ids="-".join)
each_method = pytest.mark.parametrize("name", METHODS)


# Runs -----------------------------------------------------------------------------------------------------------------


def train(case: tuple[str, str], out: Path, data: Any = DATA, steps: int = STEPS, **options: Any) -> tacit.Run:
    given = SMALL | {"encoder": case[1], "stop_on": "none"} | options
    return tacit.pretrain(case[0], data, out=out, steps=steps, options=given, device="cpu")


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
    with np.load(SAMPLES["fashion_mnist_sprite"].folder / "images.npz") as arrays:
        pictures = next(arrays[key] for key in arrays.files if arrays[key].ndim >= 3)[:120]
    labels, paths = np.arange(120) % 7, []
    for kind, columns in {
        "right": {"train_labels": labels},
        "wrong": {"train_labels": np.random.default_rng(0).permutation(labels)},
        "none": {},
    }.items():
        np.savez(tmp_path / f"{kind}.npz", train_images=pictures, **columns)
        run = train((name, "vit-micro/4"), tmp_path / kind, tmp_path / f"{kind}.npz", steps=2, held_back=16)
        paths.append(run.path)
    same_files(paths[0], paths[1])
    same_files(paths[0], paths[2])


@pytest.fixture(scope="module")
def alone(finished, tmp_path_factory) -> dict[str, np.ndarray]:
    """Features of one input by every case's encoder, rebuilt by a process that imports no method."""
    folder = tmp_path_factory.mktemp("alone")
    torch.save(probe(), folder / "input.pt")
    program = """
import json, sys, torch
from safetensors.torch import load_file
from tacit.nn import build
folder, *runs = sys.argv[1:]
x = torch.load(folder + "/input.pt", weights_only=True)
features = {}
for run in runs:
    encoder = build.encoder(**json.load(open(run + "/encoder.json"))["encoder"]).eval()
    encoder.load_state_dict(load_file(run + "/encoder.safetensors"))
    with torch.no_grad():
        features[run] = encoder(x).pooled
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
    made = build_method(method(case[0]), options, training, Spec.from_dict(config["spec"]))
    made.load_state_dict(torch.load(run.path / "checkpoints/last.pt", weights_only=True)["method"])
    with torch.no_grad():
        kept, opened = made.encoder.eval()(probe()).pooled, run.encoder(probe()).pooled
    assert torch.equal(alone[str(run.path)], kept)
    assert torch.equal(opened, kept)


def probe() -> torch.Tensor:
    return Draws(3, 0, torch.arange(4)).normal("probe", 1, 16, 16)


@each_method
def test_features_are_made_of_samples_normalised_as_in_training(name, tmp_path):
    run = train((name, "vit-micro/4"), tmp_path / "run", steps=1, normalise="none")
    batch = run._open.loader(open_data(DATA), batch=16).batch(0)
    with torch.no_grad():
        expected = run.encoder(CentreView(16, "none")(batch, Draws(0, 0, batch.ids), run._open.spec)).pooled
    torch.testing.assert_close(torch.from_numpy(run.features(DATA)[:16]), expected)


@each_method
def test_pictures_lie_in_the_run_with_their_captions(name, finished):
    run = finished((name, "vit-micro/4"))
    captions = json.loads((run.path / "pictures/captions.json").read_text())
    assert captions
    for file, caption in captions.items():
        assert caption
        with Image.open(run.path / "pictures" / file) as picture:
            assert picture.mode in ("L", "RGB")
            assert min(picture.size) >= 16


@each_method
def test_export_to_onnx_gives_the_same_features(name, finished):
    exported = finished((name, "vit-micro/4")).export("onnx")
    assert exported.path.is_file()
    assert exported.difference <= 1e-3 * exported.largest


# Forward passes -------------------------------------------------------------------------------------------------------


def facts(spec: Spec, size: int = 16, encoder: str = "vit-micro/4", **known: Any) -> Facts:
    usual: dict[str, Any] = {
        "samples": 800, "duplicates": 0.0, "sparse": 0.0, "flat": 0.0, "mirrored": None, "batch": 32, "steps": 200,
        "width": 64, "device": "cpu",
    }  # fmt: skip
    return Facts(spec=spec, size=size, encoder=encoder, **{**usual, **known})


def spec(channels: int = 3) -> Spec:
    return Spec("image", channels, (20, 20), mean=(0.5,), std=(0.25,))


def images(count: int, first: int = 0, channels: int = 3) -> Batch:
    ids = torch.arange(first, first + count)
    noise = Draws(7, 0, ids).uniform("images", channels, 20, 20, high=128)
    data = (noise + torch.linspace(0, 127, 20)).to(torch.uint8)
    return Batch(ids, data, torch.full((count, 2), 20, dtype=torch.int32))


def tiny(case: tuple[str, str], channels: int = 3, **options: Any) -> Method:
    """A method as `auto` would make it, small."""
    name, encoder = case
    chosen = {key: value.value for key, value in method(name).auto(facts(spec(channels), encoder=encoder)).items()}
    own = {key: value for key, value in chosen.items() if not key.startswith("train.")} | options
    return build_method(method(name), method(name).Options(**own), Training(encoder=encoder, size=16, batch=32), spec(channels))


def stepper(made: Method, **training: Any) -> Step:
    return Step(made, Training(**{"size": 16, "batch": 32, **training}), made.spec, Fabric(accelerator="cpu", devices=1))


def seen(made: Method, batch: Batch) -> tuple[dict[str, torch.Tensor], Draws]:
    """Views in the method's own precision, and the draws they were made with."""
    draws, dtype = Draws(0, 0, batch.ids), next(made.parameters()).dtype
    views = {name: view(batch, draws.within(name), made.spec).to(dtype) for name, view in made.views().items()}
    return views, draws


FIRST = Progress(0, 20, 5)


@each
def test_terms_are_finite_and_add_up_and_chance_is_said(case):
    made = tiny(case)
    terms = made(*seen(made, images(8)), FIRST)
    assert terms.total.ndim == 0
    assert torch.isfinite(terms.total)
    assert terms.parts
    torch.testing.assert_close(sum(terms.parts.values()), terms.total.detach())
    assert not any(value.requires_grad for value in [*terms.parts.values(), *terms.watch.values()])
    assert all(bool(torch.isfinite(value).all()) for value in terms.watch.values())
    assert terms.chance is not None
    assert terms.chance > 0


@each
def test_what_is_trained_gets_a_gradient_and_a_teacher_gets_none(case):
    made = tiny(case)
    made(*seen(made, images(8)), FIRST).total.backward()
    for name, parameter in made.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} is trained by nothing"
            assert bool(torch.isfinite(parameter.grad).all())
        else:
            assert parameter.grad is None, f"{name} got a gradient"
    assert not any(p.requires_grad for name, p in made.named_parameters() if name.startswith("teacher"))


@each
def test_a_small_step_down_the_gradient_lowers_the_loss_by_its_square(case):
    made = tiny(case).double()
    views, draws = seen(made, images(16))
    before = made(views, draws, FIRST).total
    before.backward()
    square = sum(float(grad.square().sum()) for grad in grads(made).values())
    rate = 1e-10  # short of the next kink of a ReLU
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.grad is not None:
                parameter -= rate * parameter.grad
    after = made(views, draws, FIRST).total
    assert float((before - after).detach()) == pytest.approx(rate * square, rel=0.01)


@each
def test_the_order_of_the_batch_does_not_matter(case):
    turn = torch.tensor([3, 7, 0, 2, 6, 1, 5, 4])
    found = []
    for order in (torch.arange(8), turn):
        made, batch = tiny(case).double(), images(8)
        batch = Batch(batch.ids[order], batch.data[order], batch.sizes[order])
        terms = made(*seen(made, batch), FIRST)
        terms.total.backward()
        made.after_step(FIRST)
        found.append((terms.total.detach(), grads(made), buffers(made)))
    assert_near(*found)


@each
def test_other_draws_are_another_loss_and_no_global_generator_is_read(case):
    made = tiny(case).double()
    batch, before = images(8), torch.get_rng_state()
    first = made(*seen(made, batch), FIRST).total
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(made(*seen(made, images(8, first=100)), FIRST).total, first)


@each
def test_half_precision_has_wide_losses(case):
    """Autocast may round features; total, terms, centres and copies stay float32, and near those in float32."""
    made, low = tiny(case), tiny(case)
    views, draws = seen(made, images(16))
    expected = made(views, draws, FIRST)
    with torch.autocast("cpu", torch.bfloat16):
        terms = low(views, draws, FIRST)
    low.after_step(FIRST)
    assert terms.total.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in [*terms.parts.values(), *terms.watch.values()])
    assert all(value.dtype == torch.float32 for value in low.state_dict().values() if value.is_floating_point())
    assert float(terms.total.detach()) == pytest.approx(float(expected.total.detach()), rel=0.05)


@each
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels_is_trained_on_and_drawn(case, channels):
    made = tiny(case, channels)
    batch = images(8, channels=channels)
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
    mine = images(ROWS).rows(rank * ROWS // ranks, (rank + 1) * ROWS // ranks)
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
    for encoder in ENCODERS:
        chosen |= set(method(name).auto(facts(spec(), encoder=encoder)))
    for option, info in fields.items():
        assert info.description, option
        rule = (info.json_schema_extra or {}).get("auto")
        assert not (option in chosen and not rule), f"{option}: auto chooses it and does not say how"
        assert not (rule and option not in chosen), f"{option}: auto says how and does not choose it"
    assert {option for option in chosen if not option.startswith("train.")} <= set(fields)
    assert {option[6:] for option in chosen if option.startswith("train.")} <= set(Training.model_fields)


EXTENTS = [(8, 8, 1, 1), (16, 60, 30, 2), (32, 4000, 2000, 3), (96, 10**5, 15_000, 3), (224, 10**6, 10**6, 5)]
"""Side of the view, samples, steps, channels."""


@each_method
def test_auto_and_paper_stay_within_the_bounds_whatever_the_facts(name):
    options, training = method(name).Options, Training.model_fields
    assert set(method(name).paper_training) - {"epochs", "warmup_epochs", "lr_per_256"} <= set(training)
    assert options()
    extremes = {"duplicates": 0.5, "flat": 0.5, "sparse": 0.7, "mirrored": False}
    for size, samples, steps, channels in EXTENTS:
        for encoder in ("resnet18", "vit-mini/4", "vit-small/8", "timm:some_net", "own/net.py:Net"):
            counts = {"samples": samples, "batch": min(256, samples), "steps": steps}
            known = facts(spec(channels), size, encoder, **counts, **extremes)
            chosen = method(name).auto(known)
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


def refused(name: str, out: Path, data: Any = DATA, message: str = "", **options: Any) -> None:
    """In one line, and before anything is written."""
    with pytest.raises(TacitError, match=message) as problem:
        train((name, "vit-micro/4"), out, data, steps=2, **options)
    assert "\n" not in str(problem.value)
    assert problem.value.exit_code == 2
    assert not out.exists()


@each_method
def test_wrong_kinds_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(method(name), "kinds", ("text",))
    refused(name, tmp_path / "run", message=f"{name} takes text, but here are")


@each_method
def test_too_few_samples_are_refused(name, tmp_path):
    np.savez(tmp_path / "few.npz", train_images=np.arange(3 * 256, dtype=np.uint8).reshape(3, 16, 16))
    refused(name, tmp_path / "run", tmp_path / "few.npz", "3 sample")


@each_method
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": "data"}, "did you mean 'normalise'"),
        ({"flip": 1.5}, "flip = 1.5, but it should be less than or equal to 1"),
        ({"lr": -1.0}, "lr = -1.0, but it should be greater than or equal to 0"),
        ({"encoder": "vit-mikro/4"}, "did you mean 'vit-micro"),
        ({"encoder": "vit-micro/32"}, "give a patch of 1 to 16 pixels"),
        ({"batch": 10_000}, "fewer than one batch of 10000"),
        ({"normalise": "imagenet"}, "for 3 channels, the data has 1"),
        ({"init": "nowhere.pt"}, "no such file of weights: nowhere.pt"),
        ({"accumulate": 3}, "batch of 32 .* 3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused_before_anything_is_written(name, options, message, tmp_path):
    refused(name, tmp_path / "run", message=message, **options)
