"""Alice: what is hidden from whom, which views meet in which term, what moves when, what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.methods.alice import Alice, Seen
from tacit.methods.method import Facts, Progress
from tacit.methods.pictures import planes
from tacit.nn import build
from tacit.nn.init import seeded
from tacit.nn.swin3d import Swin3D
from tacit.train.config import Training
from tacit.train.step import Step
from tacit.views.volume_masks import hidden_of

SIDE = 8
SPEC = Spec("volume", 1, (12, 12, 12))
FIRST, LATER = Progress(0, 10, 5), Progress(7, 10, 5)
SMALL = {
    "prototypes": 12, "head_width": 10, "bottleneck": 6, "casa_heads": 2, "casa_width": 4, "casa_hidden": 16, "mask_patch": 2,
    "temperature_epochs": 0, "partner": "position",
}  # fmt: skip


def tiny(channels: int = 1, drop_path: float = 0.0, **options: Any) -> Alice:
    """A method with its first weights, on a network of two stages: 8 places in the encoder, 64 in the decoder."""
    chosen = Alice.Options(**{**SMALL, **options})
    with seeded(0, "tiny"):
        encoder = Swin3D(channels, 8, (1, 2), (2, 2), (1, 2), drop_path=drop_path)
        Alice.check(chosen, encoder, SPEC, SIDE, 4)
        return Alice(chosen, encoder, Spec("volume", channels, (12, 12, 12)), SIDE)


def volumes(count: int = 4, channels: int = 1) -> Batch:
    ids = torch.arange(count)
    noise = Draws(7, 0, ids).uniform("volumes", channels, 12, 12, 12, high=200)
    return Batch(ids, (noise + 40).to(torch.uint8), torch.full((count, 3), 12, dtype=torch.int32))


def seen(made: Alice, count: int = 4) -> tuple[dict[str, torch.Tensor], Draws]:
    batch = volumes(count, made.spec.channels)
    draws = Draws(0, 0, batch.ids)
    return {name: view(batch, draws.within(name), made.spec) for name, view in made.views().items()}, draws


def shaken(made: Alice) -> Alice:
    """With a teacher that is no longer the student."""
    with torch.no_grad():
        for module in (made.teacher, made.teacher_decoder, made.teacher_head):
            for number, parameter in enumerate(module.parameters()):
                parameter.mul_(0.5 + 0.1 * (number % 7))
    return made


def test_what_is_hidden_changes_nothing_but_teacher_and_target():
    made = shaken(tiny()).eval()
    views, draws = seen(made)
    x, hidden = torch.cat([views["query"], views["anchor"]]), made.hide(draws)
    other = torch.where(hidden > 0, 1 - x, x)
    for one, two in zip(made.sees(x * (1 - hidden))[0], made.sees(other * (1 - hidden))[0], strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(made.teaches(x).vectors, made.teaches(other).vectors)
    before, after = (made(dict(zip(views, each.chunk(2), strict=True)), draws, FIRST).parts for each in (x, other))
    assert all(before[name] != after[name] for name in ("cls", "patch", "rec"))


@pytest.mark.parametrize("mask", ["column", "block"])
def test_as_many_as_said_are_hidden_and_columns_are_upright(mask):
    made = tiny(mask=mask, mask_ratio=0.6)
    hidden = made.hide(Draws(0, 0, torch.arange(3)))
    assert hidden.shape == (6, 1, SIDE, SIDE, SIDE)
    boxes = F.avg_pool3d(hidden, 2)
    assert set(boxes.unique().tolist()) == {0.0, 1.0}
    layer = hidden_of(16, 0.6)
    assert boxes.sum(dim=(1, 2, 3, 4)).tolist() == [4 * layer if mask == "column" else hidden_of(64, 0.6)] * 6
    assert bool((hidden == hidden[:, :, :1]).all()) == (mask == "column")
    assert not torch.equal(hidden[:3], hidden[3:])


def logits(made: Alice, rows: int = 4) -> tuple[Seen, Seen]:
    draws = Draws(1, 0, torch.arange(rows))

    def of(name: str) -> Seen:
        return Seen(
            draws.normal(f"{name}v", made.student.width),
            draws.normal(f"{name}e", 8, made.student.width),
            draws.normal(f"{name}d", 64, made.decoder.width),
        )

    return of("student"), of("teacher")


def terms(made: Alice, student: Seen, teacher: Seen) -> dict[str, torch.Tensor]:
    none = torch.zeros(len(student.vectors), 1, SIDE, SIDE, SIDE)
    return made.loss(student, teacher, none, none, none, None, FIRST).parts


def swapped(seen: Seen) -> Seen:
    """The two views in each other's place."""
    return Seen(*(torch.cat(each.chunk(2)[::-1]) for each in seen))


