"""The rules of the verdict, one by one, and what they rest on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tacit.data.spec import Batch, Spec
from tacit.evaluation import figures
from tacit.nn import build
from tacit.nn.encoder import Encoder
from tacit.nn.norms import settled
from tacit.train.advice import Setting, departures
from tacit.train.config import Training
from tacit.train.evidence import Evidence
from tacit.train.verdict import Verdict, judge
from tacit.train.watch import VIEWS, Watch
from tacit.views.sight import sight
from tacit.views.sights import image as shown

BEFORE = {"effective_rank": 20.0, "second_view": 0.2}
AFTER = {
    "effective_rank": 30.0,
    "second_view": 0.5,
    "crops_ahead_of_untrained": 9.0,
    "crops_ahead_of_input": 4.0,
    "light_ahead_of_untrained": 5.0,
    "light_ahead_of_input": 3.0,
}
GOOD = Evidence(AFTER, BEFORE, {"effective_rank": 15.0, "second_view": 0.3}, 2.0, 8.0, 8.3, 64, 100)
SETTING = Setting(Training(steps=200, lr=0.001, batch=32))


def verdict(now: dict[str, float] | None = None, setting: Setting = SETTING, **other: Any) -> Verdict:
    return judge(replace(GOOD, now=AFTER | (now or {}), **other), setting)


def test_a_run_ahead_of_both_baselines_has_learned() -> None:
    found = verdict()
    assert found.verdict == "learned"
    assert found.advice == []


@pytest.mark.parametrize("baseline", ["untrained", "input"])
def test_a_lead_that_luck_explains_over_either_baseline_is_undecided(baseline: str) -> None:
    found = verdict({f"crops_ahead_of_{baseline}": 1.9})
    assert found.verdict == "undecided"
    assert {"untrained": "before training", "input": "raw input"}[baseline] in found.reasons[0]


def test_the_words_are_those_of_the_kind() -> None:
    """Nobody changes the colour of a cloud of points."""
    found = verdict({"light_ahead_of_untrained": 1.9}, replace(SETTING, varied=sight("points").varied))
    assert "once points and their values differ" in found.reasons[0]
    assert "light" not in " ".join(found.reasons)


def test_crops_that_are_found_at_the_cost_of_everything_else_are_undecided() -> None:
    """By their colours, say: then the same picture in another light is a stranger."""
    found = verdict({"light_ahead_of_untrained": 1.9})
    assert found.verdict == "undecided"
    assert "light" in found.reasons[0]


@pytest.mark.parametrize(
    ("crops", "light", "word"),
    [(6.0, 1.9, "learned"), (6.0, -1.9, "learned"), (6.0, -2.1, "undecided"), (5.9, 1.9, "undecided")],
)
def test_a_lead_in_crops_makes_up_for_light_that_makes_no_difference(crops: float, light: float, word: str) -> None:
    for of in ("untrained", "input"):
        leads = {"crops_ahead_of_untrained": 9.0, "crops_ahead_of_input": 9.0, "light_ahead_of_untrained": light}
        assert verdict(leads | {f"crops_ahead_of_{of}": crops}).verdict == word


def test_few_held_back_samples_prove_nothing() -> None:
    found = verdict(samples=47)
    assert found.verdict == "undecided"
    assert "47" in found.reasons[0]
    assert "192" in found.advice[0]


def test_samples_that_are_all_alike_are_never_learned() -> None:
    found = verdict(raw={"effective_rank": 1.2, "second_view": 0.1})
    assert found.verdict == "undecided"
    assert "doctor" in found.advice[0]


@pytest.mark.parametrize(
    "now",
    [
        {"effective_rank": 1.4},
        {"effective_rank": 6.6, "crops_ahead_of_untrained": -3.0, "light_ahead_of_untrained": -3.0},
    ],
)
def test_features_on_a_line_have_collapsed(now: dict[str, float]) -> None:
    assert verdict(now).verdict == "collapsed"


def test_what_predicts_its_own_input_may_pass_through_few_directions_at_first() -> None:
    """It learns the mean colour before anything else: that is no collapse, unless it stays so."""
    setting, line = replace(SETTING, rebuilds=True), {"effective_rank": 1.4}
    assert verdict(line, setting, step=99).verdict == "learned"
    assert verdict(line, setting, step=100).verdict == "collapsed"
    assert verdict(line, step=99).verdict == "collapsed"


@pytest.mark.parametrize(
    "now", [{}, {"crops_ahead_of_untrained": -3.0}, {"light_ahead_of_untrained": -3.0}], ids=["both", "light", "crops"]
)
def test_a_low_rank_with_which_samples_are_still_found_is_no_collapse(now: dict[str, float]) -> None:
    assert verdict({"effective_rank": 1.9} | now).verdict == ("undecided" if now else "learned")


@pytest.mark.parametrize(("rank", "word"), [(1.4, "collapsed"), (1.6, "undecided")])
def test_where_samples_may_be_alike_places_may_not(rank: float, word: str) -> None:
    alike = {"effective_rank": 1.1, "crops_ahead_of_untrained": -9.0, "light_ahead_of_untrained": -9.0}
    found = verdict(alike | {"place_rank": rank}, untrained=BEFORE | {"place_rank": 30.0})
    assert found.verdict == word
    assert f"of places {rank} (30.0)" in " ".join(found.reasons)


def test_a_loss_that_is_solved_without_telling_samples_apart_has_collapsed() -> None:
    """A teacher without centring says the same of everything, and the student agrees."""
    assert verdict({"projector_spread": 0.02}, loss=0.2).verdict == "collapsed"
    assert verdict({"projector_spread": 0.02}, loss=4.0).verdict == "collapsed"
    assert verdict({"projector_spread": 0.02}, loss=5.0).verdict == "learned"
    assert verdict({"projector_spread": 0.9}, loss=0.2).verdict == "learned"


def test_a_loss_below_zero_has_the_wrong_sign_where_chance_is_above() -> None:
    found = verdict(loss=-3.0)
    assert found.verdict == "diverged"
    assert "sign" in found.reasons[0]
    assert "sign" in found.advice[0]
    assert verdict(loss=-3.0, first_loss=-1.0, chance=None).verdict == "learned"


@pytest.mark.parametrize(
    "wrong", [{"loss": math.nan}, {"loss": 13.0}, {"now": {**AFTER, "effective_rank": math.nan}}, {"loss": math.inf}]
)
def test_a_loss_that_rises_or_is_no_number_has_diverged(wrong: dict[str, Any]) -> None:
    found = judge(replace(GOOD, **wrong), SETTING)
    assert found.verdict == "diverged"
    assert "--set lr=0.0003333" in found.advice[0]


def test_before_the_first_step_an_unknown_loss_is_no_divergence() -> None:
    assert verdict({"crops_ahead_of_untrained": 0.0}, loss=math.nan, step=0).verdict == "undecided"


def test_every_verdict_but_learned_has_two_causes_each_with_an_option() -> None:
    for found in (verdict({"effective_rank": 1.0}), verdict(loss=math.nan), verdict({"crops_ahead_of_input": 0.0})):
        assert len(found.advice) == 2
        assert all("--" in advice for advice in found.advice)


def test_copies_of_one_another_are_a_suspect() -> None:
    collapsed = {"effective_rank": 1.0}
    assert "80% of the samples are copies" in verdict(collapsed, replace(SETTING, duplicates=0.8)).advice[0]
    assert not any("copies" in advice for advice in verdict(collapsed, replace(SETTING, duplicates=0.4)).advice)


def test_what_the_user_set_far_from_the_recipe_is_the_first_suspect() -> None:
    config = {
        "train": {"lr": 0.3, "batch": 64, "weight_decay": 0.03},
        "method": {"temperature": 0.001, "centre": False, "jitter": 0.5},
        "usual": {"lr": 0.0005, "weight_decay": 0.02, "temperature": 0.2, "centre": True, "batch": 64, "encoder": "resnet18"},
    }
    found = departures(config)
    assert list(found) == ["centre", "lr", "temperature"]
    advice = verdict({"effective_rank": 1.0}, replace(SETTING, departures=found)).advice
    assert "--set centre=true" in advice[0]
    assert "--set lr=0.0005" in advice[1]


# What it rests on -----------------------------------------------------------------------------------------------------


def test_a_place_is_how_many_are_at_least_as_near() -> None:
    first = torch.eye(4)
    second = torch.tensor([[1.0, 0, 0, 0], [0.9, 0.5, 0, 0], [0.9, 0.8, 0.1, 0], [0, 0, 0, 1]])
    assert figures.finding(first, second).tolist() == [1, 1 / 2, 1 / 3, 1]


def test_constant_features_find_nothing() -> None:
    assert figures.finding(torch.ones(5, 3), torch.ones(5, 3)).tolist() == [1 / 5] * 5


def test_a_lead_counts_standard_errors_of_paired_differences() -> None:
    ours, theirs = torch.tensor([1.0, 0.5, 1.0, 0.5]), torch.tensor([0.5, 0.5, 0.5, 0.0])
    ahead = ours - theirs
    assert figures.lead(ours, theirs) == pytest.approx(float(ahead.mean() / (ahead.std() / 2)))
    assert figures.lead(theirs, ours) == pytest.approx(-figures.lead(ours, theirs))
    assert figures.lead(ours, ours) == 0
    assert math.isnan(figures.lead(ours * math.nan, theirs))


@pytest.fixture(scope="module")
def watch() -> Watch:
    data = torch.randint(0, 256, (140, 1, 20, 20), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    sizes = torch.tensor([[20, 20]], dtype=torch.int32).expand(140, -1)
    spec = Spec("image", 1, (20, 20))
    return Watch(
        Batch(torch.arange(140), data, sizes), {"crops": shown.crops([16, 16]), "light": shown.light([16, 16])}, spec, seed=0
    )


def test_a_look_is_the_same_each_time_and_leaves_the_encoder_as_it_was(watch: Watch) -> None:
    encoder = build.encoder("resnet-mini", 1, 16).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    device = torch.device("cpu")
    looks = [watch.look(encoder, None, device) for _ in range(2)]
    watch.look_untrained(encoder, None, device)
    assert looks[0] == looks[1]
    assert all(part.training for part in encoder.modules())
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_batch_statistics_that_settle_are_no_learning(watch: Watch) -> None:
    """Frozen weights in training mode, as a run with a rate of 0 has them: no lead over the untrained encoder."""
    device = torch.device("cpu")
    encoder = build.encoder("resnet-mini", 1, 16)
    _, untrained = watch.look_untrained(encoder, None, device)
    encoder.train()
    with torch.no_grad():
        for _ in range(60):
            for part in watch._parts("crops", "another", device):
                encoder(part)
    ahead = watch.compare(watch.look(encoder, None, device), {"untrained": untrained.scores})
    assert max(ahead.values()) < 2


def test_an_encoder_without_batch_statistics_is_settled_as_it_is() -> None:
    encoder = build.encoder("vit-micro/4", 1, 16)
    assert settled(encoder, []) is encoder


def test_places_are_looked_at_where_they_count(watch: Watch) -> None:
    encoder = build.encoder("vit-micro/4", 1, 16).eval()
    plain = watch.look(encoder, None, torch.device("cpu")).figures
    both = (
        Watch(watch.batch, watch.probes, watch.spec, watch.seed, places=True).look(encoder, None, torch.device("cpu")).figures
    )
    assert both.keys() - plain.keys() == {"place_rank"}
    assert 1 < both["place_rank"] < encoder.width


def test_a_look_costs_six_passes_over_the_held_back_samples(watch: Watch) -> None:
    class Counting(Encoder):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.rows = build.encoder("vit-micro/4", 1, 16), 0

        def forward(self, x: torch.Tensor, *rest: Any, **more: Any) -> Any:
            self.rows += len(x)
            return self.inner(x)

    encoder = Counting()
    watch.look(encoder, nn.Identity(), torch.device("cpu"))
    assert encoder.rows == len(watch.probes) * len(VIEWS) * len(watch) == 6 * 140
