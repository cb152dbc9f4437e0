"""The transformer: what it may see, how it is called, and what its options do."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.nn.blocks import Attention, Block, Mlp, drop_path
from tacit.nn.build import encoder
from tacit.nn.patches import PatchEmbed, patchify, unpatchify
from tacit.nn.positions import resample, sincos
from tacit.nn.vit import VARIANTS, VisionTransformer


def small(size=(16, 16), **options) -> VisionTransformer:
    made = encoder("vit-micro/4", 3, size, **{"width": 32, "depth": 3, "heads": 4, **options})
    assert isinstance(made, VisionTransformer)
    return made.double()


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return Draws(seed, 0, torch.arange(shape[0])).normal("images", *shape[1:]).double()


def order(rows: int, places: int, count: int) -> torch.Tensor:
    return Draws(3, 0, torch.arange(rows)).permutation("keep", places)[:, :count]


X = images(4, 3, 16, 16)


def test_changing_a_hidden_pixel_changes_no_visible_feature():
    model, keep = small(), order(4, 16, 6)
    changed = unpatchify(
        patchify(X, 4).masked_fill(torch.ones(4, 16, dtype=torch.bool).scatter(1, keep, False)[..., None], 1e3), 4, (4, 4)
    )
    before, after = model(X, keep=keep), model(changed, keep=keep)
    assert torch.equal(before.tokens, after.tokens)
    assert torch.equal(before.pooled, after.pooled)


def test_places_keep_their_own_positions_in_any_order():
    """Mutation: positions added after gathering, by rank instead of by place."""
    model, keep = small(), order(4, 16, 6)
    seen = model(X, keep=keep)
    turned = model(X, keep=keep.flip(1))
    torch.testing.assert_close(seen.tokens, turned.tokens.flip(1))
    torch.testing.assert_close(seen.pooled, turned.pooled)
    everything = model(X, keep=torch.arange(16).expand(4, -1))
    torch.testing.assert_close(everything.tokens, model(X).tokens)


def test_kept_tokens_equal_the_blocks_run_on_the_same_rows_by_hand():
    model, keep = small(), order(4, 16, 5)
    rows = F.conv2d(X, model.patch_embed.proj.weight, model.patch_embed.proj.bias, stride=4).flatten(2).transpose(1, 2)
    rows = rows + model.pos_embed[:, 1:]
    rows = rows.gather(1, keep[..., None].expand(-1, -1, 32))
    x = torch.cat([(model.cls_token + model.pos_embed[:, :1]).expand(4, -1, -1), rows], dim=1)
    for block in model.blocks:
        h = block.norm1(x)
        q, k, v = block.attn.qkv(h).chunk(3, dim=-1)
        heads = []
        for cut in range(0, 32, 8):
            part = slice(cut, cut + 8)
            weights = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(8)).softmax(-1)
            heads.append(weights @ v[..., part])
        x = x + block.attn.proj(torch.cat(heads, dim=-1))
        h = block.mlp.fc1(block.norm2(x))
        x = x + block.mlp.fc2(0.5 * h * (1 + torch.erf(h / math.sqrt(2))))
    torch.testing.assert_close(model(X, keep=keep).tokens, model.norm(x)[:, 1:])


def test_gelu_is_the_exact_one():
    """Mutation: the tanh approximation."""
    mlp = Mlp(4, 4).double()
    for layer in (mlp.fc1, mlp.fc2):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = torch.linspace(-4, 4, 20, dtype=torch.float64).reshape(5, 4)
    torch.testing.assert_close(mlp(x), x * 0.5 * (1 + torch.erf(x / math.sqrt(2))), rtol=0, atol=1e-12)


def test_the_attention_that_is_shown_is_the_one_that_is_used():
    model = small()
    shown = model(X, attention=True)
    torch.testing.assert_close(shown.tokens, model(X).tokens)
    assert shown.attention is not None
    assert shown.attention.shape == (4, 4, 17, 17)
    torch.testing.assert_close(shown.attention.sum(-1), torch.ones(4, 4, 17, dtype=torch.float64))
    assert model(X).attention is None


def test_taps_are_the_outputs_of_the_named_blocks():
    model = small(registers=2)
    seen = model(X, taps=["blocks.0", "blocks.2"])
    assert set(seen.taps) == {"blocks.0", "blocks.2"}
    assert seen.taps["blocks.0"].shape == (4, 1 + 2 + 16, 32)
    torch.testing.assert_close(model.norm(seen.taps["blocks.2"])[:, 3:], seen.tokens)
    with pytest.raises(TacitError, match=r"tap.*blocks\.1"):
        model(X, taps=["block.1"])


def test_what_is_pooled_is_as_asked_for():
    assert torch.equal((by_class := small()(X)).pooled, by_class.prefix[:, 0])
    mean = small(pool="mean")(X)
    torch.testing.assert_close(mean.pooled, mean.tokens.mean(1))
    bare = small(pool="mean", class_token=False)
    assert bare(X).prefix is None
    assert bare.pos_embed.shape == (1, 16, 32)
    with pytest.raises(TacitError, match="pool"):
        small(class_token=False)


def test_registers_have_no_place_and_are_not_among_the_tokens():
    model = small(registers=3)
    seen = model(X)
    assert seen.prefix.shape == (4, 4, 32)
    assert seen.tokens.shape == (4, 16, 32)
    assert model.pos_embed.shape == (1, 17, 32)


def test_permuting_the_batch_permutes_the_features():
    model, keep, turn = small(), order(4, 16, 6), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(X[turn], keep=keep[turn]).tokens, model(X, keep=keep).tokens[turn])


def test_fixed_positions_are_no_parameter_and_learned_ones_are():
    assert "pos_embed" not in dict(small().named_parameters())
    assert "pos_embed" in small().state_dict()
    assert "pos_embed" in dict(small(positions="learned").named_parameters())


@pytest.mark.parametrize("positions", ["sincos", "sincos-row", "learned"])
def test_other_extents_are_served_by_resampled_positions(positions):
    model = small(positions=positions)
    assert model(images(2, 3, 24, 12)).tokens.shape == (2, 18, 32)
    assert model(images(2, 3, 19, 18)).tokens.shape == (2, 16, 32)
    with pytest.raises(TacitError, match="smaller than a patch"):
        model(images(1, 3, 3, 16))


def test_grids_need_not_be_square():
    model = small(size=(8, 20))
    assert model.grid((8, 20)) == (2, 5)
    x = images(2, 3, 8, 20)
    keep = order(2, 10, 4)
    rows = model(x, keep=keep, taps=["blocks.0"])
    assert rows.tokens.shape == (2, 4, 32)
    torch.testing.assert_close(model(x, keep=torch.arange(10).expand(2, -1)).tokens, model(x).tokens)


def test_positions_put_the_column_first_or_the_row_first():
    """Mutation: row-first in MAE."""
    table = sincos(8, (3, 5)).reshape(3, 5, 2, 2, 2)  # row, column, which coordinate, sin or cos, frequency
    assert torch.equal(table[0, :, 0], table[2, :, 0])  # the first half does not depend on the row
    assert not torch.equal(table[:, 0, 0], table[:, 1, 0])
    turned = sincos(8, (3, 5), first="row").reshape(3, 5, 2, 2, 2)
    assert torch.equal(turned[:, :, 0], table[:, :, 1])
    torch.testing.assert_close(table[1, 3, 0, 0], torch.tensor([3.0, 0.03]).sin())
    torch.testing.assert_close(table[1, 3, 1, 1], torch.tensor([1.0, 0.01]).cos())
    with pytest.raises(TacitError, match="multiple of 4"):
        sincos(10, (2, 2))


def _cubic(t: float, a: float = -0.75) -> float:
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def _sampled(line: list[float], new: int, scale: float) -> list[float]:
    values = []
    for i in range(new):
        at = (i + 0.5) / scale - 0.5
        left = math.floor(at)
        near = [(cell, _cubic(at - cell)) for cell in range(left - 1, left + 3)]
        values.append(sum(line[min(max(cell, 0), len(line) - 1)] * weight for cell, weight in near))
    return values


@pytest.mark.parametrize("offset", [0.0, 0.1])
@pytest.mark.parametrize(("old", "new"), [((4, 4), (6, 3)), ((5, 3), (2, 7))])
def test_resampling_reads_where_the_paper_says_with_a_factor_for_each_axis(old, new, offset):
    """Mutation: the exact ratio of sizes instead of DINO's +0.1. The golden file has square images only."""
    table = images(1, 1 + old[0] * old[1], 2)
    cells = table[0, 1:].reshape(*old, 2)
    expected = torch.zeros(*new, 2, dtype=torch.float64)
    for d in range(2):
        down = [_sampled(cells[:, j, d].tolist(), new[0], (new[0] + offset) / old[0]) for j in range(old[1])]
        for i in range(new[0]):
            line = [column[i] for column in down]
            expected[i, :, d] = torch.tensor(_sampled(line, new[1], (new[1] + offset) / old[1]), dtype=torch.float64)
    result = resample(table, old, new, offset)
    assert torch.equal(result[:, :1], table[:, :1])
    torch.testing.assert_close(result[0, 1:].reshape(*new, 2), expected, rtol=0, atol=1e-10)
    assert resample(table, old, old, offset) is table


