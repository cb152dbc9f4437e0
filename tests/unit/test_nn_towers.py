"""CLIP's image towers: the norm in front, QuickGELU, dropped patches, pooling by attention, their first values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.nn.init import seeded
from tacit.nn.towers import (
    AttentionPool,
    ClipResNet,
    ClipVisionTransformer,
    SmoothBottleneck,
    patch_dropout,
    projection,
)


def normal(*shape: int, name: str = "x") -> torch.Tensor:
    return Draws(0, 0, torch.arange(shape[0])).normal(name, *shape[1:]).double()


def transformer(**options) -> ClipVisionTransformer:
    with seeded(0, "tower"):
        return ClipVisionTransformer(3, (16, 16), 4, width=32, depth=2, heads=2, **options).double()


def small_resnet(**options) -> ClipResNet:
    with seeded(0, "tower"):
        return ClipResNet(3, (64, 64), blocks=(1, 2, 1, 1), width=8, out=12, **options).double()


def test_the_norm_in_front_sees_positions_and_class_token():
    """Mutation: `ln_pre` missing."""
    tower = transformer()
    images = normal(2, 3, 16, 16)
    x = torch.cat([tower.cls_token.expand(2, -1, -1), tower.patch_embed(images)], dim=1) + tower.pos_embed
    for block in tower.blocks:
        x = block(tower.norm_pre(x) if block is tower.blocks[0] else x)
    torch.testing.assert_close(tower(images).pooled, tower.norm(x)[:, 0])
    assert tower.patch_embed.proj.bias is None
    assert tower.level("norm_pre.weight") == 0


def test_quick_gelu_changes_the_blocks_and_nothing_else():
    quick, exact = transformer(quick_gelu=True), transformer()
    quick.load_state_dict(exact.state_dict())
    x = normal(2, 5, 32)
    h = exact.blocks[0].mlp.fc1(x)
    torch.testing.assert_close(quick.blocks[0].mlp(x), exact.blocks[0].mlp.fc2(h / (1 + torch.exp(-1.702 * h))))
    torch.testing.assert_close(exact.blocks[0].mlp(x), exact.blocks[0].mlp.fc2(F.gelu(h)))


def test_patches_with_the_largest_scores_stay():
    scores = normal(3, 16)
    for rate, count in ((0.5, 8), (0.9, 1), (0.99, 1), (0.0, 16)):
        keep = patch_dropout(scores, rate)
        assert keep.shape == (3, count)
        for row, kept in zip(scores.tolist(), keep.tolist(), strict=True):
            assert set(kept) == set(sorted(range(16), key=lambda i: -row[i])[:count])


def test_a_dropped_patch_changes_nothing():
    tower, images = transformer(), normal(2, 3, 16, 16)
    keep = patch_dropout(normal(2, 16, name="scores"), 0.5)
    gradient = torch.autograd.grad(tower(images.requires_grad_(), keep=keep).pooled.square().sum(), images)[0]
    touched = F.avg_pool2d(gradient.abs().sum(1), 4).flatten(1) > 0
    assert [set(row.nonzero()[:, 0].tolist()) for row in touched] == [set(row) for row in keep.tolist()]


def test_images_of_another_size_are_served():
    tower = transformer()
    assert tower(normal(1, 3, 24, 32)).tokens.shape == (1, 48, 32)
    assert small_resnet()(normal(2, 3, 96, 64)).pooled.shape == (2, 12)


def test_first_values_of_the_transformer():
    with seeded(0, "tower"):
        tower = ClipVisionTransformer(3, (64, 64), 4, width=128, depth=2, heads=4)
    state = tower.state_dict()
    assert float(state["pos_embed"].std()) == pytest.approx(128**-0.5, rel=0.03)
    assert float(state["cls_token"].std()) == pytest.approx(128**-0.5, rel=0.3)
    assert float(state["blocks.1.attn.qkv.weight"].abs().max()) == pytest.approx((6 / (4 * 128)) ** 0.5, rel=0.01)
    assert float(state["blocks.1.attn.proj.weight"].abs().max()) == pytest.approx(128**-0.5, rel=0.01)
    assert (state["blocks.1.attn.qkv.bias"] == 0).all()
    assert (state["blocks.1.attn.proj.bias"] == 0).all()
    assert float(state["blocks.1.mlp.fc1.bias"].abs().max()) == pytest.approx(128**-0.5, rel=0.05)
    assert float(state["patch_embed.proj.weight"].abs().max()) == pytest.approx(48**-0.5, rel=0.01)
    with seeded(0, "projection"):
        assert float(projection(256, 64).weight.detach().std()) == pytest.approx(256**-0.5, rel=0.03)


@pytest.mark.parametrize(("heads", "side"), [(2, 3), (4, 2)])
def test_attention_pool_is_the_frameworks_attention(heads, side):
    pool, x = AttentionPool(8, heads, 5, (side, side)).double(), normal(3, 8, side, side)
    tokens = x.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + pool.positional_embedding[:, None]
    expected, _ = F.multi_head_attention_forward(
        tokens[:1],
        tokens,
        tokens,
        embed_dim_to_check=8,
        num_heads=heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
        need_weights=False,
    )
    torch.testing.assert_close(pool(x), expected[0])


@pytest.mark.parametrize(("inputs", "stride"), [(8, 2), (16, 2), (8, 1), (16, 1)])
def test_bottlenecks_pool_instead_of_striding(inputs, stride):
    block, x = SmoothBottleneck(inputs, 4, stride).double().eval(), normal(2, inputs, 6, 6)
    assert all(part.stride == (1, 1) for part in block.modules() if isinstance(part, nn.Conv2d))
    y = block.bn1(block.conv1(x)).relu()
    y = F.avg_pool2d(block.bn2(block.conv2(y)).relu(), stride)
    y = block.bn3(block.conv3(y))
    straight = stride == 1 and inputs == 16
    shortcut = x if straight else block.downsample[1](block.downsample[0](F.avg_pool2d(x, stride)))
    assert isinstance(block.downsample, nn.Identity) == straight
    torch.testing.assert_close(block(x), (y + shortcut).relu())


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 64), ("imagenet", 97), ("small", 33), ("small", 64)])
def test_tokens_of_the_network_are_the_cells_of_the_last_map(stem, side):
    tower = small_resnet(stem=stem).eval()
    seen = tower(normal(2, 3, side, side), taps=["layer4"])
    assert tuple(seen.taps["layer4"].shape[2:]) == tower.grid((side, side))
    assert torch.equal(seen.tokens, seen.taps["layer4"].flatten(2).transpose(1, 2))
    assert torch.equal(seen.pooled, tower.attnpool(seen.taps["layer4"]))


def test_the_published_network():
    with torch.device("meta"):
        tower = ClipResNet(3, (224, 224))
    assert sum(parameter.numel() for parameter in tower.parameters()) == 38_316_896
    assert tower.grid((224, 224)) == (7, 7)
    assert tower.attnpool.heads == 32


def test_first_values_of_the_network():
    tower = small_resnet()
    state = tower.state_dict()
    blocks = [name for name in state if name.endswith("bn3.weight") and name.startswith("layer")]
    assert len(blocks) == 5
    assert all((state[name] == 0).all() for name in blocks)
    for name in ("q_proj.weight", "k_proj.weight", "v_proj.weight", "c_proj.weight", "positional_embedding"):
        assert float(state[f"attnpool.{name}"].std()) == pytest.approx(256**-0.5, rel=0.15), name


def test_levels_of_the_network_rise_with_the_blocks():
    tower = small_resnet()
    names = ("conv1.weight", "layer1.0.conv1.weight", "layer2.1.bn1.bias", "layer4.0.conv3.weight", "attnpool.q_proj.bias")
    assert [tower.level(name) for name in names] == [0, 1, 3, 5, 6]


def test_mistakes_are_told():
    with pytest.raises(TacitError, match="shrink to nothing"):
        ClipResNet(3, (16, 16), width=8)
    with pytest.raises(TacitError, match="no tokens to hide"):
        small_resnet()(normal(1, 3, 64, 64), attention=True)
    with pytest.raises(TacitError, match="cannot be split into 3 heads"):
        AttentionPool(8, 3, 4, (2, 2))


def test_names_are_those_of_the_published_weights():
    names = set(small_resnet().state_dict())
    assert {"conv1.weight", "bn3.running_var", "layer2.1.conv2.weight", "layer1.0.downsample.0.weight"} <= names
    assert {"layer4.0.bn3.bias", "attnpool.positional_embedding", "attnpool.c_proj.weight"} <= names


def test_the_stem_is_three_convolutions_and_a_pool():
    tower, x = small_resnet().eval(), normal(2, 3, 64, 64)
    y = tower.bn1(F.conv2d(x, tower.conv1.weight, stride=2, padding=1)).relu()
    y = tower.bn2(F.conv2d(y, tower.conv2.weight, padding=1)).relu()
    y = tower.bn3(F.conv2d(y, tower.conv3.weight, padding=1)).relu()
    torch.testing.assert_close(tower.first_map(x), F.avg_pool2d(y, 2))
