"""Channel-wise encoding and channel-wise views against slow float64 loops written from the card."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.core.draws import Draws
from tacit.nn.channel_vit import ChannelViT, of_true_channels
from tacit.nn.masked_blocks import PostNormBlock
from tacit.objectives.distil import cross_view, sharpen
from tacit.views.channels import discard, jitter, present, shuffle

quick = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 10_000)


def uniform(*shape: int, seed: int = 0, name: str = "u") -> torch.Tensor:
    return Draws(seed, 0, torch.arange(shape[0])).uniform(name, *shape[1:]).double()


def images(counts: list[int], channels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in [0, 1) that are padded with zeros, and which of their channels are true."""
    there = present(torch.tensor(counts), channels)
    return uniform(len(counts), channels, 3, 2, seed=seed, name="image").where(there[..., None, None], 0), there


# Encoder


def norm_by_hand(rows, norm):
    out = []
    for row in rows:
        mean = sum(row) / len(row)
        variance = sum((value - mean) ** 2 for value in row) / len(row)
        scale = 1 / math.sqrt(variance + norm.eps)
        out.append([(v - mean) * scale * g + b for v, g, b in zip(row, norm.weight.tolist(), norm.bias.tolist(), strict=True)])
    return out


def linear_by_hand(rows, layer):
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [[sum(w * v for w, v in zip(ws, row, strict=True)) + b for ws, b in zip(weight, bias, strict=True)] for row in rows]


