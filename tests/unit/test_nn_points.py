"""Encoders of point clouds, and the invariants of PoLAr-MAE's card that concern its parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.nn.points.encoder import PointTransformer
from tacit.nn.points.grouping import collate, contents, thin, volumetric
from tacit.nn.points.norm import BatchLayerNorm, MaskedBatchNorm
from tacit.nn.points.pointnet import PointNet
from tacit.nn.points.trunk import RaggedAttention, RaggedTransformer, _pairs, drop_tokens, put_back
from tacit.objectives.chamfer import ragged_chamfer
from tacit.views.points import angles, hide_tokens, placed, places, rotation, turned

SIZES = torch.tensor([60, 45, 20])


def clouds(seed: int = 0) -> Tensor:
    """Three padded clouds `[3, 4, 60]`, rounded to float32."""
    x = Draws(seed, 0, torch.arange(3)).uniform("points", 4, 60).double()
    return x * (torch.arange(60) < SIZES[:, None])[:, None]


def marked(x: Tensor, sizes: Tensor = SIZES) -> Tensor:
    """With a channel behind the others that says where there are points."""
    return torch.cat([x, (torch.arange(x.shape[2]) < sizes[:, None]).to(x)[:, None]], dim=1)


def encoder(**options) -> PointTransformer:
    torch.manual_seed(0)
    settings = {"width": 12, "depth": 2, "heads": 4, "slots": 8, "hidden": (6, 8)} | options
    made = PointTransformer(4, 0.2, **settings).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def near(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


# Tokens ---------------------------------------------------------------------------------------------------------------


def test_a_shift_moves_the_centres_and_a_scale_goes_with_the_radius():
    x = clouds()[0].T.numpy()
    (plain,) = volumetric([x], 0.2)
    # Powers of two and their sums are exact, so no distance changes side.
    shifted, scaled = x + np.array([2.0, 2, 2, 0]), x * np.array([4.0, 4, 4, 1])
    for other, radius in ((shifted, 0.2), (scaled, 0.8)):
        (moved,) = volumetric([other], radius)
        assert all(torch.equal(a, b) for a, b in zip(plain, moved, strict=True))
        near(
            *(contents(torch.from_numpy(p)[None], collate([g]), r)[0] for p, g, r in ((x, plain, 0.2), (other, moved, radius)))
        )
    centres = [contents(torch.from_numpy(p)[None], collate([plain]), 0.2)[1] for p in (x, shifted)]
    near(centres[0] + 2, centres[1])


def test_groups_are_made_once_and_turn_with_the_cloud():
    x, net = clouds(), encoder()
    matrix = rotation(torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64))
    groups = net.group(marked(x))
    straight, round_ = net.tokenize(x, groups), net.tokenize(turned(x, matrix), groups)
    near(round_.patches[..., :3], straight.patches[..., :3] @ matrix.T)
    near(round_.centres, straight.centres @ matrix.T)
    assert torch.equal(round_.patches[..., 3:], straight.patches[..., 3:])


def test_centres_keep_their_distance_and_leave_no_point_alone():
    points = clouds()[0, :3].T
    for overlap in (0.3, 0.5, 0.72):
        reach = 2 * 0.1 * overlap
        centres = points[thin(points.numpy(), 0.1, overlap, most=len(points))]
        gaps = (centres[:, None] - centres).norm(dim=-1) + 9 * torch.eye(len(centres))
        assert gaps.min() >= reach
        assert (points[:, None] - centres).norm(dim=-1).amin(1).max() < reach


def test_a_point_at_just_the_radius_is_outside():
    (patches,) = volumetric([np.array([[0.0, 0, 0], [1, 0, 0], [0, 0.5, 0]])], 1.0, size=4)
    assert patches.centre.tolist() == [0]
    assert patches.members[0, : patches.filled[0]].tolist() == [0, 2]


def test_a_cloud_without_points_has_no_tokens():
    empty, other = volumetric([np.empty((0, 4)), clouds()[0].T.numpy()], 0.1, size=8)
    groups = collate([empty, other])
    assert groups.valid.sum(1).tolist()[0] == 0
    assert collate([empty]).members.shape == (1, 0, 8)


def test_more_tokens_than_there_are_places_are_refused():
    with pytest.raises(TacitError, match="raise the context length or the radius"):
        collate(volumetric([clouds()[0].T.numpy()], 0.05), places=2)
    with pytest.raises(TacitError, match="raise the context or the radius"):
        encoder(context=2)(marked(clouds()))


def test_the_number_of_tokens_follows_the_size_of_the_cloud():
    """The third small-scale claim's other half: a walk through space covers more of it the longer it is."""
    counts, lengths = [], range(200, 1200, 100)
    for length in lengths:
        steps = Draws(1, 0, torch.arange(length)).normal("steps", 3).double() * 0.01
        counts.append(len(volumetric([steps.cumsum(0).numpy()], 0.05)[0].centre))
    assert np.corrcoef(counts, list(lengths))[0, 1] > 0.9