def test_patches_are_cut_row_column_channel():
    """Mutation: channel, row, column."""
    x = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    cut = patchify(x, 2)
    assert cut.shape == (2, 6, 12)
    assert cut[1, 4].tolist() == [int(x[1, c, 2 + r, 2 + k]) for r in range(2) for k in range(2) for c in range(3)]
    assert torch.equal(unpatchify(cut, 2, (2, 3)), x)


def test_the_patch_embedding_is_a_strided_convolution():
    embed, x = PatchEmbed(5, 8, 3).double(), images(2, 5, 10, 13)
    expected = F.conv2d(x, embed.proj.weight, embed.proj.bias, stride=3).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(x), expected)
    keep = order(2, 12, 5)
    torch.testing.assert_close(embed(x, keep), expected.gather(1, keep[..., None].expand(-1, -1, 8)))
    assert dict(embed.named_parameters())["proj.weight"].shape == (8, 5, 3, 3)


def test_drop_path_silences_each_crop_by_itself_and_keeps_the_mean():
    draws = Draws(0, 0, torch.arange(2000))
    x = torch.ones(3 * 2000, 2, 2)
    dropped = drop_path(x, 0.25, draws, "attn")
    values = dropped[:, 0, 0]
    assert torch.equal(dropped, values[:, None, None].expand_as(dropped))
    torch.testing.assert_close(values.unique(), torch.tensor([0.0, 1 / 0.75]))
    crops = values.reshape(3, 2000)
    torch.testing.assert_close((crops == 0).float().mean(1), torch.full((3,), 0.25), rtol=0, atol=0.04)
    assert not torch.equal(crops[0], crops[1])
    alone = drop_path(x[:10], 0.25, Draws(0, 0, torch.arange(10)), "attn")
    assert torch.equal(alone[:, 0, 0], crops[0, :10])  # a sample's draw does not depend on its batch