def plus(a, b):
    return [[x + y for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]


def attend_by_hand(rows, attention, may):
    width, size = len(rows[0]), len(rows[0]) // attention.heads
    both = linear_by_hand(rows, attention.qkv)
    out = []
    for i, query in enumerate(both):
        row = []
        for head in range(attention.heads):
            q = query[head * size : (head + 1) * size]
            keys = [j for j in range(len(rows)) if may(i, j)]
            k = [both[j][width + head * size : width + (head + 1) * size] for j in keys]
            scores = [math.exp(sum(a * b for a, b in zip(q, each, strict=True)) / math.sqrt(size)) for each in k]
            for d in range(size):
                at = 2 * width + head * size + d
                row.append(sum(s * both[j][at] for s, j in zip(scores, keys, strict=True)) / sum(scores))
        out.append(row)
    return linear_by_hand(out, attention.proj)


def encode_by_hand(model: ChannelViT, image: torch.Tensor):
    """One image `[C, H, W]`, without any padding: the class token and the patch tokens."""
    p, weight, bias = model.patch_embed.patch, model.patch_embed.proj.weight[:, 0], model.patch_embed.proj.bias
    assert bias is not None
    places = model.pos_embed[0]
    rows, spots = [(model.cls_token[0, 0] + places[0]).tolist()], [-1]
    for c, channel in enumerate(image):
        spot = 0
        for top in range(0, channel.shape[0] - p + 1, p):
            for left in range(0, channel.shape[1] - p + 1, p):
                token = (weight * channel[top : top + p, left : left + p]).sum((1, 2)) + bias + places[1 + spot]
                if model.channel_token is not None:
                    token = token + model.channel_token[0, c, 0]
                rows.append(token.tolist())
                spots.append(spot)
                spot += 1

    def may(i, j):
        return model.attend == "all" or i == 0 or j == 0 or spots[i] == spots[j]

    for block in model.blocks:
        assert isinstance(block, PostNormBlock)
        normed = norm_by_hand(rows, block.norm1)
        rows = norm_by_hand(plus(rows, attend_by_hand(normed, block.attn, may)), block.norm1)
        hidden = [[max(value, 0.0) for value in row] for row in linear_by_hand(rows, block.mlp.fc1)]
        rows = norm_by_hand(plus(rows, linear_by_hand(hidden, block.mlp.fc2)), block.norm2)
    rows = norm_by_hand(rows, model.norm)
    return rows[0], rows[1:]


@pytest.mark.parametrize("attend", ["all", "channels"])
@pytest.mark.parametrize("slots", [True, False])
def test_a_padded_batch_is_its_images_one_by_one(attend, slots):
    """Mutations: the mask inverted or shifted by one; patch-major tokens; slots on the class token; two norms for one; GELU."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ChannelViT(1, (4, 4, 6), 2, 8, 2, 2, hidden=6, attend=attend, channel_token=slots).double()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.3 * torch.randn(weight.shape))
    counts = [2, 3, 1]
    x = uniform(3, 3, 4, 6, name="pixels")
    there = present(torch.tensor(counts), 3)
    said = model(torch.stack([x, there[..., None, None].expand_as(x).to(x)], dim=1))
    rows = iter(of_true_channels(said.tokens, there))
    for image, count, pooled in zip(x, counts, said.pooled, strict=True):
        cls, tokens = encode_by_hand(model, image[:count])
        torch.testing.assert_close(pooled, pooled.new_tensor(cls), rtol=0, atol=1e-10)
        for token in tokens:
            torch.testing.assert_close(next(rows), pooled.new_tensor(token), rtol=0, atol=1e-10)
    assert next(rows, None) is None


# Objective


@quick
@given(st.integers(1, 4), st.integers(2, 6), seeds)
def test_two_views_that_teach_each_other_are_cross_view(rows, count, seed):
    """`L = (mean_b -sum q1 log p2 + mean_b -sum q2 log p1) / 2`. Mutation: student and teacher paired on the same view."""

    def softmax(row, temperature):
        exps = [math.exp(value / temperature) for value in row]
        return [value / sum(exps) for value in exps]

    def half(teacher, student):
        terms = []
        for z, s in zip(teacher, student, strict=True):
            q = softmax([a - b for a, b in zip(z, center[0].tolist(), strict=True)], 0.05)
            terms.append(-sum(a * math.log(b) for a, b in zip(q, softmax(s, 0.1), strict=True)))
        return sum(terms) / rows

    s, z = uniform(2 * rows, count, seed=seed, name="s"), uniform(2 * rows, count, seed=seed, name="z")
    center = uniform(1, count, seed=seed, name="c")
    expected = (half(z[:rows].tolist(), s[rows:].tolist()) + half(z[rows:].tolist(), s[:rows].tolist())) / 2
    assert cross_view(s, sharpen(z, center, 0.05), 0.1, views=2).item() == pytest.approx(expected, abs=1e-9)


# Views


@quick
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.floats(0, 0.5), st.floats(0, 0.9), seeds)
def test_jitter_is_its_twin(counts, shift, gain, seed):
    """Mutations: the factor before the summand; a power; no clamp; one number for all channels; padding made grey."""
    image, there = images(counts, 4, seed)
    given_numbers = uniform(len(counts), 4, 2, seed=seed)
    ours = jitter(image, there, given_numbers, shift, gain)
    for b, count in enumerate(counts):
        for c in range(4):
            delta = -shift + 2 * shift * given_numbers[b, c, 0].item()
            gamma = 1 - gain + 2 * gain * given_numbers[b, c, 1].item()
            for value, before in zip(ours[b, c].flatten().tolist(), image[b, c].flatten().tolist(), strict=True):
                expected = min(max(gamma * (before + delta), 0.0), 1.0) if c < count else 0.0
                assert value == pytest.approx(expected, abs=1e-12)


def test_jitter_without_strength_changes_nothing():
    image, there = images([3, 1], 3)
    assert torch.equal(jitter(image, there, uniform(2, 3, 2), 0, 0), image)


def test_the_published_strength_is_the_default():
    """Shifts up to 0.3 either way, gains from 0.5 to 1.5."""
    image, there = torch.full((1, 2, 1, 1), 0.4, dtype=torch.float64), torch.ones(1, 2, dtype=torch.bool)
    least = jitter(image, there, torch.tensor([[[0.0, 0.0], [1.0, 1.0]]], dtype=torch.float64))
    torch.testing.assert_close(least.flatten(), torch.tensor([0.5 * 0.1, 1.0], dtype=torch.float64))
    edge = jitter(image, there, torch.tensor([[[0.5, 1.0], [1.0, 0.5]]], dtype=torch.float64))
    torch.testing.assert_close(edge.flatten(), torch.tensor([1.5 * 0.4, 0.7], dtype=torch.float64))


@quick
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), seeds)
def test_discard_is_its_twin(counts, seed):
    """Mutations: two channels dropped for a draw of 2; the last channel dropped; one choice for the batch; no closing up."""
    image, there = images(counts, 4, seed)
    given_numbers = uniform(len(counts), 2, seed=seed)
    ours, left = discard(image, there, given_numbers)
    for b, count in enumerate(counts):
        n = math.floor(3 * given_numbers[b, 0].item())
        channels = list(image[b, :count])
        if n > 0 and count > 1:
            channels.pop(math.floor(count * given_numbers[b, 1].item()))
        assert left[b].tolist() == [c < len(channels) for c in range(4)]
        for c in range(4):
            assert torch.equal(ours[b, c], channels[c] if c < len(channels) else torch.zeros(3, 2).double())


@pytest.mark.parametrize("channels", range(2, 11))
def test_the_largest_number_below_one_names_the_last_channel(channels):
    there = torch.ones(1, channels, dtype=torch.bool)
    image = torch.arange(1.0, channels + 1)[None, :, None, None]
    ours, left = discard(image, there, torch.full((1, 2), 1 - 2**-24))
    assert ours.flatten().tolist() == [*range(1, channels), 0]
    assert left.sum() == channels - 1


def test_two_samples_in_three_lose_a_channel_and_each_is_lost_as_often():
    image = torch.arange(1.0, 4).double().expand(6000, 3)[..., None, None]
    ours, left = discard(image, torch.ones(6000, 3, dtype=torch.bool), uniform(6000, 2))
    fewer = ~left[:, 2]
    assert fewer.double().mean() == pytest.approx(2 / 3, abs=0.03)
    lost = 6 - ours.sum((1, 2, 3))[fewer]
    for channel in (1, 2, 3):
        assert (lost == channel).double().mean() == pytest.approx(1 / 3, abs=0.04)


@quick
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), seeds)
def test_shuffle_is_its_twin(counts, seed):
    """Mutation: padding mixed in among the channels."""
    image, there = images(counts, 4, seed)
    noise = uniform(len(counts), 4, seed=seed)
    ours, left = shuffle(image, there, noise)
    assert torch.equal(left, there)
    for b, count in enumerate(counts):
        order = sorted(range(count), key=lambda c: noise[b, c].item())
        for c in range(4):
            assert torch.equal(ours[b, c], image[b, order[c]] if c < count else torch.zeros(3, 2).double())


def test_a_channel_is_discarded_wherever_the_true_ones_lie():
    image = torch.arange(1.0, 6)[None, :, None, None]
    there = torch.tensor([[False, True, False, True, True]])
    ours, left = discard(image.where(there[..., None, None], 0), there, torch.tensor([[0.9, 0.5]]))
    assert ours.flatten().tolist() == [0, 2, 0, 5, 0]
    assert left.tolist() == [[False, True, False, True, False]]
    turned, _ = shuffle(image.where(there[..., None, None], 0), there, torch.tensor([[0.0, 0.9, 0.1, 0.5, 0.7]]))
    assert turned.flatten().tolist()[:3] == [4, 5, 2]
