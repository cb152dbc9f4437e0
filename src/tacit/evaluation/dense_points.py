"""What an encoder of clouds says about their points: a token's own, and from the five nearest tokens to every point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.evaluation.dense_reader import Tokens
from tacit.nn.encoder import Encoder
from tacit.nn.points import encoder as clouds
from tacit.nn.points.encoder import PointTransformer
from tacit.nn.points.grouping import Groups
from tacit.nn.points.norm import BatchLayerNorm, over_batch
from tacit.nn.points.sampling import propagate
from tacit.views.sight import sight

NEIGHBOURS = 5
"""Tokens that a point's features come from (PoLAr-MAE)."""

AT_ONCE = 16
"""Clouds that are encoded together."""


class PointReader:
    """Tokens as the encoder groups them; a point's features are its own numbers beside those of the tokens around it.

    Young, Jwa, Terao, "Particle Trajectory Representation Learning with Masked Point Modeling", 2025: as there, a token's
    features for segmentation are the mean of three depths, each normalised.

    Args:
        encoder: whose tokens they are.
        spec: what clouds look like.
        extent: how many points the encoder is shown at most.
        raw: say of the same tokens what their points say, without the encoder (`statistics`).
    """

    background = False

    def __init__(self, encoder: Encoder, spec: Spec, extent: Sequence[int], raw: bool = False) -> None:
        if not isinstance(encoder, PointTransformer):
            raise TacitError(
                "this encoder of clouds has no tokens that lie anywhere; take one of tacit's (point-vit-micro ...)"
            )
        self.encoder, self.spec, self.raw = encoder, spec, raw
        self.still = sight("points").still(extent)

    @torch.no_grad()
    def tokens(self, batch: Batch) -> list[Tokens]:
        found = []
        for _, _, groups, tokens in self._cut(batch):
            values = statistics(tokens) if self.raw else self.encoder.attend(tokens).tokens
            members = torch.where(groups.point_mask, groups.members, -1)
            rows = zip(values, members, groups.valid, strict=True)
            found += [Tokens(v[there].float().cpu(), m[there].cpu()) for v, m, there in rows]
        return found

    @torch.no_grad()
    def features(self, batch: Batch, places: Sequence[Tensor]) -> list[Tensor]:
        wanted, found = iter(places), []
        for _, x, _, tokens in self._cut(batch):
            own = x[:, : self.encoder.channels].transpose(1, 2)
            rows = torch.cat([own, self._carried(self._values(tokens), tokens, own)], dim=-1)
            found += [row[next(wanted).to(row.device)].cpu() for row in rows]
        return found

    @torch.no_grad()
    def scores(self, batch: Batch, weight: Tensor, bias: Tensor) -> list[Tensor]:
        found, channels = [], self.encoder.channels
        for part, x, _, tokens in self._cut(batch):
            own, of_own, of_tokens = x[:, :channels].transpose(1, 2), *weight.to(x).tensor_split([channels])
            scores = own @ of_own + self._carried(self._values(tokens) @ of_tokens, tokens, own) + bias.to(x)
            found += [row[:size].cpu() for row, size in zip(scores, part.sizes[:, 0].tolist(), strict=True)]
        return found

    def _cut(self, batch: Batch) -> Iterator[tuple[Batch, Tensor, Groups, clouds.Tokens]]:
        """A few clouds at a time: their batch, view `[B, C + 1, N]`, grouping and tokens."""
        device = next(self.encoder.parameters()).device
        for start in range(0, len(batch), AT_ONCE):
            part = batch.rows(start, min(start + AT_ONCE, len(batch))).to(device)
            x = self.still(part, Draws(0, 0, part.ids), self.spec)
            groups = self.encoder.group(x)
            yield part, x, groups, self.encoder.tokenize(x, groups)

    def _values(self, tokens: clouds.Tokens) -> Tensor:
        """`[B, T, D]`: the mean of three depths, evenly spread, each normalised as the encoder's own blocks do it."""
        if self.raw:
            return statistics(tokens)
        depth = self.encoder.depth
        taps = [f"blocks.{index}" for index in sorted({max(part * depth // 3 - 1, 0) for part in (1, 2, 3)})]
        seen = self.encoder.attend(tokens, taps=taps).taps
        over_all = isinstance(self.encoder.trunk.blocks[0].norm1, BatchLayerNorm)
        each = [over_batch(tap, tokens.valid) if over_all else F.layer_norm(tap, tap.shape[-1:]) for tap in seen.values()]
        return torch.stack(each).mean(dim=0)

    def _carried(self, values: Tensor, tokens: clouds.Tokens, points: Tensor) -> Tensor:
        """Values `[B, T, D]` of tokens at all points `[B, N, C]`: `[B, N, D]`."""
        return propagate(values, tokens.centres, points[..., :3], NEIGHBOURS, tokens.valid.sum(dim=1))


def statistics(tokens: clouds.Tokens) -> Tensor:
    """What a token's points say without an encoder, `[B, T, 2 C + 7]`.

    Mean and deviation of their coordinates around the centre and of their features; the variances along the three principal
    axes, by which a line differs from a blob; the log of their number; the centre. 0 in empty places.
    """
    mask = tokens.point_mask[..., None]
    count = mask.sum(dim=2).clamp(min=1)
    mean = (tokens.patches * mask).sum(dim=2) / count
    apart = (tokens.patches - mean[:, :, None]) * mask
    deviation = (apart.square().sum(dim=2) / count).sqrt()
    place = apart[..., :3]
    axes = torch.linalg.eigvalsh(place.transpose(-1, -2) @ place / count[..., None])
    return torch.cat([mean, deviation, axes, count.log(), tokens.centres], dim=-1) * tokens.valid[..., None]