def test_nothing_is_dropped_without_draws_or_rate():
    model = small(drop_path=0.5)
    assert torch.equal(model(X).tokens, model(X).tokens)
    draws = Draws(0, 0, torch.arange(4))
    assert torch.equal(small()(X, draws=draws).tokens, small()(X).tokens)
    assert torch.equal(model(X, draws=draws).tokens, model(X, draws=draws).tokens)
    assert not torch.equal(model(X, draws=draws).tokens, model(X).tokens)
    assert model.train()(X).tokens.equal(model.eval()(X).tokens)


def test_drop_path_grows_from_zero_to_its_rate():
    rates = [block.drop_path for block in small(drop_path=0.1, depth=5).blocks]
    assert rates == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])


def test_both_branches_of_both_blocks_are_dropped_by_numbers_of_their_own():
    """Mutation: one number for attention and MLP."""
    block, draws, x = Block(8, 2, drop_path=0.5).double(), Draws(0, 0, torch.arange(400)), images(400, 3, 8)
    first, second = (block(x, draws.within(f"blocks.{index}")) for index in range(2))
    assert not torch.equal(first, second)
    untouched = (first == x).flatten(1).all(1).double().mean()
    assert 0.18 < untouched < 0.32  # both were dropped: a half of a half


def test_layer_scale_starts_small_and_has_timms_name():
    model = small(layer_scale=1e-5)
    assert torch.equal(model.state_dict()["blocks.1.ls2.gamma"], torch.full((32,), 1e-5).double())
    assert not any("ls1" in name for name in small().state_dict())


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(TacitError, match="10 cannot be split into 4"):
        Attention(10, 4)


