"""Mod-X: what the previous model may teach, what of it moves (nothing), and what a phase starts from."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_methods_clip import CONTEXT, SIDE, SPEC, VOCABULARY, ordered, pairs, seen, stepping
from test_methods_clip import auto as auto_of_clip
from test_methods_clip import tiny as first_model

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.methods.clip import CLIP
from tacit.methods.method import Facts, Progress, Terms
from tacit.methods.mod_x import KEPT, ModX
from tacit.nn.norms import BatchNorm
from tacit.objectives.pairs import Compared
from tacit.train.config import Training
from tacit.train.loop import Loop, State
from tacit.train.record import NoRecord
from tacit.train.session import build_method
from tacit.views.image import CentreView

FIRST = Progress(0, 10, 5)


def apart(model: torch.nn.Module, by: float = 0.5) -> None:
    """Another model: every weight is moved by noise of its own."""
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            noise = Draws(number, 0, torch.arange(1)).normal("apart", weight.numel()).view_as(weight)
            weight += by * noise.to(weight) * (weight.std() if weight.numel() > 1 else 0.1)


def phase(encoder: str = "clip-vit-micro/8", moved: float = 0.0, of: dict[str, Any] | None = None, **options: Any) -> ModX:
    """A phase after a first model; `moved`: how far the current one has gone from it."""
    previous = first_model(encoder, **of or {})
    small = {name: getattr(previous.options, name) for name in KEPT if name not in ("encoder", "size")}
    made = ModX.Options(**small | {"screen": False} | options)
    phase = build_method(ModX, made, Training(encoder=encoder, size=SIDE, batch=8), SPEC, {"previous": previous})
    assert isinstance(phase, ModX)
    apart(torch.nn.ModuleList([phase.student, phase.image_head, phase.text]), moved)
    return phase


def forward(made: CLIP, batch: Batch | None = None) -> Terms:
    return made(*seen(made, batch or pairs()), FIRST)


def aligned(made: ModX, batch: Batch | None = None) -> torch.Tensor:
    """A, with its gradient."""
    views, draws = seen(made, batch or pairs())
    rows = made.embed(views, draws)
    before, now = made.previous.compared(made.previous.embed(views, draws)), made.compared(rows)
    return made.aligned(before, now, made.kept(before, made.repeated(rows, now)))


def pull(made: ModX, batch: Batch | None = None) -> float:
    return float(aligned(made, batch).detach())


def says(monkeypatch: pytest.MonkeyPatch, made: ModX, of_image: torch.Tensor, of_text: torch.Tensor | None = None) -> None:
    """Let the previous model's cosines be these."""
    rows = torch.zeros(len(of_image), 16, dtype=of_image.dtype)
    told = Compared(rows, rows, of_image, of_image.T if of_text is None else of_text, 0)
    monkeypatch.setattr(made.previous, "compared", lambda *_: told)


# What is aligned ------------------------------------------------------------------------------------------------------


def test_without_weight_it_is_clip_to_the_bit():
    made = phase(moved=0.3, alpha=0.0, area=0.9)
    plain = first_model(area=0.9)
    own = {name: value for name, value in made.state_dict().items() if not name.startswith("previous.")}
    plain.load_state_dict(own)
    ours, theirs = forward(made), forward(plain)
    assert torch.equal(ours.total, theirs.total)
    assert list(ours.parts) == ["clip"]
    ours.total.backward()
    theirs.total.backward()
    grads = dict(made.named_parameters())
    assert all(torch.equal(weight.grad, grads[name].grad) for name, weight in plain.named_parameters())


def test_it_starts_as_the_previous_model_and_then_nothing_pulls():
    made = phase().double()
    assert torch.equal(made.log_scale, made.previous.log_scale)
    terms = forward(made)
    assert float(terms.parts["align"]) == pytest.approx(0, abs=1e-12)
    loss = aligned(made)
    grads = torch.autograd.grad(loss, [w for w in made.parameters() if w.requires_grad], allow_unused=True)
    assert max(float(grad.abs().max()) for grad in grads if grad is not None) < 1e-12


def test_batch_statistics_pull_from_the_first_step():
    """A tower of batch-norm has those of the batch, and the previous one its running ones."""
    made = phase("resnet-mini").double()
    apart(made.previous.student, 0.1)  # off its first running moments, which are those of nothing
    made.student.load_state_dict(made.previous.student.state_dict())
    assert pull(made.train()) > 1e-6