def test_vectors_meet_across_views_and_places_within_them():
    sharpness = {"teacher_temperature": 0.5, "patch_teacher_temperature": 0.7, "patch_student_temperature": 0.4}
    made = shaken(tiny(**sharpness)).eval()
    student, teacher = logits(made)
    plain, crossed = terms(made, student, teacher), terms(made, student, swapped(teacher))

    def between(heard: torch.Tensor, said: torch.Tensor, warm: float, cold: float) -> torch.Tensor:
        return -((heard / warm).softmax(-1) * (said / cold).log_softmax(-1)).sum(-1).mean()

    one, two = made.head(student.vectors).chunk(2)
    p, q = made.teacher_head(teacher.vectors).chunk(2)
    torch.testing.assert_close(plain["cls"], (between(p, two, 0.5, 0.1) + between(q, one, 0.5, 0.1)) / 2)
    torch.testing.assert_close(crossed["cls"], (between(p, one, 0.5, 0.1) + between(q, two, 0.5, 0.1)) / 2)
    own, theirs = made.places(student, teacher)
    torch.testing.assert_close(plain["patch"], between(theirs, own, 0.7, 0.4))
    assert crossed["patch"] != plain["patch"]


def test_the_students_places_ask_in_both_decoders():
    made = shaken(tiny()).eval()
    student, teacher = logits(made)
    own, theirs = made.places(student, teacher)
    assert made.casa is not None
    asked = made.head.of_encoder(student.encoder)
    assert torch.equal(own, made.casa(asked, made.head.of_decoder(student.decoder)))
    assert torch.equal(theirs, made.casa(asked, made.teacher_head.of_decoder(teacher.decoder)))
    assert torch.equal(theirs, made.places(student, teacher._replace(encoder=teacher.encoder + 1))[1])
    direct = shaken(tiny(casa=False)).eval()
    own, theirs = direct.places(student, teacher)
    assert torch.equal(own, direct.head.of_encoder(student.encoder))
    assert torch.equal(theirs, direct.teacher_head.of_encoder(teacher.encoder))


def test_no_gradient_reaches_teacher_or_centres():
    made = shaken(tiny())
    terms = made(*seen(made), FIRST)
    terms.total.backward()
    for module in (made.teacher, made.teacher_decoder, made.teacher_head):
        assert all(parameter.grad is None for parameter in module.parameters())
    assert all(p.grad is not None for name, p in made.named_parameters() if p.requires_grad), "all else learns"
    assert not made.center.mean.requires_grad and not made.center_patch.mean.requires_grad  # noqa: PT018


def test_centres_move_after_the_step_and_only_while_training():
    made = shaken(tiny())
    made(*seen(made), FIRST)
    assert (made.center.mean == 0).all()
    heard = [centre.heard[0] for centre in (made.center, made.center_patch)]
    made.after_step(FIRST)
    for centre, row in zip((made.center, made.center_patch), heard, strict=True):
        torch.testing.assert_close(centre.mean, 0.1 * row[:, :-1] / row[:, -1:])
        assert not centre.heard
    made.eval()(*seen(made), FIRST)
    assert not made.center.heard