def test_names_are_timms():
    names = set(small(registers=1, layer_scale=0.1, depth=1).state_dict())
    inner = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    expected = {f"blocks.0.{part}.{kind}" for part in inner for kind in ("weight", "bias")}
    expected |= {"blocks.0.ls1.gamma", "blocks.0.ls2.gamma", "norm.weight", "norm.bias"}
    expected |= {"cls_token", "reg_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert names == expected


@pytest.mark.parametrize(
    ("name", "count"),
    [("vit-tiny/16", 5_524_416), ("vit-small/16", 21_665_664), ("vit-base/16", 85_798_656), ("vit-large/16", 303_301_632)],
)
def test_full_sizes_have_the_published_numbers_of_parameters(name, count):
    with torch.device("meta"):
        model = VisionTransformer(3, (224, 224), 16, **VARIANTS[name[:-3]]._asdict(), positions="learned")
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_levels_rise_from_the_patches_to_the_last_norm():
    model = small(positions="learned", registers=1)
    level = {name: model.level(name) for name, _ in model.named_parameters()}
    for name in ("cls_token", "reg_token", "pos_embed", "patch_embed.proj.weight"):
        assert level[name] == 0
    assert level["blocks.0.attn.qkv.weight"] == 1
    assert level["blocks.2.mlp.fc2.bias"] == 3
    assert level["norm.weight"] == model.depth + 1 == 4


def test_first_values_are_those_of_the_papers():
    x = {
        init: encoder("vit-micro/4", 3, 32, init=init, positions=positions).state_dict()
        for init, positions in (("mae", "sincos"), ("moco", "sincos-row"), ("dino", "learned"))
    }
    qkv, patch = "blocks.0.attn.qkv.weight", "patch_embed.proj.weight"
    limits = {"mae": math.sqrt(6 / (4 * 96)), "moco": math.sqrt(6 / (2 * 96))}
    for init, limit in limits.items():
        assert 0.99 * limit < x[init][qkv].abs().max() <= limit
    limits = {"mae": math.sqrt(6 / (48 + 96)), "moco": math.sqrt(6 / (48 + 96)), "dino": 1 / math.sqrt(48)}
    for init, limit in limits.items():
        assert 0.98 * limit < x[init][patch].abs().max() <= limit
    assert x["dino"][qkv].std() == pytest.approx(0.02, rel=0.02)
    assert x["dino"]["pos_embed"].std() == pytest.approx(0.02, rel=0.05)
    assert x["mae"]["cls_token"].std() == pytest.approx(0.02, rel=0.3)
    assert 0 < x["moco"]["cls_token"].abs().max() < 1e-5
    for init, weights in x.items():
        assert all((weights[name] == 0).all() for name in weights if name.endswith("bias") and name != "patch_embed.proj.bias")
        assert bool((weights["patch_embed.proj.bias"] == 0).all()) == (init == "moco")
    assert torch.equal(x["mae"]["pos_embed"][:, 0], torch.zeros(1, 96))


def test_half_precision_keeps_the_residual_stream_wide():
    model = small().float()
    with torch.autocast("cpu", torch.bfloat16):
        seen = model(X.float(), taps=["blocks.0"])
    assert seen.taps["blocks.0"].dtype == torch.float32
    torch.testing.assert_close(seen.tokens.double(), model.double()(X).tokens, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("tokens", [5, 70, 1100])
def test_attention_in_bfloat16_is_that_in_float32_within_rounding(tokens):
    """Short sequences are written out on a processor, long ones go through the fused kernel."""
    attention, x = Attention(32, 4), torch.randn(2, tokens, 32, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    exact = attention(x)
    (wanted,) = torch.autograd.grad(exact.square().sum(), x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = attention(x)
    (found,) = torch.autograd.grad(rough.float().square().sum(), x)
    torch.testing.assert_close(rough.float(), exact, rtol=0.03, atol=0.03 * float(exact.detach().abs().max()))
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05 * float(wanted.abs().max()))
