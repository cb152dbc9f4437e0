"""CLIP: what its loss depends on, what it keeps, what `auto` makes of captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.methods.captions import alike
from tacit.methods.clip import CLIP
from tacit.methods.method import Chosen, Facts, Progress, Terms
from tacit.train.config import Training
from tacit.train.session import build_method
from tacit.train.step import Step

SIDE, CONTEXT, VOCABULARY = 16, 6, 520
SPEC = Spec("pair", 3, (SIDE, SIDE))
FIRST = Progress(0, 10, 5)
START, END = VOCABULARY - 2, VOCABULARY - 1


def tiny(encoder: str = "clip-vit-micro/8", batch: int = 8, **options: Any) -> CLIP:
    small = {"vocabulary": VOCABULARY, "context": CONTEXT, "text": "text-micro", "out": 16, "normalise": "data"}
    training = Training(encoder=encoder, size=SIDE, batch=batch)
    made = build_method(CLIP, CLIP.Options(**small | options), training, SPEC)
    assert isinstance(made, CLIP)
    return made


def pairs(count: int = 8, first: int = 0) -> Batch:
    """Noise with captions of one to four words."""
    ids = torch.arange(first, first + count)
    data = (Draws(7, 0, ids).uniform("pictures", 3, SIDE, SIDE) * 255).to(torch.uint8)
    tokens = torch.zeros(count, CONTEXT, dtype=torch.int64)
    for row, number in zip(tokens, ids.tolist(), strict=True):
        words = [number + 1, *range(number % 4)]
        row[: len(words) + 2] = torch.tensor([START, *words, END])
    return Batch(ids, data, torch.tensor([[SIDE, SIDE]], dtype=torch.int32).expand(count, -1), {"tokens": tokens})


def seen(made: CLIP, batch: Batch) -> tuple[dict[str, torch.Tensor], Draws]:
    draws = Draws(0, 0, batch.ids)
    dtype = made.log_scale.dtype
    views = {name: view(batch, draws.within(name), SPEC) for name, view in made.views().items()}
    return {name: x.to(dtype) if x.is_floating_point() else x for name, x in views.items()}, draws


def forward(made: CLIP, batch: Batch | None = None) -> Terms:
    return made(*seen(made, batch or pairs()), FIRST)


def stepping(made: CLIP, **training: Any) -> Step:
    values = {"size": SIDE, "batch": 8, "optimiser": "adamw", "lr": 0.01, "schedule": "constant", **training}
    return Step(made, Training(**values), SPEC, Fabric(accelerator="cpu", devices=1))


def ordered(batch: Batch, order: Sequence[int]) -> Batch:
    return batch.each(lambda tensor: tensor[torch.tensor(order)])


# The loss -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_it_starts_near_chance_and_says_what_that_is(loss):
    made = tiny(loss=loss, init_scale=1.0, bias=-math.log(7))
    terms = forward(made)
    assert float(terms.total.detach()) == pytest.approx(terms.chance, rel=0.1)
    assert list(terms.parts) == [loss]


def test_features_that_are_all_alike_cost_the_logarithm_of_the_batch():
    made = tiny().double()
    torch.nn.init.zeros_(made.image_head.weight)
    assert float(forward(made).total.detach()) == pytest.approx(math.log(8))


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_one_order_of_both_sides_changes_nothing(loss):
    made, batch = tiny(loss=loss).double(), pairs()
    other = ordered(batch, [3, 7, 0, 2, 6, 1, 5, 4])
    assert float(forward(made, other).total.detach()) == pytest.approx(float(forward(made, batch).total.detach()), rel=1e-10)


def test_a_caption_with_another_picture_is_another_loss():
    made, batch = tiny().double(), pairs()
    swapped = Batch(batch.ids, batch.data, batch.sizes, {"tokens": batch.extra["tokens"].roll(1, 0)})
    assert float(forward(made, swapped).total.detach()) != float(forward(made, batch).total.detach())


def test_the_length_of_features_changes_nothing():
    made = tiny().double()
    before = float(forward(made).total.detach())
    with torch.no_grad():
        made.image_head.weight.mul_(3.0)
        made.text.head.weight.mul_(0.1)
    assert float(forward(made).total.detach()) == pytest.approx(before, rel=1e-9)


def test_what_stands_behind_the_end_changes_nothing_and_what_stands_before_it_does():
    made, batch = tiny().double(), pairs()
    before = forward(made, batch).total
    tokens = batch.extra["tokens"]
    behind, inside = tokens.clone(), tokens.clone()
    behind[0, 3:] = torch.tensor([5, END, 9])
    inside[0, 1] = 99
    assert torch.equal(tokens[0, :3], torch.tensor([START, 1, END]))

    def loss(tokens: torch.Tensor) -> torch.Tensor:
        return forward(made, Batch(batch.ids, batch.data, batch.sizes, {"tokens": tokens})).total

    torch.testing.assert_close(loss(behind), before, rtol=1e-12, atol=0)
    assert float((loss(inside) - before).detach().abs()) > 1e-9


def test_pairs_of_one_caption_are_no_negatives_when_masked():
    """What two pictures of one caption have in common must not move the loss of either."""
    batch = pairs()
    batch.extra["tokens"][1] = batch.extra["tokens"][0]

    def slope(duplicates: str) -> float:
        made = tiny(duplicates=duplicates).double()
        views, draws = seen(made, batch)
        f = made.of_image(views["image"], draws).detach().requires_grad_()
        made.of_image = lambda *_: f  # type: ignore[method-assign]
        g = made.of_text(views["text"])
        (grad,) = torch.autograd.grad(made(views, draws, FIRST).total, f)
        p = (made.log_scale.exp() * f @ g.T).softmax(1)
        keep = p[0] / (1 - p[0, 1]) if duplicates == "mask" else p[0]
        keep = torch.where(torch.arange(8) == 1, 0.0, keep) if duplicates == "mask" else keep
        q = made.log_scale.exp() * g @ f.T
        if duplicates == "mask":
            q = q.masked_fill(
                torch.zeros(8, 8).index_put((torch.tensor([0, 1]), torch.tensor([1, 0])), torch.tensor(1.0)).bool(), -torch.inf
            )
        q = q.softmax(1)
        eye = torch.eye(8, dtype=torch.float64)
        expected = made.log_scale.exp() * ((keep - eye[0]) @ g + (q[:, 0] - eye[0]) @ g) / 16
        torch.testing.assert_close(grad[0], expected.detach(), rtol=1e-8, atol=1e-12)
        return float(made(views, draws, FIRST).total.detach())

    assert slope("mask") < slope("keep")


def test_ranks_come_to_the_loss_of_the_whole_batch(monkeypatch):
    """Two halves, each with what the other has; the mean of both, and of their gradients, is that of one device."""
    made, batch = tiny(duplicates="mask").double(), pairs()
    batch.extra["tokens"][5] = batch.extra["tokens"][2]
    views, draws = seen(made, batch)
    alone = made(views, draws, FIRST)
    alone.total.backward()
    expected = {name: p.grad.clone() for name, p in made.named_parameters()}
    made.zero_grad()
    everything = [made.of_image(views["image"], draws), made.of_text(views["text"]), views["text"]]
    losses = []
    for rank in range(2):
        rows = slice(4 * rank, 4 * rank + 4)
        gathered = iter(everything)
        monkeypatch.setattr(distributed, "gather", lambda _, gathered=gathered: next(gathered))
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(made, "of_image", lambda *_, rows=rows: everything[0][rows])
        monkeypatch.setattr(made, "of_text", lambda *_, rows=rows: everything[1][rows])
        losses.append(made({name: view[rows] for name, view in views.items()}, draws, FIRST).total)
    torch.testing.assert_close(torch.stack(losses).mean(), alone.total, rtol=1e-10, atol=0)
    torch.stack(losses).mean().backward()
    for name, parameter in made.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-8, atol=1e-12)


def test_watched_figures_are_those_of_the_batch():
    made = tiny(init_scale=20.0).double()
    views, draws = seen(made, pairs())
    with torch.no_grad():
        f, g = made.of_image(views["image"], draws), made.of_text(views["text"])
    watch = made(views, draws, FIRST).watch
    cosine, others = f @ g.T, ~torch.eye(8, dtype=torch.bool)
    assert float(watch["scale"]) == pytest.approx(20.0)
    assert float(watch["partners"]) == pytest.approx(float(cosine.diag().mean()), rel=1e-5)
    assert float(watch["among_pictures"]) == pytest.approx(float((f @ f.T)[others].mean()), rel=1e-5)
    assert float(watch["among_captions"]) == pytest.approx(float((g @ g.T)[others].mean()), rel=1e-5)
    assert float(watch["caption_found"]) == pytest.approx(float((cosine.argmax(1) == torch.arange(8)).double().mean()))
    assert float(watch["picture_found"]) == pytest.approx(float((cosine.argmax(0) == torch.arange(8)).double().mean()))


# Steps ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(9.0, math.log(100)), (-3.0, 0.0), (2.0, 2.0)])
def test_the_scale_is_put_back_after_a_step(before, after):
    made = tiny()
    made.log_scale.data.fill_(before)
    stepping(made, lr=0.0)(pairs(), FIRST)
    assert float(made.log_scale.detach()) == pytest.approx(after)


def test_a_step_of_any_length_leaves_the_scale_between_its_bounds():
    """Mutation: put back before the step."""
    made = tiny()
    stepping(made, lr=50.0)(pairs(), FIRST)
    assert float(made.log_scale.detach()) in (0.0, pytest.approx(math.log(100)))


def test_the_scale_moves_with_the_gradient():
    made = tiny()
    stepping(made)(pairs(), FIRST)
    assert float(made.log_scale.detach()) != pytest.approx(math.log(1 / 0.07), abs=1e-4)


def test_neither_scale_nor_norms_nor_positions_nor_the_class_token_decay():
    made = tiny(loss="siglip")
    spared = {name for name, p in made.named_parameters() if not made.decays(name, p)}
    assert {"log_scale", "bias", "student.cls_token", "student.pos_embed", "text.trunk.pos_embed"} <= spared
    assert {name for name, p in made.named_parameters() if p.ndim == 1} <= spared
    assert not spared & {"image_head.weight", "text.head.weight", "text.trunk.token_embedding.weight"}
    assert not any(name.endswith("qkv.weight") for name in spared)


@pytest.mark.parametrize(
    ("option", "locked", "free"), [("lock_image", "student.", "text."), ("lock_text", "text.trunk.", "student.")]
)
def test_a_locked_tower_stays_as_it_starts(option, locked, free):
    made = tiny("resnet-mini" if option == "lock_image" else "clip-vit-micro/8", **{option: True})
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made.train()
    stepping(made)(pairs(), FIRST)
    moved = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith(locked) for name in moved)
    assert any(name.startswith(free) for name in moved)
    assert {"image_head.weight", "text.head.weight", "log_scale"} <= moved


@pytest.mark.parametrize(
    "options",
    [{}, {"duplicates": "mask"}, {"loss": "siglip", "init_scale": 10.0, "bias": -2.0}, {"patch_dropout": 0.5}],
    ids=lambda options: " ".join(options) or "as it is",
)
def test_a_step_of_several_passes_has_the_gradient_of_the_whole_batch(options):
    """Of both towers, and of the scale, which every pass sees. Mutations: each pass its own loss; the scale once a pass."""
    batch = pairs()
    batch.extra["tokens"][5] = batch.extra["tokens"][2]  # a caption comes twice, in different passes

    def taken(accumulate: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        made = tiny("clip-vit-micro/4", **options).train()
        terms = stepping(made, lr=0.0, accumulate=accumulate)(batch, FIRST)
        return terms.total.detach(), {name: p.grad for name, p in made.named_parameters() if p.grad is not None}

    whole, parts = taken(1), taken(4)
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-4)  # in float32
    assert float(whole[1]["log_scale"].abs()) > 1e-3


def test_running_moments_see_every_pass_once():
    made, expected = (tiny("resnet-mini").train() for _ in range(2))
    stepping(made, lr=0.0, accumulate=2)(pairs(), FIRST)
    for part in (pairs(4), pairs(4, first=4)):
        forward(expected, part)
    for (name, buffer), other in zip(made.named_buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, msg=name)


def test_dropped_patches_are_drawn_by_the_sample_and_kept_in_evaluation():
    made = tiny("clip-vit-micro/4", patch_dropout=0.5).double()
    views, draws = seen(made, pairs())
    looked: list[Any] = []
    made.student.register_forward_pre_hook(lambda _, args, kwargs: looked.append(kwargs["keep"]), with_kwargs=True)
    made(views, draws, FIRST)
    turned, again = seen(made, ordered(pairs(), [1, 0, 2, 3, 4, 5, 6, 7]))
    made(turned, again, FIRST)
    assert looked[0].shape == (8, 8)  # half of 16
    assert torch.equal(looked[0][0], looked[1][1])
    made.eval()(views, draws, FIRST)
    assert looked[2] is None


def test_a_residual_tower_ends_in_the_shared_space_by_itself():
    made = build_method(
        CLIP,
        CLIP.Options(vocabulary=VOCABULARY, context=CONTEXT, text="text-micro", out=1024),
        Training(encoder="clip-resnet50", size=32, batch=8),
        Spec("pair", 3, (32, 32)),
    )
    assert made.image_head(torch.ones(2, 1024)).shape == (2, 1024)
    assert not list(made.image_head.parameters())


@pytest.mark.parametrize(
    ("encoder", "options", "count"), [("clip-vit-base/32", {}, 151_277_313), ("clip-resnet50", {"out": 1024}, 102_007_137)]
)
def test_as_published_it_has_as_many_weights_as_the_published_models(encoder, options, count):
    with torch.device("meta"):
        training = Training(encoder=encoder, size=224, batch=32768)
        made = build_method(CLIP, CLIP.Options(**options), training, Spec("pair", 3, (224, 224)))
    assert sum(parameter.numel() for parameter in made.parameters()) == count


def test_pictures_show_who_finds_whom():
    made = tiny().eval()
    with torch.no_grad():
        found = made.pictures(*seen(made, pairs(10)))
    matrix, strips = found.values()
    assert matrix.shape == (1, 40, 40)
    assert strips.shape == (3, 6 * (SIDE + 1), 8 * (SIDE + 1))
    assert all(0 <= float(picture.min()) < float(picture.max()) <= 1 for picture in found.values())


# What auto makes of captions ------------------------------------------------------------------------------------------


def auto(captions: Sequence[str] = (), **known: Any) -> dict[str, Chosen]:
    usual: dict[str, Any] = {
        "spec": SPEC, "samples": 4000, "duplicates": 0.0, "sparse": 0.0, "flat": 0.0, "mirrored": None, "batch": 128,
        "steps": 2000, "size": 32, "extent": (32, 32), "encoder": "clip-vit-micro/4", "width": 96, "device": "cpu",
    }  # fmt: skip
    return CLIP.auto(Facts(**usual | known, captions=tuple(captions)))


def test_repeated_captions_are_masked_from_a_twentieth_of_rows_on():
    few, many = [f"word {n % 50}" for n in range(1000)], [f"word {n}" for n in range(1000)]
    assert auto(few)["duplicates"].value == "mask"
    assert auto(many)["duplicates"].value == "keep"
    assert alike(tuple(few)) == pytest.approx(19 / 999)
    assert auto()["duplicates"].value == "keep"


def test_crops_and_mirrors_heed_what_captions_say():
    plain = ["a cat", "a dog"] * 50
    assert (auto(plain)["area"].value, auto(plain)["flip"].value) == (0.5, 0.5)
    assert (auto([*plain, *["Left arm"] * 3])["area"].value, auto([*plain, *["Left arm"] * 3])["flip"].value) == (0.9, 0.0)
    assert (auto([*plain, *["two dogs"] * 3])["area"].value, auto([*plain, *["two dogs"] * 3])["flip"].value) == (0.9, 0.5)
    assert auto([*plain, *["a cat at the top"] * 3])["area"].value == 0.9
    assert auto([*plain, *["a long-sleeved top"] * 3])["area"].value == 0.5  # a garment, no place
    assert auto(plain, mirrored=False)["flip"].value == 0.0


def test_the_context_fits_the_captions():
    assert auto(["a b c"] * 99)["context"].value == 5
    assert auto([" ".join(map(str, range(100)))] * 9)["context"].value == 32


@pytest.mark.parametrize(
    ("encoder", "options", "batch", "message"),
    [
        ("clip-vit-micro/8", {}, 2, "too few negatives"),
        ("clip-resnet50", {}, 8, "use --set out=1024"),
        ("clip-resnet50", {"out": 1024, "patch_dropout": 0.5}, 8, "no patches to drop"),
    ],
)
def test_what_cannot_be_is_refused(encoder, options, batch, message):
    with pytest.raises(TacitError, match=message):
        tiny(encoder, batch, **options)