# The encoder ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["masked_batch", "token"])
@pytest.mark.parametrize("relative_bias", ["none", "distance"])
def test_what_is_not_kept_costs_nothing_and_changes_nothing(norm, relative_bias):
    """Leaving the hidden tokens out is the same as looking past them."""
    x, net = clouds(), encoder(norm=norm, relative_bias=relative_bias)
    tokens = net.tokenize(x, net.group(marked(x)))
    uniform = Draws(0, 0, torch.arange(3)).uniform("mask", tokens.valid.shape[1])
    _, seen = hide_tokens(uniform, tokens.valid.sum(1), 0.6)
    keep = places(seen)
    kept = net.attend(tokens, keep).tokens
    assert kept.shape[1] == seen.sum(1).max() < tokens.valid.shape[1]
    all_ = net.trunk(tokens.embedded, net.pos_embed(tokens.centres), seen, net.bias(tokens.centres)).tokens
    near(put_back(kept, keep, seen.shape[1])[seen], all_[seen])


def test_changing_hidden_patches_changes_no_visible_feature():
    """In evaluation, where the tokenizer's batch-norm is fixed."""
    x, net = clouds(), encoder().eval()
    groups = net.group(marked(x))
    hidden, seen = hide_tokens(
        torch.rand(groups.valid.shape, generator=torch.Generator().manual_seed(0)), groups.valid.sum(1), 0.6
    )
    before = net.tokenize(x, groups)
    patches = torch.where(hidden[..., None, None], before.patches + 3, before.patches)
    rows = net.tokenizer(patches[before.valid], before.point_mask[before.valid])
    after = before._replace(embedded=torch.zeros_like(before.embedded).masked_scatter(before.valid[..., None], rows))
    assert not torch.equal(after.embedded[hidden], before.embedded[hidden])
    keep = places(seen)
    assert torch.equal(net.attend(after, keep).tokens, net.attend(before, keep).tokens)


@pytest.mark.parametrize("norm", ["masked_batch", "token"])
def test_padding_and_the_order_of_the_batch_mean_nothing(norm):
    x, net = clouds(), encoder(norm=norm, relative_bias="distance")
    plain = net(marked(x))
    wider = net(marked(torch.nn.functional.pad(x, (0, 30), value=7.0)))
    near(wider.pooled, plain.pooled)
    turn = torch.tensor([2, 0, 1])
    other = net(marked(x[turn], SIZES[turn]))
    near(other.pooled, plain.pooled[turn])
    near(other.tokens, plain.tokens[turn])


def test_a_cloud_depends_on_its_batch_only_where_the_norm_says_so():
    x = clouds()
    for norm, same in (("masked_batch", False), ("token", True)):
        net = encoder(norm=norm).eval()
        assert torch.allclose(net(marked(x[:1], SIZES[:1])).pooled, net(marked(x)).pooled[:1]) == same


