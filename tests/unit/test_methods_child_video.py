"""Masked clips: what is hidden from whom, what is scored, what stills cannot know, what the pictures show."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_videos import FIRST, SPEC, auto, films, forward, seen, stepping, tiny

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch
from tacit.data.window import Stretch
from tacit.methods.child_video import ChildVideo
from tacit.nn.spacetime import tubelets, untubelets
from tacit.views.masks import Hidden, kept, random_keep
from tacit.views.masks_time import center_ranks, temporal_ranks
from tacit.views.normalise import statistics

STILLS = "stills-vit-micro/8"


def hidden_of(made: ChildVideo, draws: Draws) -> Hidden:
    return random_keep(draws.within("clip0").uniform("mask", made.places), made.options.mask_ratio)


def changed(made: ChildVideo, clips: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Clips with other pixels where they are hidden."""
    rows = tubelets(clips, made.tubelet, made.patch)
    return untubelets(torch.where(mask[..., None] > 0, 1 - 3 * rows, rows), made.tubelet, made.patch, made.grid)


@pytest.mark.parametrize("options", [{}, {"positions": "joint"}, {"class_token": False}])
def test_changing_a_hidden_pixel_changes_no_prediction_but_the_loss(options):
    made = tiny("child-video", **options)
    views, draws = seen(made)
    clips, hidden = views["clip0"], hidden_of(made, draws)
    other = changed(made, clips, hidden.mask)
    assert torch.equal(made.student(clips, keep=hidden.keep).tokens, made.student(other, keep=hidden.keep).tokens)
    assert torch.equal(made.predict(clips, hidden), made.predict(other, hidden))
    assert not torch.equal(made({"clip0": clips}, draws, FIRST).total, made({"clip0": other}, draws, FIRST).total)
    assert not torch.equal(made.predict(1 - 3 * clips, hidden), made.predict(clips, hidden))


def test_only_hidden_tubelets_are_scored_and_each_hidden_one_alike():
    made = tiny("child-video")
    views, draws = seen(made)
    mask = hidden_of(made, draws).mask
    prediction = torch.zeros_like(made.target(views["clip0"])).requires_grad_()
    made.predict = lambda clips, hidden: prediction
    terms = made(views, draws, FIRST)
    terms.total.backward()
    assert not prediction.grad[mask == 0].any()
    assert (prediction.grad[mask == 1] != 0).any(-1).all()
    expected = [float(row.square().mean()) for row in made.target(views["clip0"])[mask == 1]]
    assert float(terms.total.detach()) == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_every_clip_hides_its_share_in_a_mask_of_its_own():
    made, masks = tiny("child-video", repeats=2), []
    predict = made.predict
    made.predict = lambda clips, hidden: masks.append(hidden.mask) or predict(clips, hidden)
    views, draws = seen(made)
    made(views, draws, FIRST)
    (mask,) = masks
    assert mask.shape == (16, 8)
    assert (mask.sum(1) == 8 - 2).all()
    assert len({tuple(row) for row in mask.tolist()}) > 4
    again = random_keep(draws.within("clip1").uniform("mask", 8), 0.75).mask
    assert torch.equal(mask[8:], again)


def test_repeats_are_clips_of_the_same_films_with_starts_boxes_and_masks_of_their_own():
    made = tiny("child-video", repeats=3)
    views, _ = seen(made)
    assert list(views) == ["clip0", "clip1", "clip2"]
    assert {tuple(view.shape) for view in views.values()} == {(8, 3, 4, 16, 16)}
    assert not torch.equal(views["clip0"], views["clip1"])
    assert {view.window for view in made.views().values()} == {Stretch(4, 1)}


def test_only_what_is_visible_is_encoded():
    made, calls = tiny("child-video"), []
    made.student.blocks[0].register_forward_hook(lambda _, args, out: calls.append(args[0].shape[1]))
    forward(made)
    assert calls == [1 + 2]
    assert tiny("child-video", class_token=False).decoder.cls_token is None


def test_the_order_of_the_batch_does_not_matter():
    made, batch, turn = tiny("child-video").double(), films(8), torch.tensor([3, 7, 0, 2, 6, 1, 5, 4])
    other = Batch(batch.ids[turn], batch.data[turn], batch.sizes[turn])
    torch.testing.assert_close(forward(made, batch).total, forward(made, other).total, rtol=1e-10, atol=0)