def test_a_previous_model_that_is_always_wrong_teaches_nothing(monkeypatch):
    made = phase(moved=0.5, screen=True).double()
    says(monkeypatch, made, torch.eye(8, dtype=torch.float64).roll(1, dims=1))
    terms = forward(made)
    assert float(terms.parts["align"]) == 0
    assert float(terms.watch["kept_pictures"]) == float(terms.watch["kept_captions"]) == 0
    terms.total.backward()
    expected = {name: weight.grad.clone() for name, weight in made.named_parameters() if weight.grad is not None}
    made.zero_grad()
    views, draws = seen(made, pairs())
    made.contrasted(made.compared(made.embed(views, draws)), None).total.backward()
    for name, weight in made.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, expected[name], rtol=1e-10, atol=1e-14)


def test_pictures_and_captions_are_screened_by_themselves(monkeypatch):
    made = phase(screen=True)
    old = torch.eye(8)
    old[0, 3] = 2  # the third caption takes the first picture's place, and finds another picture than its own
    old[5, 5] = 0.5
    old[5, 6] = 0.7  # the sixth picture is wrong, its caption is right
    says(monkeypatch, made, old)
    terms = forward(made)
    assert float(terms.watch["kept_pictures"]) == pytest.approx(6 / 8)
    assert float(terms.watch["kept_captions"]) == pytest.approx(7 / 8)


def test_the_previous_model_decides_what_is_kept(monkeypatch):
    """Mutation: screened by the current model's similarities."""
    made = phase(moved=0.5, screen=True)
    says(monkeypatch, made, torch.eye(8))
    assert float(forward(made).watch["kept_pictures"]) == 1


def test_without_screening_all_rows_are_kept_and_the_errors_too(monkeypatch):
    made = phase(moved=0.5, screen=False).double()
    says(monkeypatch, made, torch.eye(8, dtype=torch.float64).roll(1, dims=1))
    terms = forward(made)
    assert float(terms.watch["kept_pictures"]) == float(terms.watch["kept_captions"]) == 1
    assert float(terms.parts["align"]) > 0.1


@pytest.mark.parametrize(("ties", "kept"), [("first", 7 / 8), ("equal", 1.0)])
def test_a_caption_that_comes_twice_is_right_twice_or_only_once(ties, kept, monkeypatch):
    made, batch, old = phase(screen=True, screen_ties=ties), pairs(), torch.eye(8)
    batch.extra["tokens"][5] = batch.extra["tokens"][2]
    old[2, 5] = old[5, 2] = 1
    says(monkeypatch, made, old)
    terms = forward(made, batch)
    assert float(terms.watch["kept_pictures"]) == pytest.approx(kept)
    assert float(terms.watch["kept_captions"]) == pytest.approx(kept)


def test_masked_captions_and_ties_are_told_apart():
    """What the contrast leaves out is not what screening counts as right."""
    batch = pairs()
    batch.extra["tokens"][5] = batch.extra["tokens"][2]
    plain, masked = (float(forward(phase(moved=0.3, duplicates=how), batch).parts["clip"]) for how in ("keep", "mask"))
    assert masked < plain
    for ties in ("first", "equal"):
        assert float(forward(phase(moved=0.3, screen_ties=ties), batch).parts["clip"]) == plain


def test_alignment_is_never_below_zero_and_knows_neither_t_nor_lengths_nor_the_order():
    made, batch = phase(moved=0.5).double(), pairs()
    before = pull(made, batch)
    assert before > 1e-4
    made.log_scale.data.fill_(0.7)
    made.previous.log_scale.data.fill_(3.0)
    with torch.no_grad():
        made.image_head.weight.mul_(3.0)
        made.previous.text.head.weight.mul_(0.2)
    assert pull(made, batch) == pytest.approx(before, rel=1e-10)
    assert pull(made, ordered(batch, [3, 7, 0, 2, 6, 1, 5, 4])) == pytest.approx(before, rel=1e-10)


def test_one_order_of_both_sides_changes_nothing():
    made, batch = phase(moved=0.5, screen=True).double(), pairs()
    other = ordered(batch, [3, 7, 0, 2, 6, 1, 5, 4])
    assert float(forward(made, other).total.detach()) == pytest.approx(float(forward(made, batch).total.detach()), rel=1e-10)


def test_a_mean_with_280_times_the_weight_is_the_published_sum_of_280():
    summed, meant = (pull(phase(moved=0.5, align_reduction=how)) for how in ("sum", "mean"))
    assert summed == pytest.approx(8 * meant, rel=1e-6)


def test_temperature_and_diagonal_reach_the_distributions():
    usual, sharp, beside = (
        pull(phase(moved=0.5, **options).double()) for options in ({}, {"align_temperature": 0.1}, {"diagonal": "drop"})
    )
    assert sharp > 5 * usual
    assert beside != pytest.approx(usual, rel=1e-3)


