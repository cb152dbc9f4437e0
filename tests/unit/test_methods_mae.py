"""MAE: what is hidden from whom, what is scored, what the pictures show."""

from __future__ import annotations

import pytest
import torch
from tiny_methods import FIRST, SPEC, auto, forward, pictures, seen, state, stepping, tiny

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.methods.mae import MAE
from tacit.nn.patches import patchify


def shown_and_hidden(made: MAE) -> tuple[torch.Tensor, Draws, torch.Tensor, torch.Tensor]:
    """A view, its draws, the same view with other pixels where they are hidden, and the mask."""
    views, draws = seen(made)
    x = views["view"]
    mask = made.hide(draws, made.options.mask_ratio).mask
    pixels = mask.unflatten(1, made.grid).repeat_interleave(made.patch, 1).repeat_interleave(made.patch, 2)[:, None]
    return x, draws, torch.where(pixels > 0, -3 * x + 1, x), mask


@pytest.mark.parametrize("options", [{}, {"mask_kind": "block"}, {"mask_in_encoder": True}])
def test_changing_a_hidden_pixel_changes_no_prediction_but_the_loss(options):
    made = tiny("mae", **options)
    x, draws, other, _ = shown_and_hidden(made)
    hidden = made.hide(draws, 0.6)
    assert torch.equal(made.predict(x, hidden), made.predict(other, hidden))
    if not made.options.mask_in_encoder:
        assert torch.equal(made.student(x, keep=hidden.keep).tokens, made.student(other, keep=hidden.keep).tokens)
    assert not torch.equal(made({"view": x}, draws, FIRST).total, made({"view": other}, draws, FIRST).total)
    assert not torch.equal(made.predict(x, hidden), made.predict(-3 * x + 1, hidden))


def test_visible_patches_are_not_scored_unless_asked_for():
    made = tiny("mae")
    x, draws, _, mask = shown_and_hidden(made)
    prediction = made.predict(x, made.hide(draws, 0.6)).detach().requires_grad_()
    made.loss(x, prediction, mask).backward()
    assert (prediction.grad[mask == 0] == 0).all()
    assert (prediction.grad[mask == 1] != 0).any(-1).all()
    everywhere = tiny("mae", loss_on="all")
    prediction.grad = None
    everywhere.loss(x, prediction, mask).backward()
    assert (prediction.grad != 0).any(-1).all()


def test_what_equals_its_target_costs_nothing_and_nothing_costs_the_chance():
    made = tiny("mae")
    x, _, _, mask = shown_and_hidden(made)
    target = made.target(x)
    assert made.loss(x, target, mask) == 0
    assert made.loss(x, 0 * target, mask).item() == pytest.approx(made.chance, rel=1e-3)
    assert made.chance == pytest.approx(47 / 48)
    assert tiny("mae", norm_pix=False).chance is None


def test_contrast_and_brightness_of_the_target_do_not_matter():
    made = tiny("mae").double()
    x, draws, _, mask = shown_and_hidden(made)
    x = x.double()
    prediction = made.predict(x, made.hide(draws, 0.6))
    torch.testing.assert_close(made.loss(3 * x + 2, prediction, mask), made.loss(x, prediction, mask), rtol=1e-4, atol=0)
    plain = tiny("mae", norm_pix=False).double()
    assert abs(plain.loss(3 * x + 2, prediction, mask) / plain.loss(x, prediction, mask) - 1) > 0.1
    assert torch.equal(plain.target(x), patchify(x, 4))


def test_flat_patches_are_not_blown_up_where_a_floor_is_set():
    """`norm_floor` is in grey levels: 2 of them have the variance 1 where the deviation of the data is 2 of 255 too."""
    flat = 1e-3 * torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert tiny("mae").target(flat).abs().max() > 1
    assert tiny("mae", norm_floor=2.0).target(flat).abs().max() < 0.2
    spec, student = Spec("image", 3, (20, 20), mean=(0.5,), std=(2 / 255,)), tiny("mae").student
    floors = {
        kind: MAE(MAE.Options(norm_floor=2.0, normalise=kind, decoder_depth=0), student, spec, 16).floor
        for kind in ("data", "none")
    }
    assert floors["data"] == pytest.approx(1.0)
    assert floors["none"] == pytest.approx((2 / 255) ** 2)
    assert tiny("mae").floor == 1e-6


def test_every_sample_and_epoch_has_a_mask_of_its_own_and_the_batch_does_not_matter():
    """Mutation: one mask for the batch."""
    made = tiny("mae")

    def masks(ids: list[int], epoch: int = 0) -> torch.Tensor:
        return made.hide(Draws(0, epoch, torch.tensor(ids)), 0.6).mask

    first = masks([0, 1, 2, 3])
    assert len({tuple(row) for row in first.tolist()}) == 4
    assert torch.equal(masks([3, 1]), first[[3, 1]])
    assert not torch.equal(masks([0, 1, 2, 3], epoch=1), first)
    assert (first.sum(1) == 16 - int(16 * (1 - 0.6))).all()


