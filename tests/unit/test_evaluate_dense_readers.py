"""What encoders say of tokens and places, against slow references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_places import CLOUDS, GRIDS, cloud_reader, clouds, grid_reader, grids
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.evaluation.dense import reader
from tacit.evaluation.dense_points import PointReader, statistics
from tacit.nn import build
from tacit.views.sight import sight

# Clouds ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made() -> PointReader:
    return cloud_reader()


def test_members_of_a_token_are_the_points_it_was_made_of(made: PointReader):
    batch = clouds()
    x = sight("points").still((60,))(batch, Draws(0, 0, batch.ids), CLOUDS)
    groups = made.encoder.group(x)
    alone = made.encoder(x, groups=groups).tokens
    for row, found in enumerate(made.tokens(batch)):
        assert len(found.features) == int(groups.valid[row].sum()) > 3
        assert torch.allclose(found.features, alone[row, : len(found.features)], atol=1e-5)
        for place, members in enumerate(found.members):
            own = set(groups.members[row, place, : int(groups.filled[row, place])].tolist())
            assert set(members.tolist()) - {-1} == own
            centre = x[row, :3, int(groups.centre[row, place])]
            assert all((x[row, :3, point] - centre).norm() < made.encoder.radius for point in own)


def test_a_point_s_features_are_its_own_numbers_and_those_of_the_nearest_tokens(made: PointReader):
    batch = clouds(1)
    wanted = torch.tensor([7, 0, 51])
    (found,) = made.features(batch, [wanted])
    x = sight("points").still((60,))(batch, Draws(0, 0, batch.ids), CLOUDS)
    seen = made.encoder.tokenize(x, made.encoder.group(x))
    taps = made.encoder.attend(seen, taps=["blocks.0", "blocks.1", "blocks.2"]).taps
    for row, point in zip(found, wanted.tolist(), strict=True):
        assert torch.equal(row[:4], x[0, :4, point])
        mean = torch.stack([(t[0] - t[0].mean(-1, keepdim=True)) / t[0].std(-1, correction=0)[:, None] for t in taps.values()])
        far = (seen.centres[0] - x[0, :3, point]).square().sum(1)
        near = far.argsort()[:5]
        weight = 1 / (far[near] + 1e-8)
        expected = (mean.mean(0)[near] * weight[:, None]).sum(0) / weight.sum()
        assert torch.allclose(row[4:], expected, atol=1e-3)


@pytest.mark.parametrize("raw", [False, True])
def test_a_head_on_tokens_gives_the_scores_of_one_on_points(made: PointReader, raw: bool):
    shown = reader(made.encoder, CLOUDS, (60,), raw)
    batch = clouds()
    features = shown.features(batch, [torch.arange(size) for size in batch.sizes[:, 0].tolist()])
    weight, bias = torch.randn(features[0].shape[1], 5, generator=torch.Generator().manual_seed(0)), torch.arange(5.0)
    for scores, each in zip(shown.scores(batch, weight, bias), features, strict=True):
        assert torch.allclose(scores, each @ weight + bias, atol=1e-3)


def test_statistics_of_a_token_are_those_of_its_points(made: PointReader):
    batch = clouds(2)
    x = sight("points").still((60,))(batch, Draws(0, 0, batch.ids), CLOUDS)
    seen = made.encoder.tokenize(x, made.encoder.group(x))
    found = statistics(seen)
    assert found.shape[2] == 2 * 4 + 7
    assert not found[~seen.valid].any()
    points = seen.patches[1, 2][seen.point_mask[1, 2]].numpy()
    axes = np.linalg.eigvalsh(np.cov(points[:, :3].T, bias=True))
    expected = [*points.mean(0), *points.std(0), *axes, np.log(len(points)), *seen.centres[1, 2].numpy()]
    assert found[1, 2].numpy() == pytest.approx(np.array(expected), abs=1e-5)


def test_what_padding_holds_changes_nothing(made: PointReader):
    batch = clouds()
    other = Batch(batch.ids, F.pad(batch.data, (0, 9), value=3.0), batch.sizes)
    for one, two in zip(made.tokens(batch), made.tokens(other), strict=True):
        assert torch.allclose(one.features, two.features, atol=1e-5)
        assert torch.equal(one.members, two.members)


# Grids ----------------------------------------------------------------------------------------------------------------


def units(batch: Batch, row: int, size: Sequence[int], spec: Spec) -> Tensor:
    own = batch.data[(row, slice(None), *map(slice, size))].float() / 255
    return (own - spec.mean[0]) / spec.std[0]


@pytest.mark.parametrize("name", GRIDS)
def test_features_of_a_place_are_the_maps_interpolated_to_it(name: str):
    spec, extent = GRIDS[name]
    batch, shown = grids(name, extent), grid_reader(name)
    x = units(batch, 0, extent, spec)[None]
    encoder: Any = shown.encoder
    with torch.no_grad():
        if name == "swin3d-micro":
            maps = [encoder(x, taps=encoder.maps).taps[tap] for tap in encoder.maps]
        elif name == "resnet-mini":
            taps = ["layer1", "layer2", "layer3", "layer4"]
            maps = [encoder(x, taps=taps).taps[tap] for tap in taps]
        else:
            maps = [encoder(x).tokens.transpose(1, 2).reshape(1, -1, 4, 4)]
    mode = "trilinear" if len(extent) == 3 else "bilinear"
    full = torch.cat([F.interpolate(m, extent, mode=mode, align_corners=False) for m in maps], dim=1).flatten(2)[0].T
    wanted = torch.arange(len(full))[:: max(1, len(full) // 97)]
    (found,) = shown.features(batch, [wanted])
    assert torch.allclose(found, full[wanted], atol=1e-4)
    weight, bias = torch.randn(full.shape[1], 3, generator=torch.Generator().manual_seed(0)), torch.arange(3.0)
    (scores,) = shown.scores(batch, weight, bias)
    assert torch.allclose(scores, full @ weight + bias, atol=1e-3)


@pytest.mark.parametrize("name", ["swin3d-micro", "vit-micro/4"])
def test_windows_cover_samples_of_any_size(name: str):
    """Raw input's finest map is the sample itself: whatever windows there are, a head on it alone gives its values."""
    spec, extent = GRIDS[name]
    sizes = [(16, 21, 35)[: len(extent)], (9, 40, 16)[: len(extent)]]
    batch, shown = grids(name, *sizes), grid_reader(name, raw=True)
    wanted = [torch.arange(0, int(np.prod(size)), 37).flip(0) for size in sizes]
    features = shown.features(batch, wanted)
    weight = torch.zeros(features[0].shape[1], 2)
    weight[0, 1] = 2.0
    for row, (size, scores) in enumerate(zip(sizes, shown.scores(batch, weight, torch.tensor([5.0, 1.0])), strict=True)):
        x = units(batch, row, size, spec)
        assert torch.allclose(features[row][:, : spec.channels], x.flatten(1).T[wanted[row]], atol=1e-4)
        assert torch.allclose(scores[:, 1], 2 * x[0].flatten() + 1, atol=1e-3)
        assert torch.allclose(scores[:, 0], torch.tensor(5.0), atol=1e-4)


