"""Following the advice of a verdict mends the run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tacit
from tacit.data.loader import Loader
from tacit.data.open import open_data
from tacit.methods.method import Method
from tacit.methods.registry import method

pytestmark = pytest.mark.slow

SMALL = f"{Path(__file__).parents[2] / 'benchmarks/small_encoder.py'}:Small"
OPTIONS: dict[str, Any] = {
    "batch": 32, "size": 16, "encoder": SMALL, "precision": "float32", "stop_on": "none", "held_back": 200, "lr": 0.005,
}  # fmt: skip
Train = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """1,500 characters, uint8 `[1500, 35, 35]`."""
    collection = open_data("sample:omniglot_small").select("train")
    batch = Loader(collection, None, np.arange(1500), 1500, 0, shuffle=False).batch(0)
    return batch.data[:, 0].numpy()


@pytest.fixture(scope="module")
def train(pictures: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """The verdict on a run of so many steps; the same run is not made twice."""
    verdicts: dict[str, dict[str, Any]] = {}

    def train(name: str = "simclr", steps: int = 300, samples: int = len(pictures), **options: Any) -> dict[str, Any]:
        key = json.dumps([name, steps, samples, options], sort_keys=True)
        if key not in verdicts:
            folder = tmp_path_factory.mktemp("run")
            np.savez(folder / "pictures.npz", images=pictures[:samples])
            run = tacit.pretrain(
                name, folder / "pictures.npz", out=folder / "run", steps=steps, options=OPTIONS | options, device="cpu"
            )
            verdicts[key] = run.verdict
        return verdicts[key]

    return train


def followed(advice: str) -> dict[str, Any]:
    """The options that an advice names, as they are typed."""
    return {name: json.loads(value) for name, value in re.findall(r"--set (\w+)=([^\s)]+)", advice)}


def test_the_recipes_temperature_mends_one_that_is_far_from_it(train: Train) -> None:
    found = train(temperature=10.0)
    assert found["verdict"] != "learned"
    options = followed(found["advice"][0])
    assert options.keys() == {"temperature"}
    assert train(**options)["verdict"] == "learned"


def test_the_recipes_rate_mends_weights_that_never_move(train: Train) -> None:
    found = train(lr=0.0)
    assert found["verdict"] == "undecided"
    assert found["figures"]["crops_ahead_of_untrained"] < 2
    options = followed(found["advice"][0])
    assert options.keys() == {"lr"}
    assert train(**options, steps=600)["figures"]["crops_ahead_of_untrained"] > 2


@pytest.mark.parametrize(
    ("name", "trouble"),
    [
        ("mae", {"lr": 0.3, "encoder": "vit-micro/4"}),
        ("dino", {"centre": False, "lr": 0.002}),
    ],
    ids=["a rate far too high", "no centring"],
)
def test_the_recipes_value_mends_a_collapse(name: str, trouble: dict[str, Any], train: Train) -> None:
    found = train(name, steps=150, **trouble)
    assert found["verdict"] == "collapsed"
    options = followed(found["advice"][0])
    assert options.keys() <= trouble.keys()
    assert train(name, steps=150, **trouble | options)["verdict"] not in ("collapsed", "diverged")


def test_more_samples_mend_a_run_on_too_few(train: Train) -> None:
    found = train(samples=50, held_back=12, steps=20)
    assert found["verdict"] == "undecided"
    assert any("192 samples" in advice for advice in found["advice"])
    assert train(temperature=0.2)["verdict"] == "learned"


def test_a_loss_with_its_sign_turned_is_noticed(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    kind: type[Method] = method("simclr")
    plain: Any = kind.forward

    def turned(*args: Any) -> Any:
        terms = plain(*args)
        terms.total = -terms.total
        return terms

    monkeypatch.setattr(kind, "forward", turned)
    found = train(seed=1)
    assert found["verdict"] == "diverged"
    assert "sign" in found["advice"][0]