def test_only_what_is_visible_is_encoded():
    made, calls = tiny("mae"), []
    made.student.blocks[0].register_forward_hook(lambda _, args, out: calls.append(args[0].shape[1]))
    forward(made)
    assert calls == [1 + 6]
    made = tiny("mae", mask_in_encoder=True)
    made.student.blocks[0].register_forward_hook(lambda _, args, out: calls.append(args[0].shape[1]))
    forward(made)
    assert calls == [7, 17]


def test_mask_tokens_in_the_encoder_stand_in_before_positions_and_the_decoder_gets_all_rows():
    made, given = tiny("mae", mask_in_encoder=True), []
    x, draws, _, mask = shown_and_hidden(made)
    made.decoder.register_forward_hook(lambda _, args, out: given.append(args))
    made({"view": x}, draws, FIRST).total.backward()
    patches = torch.where(mask[..., None] > 0, made.hidden_token, made.student.patch_embed(x))
    expected = made.student.trunk(patches, made.grid)
    latent, restore = given[0]
    torch.testing.assert_close(latent, torch.cat([expected.prefix, expected.tokens], dim=1))
    assert torch.equal(restore, torch.arange(16).expand(8, -1))
    assert made.hidden_token.shape == (96,)
    assert made.hidden_token.grad is not None
    assert made.decoder.mask_token.grad.abs().max() == 0  # no second mask token


def test_the_decoder_puts_every_token_where_it_was():
    """Without blocks the decoder is a map of single tokens: position and content have to arrive at the same place."""
    made = tiny("mae", decoder_depth=0)
    x, draws, _, mask = shown_and_hidden(made)
    hidden = made.hide(draws, 0.6)
    tokens = made.student(x, keep=hidden.keep).tokens
    prediction, d = made.predict(x, hidden), made.decoder
    for b in range(2):
        for place in range(16):
            content = d.mask_token[0, 0] if mask[b, place] else d.embed(tokens[b, hidden.keep[b].tolist().index(place)])
            expected = d.pred(d.norm(content + d.pos_embed[0, 1 + place]))
            torch.testing.assert_close(prediction[b, place], expected)


@pytest.mark.parametrize(("kind", "ratio", "count"), [("random", 0.6, 6), ("block", 0.6, 6), ("grid", 0.75, 4)])
def test_each_kind_of_mask_hides_its_share(kind, ratio, count):
    made = tiny("mae", mask_kind=kind, mask_ratio=ratio)
    _, draws = seen(made)
    hidden = made.hide(draws, ratio)
    assert hidden.keep.shape == (8, count)
    assert (hidden.mask.sum(1) == 16 - count).all()
    stepping(made)(pictures(8), FIRST)
    if kind == "grid":
        assert hidden.keep[0].tolist() == [0, 2, 8, 10]


def test_positions_are_never_trained():
    made = tiny("mae")
    tables = made.student.pos_embed.clone(), made.decoder.pos_embed.clone()
    stepping(made, optimiser="adamw", weight_decay=0.5)(pictures(8), FIRST)
    assert torch.equal(made.student.pos_embed, tables[0])
    assert torch.equal(made.decoder.pos_embed, tables[1])
    assert not {"student.pos_embed", "decoder.pos_embed"} & {name for name, _ in made.named_parameters()}


def test_tokens_decay_and_norms_and_biases_do_not():
    made = tiny("mae")
    of = {id(p): name for name, p in made.named_parameters()}
    groups = stepping(made, optimiser="adamw", weight_decay=0.05).optimiser.param_groups
    decayed = {of[id(p)] for group in groups if group["decays"] for p in group["params"]}
    assert {"student.cls_token", "decoder.mask_token"} <= decayed
    assert decayed == {name for name, p in made.named_parameters() if p.ndim > 1}


def test_first_values_of_the_decoder():
    decoder = tiny("mae", decoder_width=256).decoder
    assert decoder.mask_token.std().item() == pytest.approx(0.02, rel=0.2)
    limit = (6 / (96 + 256)) ** 0.5
    assert decoder.embed.weight.abs().max().item() == pytest.approx(limit, rel=0.01)
    assert not decoder.pred.bias.any()


def test_transformers_are_built_as_published():
    options = MAE.Options()
    assert MAE.encoder_options(options, "vit-base/16") == {"positions": "sincos", "init": "mae", "pool": "cls"}
    made = tiny("mae")
    assert made.encoder is made.student
    assert made.projector is None