def test_watched_figures_are_those_of_the_terms():
    terms = forward(phase(moved=0.5))
    assert float(terms.watch["align_share"]) == pytest.approx(float(terms.parts["align"] / terms.parts["clip"]))
    assert list(terms.parts) == ["clip", "align"]


def test_a_first_model_that_judged_each_pair_goes_on_so():
    terms = forward(phase(moved=0.3, of={"loss": "siglip", "bias": -2.0}))
    assert list(terms.parts) == ["siglip", "align"]


# What moves -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["clip-vit-micro/8", "resnet-mini"])
def test_nothing_of_the_previous_model_ever_moves(encoder):
    """Nor do its batch statistics: it is in evaluation, whatever the current one is in."""
    made = phase(encoder, screen=False)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made.train()
    assert not any(module.training for module in made.previous.modules())
    step = stepping(made, weight_decay=0.5)
    for number in range(2):
        step(pairs(first=8 * number), FIRST)
    moved = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert not {name for name in moved if name.startswith("previous.")}
    assert {"image_head.weight", "text.head.weight", "log_scale"} <= moved
    if encoder == "resnet-mini":
        assert any("running" in name for name in moved)
        assert any(isinstance(module, BatchNorm) for module in made.previous.modules())


def test_no_branch_or_patch_of_the_previous_model_is_dropped():
    made = phase("clip-vit-micro/4", of={"patch_dropout": 0.5}, patch_dropout=0.5)
    looked: list[Any] = []
    for of in (made.student, made.previous.student):
        of.register_forward_pre_hook(lambda _, args, kwargs: looked.append(kwargs["keep"]), with_kwargs=True)
    made.train()
    forward(made)
    assert looked[0] is not None
    assert looked[1] is None


def test_everything_decays_t_too():
    made = phase()
    assert all(made.decays(name, weight) for name, weight in made.named_parameters())
    made.log_scale.data.fill_(2.0)
    made.previous.log_scale.data.fill_(2.0)
    step = stepping(made, lr=0.01, weight_decay=10.0, beta1=0.0)
    step(pairs(), FIRST)
    assert float(made.log_scale.detach()) == pytest.approx(2.0 * (1 - 0.01 * 10), abs=0.011)  # Adam's own part is 0.01


def test_the_first_update_of_a_phase_moves_nothing_but_the_clamp():
    made = phase()
    made.log_scale.data.fill_(9.0)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    step = stepping(made, schedule="cosine", steps=10, warmup=2)
    step(pairs(), Progress(0, 10, 5))
    moved = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"log_scale"}
    assert float(made.log_scale.detach()) == pytest.approx(4.6052)
    step(pairs(), Progress(1, 10, 5))
    assert not torch.equal(made.image_head.weight, before["image_head.weight"])


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_step_of_several_passes_has_the_gradient_of_the_whole_batch(reduction):
    """The previous model's rows are those of all passes, too."""

    def taken(accumulate: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        made = phase(moved=0.3, alpha=2.0, align_reduction=reduction).train()
        terms = stepping(made, lr=0.0, accumulate=accumulate)(pairs(), FIRST)
        found = {name: weight.grad for name, weight in made.named_parameters() if weight.grad is not None}
        return terms.parts["align"], found

    whole, parts = taken(1), taken(2)
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-4)  # in float32
    assert float(whole[0]) > 1e-3


# What a phase starts from ---------------------------------------------------------------------------------------------


def test_it_is_a_copy_and_the_previous_model_is_another():
    previous = first_model("resnet-mini")
    apart(previous)
    previous.student.eval()
    made = build_method(
        ModX,
        ModX.Options(vocabulary=VOCABULARY, context=CONTEXT, text="text-micro", out=16, normalise="data"),
        Training(encoder="resnet-mini", size=SIDE, batch=8),
        SPEC,
        {"previous": previous},
    )
    for name, value in previous.state_dict().items():
        own = made.state_dict()[name]
        assert torch.equal(own, value), name
        assert own.data_ptr() != value.data_ptr() or not value.numel()


def test_architecture_is_the_previous_models_and_what_is_said_of_it_is_handed_down():
    assert ModX.inherits({"previous": {name: name for name in KEPT} | {"lr": 1}}) == {name: name for name in KEPT} | {
        "init": ""
    }
    given = {"encoder": "resnet-mini", "out": 16, "alpha": 3.0, "lr": 0.1, "init": "weights.pt"}
    assert ModX.needed(given, "auto", 100) == {"previous": {"encoder": "resnet-mini", "out": 16, "init": "weights.pt"}}
    published = ModX.needed(given, "paper", 100)["previous"]
    assert (published["encoder"], published["batch"], published["text"]) == ("resnet-mini", 280, "text-medium")
    phase_only = {"duplicates", "patch_dropout", "lock_image", "lock_text", "area", "flip"}
    assert set(KEPT) - {"encoder", "size"} == set(CLIP.Options.model_fields) - phase_only