def test_contrast_and_brightness_of_the_target_matter_unless_it_is_normalised():
    plain, normed = tiny("child-video").double(), tiny("child-video", norm_pix=True).double()
    clips = seen(plain)[0]["clip0"]
    torch.testing.assert_close(normed.target(3 * clips + 2), normed.target(clips), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain.target(3 * clips + 2), plain.target(clips))
    assert (plain.chance, normed.chance) == (1.0, pytest.approx(1 - 1 / 384))
    assert tiny("child-video", normalise="films").chance is None


def test_fewer_frames_can_be_predicted_than_are_seen():
    made = tiny("child-video", frames=8, frames_predicted=4)
    clips = seen(made)[0]["clip0"]
    assert made.shown.tolist() == [0, 2, 4, 7]
    assert made.held == 1
    assert torch.equal(made.target(clips), tubelets(clips[:, :, [0, 2, 4, 7]], 1, 8))
    assert torch.isfinite(forward(made).total)


# The image control


def test_stills_know_no_order_of_frames_and_clips_do():
    clips = seen(tiny("child-video"))[0]["clip0"]
    turn = torch.tensor([2, 0, 3, 1])
    still, moving = (tiny("child-video", encoder) for encoder in (STILLS, "video-vit-micro/2x8"))
    torch.testing.assert_close(still.student(clips[:, :, turn]).pooled, still.student(clips).pooled, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(moving.student(clips[:, :, turn]).pooled, moving.student(clips).pooled, rtol=1e-3)
    each = torch.stack([still.student.image(clips[:, :, t]).pooled for t in range(4)])
    torch.testing.assert_close(still.student(clips).pooled, each.mean(0))
    assert still.student.level("image.blocks.2.norm1.weight") == 3


def test_stills_keep_named_places_of_every_frame():
    still, clips = tiny("child-video", STILLS).student, seen(tiny("child-video"))[0]["clip0"]
    keep = torch.tensor([[0, 3, 5, 4, 10, 9, 12, 15]]).expand(8, -1)
    kept = still(clips, keep=keep).tokens.unflatten(1, (4, 2))
    for frame, places in enumerate(((0, 3), (1, 0), (2, 1), (0, 3))):
        alone = still.image(clips[:, :, frame], keep=torch.tensor([places]).expand(8, -1)).tokens
        torch.testing.assert_close(kept[:, frame], alone)


def test_each_still_is_masked_and_completed_by_itself():
    made, calls = tiny("child-video", STILLS), []
    made.student.image.blocks[0].register_forward_hook(lambda _, args, out: calls.append(tuple(args[0].shape[:2])))
    views, draws = seen(made)
    terms = made(views, draws, FIRST)
    assert calls == [(8 * 4, 1 + 1)]
    one = {"clip0": views["clip0"].clone()}
    one["clip0"][:, :, 1:] = 0  # other frames are no help, and no harm, to the first
    hidden = random_keep(draws.within("clip0").uniform("mask", 4, made.places).flatten(0, 1), 0.75)
    first = torch.arange(0, 32, 4)
    torch.testing.assert_close(
        made.predict(made.cut(one["clip0"]), hidden)[first], made.predict(made.cut(views["clip0"]), hidden)[first]
    )
    assert torch.isfinite(terms.total)
    assert len(made.pictures(views, draws)) == 1


def test_each_still_hides_places_of_its_own():
    made, masks = tiny("child-video", STILLS, mask_ratio=0.5), []
    predict = made.predict
    made.predict = lambda clips, hidden: masks.append(hidden.mask) or predict(clips, hidden)
    forward(made)
    (mask,) = masks
    assert mask.shape == (32, 4)
    assert any(not torch.equal(clip, clip[:1].expand(4, -1)) for clip in mask.unflatten(0, (8, 4)))


# Recipes


def test_the_papers_view_options_and_training():
    o, t = ChildVideo.Options(), ChildVideo.paper_training
    made = ChildVideo(o.model_copy(update={"frames": 4, "decoder_width": 16}), tiny("child-video").student, SPEC, 16)
    view = made.views()["clip0"]
    assert view.window == Stretch(4, 8)
    assert (view.look.area, view.look.aspect, view.look.flip, view.look.jitter) == ((0.5, 1.0), (3 / 4, 4 / 3), 0.5, None)
    assert (view.look.interpolation, view.look.grey, view.look.erase) == ("bilinear", 0.0, 0.0)
    assert [each.tolist() for each in statistics(view.look.normalise, SPEC)] == [
        pytest.approx([0.45] * 3), pytest.approx([0.225] * 3),
    ]  # fmt: skip
    assert (o.mask_ratio, o.norm_pix, o.frames_predicted, o.frames, o.stride, o.repeats) == (0.9, False, 0, 16, 8, 16)
    assert (o.decoder_width, o.decoder_depth, o.decoder_heads, o.positions, o.class_token) == (512, 4, 16, "separable", True)
    assert t["batch"] * o.repeats == 64
    assert (t["encoder"], t["lr"], t["schedule"], t["clip"], t["weight_decay"]) == (
        "video-vit-huge/2x14", 1e-4, "constant", 0.1, 0.05,
    )  # fmt: skip
    kinetics = ChildVideo.paper_columns["kinetics"]
    assert kinetics["batch"] * kinetics["repeats"] == 64


def test_tokens_and_positions_decay_and_norms_and_biases_do_not():
    made = tiny("child-video")
    of = {id(p): name for name, p in made.named_parameters()}
    groups = stepping(made, optimiser="adamw", weight_decay=0.05).optimiser.param_groups
    decayed = {of[id(p)] for group in groups if group["decays"] for p in group["params"]}
    assert decayed == {name for name, p in made.named_parameters() if p.ndim > 1}
    assert {"student.cls_token", "decoder.mask_token", "student.pos_embed.spatial", "decoder.pos_embed.cls"} <= decayed


def test_auto_follows_the_films():
    assert auto("child-video")["mask_ratio"] == 0.9
    assert auto("child-video", size=32, extent=(8, 32, 32))["mask_ratio"] == 0.75
    assert auto("child-video", size=48, extent=(8, 48, 48))["mask_ratio"] == 0.8
    assert auto("child-video", encoder="stills-vit-micro/8")["mask_ratio"] == 0.75
    assert auto("child-video", encoder="own.py:Net")["mask_ratio"] == 0.9
    assert (auto("child-video")["frames"], auto("child-video")["stride"]) == (8, 1)
    long = replace(SPEC, size=(300, 64, 64))
    assert auto("child-video", spec=long)["stride"] == 4
    assert auto("child-video", batch=64)["train.lr"] == pytest.approx(3e-3)
    assert auto("child-video", batch=16, device="cuda")["train.lr"] == pytest.approx(5e-4)
    assert auto("child-video", device="cuda")["decoder_width"] == 256


def test_transformers_are_built_as_published():
    o = ChildVideo.Options()
    assert ChildVideo.encoder_options(o, "video-vit-huge/2x14") == {
        "positions": "separable", "pool": "mean", "class_token": True,
    }  # fmt: skip
    assert ChildVideo.encoder_options(o, "stills-vit-huge/14") == {"pool": "mean"}
    assert ChildVideo.extent(o, 224) == (16, 224, 224)


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        ("r3d-mini", {}, "needs a transformer"),
        ("", {"frames": 5}, "do not divide into tubelets of 2"),
        ("", {"mask_ratio": 0.95}, "leaves 0 of 8"),
        ("", {"frames_predicted": 3}, "cannot be predicted"),
        ("", {"decoder_heads": 3}, "cannot be split into 3 heads"),
        ("", {"class_token": False, "pool": "cls"}, "pool"),
        (STILLS, {"mask_ratio": 0.95}, "leaves 0 of 4"),
    ],
)
def test_what_cannot_be_hidden_is_refused(encoder, options, message):
    with pytest.raises(TacitError, match=message):
        tiny("child-video", encoder, **options)