@pytest.mark.parametrize("name", GRIDS)
def test_every_place_belongs_to_a_token_and_padding_to_none(name: str):
    _, extent = GRIDS[name]
    size = (*extent[:-1], 2 * extent[-1] - 5)
    small = tuple(side - 3 for side in extent)
    held = [found.members[found.members >= 0] for found in grid_reader(name).tokens(grids(name, size, small))]
    for each, one in zip(held, (size, small), strict=True):
        assert each.unique().tolist() == list(range(int(np.prod(one))))
    assert len(held[1]) == np.prod(small)  # one window: each place once


def test_a_token_s_members_are_the_pixels_of_its_patch():
    batch = grids("vit-micro/4", (16, 16))
    (found,) = grid_reader("vit-micro/4").tokens(batch)
    (raw,) = grid_reader("vit-micro/4", raw=True).tokens(batch)
    x = units(batch, 0, (16, 16), GRIDS["vit-micro/4"][0])
    place = torch.arange(256).reshape(16, 16)
    for token in range(16):
        rows, columns = (slice(4 * at, 4 * at + 4) for at in divmod(token, 4))
        assert found.members[token].sort().values.tolist() == place[rows, columns].flatten().tolist()
        assert torch.allclose(raw.features[token], x[:, rows, columns].flatten(), atol=1e-4)


# What is refused ------------------------------------------------------------------------------------------------------


def test_kinds_and_encoders_without_tokens_that_lie_somewhere_are_refused():
    encoder = build.encoder(name="resnet-mini", channels=3, size=16)
    with pytest.raises(TacitError, match="not for samples of kind 'video'"):
        reader(encoder, Spec("video", 3, (8, 16, 16)), (8, 16, 16))
    with pytest.raises(TacitError, match="no tokens that lie anywhere"):
        reader(encoder, CLOUDS, (60,))


def test_tokens_that_lie_on_no_grid_are_refused():
    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Any:
            pooled = self.layer(x.mean(dim=(2, 3)))
            return type("Seen", (), {"tokens": pooled[:, None]})

        def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
            return tuple(side // 4 for side in extent)

    spec, extent = GRIDS["vit-micro/4"]
    shown = reader(Pooled(), spec, extent)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TacitError, match=r"no tokens that lie on a grid over its input \(1 tokens"):
        shown.tokens(grids("vit-micro/4", (16, 16)))