def test_the_teacher_follows_and_its_prototypes_follow_those_of_crops():
    made = tiny(momentum=0.75)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 if parameter.requires_grad else 0.0)
    pairs = [(made.teacher, made.student), (made.teacher_decoder, made.decoder)]
    before = [{name: value.clone() for name, value in copy.named_parameters()} for copy, _ in pairs]
    last = made.teacher_head.last_layer.weight_v.clone()
    made.after_step(Progress(0, 10, 5))
    for (copy, original), old in zip(pairs, before, strict=True):
        for name, value in original.named_parameters():
            torch.testing.assert_close(copy.get_parameter(name), 0.75 * old[name] + 0.25 * value)
    wanted = 0.75 * last + 0.25 * made.head.last_layer.weight_v
    torch.testing.assert_close(made.teacher_head.last_layer.weight_v, wanted)


def test_prototypes_wait_and_gradients_are_cut_one_by_one():
    made = tiny(freeze_last=1.0)
    training = Training(
        size=SIDE, optimiser="sgd", momentum=0.0, lr=0.1, schedule="constant", clip=1e-3, clip_per_tensor=True, batch=4
    )
    step = Step(made, training, SPEC, Fabric(accelerator="cpu", devices=1))
    kept = {f"head.{name}.weight_v": getattr(made.head, name).weight_v for name in ("last_layer", "last_layer2")}
    before = {name: value.clone() for name, value in made.named_parameters()}
    step(volumes(), FIRST)
    assert all(torch.equal(value, before[name]) for name, value in kept.items())
    moved = {n: (v - before[n]).norm().item() for n, v in made.named_parameters() if v.requires_grad and "last_layer" not in n}
    assert max(moved.values()) == pytest.approx(1e-4, rel=1e-3)
    assert sum(value > 0.99e-4 for value in moved.values()) > 5
    step(volumes(), LATER)
    assert all(not torch.equal(value, before[name]) for name, value in kept.items())


def test_the_order_of_the_batch_does_not_matter():
    made = tiny().eval()
    order = torch.tensor([2, 0, 3, 1])
    totals = []
    for batch in (volumes(), volumes().each(lambda tensor: tensor[order])):
        draws = Draws(0, 0, batch.ids)
        views = {name: view(batch, draws.within(name), SPEC) for name, view in made.views().items()}
        totals.append(made(views, draws, FIRST).total)
    torch.testing.assert_close(totals[0], totals[1])


def test_dropout_is_drawn_for_each_call_while_training_alone():
    made = tiny(casa_dropout=0.5)
    student, _ = logits(made)
    draws = Draws(0, 0, torch.arange(2))
    same = Seen(student.vectors, student.encoder, student.decoder)
    with torch.no_grad():
        made.teacher_head.load_state_dict(made.head.state_dict(), strict=False)
        assert made.head.last_layer2 is not None
        made.teacher_head.last_layer.weight_v.copy_(made.head.last_layer2.weight_v)
    own, theirs = made.places(student, same, draws)
    assert not torch.equal(own, theirs)
    own, theirs = made.places(student, same)
    assert torch.equal(own, theirs)
    assert made.casa is not None
    evaluated = made.eval()(*seen(made), FIRST).total
    made.casa.dropout = 0.0
    assert torch.equal(made(*seen(made), FIRST).total, evaluated)


def test_reconstruction_is_of_all_voxels_or_of_hidden_ones():
    student, teacher = logits(tiny())
    x = torch.rand(4, 1, SIDE, SIDE, SIDE)
    hidden = torch.zeros_like(x)
    hidden[..., 0] = 1
    for rec_on, wanted in (("all", 0.5 * (x**2).mean()), ("hidden", 0.5 * (x[..., 0] ** 2).mean())):
        made = tiny(rec_on=rec_on, lambda_rec=1.0).eval()
        found = made.loss(student, teacher, torch.zeros_like(x), x, hidden, None, FIRST).parts["rec"]
        torch.testing.assert_close(found, wanted)


