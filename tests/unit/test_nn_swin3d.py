"""The 3D Swin and the network of anatomy: windows, shifts, padding, what goes up again, and what options do."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.nn.anatomy import AnatomyNet
from tacit.nn.swin3d import VARIANTS, CrossSwinBlock, Swin3D, Swin3DDecoder, SwinBlock, positions
from tacit.nn.windows3d import WindowAttention, apart, cut, join, relative_index


def normal(*shape: int, seed: int = 0, name: str = "x") -> torch.Tensor:
    return Draws(seed, 0, torch.arange(shape[0])).normal(name, *shape[1:]).double()


def small(drop_path: float = 0.0, window: int = 4) -> Swin3D:
    torch.manual_seed(0)
    return Swin3D(1, 12, (2, 3, 4), (window, window, 2), (2, 2, 2), drop_path=drop_path).double()


def shaken(module: nn.Module) -> nn.Module:
    """First values are so alike that a mistake would hide in them."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_(normal(1, *parameter.shape, name=name)[0] * 0.3)
    return module


X = normal(2, 1, 16, 16, 16)


@pytest.mark.parametrize(("grid", "shifted"), [((4, 6, 2), True), ((4, 4, 2), False), ((5, 3, 1), True), ((2, 2, 2), True)])
def test_attention_in_windows_is_its_twin(grid, shifted):
    """Cell by cell. Mutations: the index with (3w - 1); no cut mask; shifts the other way; padding that is seen."""
    attention, x = shaken(WindowAttention(4, 2, 2, shifted).double()), normal(1, *grid, 4)
    q, k, v = attention.qkv(x[0]).chunk(3, dim=-1)
    out = attention(x)[0]
    turn = [1 if shifted and side > 2 else 0 for side in grid]
    cells = list(itertools.product(*map(range, grid)))
    for cell in cells:
        here = [(p - t) // 2 for p, t in zip(cell, turn, strict=True)]
        seen = [other for other in cells if [(p - t) // 2 for p, t in zip(other, turn, strict=True)] == here]
        rows = [sum((a - b + 1) * 3**place for a, b, place in zip(cell, other, (2, 1, 0), strict=True)) for other in seen]
        found = []
        for head, part in enumerate((slice(0, 2), slice(2, 4))):
            scores = torch.stack([q[cell][part] @ k[other][part] / math.sqrt(2) for other in seen])
            weights = (scores + attention.relative_position_bias_table[rows, head]).softmax(0)
            found.append(sum(weight * v[other][part] for weight, other in zip(weights, seen, strict=True)))
        torch.testing.assert_close(out[cell], attention.proj(torch.cat(found)), rtol=0, atol=1e-12)


@pytest.mark.slow  # what it imports takes most of a minute on a busy machine
@pytest.mark.parametrize(("grid", "window", "shifted"), [((8, 8, 8), 4, False), ((8, 4, 12), 4, True), ((4, 4, 4), 4, True)])
def test_a_block_equals_monais(grid, window, shifted):
    from monai.networks.nets.swin_unetr import SwinTransformerBlock, compute_mask

    ours = shaken(SwinBlock(12, 3, window, shifted, 2.0, 0.0).double())
    shift = window // 2 if shifted else 0
    theirs = SwinTransformerBlock(12, 3, (window,) * 3, (shift,) * 3, mlp_ratio=2.0).double()
    names = {"mlp.fc1": "mlp.linear1", "mlp.fc2": "mlp.linear2"}
    weights = {}
    for name, value in ours.state_dict().items():
        part, _, kind = name.rpartition(".")
        weights[f"{names.get(part, part)}.{kind}"] = value
    weights["attn.relative_position_index"] = theirs.state_dict()["attn.relative_position_index"]
    theirs.load_state_dict(weights)
    shifts = tuple(shift if side > window else 0 for side in grid)
    x = normal(2, *grid, 12)
    mask = compute_mask(grid, (window,) * 3, shifts, "cpu").double()
    torch.testing.assert_close(ours(x), theirs(x, mask), rtol=0, atol=1e-10)


@pytest.mark.parametrize("window", [(2, 3, 4), (1, 1, 1), (4, 2, 1)])
def test_windows_are_cut_in_order_and_joined_again(window):
    a, b, c = window
    grid = (2 * a, 3 * b, 2 * c)
    x = normal(2, *grid, 5)
    windows = [
        x[:, i : i + a, j : j + b, k : k + c].flatten(1, 3)
        for i, j, k in itertools.product(*(range(0, side, step) for side, step in zip(grid, window, strict=True)))
    ]
    assert torch.equal(cut(x, window), torch.stack(windows, dim=1))
    assert torch.equal(join(cut(x, window), window, grid), x)


@pytest.mark.parametrize("window", [(3, 3, 3), (2, 3, 1)])
def test_every_offset_has_a_row_of_its_own(window):
    """Also in a window that is cut short: it uses the rows of its own offsets, not the first ones."""
    index, rows = relative_index(window, 3), {}
    places = list(itertools.product(*(range(side) for side in window)))
    for i, query in enumerate(places):
        for j, key in enumerate(places):
            offset = tuple(a - b for a, b in zip(query, key, strict=True))
            rows.setdefault(offset, set()).add(int(index[i, j]))
    assert all(len(row) == 1 for row in rows.values())
    assert len(set.union(*rows.values())) == len(rows) == math.prod(2 * side - 1 for side in window)
    assert rows[(0, 0, 0)] == {62}  # the middle of 125, whatever the window
    assert int(index.max()) < 5**3


def test_tokens_see_their_window_and_nothing_beyond():
    """The gradient of a cell's output says what it has seen; windows of 4 on a map of 8, shifted by 2."""
    for shifted in (False, True):
        attention = shaken(WindowAttention(6, 2, 4, shifted).double())
        x = normal(1, 8, 8, 8, 6).requires_grad_()
        for cell in ((0, 1, 7), (3, 2, 2), (5, 6, 1)):
            (gradient,) = torch.autograd.grad(attention(x)[(0, *cell)].sum(), x)
            seen = (gradient[0].abs().amax(-1) > 1e-30).nonzero().tolist()
            turn = 2 if shifted else 0
            window = [(place - turn) // 4 for place in cell]  # -1 and 1 are the halves at either end
            expected = [
                list(place)
                for place in itertools.product(range(8), repeat=3)
                if all((p - turn) // 4 == w for p, w in zip(place, window, strict=True))
            ]
            assert seen == expected


def test_nothing_attends_to_padding():
    """A map of 5 x 6 x 7 in windows of 4: each token sees at most real ones, and numbers stay those of the real ones alone."""
    attention = shaken(WindowAttention(6, 2, 4).double())
    x = normal(1, 5, 6, 7, 6)
    corner = attention(x)[:, 4:, 4:, 4:]  # the last window has 1 x 2 x 3 true cells
    alone = attention(x[:, 4:, 4:, 4:])
    torch.testing.assert_close(corner, alone, rtol=0, atol=1e-12)
    mask = apart((5, 4, 4), (8, 4, 4), (4, 4, 4), (0, 0, 0), x)
    assert set(mask.unique().tolist()) == {-100.0, 0.0}
    assert (mask[0] == 0).all()


def test_cross_attention_asks_without_a_projection():
    """By hand on one window: q = LN(u), keys and values from the same norm of the skip, residual u + skip."""
    block = shaken(CrossSwinBlock(4, 2, 2, 2.0, 0.0).double())
    up, skip = normal(1, 2, 2, 2, 4), normal(1, 2, 2, 2, 4, name="skip")
    q, other = block.norm1(up).flatten(1, 3)[0], block.norm1(skip).flatten(1, 3)[0]
    k, v = block.attn.kv(other).chunk(2, dim=-1)
    bias = block.attn.relative_position_bias_table[relative_index((2, 2, 2), 2)]
    heads = [
        ((q[:, s] @ k[:, s].T / math.sqrt(2)) + bias[..., head]).softmax(-1) @ v[:, s]
        for head, s in enumerate((slice(0, 2), slice(2, 4)))
    ]
    x = (up + skip).flatten(1, 3)[0] + block.attn.proj(torch.cat(heads, dim=-1))
    x = x + block.mlp(block.norm2(x))
    torch.testing.assert_close(block(up, skip).flatten(1, 3)[0], x, rtol=0, atol=1e-12)


def test_maps_tokens_and_pooled_vectors_belong_together():
    model = small()
    seen = model(X, taps=[*model.maps, "layers.2"])
    assert [tuple(seen.taps[name].shape[1:]) for name in model.maps] == [(12, 8, 8, 8), (24, 4, 4, 4), (48, 2, 2, 2)]
    assert torch.equal(seen.taps["norm"].flatten(2).transpose(1, 2), seen.tokens)
    torch.testing.assert_close(model.norm(seen.taps["layers.2"].movedim(1, -1)).flatten(1, 3), seen.tokens)
    torch.testing.assert_close(seen.pooled, seen.tokens.mean(1))
    assert seen.pooled.shape == (2, model.width)
    assert model(X).taps == {}
    for wrong in ({"keep": torch.zeros(2, 1, dtype=torch.int64)}, {"attention": True}):
        with pytest.raises(TacitError, match="windows"):
            model(X, **wrong)
    with pytest.raises(TacitError, match=r"tap.*layers\.0"):
        model(X, taps=["layer.0"])


@pytest.mark.parametrize("extent", [(16, 16, 16), (9, 14, 17), (3, 1, 5)])
def test_volumes_of_any_extent_go_down_and_up_again(extent):
    model = small()
    decoder = Swin3DDecoder(model, 2).double()
    seen = model(normal(2, 1, *extent), taps=model.maps)
    assert seen.tokens.shape == (2, math.prod(model.grid(extent)), 48)
    maps = [seen.taps[name] for name in model.maps]
    first, made = decoder(maps, extent)
    assert made.shape == (2, 2, *extent)
    assert first.shape == (2, maps[1][0, 0].numel(), decoder.width)
    assert torch.equal(decoder.first(maps), first)


def test_every_weight_of_encoder_and_decoder_gets_a_gradient():
    model = small()
    decoder = Swin3DDecoder(model, 1).double()
    seen = model(X, taps=model.maps)
    decoder([seen.taps[name] for name in model.maps], X.shape[2:])[1].square().sum().backward()
    for part in (model, decoder):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    alone = small()
    alone(X).pooled.square().sum().backward()
    assert all(parameter.grad is not None for parameter in alone.parameters())


def test_what_a_sample_gives_does_not_depend_on_its_batch():
    model, draws = small(drop_path=0.5), Draws(0, 0, torch.tensor([3, 9]))
    both = model(X, draws=draws).tokens
    torch.testing.assert_close(model(X[1:], draws=Draws(0, 0, torch.tensor([9]))).tokens, both[1:])
    assert not torch.equal(both, model(X).tokens)
    assert torch.equal(model(X).tokens, small()(X).tokens)
    views = model(torch.cat([X, X]), draws=draws).tokens
    torch.testing.assert_close(views[:2], both)
    assert not torch.equal(views[2:], both)


def test_half_precision_keeps_the_residual_stream_wide():
    model = small().float()
    with torch.autocast("cpu", torch.bfloat16):
        seen = model(X.float(), taps=model.maps)
        first, _ = Swin3DDecoder(model, 1)([seen.taps[name] for name in model.maps], X.shape[2:])
    assert {seen.taps[name].dtype for name in model.maps} == {torch.float32} == {first.dtype}
    torch.testing.assert_close(seen.tokens.double(), model.double()(X).tokens, rtol=0.1, atol=0.1)


def test_drop_path_grows_over_the_encoder_and_again_over_the_decoder():
    model = small(drop_path=0.2)
    decoder = Swin3DDecoder(model, 1)
    rates = [block.drop_path for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0, 0.04, 0.08, 0.12, 0.16, 0.2])
    again = [rate for up in decoder.layers for rate in (up.cross.drop_path, *(block.drop_path for block in up.blocks))]
    assert again == pytest.approx([0, 0.2 / 3, 0.4 / 3, 0.2])
    assert [[block.attn.shifted for block in stage.blocks] for stage in model.layers] == [[False, True]] * 3
    assert [[block.attn.shifted for block in up.blocks] for up in decoder.layers] == [[True]] * 2


def test_positions_are_fixed_small_and_differ_from_place_to_place():
    table = positions(48, (5, 4, 3), X)
    assert table.shape == (5, 4, 3, 48)
    assert float(table.square().mean().sqrt()) == pytest.approx(0.02, rel=1e-6)
    assert len({tuple(row) for row in table.flatten(0, 2).tolist()}) == 60
    scale = 0.02 * math.sqrt(2)
    frequency = 10000.0 ** (-3 / 8)
    assert float(table[2, 1, 0, 3]) == pytest.approx(scale * math.sin(2 * frequency))
    assert float(table[2, 1, 0, 16 + 8 + 3]) == pytest.approx(scale * math.cos(frequency))
    assert (positions(16, (2, 2, 2), X)[..., 12:] == 0).all()
    assert torch.equal(positions(48, (9, 9, 9), X)[:5, :4, :3], table)
    assert not any("pos" in name and "bias" not in name for name in small().state_dict())


def test_levels_rise_and_names_are_timms():
    model = small()
    level = {name: model.level(name) for name, _ in model.named_parameters()}
    assert level["patch_embed.convs.0.weight"] == 0
    assert level["layers.0.blocks.1.attn.qkv.weight"] == 2
    assert level["layers.1.downsample.reduction.weight"] == level["layers.1.blocks.0.mlp.fc1.bias"] == 3
    assert level["layers.2.blocks.1.attn.relative_position_bias_table"] == 6
    assert level["norm.weight"] == model.depth + 1 == 7


def test_first_values():
    model = Swin3D(1, **VARIANTS["swin3d-micro"]._asdict())
    for name, value in model.state_dict().items():
        if name.endswith(("qkv.weight", "relative_position_bias_table")) and value.numel() > 5000:
            assert value.std() == pytest.approx(0.02, rel=0.05), name
        if ".attn." in name and name.endswith("bias"):
            assert (value == 0).all()


def test_the_largest_variant_has_the_published_maps():
    with torch.device("meta"):
        model = Swin3D(1, **VARIANTS["swin3d-base"]._asdict())
        decoder = Swin3DDecoder(model, 1)
    assert model.width == 384
    assert decoder.width == 192
    assert model.grid((64, 64, 64)) == (4, 4, 4)
    assert [up.cross.attn.window for up in decoder.layers] == [8, 4, 4]
    assert [up.cross.attn.heads for up in decoder.layers] == [24, 12, 6]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((1, 13, (1, 1), (2, 2), (2, 2)), "width is even"),
        ((1, 12, (1,), (2, 2), (2, 2)), "one of each"),
        ((1, 12, (5, 5), (2, 2), (2, 2)), "cannot be split into 5"),
        ((1, 12, (1, 1), (2, 2), (2, 2000)), "2002 blocks"),
    ],
)
def test_impossible_sizes_are_refused(arguments, said):
    with pytest.raises(TacitError, match=said):
        Swin3D(*arguments)


# Anatomy


def test_anatomy_gives_unit_vectors_at_both_strides():
    torch.manual_seed(0)
    net = AnatomyNet(1, width=4, out=8, coarse=8).double().eval()
    x = normal(2, 1, 17, 16, 20)
    seen = net(x, taps=["fine", "coarse"])
    assert seen.taps["fine"].shape == (2, 8, 9, 8, 10)
    assert seen.taps["coarse"].shape == (2, 8, *net.grid((17, 16, 20))) == (2, 8, 3, 2, 3)
    for map in seen.taps.values():
        torch.testing.assert_close(map.norm(dim=1), torch.ones_like(map[:, 0]))
    assert torch.equal(net(x).pooled, seen.tokens.mean(1))
    assert torch.equal(seen.taps["coarse"].flatten(2).transpose(1, 2), seen.tokens)
    sum(map.square().sum() + map.sum() for map in seen.taps.values()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    levels = [net.level(name) for name, _ in net.named_parameters()]
    assert min(levels) == 0
    assert max(levels) == net.depth + 1 == 3


def test_anatomy_of_a_moved_volume_is_moved():
    """A place keeps its vector wherever it lies in the crop: moved by a coarse cell, inner fine vectors are the same."""
    torch.manual_seed(0)
    net = AnatomyNet(1, width=4, out=8, coarse=4).double().eval()
    x = normal(1, 1, 72, 24, 24)
    here = net(x, taps=["fine"]).taps["fine"]
    there = net(x[:, :, 8:], taps=["fine"]).taps["fine"]
    torch.testing.assert_close(there[:, :, 12:20], here[:, :, 16:24], rtol=0, atol=1e-10)


@pytest.mark.parametrize("coarse", [2, 6, 0])
def test_anatomy_needs_a_power_of_two(coarse):
    with pytest.raises(TacitError, match="power of 2"):
        AnatomyNet(1, coarse=coarse)
    net = AnatomyNet(1, width=4, out=8, coarse=4)
    with pytest.raises(TacitError, match="hide"):
        net(X.float(), attention=True)