def test_a_cloud_is_the_mean_of_its_own_tokens_and_their_maximum_where_asked():
    x = clouds()
    net = encoder(norm="token", pool="mean+max").eval()
    seen, valid = net(marked(x)), net.group(marked(x)).valid
    assert not valid.all()  # else no cloud would have places without a token
    own = [tokens[there] for tokens, there in zip(seen.tokens, valid, strict=True)]
    near(seen.pooled, torch.stack([torch.cat([tokens.mean(0), tokens.amax(0)]) for tokens in own]))
    assert seen.pooled.shape[1] == net.width == 2 * net.token_width
    near(seen.tokens.mean(1), seen.pooled[:, : net.token_width])
    with pytest.raises(TacitError, match="pool"):
        encoder(pool="sum")


def test_taps_attention_and_levels():
    x, net = clouds(), encoder()
    out = net(marked(x), taps=["blocks.0"], attention=True)
    assert out.attention is not None
    valid = net.group(marked(x)).valid
    near(out.attention.sum(-1)[:, 0][valid], torch.ones(int(valid.sum()), dtype=torch.float64))
    assert not out.attention.transpose(2, 3)[~valid[:, None].expand(-1, 4, -1)].any()
    assert out.taps["blocks.0"].shape == out.tokens.shape
    near(out.tokens, net(marked(x)).tokens)
    assert net.level("trunk.blocks.1.attn.qkv.weight") == 2
    assert net.level("tokenizer.first.fc1.weight") == net.level("pos_embed.0.bias") == 0
    assert net.grid([60]) == (60,)
    with pytest.raises(TacitError, match="tap"):
        net(marked(x), taps=["blocks.9"])


def test_positions_are_added_before_every_block():
    """Mutation: positions added once."""
    trunk = RaggedTransformer(8, 2, 2, norm="token")
    for block in trunk.blocks:
        torch.nn.init.zeros_(block.get_parameter("attn.proj.weight"))
        torch.nn.init.zeros_(block.get_parameter("mlp.fc2.weight"))
    x, positions = torch.zeros(1, 3, 8), torch.ones(1, 3, 8)
    assert torch.equal(trunk(x, positions, torch.ones(1, 3, dtype=torch.bool)).tokens, 2 * positions)


