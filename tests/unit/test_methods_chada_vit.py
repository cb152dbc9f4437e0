"""ChAda-ViT: what its views, its encoder and its updates are, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.methods.chada_vit import ChAdaViT, ChAdaViTOptions, attended, bars, panels
from tacit.methods.method import Facts, Progress
from tacit.nn import build
from tacit.nn.channel_vit import ChannelViT, OneChannelViT
from tacit.nn.encoder import Encoder
from tacit.objectives.distil import cross_view, sharpen
from tacit.train.config import Training
from tacit.train.session import build_method
from tacit.views.channel_image import ChannelView

SPEC = Spec("channels", 1, (4, 16, 16))
COUNTS = (2, 4, 1, 3, 2, 4)
FIRST = Progress(0, 10, 5)
SMALL: dict[str, Any] = {"channels": 4, "prototypes": 12, "head_width": 10, "bottleneck": 6, "temperature_epochs": 0}


def made(encoder: str = "channel-vit-micro/8", spec: Spec = SPEC, **options: Any) -> Any:
    return build_method(ChAdaViT, ChAdaViTOptions(**SMALL | options), Training(encoder=encoder, size=16, batch=6), spec)


def pictures() -> Batch:
    noise = Draws(1, 0, torch.arange(len(COUNTS))).integers("noise", 0, 256, 1, 4, 16, 16).to(torch.uint8)
    return Batch.padded(torch.arange(len(COUNTS)), [noise[row, :, :count].numpy() for row, count in enumerate(COUNTS)])


def seen(method: ChAdaViT) -> tuple[dict[str, torch.Tensor], Draws]:
    batch = pictures()
    draws = Draws(0, 0, batch.ids)
    return {name: view(batch, draws.within(name), SPEC) for name, view in method.views().items()}, draws


def facts(**known: Any) -> Facts:
    return Facts(
        **{
            "spec": Spec("channels", 1, (6, 64, 64)), "samples": 300, "duplicates": 0.0, "sparse": 0.0, "flat": 0.0,
            "mirrored": None, "batch": 32, "steps": 1000, "size": 64, "extent": (6, 64, 64),
            "encoder": "channel-vit-micro/16", "width": 96, "device": "cpu", **known,
        }
    )  # fmt: skip


# Views and encoder -----------------------------------------------------------------------------------------------------


def test_two_views_of_the_same_channels():
    views, _ = seen(made())
    assert list(views) == ["global1", "global2"]
    for x in views.values():
        assert x.shape == (6, 2, 4, 16, 16)
        assert x[:, 1, :, 0, 0].sum(1).tolist() == list(COUNTS)
    assert not torch.equal(views["global1"], views["global2"])


def test_the_published_strength_and_chances_of_the_views():
    first, second = ChAdaViT(ChAdaViTOptions(**SMALL), encoder(), SPEC, 224).views().values()
    assert isinstance(first, ChannelView)
    assert isinstance(second, ChannelView)
    assert (first.shift, first.gain, second.shift, second.gain) == (0.3, 0.5, 0.3, 0.5)
    assert first.look.area == second.look.area == (0.08, 1.0)
    assert first.look.blur is not None
    assert second.look.blur is not None
    assert (first.look.blur.low, first.look.blur.high, first.look.blur.probability) == (0.1, 2.0, 1.0)
    assert second.look.blur.probability == 0.1
    assert (first.look.solarise, second.look.solarise, first.look.flip, first.look.flip_vertical) == (0.0, 0.2, 0.5, 0.0)


def encoder(**options: Any) -> Encoder:
    return build.encoder("channel-vit-micro/8", 1, (4, 16, 16), **options)


def test_turns_are_all_eight_ways():
    first, _ = made(turns=True).views().values()
    assert first.turns
    assert (first.look.flip, first.look.flip_vertical) == (0.5, 0.5)


def test_options_reach_the_encoder():
    student = made(block="prenorm", attend="channels", slots=False, pool="mean").student
    assert isinstance(student, ChannelViT)
    assert type(student.blocks[0]).__name__ == "PreNormBlock"
    assert (student.attend, student.channel_token, student.pool, student.slots) == ("channels", None, "mean", 4)


def test_the_student_is_kept():
    method = made()
    assert method.encoder is method.student
    assert method.projector is method.head
    for name, weight in method.teacher.named_parameters():
        assert torch.equal(weight, method.student.get_parameter(name))
        assert not weight.requires_grad


def test_the_baseline_of_single_channels_trains_too():
    method = made("one-channel-vit-micro/8")
    assert isinstance(method.student, OneChannelViT)
    assert method.student.width == 4 * 96
    views, draws = seen(method)
    terms = method(views, draws, FIRST)
    terms.total.backward()
    assert terms.total.isfinite()


@pytest.mark.parametrize("name", ["channel-vit-micro/8", "one-channel-vit-micro/8"])
def test_an_encoder_is_rebuilt_from_its_configuration(name):
    first = build.encoder(name, 1, (4, 16, 16))
    again = build.encoder(**first.config)
    x = seen(made())[0]["global1"]
    assert first.config["size"] == [4, 16, 16]
    assert torch.equal(first(x).pooled, again(x).pooled)


# Loss and updates ------------------------------------------------------------------------------------------------------


def test_each_view_is_taught_by_the_other():
    method = made().double()
    views, draws = seen(method)
    views = {name: x.double() for name, x in views.items()}
    said = [method.head(method.student(x).pooled) for x in views.values()]
    taught = [sharpen(method.teacher_head(method.teacher(x).pooled), method.center.mean, 0.07) for x in views.values()]
    by_hand = torch.stack([-(q * (s / 0.1).log_softmax(1)).sum(1).mean() for q, s in zip(taught, reversed(said), strict=True)])
    assert method(views, draws, FIRST).total.item() == pytest.approx(by_hand.mean().item(), rel=1e-9)


def test_the_teacher_gets_no_gradient_and_what_is_absent_none_either():
    method = made()
    views, _ = seen(method)
    absent = {name: x[:, :, :3].index_select(0, torch.tensor([0, 2, 3])) for name, x in views.items()}
    method(absent, Draws(0, 0, torch.tensor([0, 2, 3])), FIRST).total.backward()
    assert all(weight.grad is None for part in (method.teacher, method.teacher_head) for weight in part.parameters())
    slots = method.student.channel_token.grad
    assert (slots[:, 3] == 0).all()
    assert (slots[:, :3] != 0).any()


def test_the_loss_does_not_mind_the_order_of_the_batch_nor_how_it_is_padded():
    method = made().double()
    views, draws = seen(method)
    views = {name: x.double() for name, x in views.items()}
    loss, turn = method(views, draws, FIRST).total.item(), torch.tensor([3, 1, 0, 2, 5, 4])
    other = method({name: x[turn] for name, x in views.items()}, Draws(0, 0, turn), FIRST).total.item()
    assert other == pytest.approx(loss, rel=1e-10)
    alone = torch.tensor([0, 2, 4])  # of two channels at most
    narrow = method({name: x[alone, :, :2] for name, x in views.items()}, draws, FIRST).total.item()
    assert narrow == pytest.approx(method({name: x[alone] for name, x in views.items()}, draws, FIRST).total.item(), rel=1e-10)


def test_a_constant_added_to_a_students_row_changes_nothing():
    student, teacher = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)), torch.randn(4, 7)
    target = sharpen(teacher, torch.zeros(1, 7), 0.05)
    shifted = student + torch.tensor([[3.0], [0.0], [-8.0], [1.0]])
    torch.testing.assert_close(cross_view(shifted, target, 0.1, 2), cross_view(student, target, 0.1, 2))


def test_without_memory_the_centre_is_the_mean_of_what_the_teacher_said():
    method = made(centre_momentum=0.0).double()
    views, draws = seen(method)
    views = {name: x.double() for name, x in views.items()}
    said = method.teacher_head(method.teacher(torch.cat(list(views.values()))).pooled).mean(dim=0, keepdim=True)
    method(views, draws, FIRST)
    method.after_step(FIRST)
    torch.testing.assert_close(method.center.mean, said)


def test_each_number_of_channels_can_have_a_centre_of_its_own():
    method = made(centre_each=True, centre_momentum=0.75).double()
    views, draws = seen(method)
    views = {name: x.double() for name, x in views.items()}
    assert method.center.mean.shape == (4, 12)
    method.center.mean[:] = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    before, row = method.center.mean.clone(), torch.tensor(COUNTS * 2) - 1
    said = method.teacher_head(method.teacher(torch.cat(list(views.values()))).pooled)
    target, told = sharpen(said, before[row], 0.07), method.head(method.student(torch.cat(list(views.values()))).pooled)
    assert method(views, draws, FIRST).total.item() == pytest.approx(cross_view(told, target, 0.1, 2).item(), rel=1e-9)
    method.after_step(FIRST)
    for count in range(1, 5):
        torch.testing.assert_close(
            method.center.mean[count - 1], 0.75 * before[count - 1] + 0.25 * said[row == count - 1].mean(dim=0)
        )


def test_a_number_of_channels_that_was_not_seen_keeps_its_centre():
    method = made(centre_each=True)
    views, _ = seen(method)
    few = torch.tensor([0, 2, 4])  # of one and two channels
    method.center.mean[:] = 1.0
    method({name: x[few] for name, x in views.items()}, Draws(0, 0, few), FIRST)
    method.after_step(FIRST)
    assert (method.center.mean[2:] == 1).all()
    assert (method.center.mean[:2] != 1).any(dim=1).all()


@pytest.mark.parametrize("momentum", [1.0, 0.9])
def test_the_teacher_follows_by_the_schedule(momentum):
    method, progress = made(momentum=momentum), Progress(3, 10, 5)
    with torch.no_grad():
        for weight in [*method.student.parameters(), *method.head.parameters()]:
            weight.add_(1.0)
    before = {name: weight.clone() for name, weight in method.teacher.named_parameters()}
    method.after_step(progress)
    kept = 1 - (1 - momentum) * (math.cos(math.pi * 3 / 10) + 1) / 2
    for name, weight in method.teacher.named_parameters():
        expected = kept * before[name] + (1 - kept) * method.student.get_parameter(name)
        torch.testing.assert_close(weight, expected)
    torch.testing.assert_close(
        method.teacher_head.last_layer.weight_v, method.head.last_layer.weight_v - kept, rtol=0, atol=1e-6
    )


def test_prototypes_stay_as_they_are_in_the_first_epoch():
    method = made(freeze_last=1.0)
    views, draws = seen(method)
    for step, frozen in ((4, True), (5, False)):
        method.zero_grad()
        method(views, draws, FIRST).total.backward()
        method.after_backward(Progress(step, 10, 5))
        assert (method.head.last_layer.weight_v.grad is None) == frozen


def test_everything_is_decayed_as_published():
    method = made()
    assert all(method.decays(name, weight) for name, weight in method.named_parameters())


# What auto chooses, what is refused, what is drawn -----------------------------------------------------------------------


def test_auto_follows_the_length_of_the_run_and_the_data():
    chosen = {name: choice.value for name, choice in ChAdaViT.auto(facts()).items()}
    assert (chosen["channels"], chosen["prototypes"], chosen["momentum"]) == (6, 100, pytest.approx(0.988))
    assert chosen["teacher_temperature"] == 0.04
    assert (chosen["head_norm"], chosen["centre_each"], chosen["centre_momentum"]) == (True, True, 0.95)
    assert chosen["freeze_last"] == pytest.approx(0.05 * 1000 / 9, abs=1e-4)
    assert (chosen["jitter"], chosen["turns"], chosen["blur"]) == (0.5, True, 1.0)
    longer = {name: choice.value for name, choice in ChAdaViT.auto(facts(steps=100_000, width=192, mirrored=False)).items()}
    assert (longer["jitter"], longer["turns"], longer["flip"], longer["momentum"]) == (1.0, False, 0.0, 0.9995)
    assert (chosen["train.lr"], longer["train.lr"]) == (1e-3, 5e-4)
    ChAdaViTOptions(**{name: value for name, value in chosen.items() if "." not in name})


def test_what_does_not_fit_is_refused():
    with pytest.raises(TacitError, match="up to 6 channels, channels=4 slots are too few"):
        made(spec=Spec("channels", 1, (6, 16, 16)))
    with pytest.raises(TacitError, match="needs an encoder of channels"):
        made("video-vit-micro/2x8")
    with pytest.raises(TacitError, match="give a patch"):
        made("channel-vit-micro/32")


def test_pictures_show_channels_and_who_is_attended_to():
    method = made()
    drawn = method.pictures(*seen(method))
    assert len(drawn) == 4
    for caption, picture in drawn.items():
        assert picture.shape[0] in (1, 3), caption
        assert picture.min() >= 0, caption
        assert picture.max() <= 1, caption
    assert len(made(slots=False).pictures(*seen(method))) == 3
    assert len(made("one-channel-vit-micro/8").pictures(*seen(method))) == 1


def test_absent_channels_are_grey_and_heads_stand_beside_their_channel():
    x = torch.stack([torch.zeros(2, 8, 8), torch.tensor([1.0, 0.0])[:, None, None].expand(2, 8, 8)])
    grey = panels(x[None])
    assert grey.shape == (1, 18, 9)
    assert (grey[0, :8, :8] == 0).all()
    assert (grey[0, 9:17, :8] == 0.5).all()
    maps = torch.zeros(3, 2, 2, 2)
    maps[1, 0, 0, 1] = 0.5
    drawn = attended(x, maps)
    assert drawn.shape == (1, 18, 4 * 9 + 4)
    heads = drawn[0, :8, 9:36].unflatten(1, (3, 9))[:, :, :8]
    assert (heads[:, 0] == 0).all()
    assert (heads[:4, 1, 4:] == 1).all()
    assert heads[:, 1].sum() == 16
    shares = bars(torch.tensor([[0.5, 0.25, 0.0]]), height=40, width=20)
    columns = shares[0, :40].unflatten(1, (3, 20))[:, :, 10].sum(0)
    assert columns.tolist() == pytest.approx([40, 20, 0], abs=1)
