"""The encoder of point clouds: volumetric tokens, a small PointNet for each, a transformer over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError, one_of
from tacit.nn.encoder import Encoded, Encoder
from tacit.nn.points.grouping import Groups, collate, contents, volumetric
from tacit.nn.points.padding import padded
from tacit.nn.points.pointnet import PointNet
from tacit.nn.points.program import volumetric_groups
from tacit.nn.points.sampling import gather
from tacit.nn.points.trunk import Passed, Positions, RaggedTransformer, distance_bias

POOLS = {"mean": 1, "mean+max": 2}
"""How tokens become the vector of a cloud, and how many times as long as a token's that is."""


class Tokens(NamedTuple):
    """A batch of clouds cut into tokens; those of a cloud come first, what follows is 0.

    Attributes:
        embedded: `[B, T, D]`, without positions.
        patches: `[B, T, S, C]`, their points, relative to the centre and divided by the radius.
        centres: `[B, T, 3]`.
        valid: bool `[B, T]`, which places hold a token.
        point_mask: bool `[B, T, S]`, which slots hold a point of their own.
    """

    embedded: Tensor
    patches: Tensor
    centres: Tensor
    valid: Tensor
    point_mask: Tensor


class PointTransformer(Encoder):
    """Clouds of points, coordinates first, as tokens of a fixed radius whose number follows the size of the cloud.

    Young, Jwa, Terao, "Particle Trajectory Representation Learning with Masked Point Modeling", 2025.

    Args:
        channels: C, 3 coordinates and what else is known of a point.
        radius: of the tokens' balls, in the units of the coordinates that `forward` is given; the default is the paper's.
        width, depth, heads: D, the number of blocks, attention heads.
        overlap: f; centres are thinned to `2 * radius * f`.
        neighbours: K, how many neighbours of a point are listed while thinning.
        slots: S, the most points of a token.
        most: U, the most points of a ball that are considered.
        context: the most tokens of a cloud; None for no bound.
        mean_centres: let the mean of a token's points be its centre.
        hidden: widths of the PointNet's first stage.
        norm: `masked_batch`, one mean and deviation for the whole batch (the paper), or `token`, the usual layer norm.
        drop_path: of the last block, per token; it grows linearly from 0 in the first.
        dropout: of attention weights.
        relative_bias: `none`, or `distance`: half of the heads look at near tokens more (see `distance_bias`).
        pool: what the vector of a cloud is: the `mean` of its tokens, or that and their maximum (`mean+max`), 2 D long.

    Attributes:
        token_width: D, the length of a token's vector; `width` is that of a cloud's.
    """

    def __init__(
        self,
        channels: int,
        radius: float = 0.0075,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        overlap: float = 0.72,
        neighbours: int = 256,
        slots: int = 32,
        most: int = 256,
        context: int | None = None,
        mean_centres: bool = False,
        hidden: Sequence[int] = (128, 256),
        norm: str = "masked_batch",
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        relative_bias: str = "none",
        pool: str = "mean",
    ) -> None:
        super().__init__()
        one_of("relative_bias", relative_bias, ("none", "distance"))
        one_of("pool", pool, POOLS)
        if channels < 3 or radius <= 0:
            raise TacitError(f"points need 3 coordinates and a radius above 0, not {channels} channels and {radius}")
        self.channels, self.token_width, self.depth, self.heads = channels, width, depth, heads
        self.norm, self.pool, self.width = norm, pool, width * POOLS[pool]
        self.radius, self.mean_centres, self.context = radius, mean_centres, context
        self.cut = {"radius": radius, "overlap": overlap, "neighbours": neighbours, "size": slots, "most": most}
        self.relative_bias, self.mlp_ratio, self.hidden = relative_bias, mlp_ratio, (hidden[0], hidden[1])
        self.tokenizer = PointNet(channels, width, self.hidden)
        self.pos_embed = Positions(width)
        self.trunk = RaggedTransformer(width, depth, heads, norm, False, mlp_ratio, drop_path, dropout)

    @property
    def recompute(self) -> bool:
        """Whether the blocks keep no activations while training."""
        return self.trunk.recompute

    @recompute.setter
    def recompute(self, value: bool) -> None:
        self.trunk.recompute = value

    def counts(self, x: Tensor) -> Tensor:
        """How many points each of the clouds `[B, C + 1, N]` has, by the last channel: int64 `[B]`; all of N in `[B, C, N]`."""
        if x.shape[1] == self.channels:
            return torch.full((len(x),), x.shape[2], device=x.device)
        if x.shape[1] != self.channels + 1:
            raise TacitError(
                f"clouds of {x.shape[1]} channels were given; {self.channels} were expected, and one that says where there are "
                "points"
            )
        return (x[:, -1] > 0).sum(1)

    def group(self, x: Tensor) -> Groups:
        """How the clouds `[B, C + 1, N]` fall into tokens, on their device; made on the CPU."""
        true = self.counts(x).tolist()
        clouds = x[:, : self.channels].detach().transpose(1, 2).cpu().numpy()
        groups = collate(volumetric([cloud[:size] for cloud, size in zip(clouds, true, strict=True)], **self.cut))
        if self.context is not None and groups.centre.shape[1] > self.context:
            raise TacitError(
                f"a cloud has {groups.centre.shape[1]} tokens, {self.context} are allowed; raise the context or the radius"
            )
        return groups.to(x.device)

    def tokenize(self, x: Tensor, groups: Groups) -> Tokens:
        """The tokens of clouds `[B, C + 1, N]`; all of them are embedded, since they share the statistics of a batch-norm."""
        patches, centres = contents(x[:, : self.channels].transpose(1, 2), groups, self.radius, self.mean_centres)
        valid, point_mask = groups.valid, groups.point_mask
        rows = self.tokenizer(patches[valid], point_mask[valid])
        embedded = padded(rows, valid, rows.new_zeros(self.token_width))
        return Tokens(embedded, patches, centres, valid, point_mask)

    def attend(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        draws: Draws | None = None,
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Passed:
        """What follows `tokenize`: all tokens, or those at the places `keep [B, k]` (-1: none), in that order."""
        x, centres, mask = tokens.embedded, tokens.centres, tokens.valid
        if keep is not None:
            x, centres, mask = gather(x, keep), gather(centres, keep), keep >= 0
        return self.trunk(x, self.pos_embed(centres), mask, self.bias(centres), draws, taps, attention)

    def bias(self, centres: Tensor) -> Tensor | None:
        """What is added to the attention of tokens around these centres `[B, T, 3]`."""
        return distance_bias(centres, self.radius, self.heads) if self.relative_bias == "distance" else None

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        draws: Draws | None = None,
        taps: Sequence[str] = (),
        attention: bool = False,
        groups: Groups | None = None,
    ) -> Encoded:
        """See `Encoder.forward`. In place of the tokens that a cloud does not have comes the mean of those that it has, so that
        the mean and the maximum over all places are theirs.

        Args:
            x: `[B, C + 1, N]`, coordinates first; the last channel is above 0 where there is a point, and those of a cloud come
                first. `[B, C, N]` where all clouds have N points.
            keep: int64 `[B, k]`, -1 where a cloud keeps fewer than k tokens.
            draws, taps, attention: as in `Encoder.forward`; a tap `blocks.i` is `[B, T, D]`.
            groups: how the clouds fall into tokens, if that is known.
        """
        tokens = self.tokenize(x, self.group(x) if groups is None else groups)
        out, seen, maps = self.attend(tokens, keep, draws, taps, attention)
        counted = (tokens.valid if keep is None else keep >= 0)[..., None]
        mean = torch.where(counted, out, 0).sum(1) / counted.sum(1).clamp(min=1)
        out = torch.where(counted, out, mean[:, None])
        pooled = mean if self.pool == "mean" else torch.cat([mean, out.amax(1)], dim=1)
        return Encoded(pooled, out, None, seen, maps)

    def program(self, x: Tensor) -> Tensor:
        if self.norm != "token":
            raise TacitError(
                "what this encoder says of a cloud depends on the others of its batch, so that no program of one can say the "
                "same; train it with --set norm=token"
            )
        there = x[:, -1] > 0 if x.shape[1] > self.channels else torch.ones_like(x[:, 0], dtype=torch.bool)
        return self(x, groups=volumetric_groups(x[:, : self.channels].transpose(1, 2), there, **self.cut)).pooled

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        """The most tokens that clouds of so many points can have."""
        return tuple(side if self.context is None else min(side, self.context) for side in extent)

    def level(self, name: str) -> int:
        return int(name.split(".")[2]) + 1 if name.startswith("trunk.blocks.") else 0