def test_pictures_are_made_as_the_previous_model_saw_them():
    old = Spec("pair", 3, (SIDE, SIDE), mean=(0.1,), std=(0.2,))
    found = ModX.spec_given(Spec("pair", 3, (40, 30), mean=(0.7,), std=(0.3,)), {"previous": old})
    assert (found.size, found.mean, found.std) == ((40, 30), (0.1,), (0.2,))
    with pytest.raises(TacitError, match="sees 3 channel"):
        ModX.spec_given(Spec("pair", 1, (SIDE, SIDE)), {"previous": old})


def test_the_whole_central_square_is_shown_or_a_crop():
    assert phase().views()["image"] == CentreView(SIDE, "data")
    assert phase(area=0.5).views()["image"].area == (0.5, 1.0)


def auto(**known: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "spec": SPEC, "samples": 4000, "duplicates": 0.0, "sparse": 0.0, "flat": 0.0, "mirrored": None, "batch": 128,
        "steps": 2001, "size": 32, "extent": (32, 32), "encoder": "clip-vit-micro/4", "width": 96, "device": "cpu",
    }  # fmt: skip
    return {name: choice.value for name, choice in ModX.auto(Facts(**usual | known)).items()}


@pytest.mark.parametrize(("batch", "alpha"), [(64, 87.5), (128, 43.75), (256, 21.875), (280, 20)])
def test_the_weight_of_a_row_is_the_published_one_for_any_batch(batch, alpha):
    assert auto(batch=batch)["alpha"] == pytest.approx(alpha)


def test_a_phase_warms_up_for_a_fifth_and_learns_slower_than_a_first_model():
    chosen = auto()
    assert chosen["train.warmup"] == 400
    assert chosen["train.lr"] == pytest.approx(0.5 * auto_of_clip()["train.lr"].value)
    assert chosen["train.weight_decay"] == 0.1
    assert chosen["screen_ties"] == "equal"


def test_as_published_it_is_two_such_models():
    """A residual tower of 1,024 dimensions and six blocks of text; the second one is frozen."""
    shape = {"out": 1024, "text": "text-medium"}
    training = Training(encoder="clip-resnet50", size=224, batch=280)
    spec = Spec("pair", 3, (224, 224))
    with torch.device("meta"):
        previous = build_method(CLIP, CLIP.Options(**shape), training, spec)
        made = build_method(ModX, ModX.Options(**shape), training, spec, {"previous": previous})
    one = 102_007_137 - 6 * (12 * 512**2 + 13 * 512)  # half of the text tower's blocks
    assert sum(weight.numel() for weight in made.parameters() if weight.requires_grad) == one
    assert sum(weight.numel() for weight in made.parameters()) == 2 * one


def test_what_holds_it_to_the_previous_model_may_rise_and_is_no_divergence():
    loop: Any = SimpleNamespace(
        method=ModX, training=SimpleNamespace(steps=10), state=State(), loader=SimpleNamespace(steps_per_epoch=5),
        step=SimpleNamespace(optimiser=SimpleNamespace(param_groups=[{"lr": 1.0, "lr_scale": 1.0}])),
    )  # fmt: skip
    terms = Terms(torch.tensor(9.0), {"clip": torch.tensor(0.5), "align": torch.tensor(8.5)}, 4.2)
    Loop._note(loop, NoRecord(), terms, 0, 1)
    assert (loop.state.first_loss, loop.state.recent_loss) == (0.5, 0.5)


def test_pictures_show_what_is_kept_and_how_far_the_towers_turned():
    made = phase(moved=0.5, screen=True).eval()
    with torch.no_grad():
        shown = made.pictures(*seen(made, pairs(10)))
    before, after, turns, *rest = shown.values()
    assert before.shape == after.shape == (3, 40, 40)
    free = (before[0] != before[1]).any(dim=1)  # red
    assert torch.equal(free, (after[0] != after[1]).any(dim=1))
    assert 0 < float(free.float().mean()) <= 1
    assert turns.shape[0] == 1
    assert turns.shape[1] == 3 * 68
    assert len(rest) == 2
    assert "degrees" in list(shown)[2]


def test_a_model_that_did_not_turn_is_drawn_at_0_degrees():
    made = phase().eval()
    with torch.no_grad():
        said, picture = list(made.pictures(*seen(made, pairs(10))).items())[2]
    assert "from 0 to 1 degrees" in said
    assert math.isclose(float(picture[0, :64, :4].mean()), 1.0)