def test_terms_come_weighted_and_add_up():
    plain = tiny(lambda_rec=1.0).eval()
    made = tiny(lambda_cls=2.0, lambda_patch=3.0, lambda_rec=5.0).eval()
    found, unweighted = made(*seen(made), FIRST), plain(*seen(plain), FIRST)
    for name, weight in (("cls", 2), ("patch", 3), ("rec", 5)):
        torch.testing.assert_close(found.parts[name], weight * unweighted.parts[name])
    torch.testing.assert_close(found.total.detach(), torch.stack(list(found.parts.values())).sum())


def test_a_head_with_batch_norm_learns_from_vectors_and_places():
    made = tiny(head_norm=True)
    made(*seen(made), FIRST).total.backward()
    assert all(p.grad is not None for p in made.parameters() if p.requires_grad)
    made.after_step(FIRST)
    assert made.center.mean.abs().sum() > 0


@pytest.mark.parametrize("channels", [1, 2])
def test_pictures(channels):
    drawn = tiny(channels).eval().pictures(*seen(tiny(channels)))
    assert len(drawn) == 3
    assert all(0 <= picture.min() <= picture.max() <= 1 for picture in drawn.values())
    assert len(tiny(casa=False).eval().pictures(*seen(tiny()))) == 2
    body = torch.zeros(1, 1, SIDE, SIDE, SIDE)
    body[:, :, -1, SIDE // 2, :] = 1  # up
    assert planes(body)[0, 0, 0].tolist() == [0] * SIDE + [1] * SIDE + [0] * 4 + [1] + [0] * 3


@pytest.mark.parametrize(
    ("options", "size", "batch", "why"),
    [
        ({}, 8, 1, "batch of 2 at least"),
        ({"mask_patch": 3}, 8, 4, "does not divide"),
        ({"mask_patch": 8}, 8, 4, "hides 1 of 1"),
        ({}, 6, 4, "multiple of 4"),
    ],
)
def test_what_cannot_be_is_refused(options, size, batch, why):
    with pytest.raises(TacitError, match=why):
        Alice.check(Alice.Options(**{**SMALL, **options}), Swin3D(1, 8, (1, 2), (2, 2), (1, 2)), SPEC, size, batch)


def test_another_network_is_refused():
    with pytest.raises(TacitError, match="U-shaped"):
        Alice.check(Alice.Options(), build.encoder("r3d-mini", 1, (16, 16, 16)), SPEC, 16, 4)
    Alice.check(Alice.Options(partner="self", mask_patch=4), build.encoder("swin3d-micro", 1, (16, 16, 16)), SPEC, 16, 1)


@pytest.mark.parametrize("size", [16, 32, 48, 64])
def test_auto_chooses_what_can_be(size):
    facts = Facts(
        spec=SPEC, samples=60, duplicates=0.0, sparse=0.7, flat=0.0, mirrored=None, batch=8, steps=500, size=size,
        extent=(size,) * 3, encoder="swin3d-micro", width=128, device="cpu",
    )  # fmt: skip
    chosen = {name: choice.value for name, choice in Alice.auto(facts).items()}
    options = Alice.Options(**{name: value for name, value in chosen.items() if not name.startswith("train.")})
    Alice.check(options, build.encoder("swin3d-micro", 1, (size,) * 3), SPEC, size, 8)
    assert options.augment
    assert options.head_norm
    assert options.momentum == 0.98
    assert options.normalise == "data"
    assert chosen["train.lr"] == 1e-3
    assert chosen["train.clip_per_tensor"]
    assert math.isclose(options.freeze_last, 0.01 * 500 / 7, abs_tol=1e-3)
