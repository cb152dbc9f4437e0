"""The transformer over single channels: what may see what, what padding may not do, and what the baselines are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.nn.blocks import Attention, Block
from tacit.nn.channel_vit import VARIANTS, ChannelViT, OneChannelViT, of_true_channels, visible
from tacit.nn.init import seeded
from tacit.nn.masked_blocks import PostNormBlock, PreNormBlock
from tacit.nn.positions import resample
from tacit.nn.vit import VisionTransformer
from tacit.views.channels import present


def small(channels: int = 4, **options: Any) -> ChannelViT:
    """Weights far from their small first values, so that nothing is hidden by them."""
    with seeded(0, "encoder"):
        made = ChannelViT(1, (channels, 8, 8), 4, **{"width": 16, "depth": 2, "heads": 2, "hidden": 24, **options}).double()
        with torch.no_grad():
            for weight in made.parameters():
                weight.add_(0.3 * torch.randn_like(weight))
    return made


def normal(*shape: int, name: str = "images") -> torch.Tensor:
    return Draws(0, 0, torch.arange(shape[0])).normal(name, *shape[1:]).double()


def view(values: torch.Tensor, there: torch.Tensor | None = None) -> torch.Tensor:
    """`[B, 1, C, H, W]` with the presence of these channels, bool `[B, C]`, or of all, as the second plane."""
    plane = torch.ones_like(values) if there is None else there[:, None, :, None, None].expand_as(values)
    return torch.cat([values, plane.to(values)], dim=1)


COUNTS = torch.tensor([2, 3, 1])
THERE = present(COUNTS, 3)
X = normal(3, 1, 3, 8, 8).where(THERE[:, None, :, None, None], 0)
SEEN = view(X, THERE)


def near(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"block": "prenorm"}, {"attend": "channels"}, {"pool": "mean"}])
def test_more_padding_and_what_is_in_it_change_nothing(options):
    model = small(**options)
    said = model(SEEN)
    more = torch.cat([X, X.new_full((3, 1, 1, 8, 8), 7.0)], dim=2)
    more[0, 0, 2] = -50
    again = model(view(more, present(COUNTS, 4)))
    near(said.pooled, again.pooled)
    near(of_true_channels(said.tokens, THERE), of_true_channels(again.tokens, present(COUNTS, 4)))


@pytest.mark.parametrize("options", [{}, {"block": "prenorm"}, {"attend": "channels"}, {"pool": "mean"}])
def test_an_image_alone_is_what_it_is_in_a_batch(options):
    model = small(**options)
    said = model(SEEN)
    for row, count in enumerate(COUNTS.tolist()):
        alone = model(SEEN[row : row + 1, :, :count])
        near(alone.pooled[0], said.pooled[row])
        near(alone.tokens[0], said.tokens[row, : 4 * count])
        near(alone.tokens[0].mean(0), said.tokens[row].mean(0))  # in place of padding stands the mean


def test_true_channels_give_one_token_for_each_patch():
    assert of_true_channels(small()(SEEN).tokens, THERE).shape == (COUNTS.sum() * 4, 16)


def test_it_does_not_matter_which_channels_are_the_absent_ones():
    """Presence is read channel by channel: without slots, padding in front is padding behind."""
    model = small(channel_token=False)
    turned = SEEN.roll(1, dims=2)
    near(model(turned).pooled, model(SEEN).pooled)


def test_channels_may_be_permuted_with_their_slots_but_not_without():
    model, turn = small(), torch.tensor([2, 0, 1])
    x = SEEN[1:2]
    before = model(x).pooled
    assert (model(x[:, :, turn]).pooled - before).abs().max() > 1e-2
    with torch.no_grad():
        assert model.channel_token is not None
        model.channel_token[:, :3] = model.channel_token[:, turn]
    near(model(x[:, :, turn]).pooled, before)


@pytest.mark.parametrize("how", ["zero", "none"])
def test_without_slots_the_order_of_channels_means_nothing(how):
    model = small(channel_token=how == "zero")
    if model.channel_token is not None:
        model.channel_token.data.zero_()
    near(model(SEEN[1:2, :, [2, 0, 1]]).pooled, model(SEEN[1:2]).pooled)


def test_what_is_absent_gets_no_gradient():
    """Mutation: the slot of a token taken from its place in the flat batch."""
    model, counts = small(), torch.tensor([2, 1, 2])
    x = X.clone().requires_grad_()
    said = model(view(x, present(counts, 3)))
    (said.pooled * normal(3, 16, name="probe")).sum().backward()
    assert model.channel_token is not None
    slots = model.channel_token.grad
    assert slots is not None
    assert x.grad is not None
    assert (slots[:, 2:] == 0).all()
    assert (slots[:, :2] != 0).all()
    reached = x.grad[:, 0].flatten(2).abs().sum(2)
    assert torch.equal(reached > 0, present(counts, 3))


@pytest.mark.parametrize("options", [{}, {"block": "prenorm"}])
def test_padding_is_looked_at_by_nobody(options):
    said = small(**options)(SEEN, attention=True)
    assert said.attention is not None
    assert said.attention.shape == (3, 2, 13, 13)
    near(said.attention.sum(-1), torch.ones(3, 2, 13).double())
    for row, count in enumerate(COUNTS.tolist()):
        assert (said.attention[row, :, :, 1 + 4 * count :] == 0).all()
        assert (said.attention[row, :, :, : 1 + 4 * count] > 0).all()


@pytest.mark.parametrize("options", [{}, {"attend": "channels"}, {"block": "prenorm"}])
def test_the_attention_that_is_shown_is_the_one_that_is_used(options):
    model = small(**options)
    shown, used = model(SEEN, attention=True), model(SEEN)
    near(shown.pooled, used.pooled)
    near(shown.tokens, used.tokens)


def test_the_class_token_gathers_from_more_than_one_channel():
    said = small()(SEEN[1:2], attention=True)
    assert said.attention is not None
    mass = said.attention[0, :, 0, 1:].unflatten(1, (3, 4)).sum(2)
    assert (mass > 0.01).all()


def test_places_are_counted_by_channel_and_hidden_ones_are_not_looked_at():
    """Mutation: patch-major instead of channel-major."""
    model = small(pool="mean")
    keep = torch.tensor([[5, 0, 3], [11, 8, 2], [1, 3, 0]])
    said = model(SEEN, keep=keep)
    assert said.tokens.shape == (3, 3, 16)
    changed = X.clone()
    for row, places in enumerate(keep.tolist()):
        for place in set(range(12)) - set(places):
            channel, spot = divmod(place, 4)
            top, left = 4 * (spot // 2), 4 * (spot % 2)
            changed[row, 0, channel, top : top + 4, left : left + 4] = 9.0
    near(model(view(changed, THERE), keep=keep).tokens, said.tokens)
    near(model(SEEN, keep=keep.flip(1)).tokens.flip(1), said.tokens)
    everything = model(SEEN, keep=torch.arange(12).expand(3, -1))
    near(everything.tokens, model(SEEN).tokens)


def test_kept_places_of_absent_channels_are_not_looked_at():
    model = small(pool="mean")
    keep = torch.tensor([[0, 5, 9], [4, 9, 1], [2, 7, 11]])  # channels 0 1 2, 1 2 0, 0 1 2, of 2, 3 and 1 true ones
    said = model(SEEN, keep=keep)
    for row, true in enumerate([[0, 5], [4, 9, 1], [2]]):
        near(model(SEEN[row : row + 1], keep=torch.tensor([true])).pooled[0], said.pooled[row])


def test_a_patch_that_looks_only_across_channels_misses_other_places():
    changed = X.clone()
    changed[:, 0, 0, :4, :4] = 9.0  # place 0 of channel 0
    touched = {}
    for attend in ("all", "channels"):
        model = small(attend=attend, depth=1)
        before, after = (model(view(x)).tokens[1].unflatten(0, (3, 4)) for x in (X, changed))
        touched[attend] = ((before - after).abs().amax(2) > 1e-9).any(0).tolist()
    assert touched == {"all": [True] * 4, "channels": [True, False, False, False]}


def test_who_may_look_at_whom():
    there, spot = torch.tensor([[True, True, True, False]]), torch.tensor([[0, 1, 0, 1]])
    assert visible(there, None)[0, 0].int().tolist() == [[1, 1, 1, 1, 0]]
    both = visible(there, spot)
    assert both[0, 0].int().tolist() == [[1, 1, 1, 1, 0], [1, 1, 0, 1, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [1, 0, 1, 0, 0]]


def test_the_official_block_is_its_two_lines():
    """Mutations: two modules for norm1, or none before attention; GELU for ReLU; a pre-norm residual."""
    block, x = PostNormBlock(16, 2, 24).double(), normal(2, 5, 16)
    gains = torch.Generator().manual_seed(0)
    for norm in (block.norm1, block.norm2):
        assert norm.eps == 1e-5
        nn.init.normal_(norm.weight, 1, 0.2, generator=gains)
    first = block.norm1(x + block.attn(block.norm1(x)))
    near(block(x), block.norm2(first + block.mlp.fc2(block.mlp.fc1(first).relu())))
    assert len(list(block.parameters())) == 12


def test_the_prenorm_block_is_the_usual_one():
    usual, ours, x = Block(16, 2).double(), PreNormBlock(16, 2, 64).double(), normal(2, 5, 16)
    ours.load_state_dict(usual.state_dict())
    near(ours(x), usual(x))
    assert ours.norm1.eps == usual.norm1.eps
    near(ours(x, seen=torch.ones(1, 5, dtype=torch.bool)), usual(x))


@pytest.mark.parametrize("tokens", [9, 1100])
def test_masked_attention_in_bfloat16_is_that_in_float32(tokens):
    attention, x = Attention(8, 2), normal(1, tokens, 8).float()
    seen = (torch.arange(tokens) < tokens // 2)[None]
    attention.load_state_dict({name: weight.bfloat16().float() for name, weight in attention.state_dict().items()})
    expected = attention(x.bfloat16().float(), seen)
    added = torch.where(seen, 0.0, -1e9)
    torch.testing.assert_close(attention(x.bfloat16().float(), added), expected)
    attention = attention.bfloat16()
    for mask in (seen, added):
        torch.testing.assert_close(attention(x.bfloat16(), mask).float(), expected, rtol=0.02, atol=0.02)
        torch.testing.assert_close(attention.with_map(x.bfloat16(), mask)[0].float(), expected, rtol=0.02, atol=0.02)


def test_activations_may_be_computed_anew():
    gradients = []
    for recompute in (False, True):
        model = small(drop_path=0.3)
        model.recompute = recompute
        model(SEEN, draws=Draws(0, 0, torch.arange(3))).pooled.sum().backward()
        gradients.append(model.patch_embed.proj.weight.grad)
    near(*gradients)


@pytest.mark.parametrize("block", ["official", "prenorm"])
def test_branches_are_dropped_only_where_draws_are_given(block):
    model, draws = small(drop_path=0.5, block=block), Draws(0, 0, torch.arange(3))
    assert [each.drop_path for each in model.blocks] == [0, 0.5]
    assert torch.equal(model(SEEN).pooled, model.train()(SEEN).pooled)
    assert torch.equal(model(SEEN, draws=draws).pooled, model(SEEN, draws=draws).pooled)
    assert not torch.equal(model(SEEN, draws=draws).pooled, model(SEEN).pooled)


def test_taps_are_the_outputs_of_the_named_blocks():
    model = small()
    said = model(SEEN, taps=["blocks.0", "blocks.1"])
    assert said.taps["blocks.0"].shape == (3, 13, 16)
    near(model.norm(said.taps["blocks.1"])[:, 0], said.pooled)
    with pytest.raises(TacitError, match=r"tap.*blocks\.1"):
        model(SEEN, taps=["block.1"])


def test_other_extents_are_served_by_resampled_positions():
    model = small()
    assert model.grid((3, 13, 20)) == (3, 3, 5)
    assert model.grid((13, 20)) == (3, 5)
    said = model(view(normal(2, 1, 3, 13, 20), present(torch.tensor([3, 2]), 3)))
    assert said.tokens.shape == (2, 45, 16)
    tall = normal(2, 1, 3, 13, 20)
    near(model(view(tall)).tokens, model(view(tall[..., :12, :])).tokens)


def test_positions_at_another_size_are_read_as_published():
    """Mutation: the exact ratio of sizes instead of that with 0.1 added to the new one."""
    model = small()
    with torch.no_grad():
        model.patch_embed.proj.weight.zero_()
    all_there = torch.ones(1, 24, dtype=torch.bool)
    tokens = model.tokenize(normal(1, 1, 2, 12, 16), None, all_there)[0, 1:].unflatten(0, (2, 12))
    assert model.channel_token is not None
    assert model.patch_embed.proj.bias is not None
    known = resample(model.pos_embed, (2, 2), (3, 4), offset=0.1)[0, 1:] + model.patch_embed.proj.bias
    near(tokens, known + model.channel_token[0, :2])


def test_what_does_not_fit_is_refused():
    with pytest.raises(TacitError, match=r"images of 5 channels.*at most 4"):
        small()(normal(1, 2, 5, 8, 8))
    with pytest.raises(TacitError, match="smaller than a patch"):
        small()(normal(1, 2, 2, 3, 8))
    for option in ("block", "attend", "pool"):
        other: dict[str, Any] = {option: "other"}
        with pytest.raises(TacitError, match=option):
            small(**other)


def test_first_values_are_the_published_ones():
    """Truncated N(0, 0.02^2) for all but the patch convolution and the fused projection, which is Xavier-uniform."""
    with seeded(0, "encoder"):
        model = ChannelViT(1, (10, 64, 64), 8, 96, 1, 2, hidden=256)
    for name in ("cls_token", "channel_token", "pos_embed", "blocks.0.attn.proj.weight", "blocks.0.mlp.fc1.weight"):
        assert model.get_parameter(name).std().item() == pytest.approx(0.02, rel=0.2), name
    qkv = model.get_parameter("blocks.0.attn.qkv.weight")
    assert qkv.abs().max().item() == pytest.approx((6 / (96 + 3 * 96)) ** 0.5, rel=1e-3)
    assert (model.get_parameter("blocks.0.attn.qkv.bias") == 0).all()
    assert model.patch_embed.proj.weight.abs().max().item() == pytest.approx(1 / 8, rel=1e-2)
    assert model.patch_embed.proj.bias is not None
    assert model.patch_embed.proj.bias.abs().max() > 0
    assert model.norm.eps == 1e-6


def test_the_published_size_has_its_number_of_parameters():
    with torch.device("meta"):
        model = ChannelViT(1, (10, 224, 224), 16, **VARIANTS["channel-vit-tiny"]._asdict())
    assert sum(weight.numel() for weight in model.parameters()) / 1e6 == pytest.approx(11.3, abs=0.05)


def test_names_and_levels():
    model = small(depth=1)
    inner = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    expected = {f"blocks.0.{part}.{kind}" for part in inner for kind in ("weight", "bias")}
    expected |= {"norm.weight", "norm.bias", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert set(model.state_dict()) == expected | {"cls_token", "channel_token", "pos_embed"}
    level = {name: model.level(name) for name in model.state_dict()}
    assert level["channel_token"] == level["patch_embed.proj.weight"] == 0
    assert level["blocks.0.mlp.fc1.weight"] == 1
    assert level["norm.weight"] == 2


# The baseline of single channels


def single(**options: Any) -> OneChannelViT:
    with seeded(0, "encoder"):
        return OneChannelViT(1, (3, 8, 8), 4, 16, 2, 2, positions="learned", **options).double()


def test_single_channels_are_encoded_by_themselves_and_joined():
    model = single()
    said = model(view(X), attention=True, taps=["blocks.0"])
    assert model.width == said.pooled.shape[1] == 48
    plain = VisionTransformer(1, (8, 8), 4, 16, 2, 2, positions="learned").double()
    plain.load_state_dict(model.state_dict())
    assert said.prefix is not None
    assert said.attention is not None
    for channel in range(3):
        alone = plain(X[:, :, channel], attention=True, taps=["blocks.0"])
        near(said.pooled[:, 16 * channel : 16 * (channel + 1)], alone.pooled)
        near(said.prefix[:, channel], alone.pooled)
        near(said.tokens.unflatten(1, (3, 4))[:, channel], alone.tokens)
        near(said.attention.unflatten(1, (3, 2))[:, channel], alone.attention)
        near(said.taps["blocks.0"].unflatten(1, (3, 5))[:, channel], alone.taps["blocks.0"])
    assert model.grid((3, 8, 8)) == (3, 2, 2)


def test_what_stands_for_an_absent_channel_is_zero():
    model = single()
    whole, said = model(view(X)), model(SEEN)
    assert torch.equal(said.pooled.unflatten(1, (3, 16)), whole.pooled.unflatten(1, (3, 16)).where(THERE[..., None], 0))
    near(model(SEEN[[0, 2], :, :2]).pooled, said.pooled[[0, 2]])


def test_crops_of_single_channels_are_dropped_each_by_itself():
    model, draws = single(drop_path=0.5), Draws(0, 0, torch.arange(3))
    both = model(torch.cat([SEEN, SEEN]), draws=draws)
    assert not torch.equal(both.pooled[:3], both.pooled[3:])


def test_the_baseline_wants_all_channels_and_all_places():
    with pytest.raises(TacitError, match=r"images of 4 channels.*joins the features of 3"):
        single()(torch.cat([SEEN, SEEN[:, :, :1]], dim=2))
    with pytest.raises(TacitError, match="all places"):
        single()(SEEN, keep=torch.zeros(3, 1, dtype=torch.int64))