def test_recomputed_activations_give_the_same_gradient():
    x, draws = clouds(), Draws(0, 0, torch.arange(3))
    gradients = []
    for recompute in (False, True):
        net = encoder(drop_path=0.3, dropout=0.2)
        net.recompute = recompute
        net(marked(x), draws=draws).pooled.square().sum().backward()
        gradients.append(net.trunk.get_parameter("blocks.0.attn.qkv.weight").grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("options", [{"relative_bias": "nearness"}, {"norm": "batch"}, {"depth": 0}, {"heads": 5}])
def test_impossible_encoders_are_refused(options):
    with pytest.raises(TacitError):
        encoder(**options)
    with pytest.raises(TacitError, match="3 coordinates"):
        PointTransformer(2, 0.1)


# Chance ---------------------------------------------------------------------------------------------------------------


def test_drops_are_drawn_per_token_and_keep_the_mean():
    draws = Draws(0, 0, torch.arange(400))
    x = drop_tokens(torch.ones(400, 10, 2), 0.25, draws, "x")
    assert x.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert torch.equal(x[..., 0], x[..., 1])
    assert not torch.equal(x[:, 0], x[:, 1])
    assert x.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(drop_tokens(x, 0.25, None, "x"), x)


def test_a_longer_batch_mate_changes_no_draw():
    draws = Draws(0, 0, torch.arange(3))
    assert torch.equal(_pairs(draws, 2, 9)[:, :, :4, :4], _pairs(draws, 2, 4))
    assert len(_pairs(draws, 2, 5).unique()) == 3 * 2 * 25
    assert torch.equal(
        drop_tokens(torch.ones(3, 9, 1), 0.5, draws, "x")[:, :4], drop_tokens(torch.ones(3, 4, 1), 0.5, draws, "x")
    )


def test_dropout_acts_on_the_weights_and_only_with_draws():
    x, attention = torch.randn(50, 6, 8), RaggedAttention(8, 2, dropout=0.3)
    plain, weights = attention.with_map(x)
    torch.testing.assert_close(attention(x), plain)
    dropped, same = attention.with_map(x, None, Draws(0, 0, torch.arange(50)))
    assert torch.equal(weights, same)
    assert not torch.allclose(dropped, plain)
    assert torch.equal(attention(x, None, Draws(0, 0, torch.arange(50))), dropped)


# Norms and heads ------------------------------------------------------------------------------------------------------


def test_a_constant_comes_out_of_the_masked_norm_as_its_shift():
    norm = BatchLayerNorm(5)
    torch.nn.init.normal_(norm.bias)
    x, mask = torch.full((2, 3, 5), 4.0), torch.tensor([[True, True, False], [True, False, False]])
    x[~mask] = 9
    near(norm(x, mask)[mask], norm.bias.expand(3, 5))


def test_padding_comes_out_of_the_batch_norm_as_its_shift():
    norm = MaskedBatchNorm(3)
    torch.nn.init.normal_(norm.bias)
    mask = torch.tensor([[True, False], [True, True]])
    for mode in (True, False):
        near(norm.train(mode)(torch.randn(2, 2, 3), mask)[~mask], norm.bias[None])


def test_nothing_to_normalise_is_no_error():
    norm, net = MaskedBatchNorm(3), PointNet(3, 4, (5, 6))
    assert norm(torch.randn(2, 2, 3), torch.zeros(2, 2, dtype=torch.bool)).isfinite().all()
    assert norm.running_var.isfinite().all()
    assert net(torch.randn(0, 4, 3), torch.ones(0, 4, dtype=torch.bool)).shape == (0, 4)
    assert BatchLayerNorm(3)(torch.randn(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool)).isfinite().all()


def test_a_cloud_without_a_visible_token_gives_numbers():
    trunk = RaggedTransformer(8, 2, 2)
    x = torch.randn(2, 3, 8, requires_grad=True)
    out = trunk(x, torch.zeros(2, 3, 8), torch.tensor([[False] * 3, [True] * 3])).tokens
    out[1].sum().backward()
    assert out.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_the_tokenizer_is_in_float32_under_autocast():
    net, points, mask = PointNet(4, 6, (5, 6)), torch.randn(3, 4, 4), torch.ones(3, 4, dtype=torch.bool)
    plain = net.eval()(points, mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(points, mask), plain)


def test_the_order_of_slots_means_something_to_the_ordered_net_alone():
    points, mask, back = torch.randn(3, 5, 3).double(), torch.ones(3, 5, dtype=torch.bool), torch.tensor([4, 3, 2, 1, 0])
    for ordered in (False, True):
        net = PointNet(3, 6, (5, 6), ordered).double().eval()
        assert torch.allclose(net(points, mask), net(points[:, back], mask)) == (not ordered)


def test_chamfer_knows_no_order_and_no_prediction_beyond_the_length():
    x, y, lengths = torch.randn(3, 6, 4).double().requires_grad_(), torch.randn(3, 6, 4).double(), torch.tensor([6, 1, 4])
    loss = ragged_chamfer(x, y, lengths)
    near(ragged_chamfer(x[:1], y[:1].flip(1), lengths[:1]), loss[:1])
    gradient = torch.autograd.grad(loss.sum(), x)[0]
    assert not gradient[1, 1:].any()
    assert not gradient[2, 4:].any()
    assert gradient[0].abs().sum(-1).all()
    assert ragged_chamfer(x.bfloat16(), y.bfloat16(), lengths).dtype == torch.float32


# Views ----------------------------------------------------------------------------------------------------------------


def test_hidden_and_seen_tokens_are_all_of_them():
    lengths = torch.tensor([1, 4, 10, 0])
    hidden, seen = hide_tokens(torch.rand(4, 10, generator=torch.Generator().manual_seed(0)), lengths, 0.6)
    assert not (hidden & seen).any()
    assert (hidden | seen).sum(1).tolist() == lengths.tolist()
    assert hidden.sum(1).tolist() == [0, 2, 6, 0]
    assert places(seen).shape == (4, 4)
    assert places(seen)[3].tolist() == [-1] * 4


def test_what_is_put_back_lies_where_it_was_taken():
    seen = torch.tensor([[True, False, True], [False, False, True]])
    keep = places(seen)
    assert keep.tolist() == [[0, 2], [2, -1]]
    out = put_back(torch.tensor([[[1.0], [2.0]], [[3.0], [9.0]]]), keep, 3)
    assert out[..., 0].tolist() == [[1, 0, 2], [0, 0, 3]]


def test_turns_keep_lengths_and_handedness_and_leave_features_alone():
    euler = angles(Draws(0, 0, torch.arange(3)).uniform("turn", 3)).double()
    matrix = rotation(euler)
    near(matrix @ matrix.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(3, 3, 3))
    near(torch.linalg.det(matrix), torch.ones(3, dtype=torch.float64))
    x = clouds()
    out = turned(x, matrix)
    near(out[1], turned(x[1:2], matrix[1])[0])
    assert torch.equal(out[:, 3:], x[:, 3:])
    quarter = rotation(torch.tensor([math.pi / 2, 0, 0], dtype=torch.float64))
    near(quarter @ torch.tensor([0.0, 1, 0]).double(), torch.tensor([0.0, 0, 1]).double())


def test_angles_fill_the_circle_or_a_grid():
    uniform = torch.linspace(0, 1, 1001)[:-1]
    assert angles(uniform).min() == -torch.pi
    assert angles(uniform).max() < torch.pi
    grid = angles(uniform, step=90).unique()
    near(grid, torch.tensor([-math.pi, -math.pi / 2, 0, math.pi / 2]), 1e-6)


def test_placing_leaves_features_alone():
    x = clouds()
    out = placed(x, torch.tensor([1.0, 2, 3]), 0.5)
    near(out[:, :3], (x[:, :3] - torch.tensor([1.0, 2, 3]).double()[:, None]) / 2)
    assert torch.equal(out[:, 3:], x[:, 3:])


# Ranks ----------------------------------------------------------------------------------------------------------------


def share(rank: int, ranks: int) -> list[Tensor]:
    """What one rank makes of its clouds, of which there are unequally many points: the loss, two gradients, the moments."""
    x, net = clouds(), encoder()
    mine = slice(None) if ranks == 1 else [slice(0, 2), slice(2, 3)][rank]
    tokens = net.tokenize(x[mine], net.group(marked(x[mine], SIZES[mine])))
    out = net.attend(tokens).tokens[tokens.valid]
    count = distributed.total(torch.tensor(float(len(out)), dtype=torch.float64))
    loss = out.tanh().sum() * ranks / count
    inner = net.tokenizer.second.norm
    gradients = torch.autograd.grad(loss, [net.tokenizer.first.fc1.weight, net.pos_embed.get_parameter("0.weight")])
    means = [distributed.mean(each) for each in (loss, *gradients)]
    return [*means, inner.running_mean, inner.running_var]


def on_a_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(share(rank, 2), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_statistics_and_gradients_of_two_ranks_are_those_of_one(tmp_path):
    mp.spawn(on_a_rank, args=(str(tmp_path),), nprocs=2)
    alone = share(0, 1)
    for rank in range(2):
        for one, both in zip(alone, torch.load(tmp_path / f"{rank}.pt", weights_only=True), strict=True):
            near(both, one.detach(), 1e-9)