# Pictures


def test_pictures_show_what_was_seen_and_a_right_completion_is_the_clip():
    made = tiny("child-video")
    views, draws = seen(made)
    assert len(made.pictures(views, draws)) == 3
    clips, hidden = views["clip0"][:1], random_keep(center_ranks(8)[None], 0.25)
    made.predict = lambda clips, hidden: made.target(clips)  # a decoder that is always right
    original, masked, completed = made.completed(clips, hidden).split(17, dim=1)
    assert original.shape == (3, 17, 4 * 17)
    torch.testing.assert_close(completed, original, rtol=0, atol=1e-4)
    assert not torch.allclose(masked, original)


def test_masks_in_time_hide_the_end_and_the_middle():
    made = tiny("child-video", frames=8)
    assert random_keep(temporal_ranks(made.places)[None], 0.25).mask[0].tolist() == [0.0] * 12 + [1.0] * 4
    middle = random_keep(center_ranks(made.places)[None], 0.25).mask[0]
    assert middle.tolist() == [0.0] * 6 + [1.0] * 4 + [0.0] * 6
    assert torch.equal(middle, middle.flip(0))


def test_how_many_are_seen_is_a_floating_product_cut_off():
    assert [kept(length, 0.9) for length in (20, 2048, 256)] == [1, 204, 25]