def test_the_papers_view_options_and_training():
    o, t = MAE.Options(), MAE.paper_training
    view = MAE(o, tiny("mae").student, SPEC, 16).views()["view"]
    assert (view.area, view.aspect, view.flip, view.jitter, view.grey, view.blur) == (
        (0.2, 1.0),
        (3 / 4, 4 / 3),
        0.5,
        None,
        0,
        None,
    )
    assert (view.interpolation, view.normalise, view.solarise) == ("bicubic", "imagenet", 0.0)
    assert (o.mask_ratio, o.mask_kind, o.norm_pix, o.norm_floor, o.loss_on) == (0.75, "random", True, 0.0, "hidden")
    assert (o.decoder_width, o.decoder_depth, o.decoder_heads, o.mask_in_encoder) == (512, 8, 16, False)
    assert t == {
        "encoder": "vit-base/16", "size": 224, "batch": 4096, "epochs": 800, "warmup_epochs": 40, "optimiser": "adamw",
        "lr_per_256": 1.5e-4, "beta2": 0.95, "weight_decay": 0.05,
    }  # fmt: skip


def test_auto_follows_the_data():
    def of(**known) -> dict:
        return auto("mae", **{"encoder": "vit-mini/4", **known})

    assert of()["mask_ratio"] == 0.75
    assert of(size=28)["mask_ratio"] == of(sparse=0.8)["mask_ratio"] == 0.6
    assert int(16 * (1 - of(size=16)["mask_ratio"])) == 8
    assert (of()["norm_floor"], of(flat=0.2)["norm_floor"]) == (0.0, 2.0)
    assert (of(flat=0.4)["norm_pix"], of(flat=0.6)["norm_pix"]) == (True, False)
    assert [of(encoder=f"vit-mini/{patch}")["norm_pix"] for patch in (1, 2)] == [False, True]  # of 3 values, and of 12
    assert [of(size=s)["area"] for s in (32, 64, 96, 128)] == [0.5, 0.35, 0.35, 0.2]
    assert [of()[f"decoder_{name}"] for name in ("width", "depth", "heads")] == [64, 2, 4]
    assert of(mirrored=False)["flip"] == 0
    high, usual = 4e-3 * 0.5**0.5, 5e-4
    assert of(width=384)["train.lr"] == pytest.approx(usual)
    rates = [of(steps=steps, width=192)["train.lr"] for steps in (1_000, 11_000, 22_000, 1_000_000)]
    assert rates == pytest.approx([high, high, high / 2, usual])
    assert (of()["train.beta2"], of()["train.weight_decay"]) == (0.95, 0.05)
    assert of(encoder="nets/own.py:Net")["mask_ratio"] == 0.75


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "resnet-mini"}, "needs a transformer"),
        ({"size": 18}, "do not divide into patches of 4"),
        ({"mask_ratio": 0.97}, "leaves 0 of 16 patches"),
        ({"mask_kind": "grid", "mask_ratio": 0.6}, "use 0.75"),
        ({"decoder_heads": 3}, "cannot be split into 3 heads"),
    ],
)
def test_what_cannot_be_hidden_is_refused(options, message):
    with pytest.raises(TacitError, match=message):
        tiny("mae", **options)


def test_a_target_of_one_value_is_not_normalised():
    encoder, grey = tiny("mae", "vit-micro/1", size=8).student, Spec("image", 1, (8, 8))
    with pytest.raises(TacitError, match="nothing of a patch of one value; use --set norm_pix=false"):
        MAE.check(MAE.Options(), encoder, grey, 8, 32)
    MAE.check(MAE.Options(norm_pix=False), encoder, grey, 8, 32)


def test_pictures_show_what_was_seen_and_a_right_completion_is_the_image():
    made = tiny("mae")
    views, draws = seen(made)
    x = views["view"]
    assert len(made.pictures(views, draws)) == 3
    assert len(tiny("mae", mask_kind="block").pictures(views, draws)) == 1
    made.predict = lambda x, hidden: made.target(x)  # a decoder that is always right
    picture = made.completed(x, made.hide(draws, 0.6))
    original, masked, completed = (picture[:, row * 17 : row * 17 + 16, :16] for row in range(3))
    torch.testing.assert_close(completed, original, rtol=0, atol=1e-4)
    mask = made.hide(draws, 0.6).mask[0].unflatten(0, (4, 4)).repeat_interleave(4, 0).repeat_interleave(4, 1) > 0
    torch.testing.assert_close(masked[:, ~mask], original[:, ~mask], rtol=0, atol=1e-5)
    assert masked[:, mask].std(dim=1).max() < 1e-5  # holes of one grey


def test_half_precision_is_for_the_network_and_not_for_targets_or_loss():
    made = tiny("mae")
    x, draws, _, mask = shown_and_hidden(made)
    with torch.autocast("cpu", torch.bfloat16):
        prediction = made.predict(x, made.hide(draws, 0.6))
        target, loss = made.target(x), made.loss(x, prediction, mask)
    assert prediction.dtype == torch.bfloat16
    assert torch.equal(target, made.target(x))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, made.loss(x, prediction.float(), mask))


def test_state_holds_no_table_of_positions_twice():
    assert "decoder.pos_embed" not in state(tiny("mae"))
