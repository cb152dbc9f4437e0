"""Encoders for video, their decoder, and the queue: what they may see, what their options do, what they refuse."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.nn.c3d import C3D
from tacit.nn.heads3d import HEADS, map_head
from tacit.nn.init import seeded
from tacit.nn.queue import Queue, in_other_company, whole_batches
from tacit.nn.resnet3d import VARIANTS, ResNet3d, VideoConvNet
from tacit.nn.s3d import S3DG
from tacit.nn.spacetime import SpaceTimePositions, TubeletEmbed, tubelets, untubelets
from tacit.nn.video_decoder import VideoDecoder
from tacit.nn.video_vit import VideoTransformer

SIZE = (4, 8, 12)  # two slots of 2x3 tubelets of 2x4x4: 12 places


def small(**options) -> VideoTransformer:
    with seeded(0, "encoder"):
        return VideoTransformer(3, SIZE, 2, 4, **{"width": 16, "depth": 3, "heads": 4, **options}).double()


def clips(*shape: int) -> torch.Tensor:
    return Draws(0, 0, torch.arange(shape[0])).normal("clips", *shape[1:]).double()


def order(rows: int, places: int, count: int) -> torch.Tensor:
    return Draws(3, 0, torch.arange(rows)).permutation("keep", places)[:, :count]


X = clips(3, 3, *SIZE)

# The transformer


def test_changing_a_hidden_pixel_changes_no_visible_feature():
    model, keep = small(), order(3, 12, 4)
    hidden = torch.ones(3, 12, dtype=torch.bool).scatter(1, keep, False)
    changed = untubelets(tubelets(X, 2, 4).masked_fill(hidden[..., None], 1e3), 2, 4, (2, 2, 3))
    assert torch.equal(model(X, keep=keep).tokens, model(changed, keep=keep).tokens)


@pytest.mark.parametrize("options", [{}, {"positions": "joint"}, {"class_token": False}])
def test_places_keep_their_own_positions_in_any_order(options):
    """Mutation: positions by rank instead of by place."""
    model, keep = small(**options), order(3, 12, 5)
    seen = model(X, keep=keep)
    torch.testing.assert_close(model(X, keep=keep.flip(1)).tokens, seen.tokens.flip(1))
    torch.testing.assert_close(seen.pooled, seen.tokens.mean(1))
    torch.testing.assert_close(model(X, keep=torch.arange(12).expand(3, -1)).tokens, model(X).tokens)


def test_the_embedding_is_a_convolution_and_reads_what_is_kept():
    embed, keep = TubeletEmbed(3, 5, 2, 4).double(), order(3, 12, 5)
    rows = F.conv3d(X, embed.proj.weight, embed.proj.bias, stride=(2, 4, 4)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(X), rows)
    torch.testing.assert_close(embed(X, keep), rows.gather(1, keep[..., None].expand(-1, -1, 5)))
    torch.testing.assert_close(embed(F.pad(X, (0, 3, 0, 1, 0, 1))), rows)


def test_positions_are_a_slot_and_a_place_each():
    """Mutation: the table of slots repeated the wrong way round."""
    positions = SpaceTimePositions(4, (2, 2, 3)).double()
    nn.init.normal_(positions.spatial, generator=torch.Generator().manual_seed(0))
    nn.init.normal_(positions.temporal, generator=torch.Generator().manual_seed(1))
    table = positions((2, 2, 3))
    for slot in range(2):
        for place in range(6):
            assert torch.equal(table[slot * 6 + place], positions.spatial[0, place] + positions.temporal[0, slot])


@pytest.mark.parametrize("joint", [False, True])
def test_positions_of_larger_frames_are_bicubic_within_each_slot(joint):
    positions = SpaceTimePositions(4, (2, 2, 3), joint=joint).double()
    for number, table in enumerate(positions.parameters()):
        nn.init.normal_(table, generator=torch.Generator().manual_seed(number))
    before, after = positions((2, 2, 3)).unflatten(0, (2, 2, 3)), positions((2, 4, 5)).unflatten(0, (2, 4, 5))
    expected = F.interpolate(before.permute(0, 3, 1, 2), size=(4, 5), mode="bicubic", align_corners=False)
    torch.testing.assert_close(after, expected.permute(0, 2, 3, 1))


def test_frames_of_another_size_are_served_and_other_lengths_refused():
    model = small()
    assert model(clips(2, 3, 4, 16, 8)).tokens.shape == (2, 2 * 4 * 2, 16)
    with pytest.raises(TacitError, match="3 time slots"):
        model(clips(1, 3, 6, 8, 12))
    with pytest.raises(TacitError, match="no tubelet"):
        model(clips(1, 3, 4, 3, 12))


def test_what_is_pooled_tapped_and_shown_is_as_asked_for():
    seen = small()(X, taps=["blocks.0", "blocks.2"], attention=True)
    assert set(seen.taps) == {"blocks.0", "blocks.2"}
    torch.testing.assert_close(small().norm(seen.taps["blocks.2"])[:, 1:], seen.tokens)
    torch.testing.assert_close(seen.attention.sum(-1), torch.ones(3, 4, 13, dtype=torch.float64))
    by_class = small(pool="cls")(X)
    assert torch.equal(by_class.pooled, by_class.prefix[:, 0])
    assert small(class_token=False)(X).prefix is None
    with pytest.raises(TacitError, match="pool"):
        small(class_token=False, pool="cls")
    with pytest.raises(TacitError, match="positions"):
        small(positions="sincos")
    with pytest.raises(TacitError, match="tap"):
        small()(X, taps=["blocks.3"])


def test_computing_anew_changes_no_gradient():
    kept, anew = small(drop_path=0.3), small(drop_path=0.3)
    anew.recompute = True
    draws = Draws(0, 0, torch.arange(3))
    for model in (kept, anew):
        model(X, draws=draws).tokens.square().sum().backward()
    for one, other in zip(kept.parameters(), anew.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert not torch.equal(kept(X).tokens, kept(X, draws=draws).tokens)


def test_first_values_are_the_published_ones():
    with seeded(0, "large"):
        model = VideoTransformer(3, (4, 64, 64), 2, 8, width=96, depth=2, heads=4)
        decoder = VideoDecoder(96, 64, 1, 4, (2, 8, 8), 384)
    assert float(model.blocks[0].attn.qkv.weight.detach().abs().max()) == pytest.approx(math.sqrt(6 / 192), rel=1e-2)
    assert float(model.patch_embed.proj.weight.detach().abs().max()) == pytest.approx(math.sqrt(6 / (96 + 384)), rel=1e-2)
    for table in (model.pos_embed.spatial, decoder.pos_embed.spatial):
        assert float(table.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(model.cls_token.detach().std()) == pytest.approx(0.02, rel=0.3)
    assert float(decoder.mask_token.detach().std()) == pytest.approx(0.02, rel=0.3)
    assert not decoder.cls_token.any()
    assert not model.blocks[1].mlp.fc1.bias.any()
    assert model.patch_embed.proj.bias.any()


def test_levels_rise_with_the_blocks():
    names = (
        "patch_embed.proj.weight",
        "pos_embed.temporal",
        "cls_token",
        "blocks.0.norm1.bias",
        "blocks.2.mlp.fc1.bias",
        "norm.bias",
    )
    model = small()
    assert [model.level(name) for name in names] == [0, 0, 0, 1, 3, 4]
    assert set(names) <= set(model.state_dict())


def test_the_decoder_puts_every_place_back():
    """Mutations: hidden tokens placed but not put back; the class token left among the predictions."""
    decoder, latent = VideoDecoder(16, 8, 1, 2, (2, 2, 3), 10).double(), clips(3, 4, 16)
    keep = order(3, 12, 4)
    rest = torch.stack([torch.tensor([i for i in range(12) if i not in row]) for row in keep.tolist()])
    prediction = decoder(latent, torch.cat([keep, rest], dim=1).argsort(dim=1))
    x = torch.zeros(3, 12, 8, dtype=torch.float64)
    for row, places in enumerate(keep.tolist()):
        for place in range(12):
            own = decoder.embed(latent[row, places.index(place)]) if place in places else decoder.mask_token[0, 0]
            x[row, place] = own + decoder.pos_embed.spatial[0, place % 6] + decoder.pos_embed.temporal[0, place // 6]
    x = torch.cat([(decoder.cls_token + decoder.pos_embed.cls).expand(3, -1, -1), x], dim=1)
    torch.testing.assert_close(prediction, decoder.pred(decoder.norm(decoder.blocks[0](x)))[:, 1:])
    plain = VideoDecoder(16, 8, 1, 2, (2, 2, 3), 10, class_token=False).double()
    assert plain(latent, torch.arange(12).expand(3, -1)).shape == (3, 12, 10)


# The convolutional ones


NETS = {
    **{name: lambda stem, shape=shape: ResNet3d(3, **shape._asdict(), stem=stem) for name, shape in VARIANTS.items()},
    "c3d": lambda _: C3D(3),
    "s3dg": lambda _: S3DG(3),
}


@cache
def published(name: str, stem: str = "full") -> VideoConvNet:
    """A network of full size, without weights."""
    with torch.device("meta"):
        return NETS[name](stem).eval()


@pytest.mark.parametrize("extent", [(16, 112, 112), (17, 65, 90)])
@pytest.mark.parametrize(("name", "stem"), [*((name, "full") for name in NETS), ("r3d-mini", "small"), ("r2plus1d", "small")])
def test_tokens_are_the_cells_of_the_last_map(name, stem, extent):
    model = published(name, stem)
    seen = model(torch.empty(2, 3, *extent, device="meta"), taps=list(model.counts))
    last = seen.taps[list(model.counts)[-1]]
    assert last.shape == (2, model.width, *model.grid(extent))
    assert seen.tokens.shape == (2, math.prod(model.grid(extent)), model.width)
    assert seen.pooled.shape == (2, model.width)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_full_sizes_are_the_published_ones():
    assert [published(name).width for name in ("r3d18", "r2plus1d", "c3d", "s3dg")] == [512, 512, 512, 1024]
    stem = 3 * 64 * 7**3 + 128
    stages, inputs = 0, 64
    for stage, width in enumerate((64, 128, 256, 512)):
        stages += 27 * (inputs * width + 3 * width * width) + 4 * 2 * width + (inputs * width + 2 * width if stage else 0)
        inputs = width
    assert count(published("r3d18")) == stem + stages == 33_203_904
    widths = (3, 64, 128, 256, 256, 512, 512, 512, 512)
    assert count(published("c3d")) == sum(27 * a * b + 2 * b for a, b in pairwise(widths))
    factored = published("r2plus1d").get_submodule("layer2.0.conv2")
    assert count(factored) == pytest.approx(27 * 128 * 128, rel=0.01)


@pytest.mark.parametrize(
    ("name", "extent", "grid"),
    [
        ("c3d", (16, 112, 112), (2, 7, 7)),
        ("r3d18", (16, 112, 112), (1, 4, 4)),
        ("r2plus1d", (16, 112, 112), (2, 7, 7)),
        ("s3dg", (16, 224, 224), (2, 7, 7)),
    ],
)
def test_last_maps_of_published_clips(name, extent, grid):
    """Mutation: the first pool of C3D halves time, too."""
    assert published(name).grid(extent) == grid


def test_tokens_are_time_major_and_their_mean_is_pooled():
    with seeded(0, "net"):
        model = ResNet3d(2, (1, 1), widths=(4, 6), stem="small").eval()
    seen = model(clips(2, 2, 6, 12, 8).float(), taps=["layer2"])
    map_ = seen.taps["layer2"]
    assert map_.shape == (2, 6, *model.grid((6, 12, 8)))
    _, _, t, h, w = map_.shape
    for place in range(t * h * w):
        assert torch.equal(seen.tokens[:, place], map_[:, :, place // (h * w), place // w % h, place % w])
    torch.testing.assert_close(seen.pooled, map_.mean((2, 3, 4)))


TINY = {
    "r3d": lambda norm: ResNet3d(3, (1, 1), widths=(8, 12), stem="small", norm=norm),
    "r2plus1d": lambda norm: ResNet3d(3, (1, 1), True, widths=(8, 12), stem="small", norm=norm),
    "c3d": lambda norm: C3D(3, 1 / 64, norm=norm),
    "s3dg": lambda norm: S3DG(3, 1 / 16, norm=norm),
}


@pytest.mark.parametrize("name", TINY)
def test_no_sample_learns_of_another_with_group_norm(name):
    x = clips(3, 3, 16, 32, 32)
    with seeded(0, "net"):
        grouped, batched = TINY[name]("group").double(), TINY[name]("batch").double()
    alone = torch.cat([grouped(row[None]).pooled for row in x])
    torch.testing.assert_close(grouped(x).pooled, alone)
    assert not torch.allclose(batched(x).pooled[:1], batched(x[:2]).pooled[:1], atol=1e-3)
    assert batched.eval()(x).pooled.isfinite().all()


def test_levels_of_convolutional_networks():
    nets = {name: published(name) for name in NETS}
    assert [nets["r3d18"].level(name) for name in ("stem.conv1.weight", "layer1.0.bn1.bias", "layer4.1.conv2.weight")] == [
        0,
        1,
        8,
    ]
    assert [nets["c3d"].level(name) for name in ("conv1.0.weight", "conv5b.1.bias")] == [1, 8]
    assert [
        nets["s3dg"].level(name) for name in ("stem.0.0.weight", "mixed_3b.branch0.0.0.weight", "mixed_5c.branch3.2.fc.bias")
    ] == [
        0,
        1,
        9,
    ]
    for model in nets.values():
        assert {model.level(name) for name in model.state_dict()} <= set(range(model.depth + 1))


def test_what_convolutional_networks_cannot_is_refused():
    model, x = ResNet3d(1, (1,), widths=(4,)), torch.zeros(1, 1, 4, 8, 8)
    for wish in ({"keep": torch.zeros(1, 2, dtype=torch.int64)}, {"attention": True}):
        with pytest.raises(TacitError, match="take a transformer"):
            model(x, **wish)
    with pytest.raises(TacitError, match="layer1"):
        model(x, taps=["layer2"])
    with pytest.raises(TacitError, match="too small"):
        C3D(1, 1 / 64)(x)
    with pytest.raises(TacitError, match="norm"):
        C3D(1, norm="layer")


@pytest.mark.parametrize("kind", HEADS)
def test_heads_take_a_map(kind):
    head = map_head(kind, 6, 5).double()
    feature = clips(4, 6, 2, 3, 3)
    assert head(feature).shape == (4, 5)
    mean = feature.mean((2, 3, 4))
    by_hand = {"linear": lambda: head[2](mean), "mlp": lambda: head[4](head[2](mean).relu())}
    if kind in by_hand:
        torch.testing.assert_close(head(feature), by_hand[kind]())
    assert all(layer.bias is not None for layer in head if isinstance(layer, nn.Linear | nn.Conv3d))


# The queue


def test_the_newest_keys_take_the_places_of_the_oldest():
    """Mutations: a pointer that does not wrap; all places replaced."""
    queue = Queue(6, 3)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(6))
    before, keys = queue.keys.clone(), F.normalize(clips(8, 3).float(), dim=1)
    queue.push(keys[:4], torch.arange(4))
    assert torch.equal(queue.keys, torch.cat([keys[:4], before[4:]]))
    assert queue.owners.tolist() == [0, 1, 2, 3, -1, -1]
    queue.push(keys[4:], torch.arange(4, 8))
    assert torch.equal(queue.keys, torch.cat([keys[6:], keys[2:6]]))
    assert (int(queue.pointer), int(queue.pushed)) == (2, 8)
    assert queue.own(torch.tensor([7, 0])).tolist() == [[False, True] + [False] * 4, [False] * 6]
    queue.push(keys[:1])
    assert queue.owners[2] == -1
    with pytest.raises(TacitError, match="do not fit"):
        queue.push(keys)
    again = Queue(6, 3)
    again.load_state_dict(queue.state_dict())
    assert torch.equal(again.keys, queue.keys)
    assert again.pointer == queue.pointer
    assert not list(queue.parameters())


def test_pushed_keys_carry_no_gradient():
    queue, keys = Queue(4, 3), torch.ones(2, 3, requires_grad=True)
    queue.push(keys * 2)
    assert not queue.keys.requires_grad


def test_a_queue_holds_whole_batches():
    assert [whole_batches(*pair) for pair in ((16384, 256), (100, 32), (20, 32), (64, 64))] == [16384, 96, 32, 64]


def test_keys_in_other_company_come_back_in_order_with_other_statistics():
    x, shuffle = clips(8, 5), torch.rand(8, generator=torch.Generator().manual_seed(0))
    linear = nn.Linear(5, 3).double()
    torch.testing.assert_close(in_other_company(linear, x, shuffle, 3), linear(x))

    def centred(rows: torch.Tensor) -> torch.Tensor:
        return rows - rows.mean(0)

    parts = torch.zeros(8, 5, dtype=torch.float64)
    for part in shuffle.argsort().chunk(2):
        parts[part] = centred(x[part])
    torch.testing.assert_close(in_other_company(centred, x, shuffle, 2), parts)
    torch.testing.assert_close(in_other_company(centred, x, shuffle, 1), centred(x))
