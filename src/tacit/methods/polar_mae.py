"""PoLAr-MAE: Particle Trajectory Representation Learning with Masked Point Modeling.

The tokens of a cloud of points are balls of one radius; most of them are hidden, and a decoder gives back their points and,
told where these really lie, what else is known of each of them. Centres are thinned so that the number of balls follows the
size of the cloud.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.methods.method import Chosen, Facts, Method, Options, Paper, Progress, Terms, option
from tacit.methods.pictures import strip
from tacit.nn.encoder import Encoder
from tacit.nn.points.encoder import PointTransformer, Tokens
from tacit.nn.points.grouping import radius_of
from tacit.nn.points.pointnet import PointNet
from tacit.nn.points.trunk import RaggedTransformer, put_back
from tacit.objectives.chamfer import ragged_chamfer
from tacit.objectives.precision import wide
from tacit.views.points import PointView, Turn, hide_tokens, places, projected
from tacit.views.view import View

TOKENS, POINTS = 64, 16
"""So many tokens of a typical cloud `auto` aims at, or so few that they have about so many points."""


class PolarMAEOptions(Options):
    mask_ratio: float = option(0.6, "share of tokens that are hidden", auto="0.6", gt=0, lt=1)
    radius: float = option(
        5 / (384 * 3**0.5),
        "radius of a token, where an evenly filled box is 1.15 wide",
        auto="for some 64 tokens a cloud",
        gt=0,
    )
    overlap: float = option(0.72, "centres are thinned to twice the radius times this", gt=0, le=1)
    neighbours: int = option(256, "neighbours of a point that are listed while thinning", auto="all", ge=1)
    slots: int = option(32, "points of a token at most", auto="8 to 32, by how many points a token may have", ge=2)
    most: int = option(256, "points of a ball that are considered", auto="four times the slots", ge=2)
    mean_centres: bool = option(False, "let the mean of a token's points be its centre")
    pointnet: int = option(128, "width of the network that reads a token", auto="32 on a processor, 128 else", ge=4)
    norm: Literal["masked_batch", "token"] = option(
        "masked_batch", "one norm for all tokens of a batch, or one each", auto="token"
    )
    relative_bias: Literal["none", "distance"] = option("none", "let half of the heads look at near tokens", auto="distance")
    decoder_depth: int = option(4, "blocks of the decoder", auto="1 on a processor, 2 else", ge=1)
    drop_path: float = option(0.25, "chance that a token skips a branch of the last block", auto="0", ge=0, lt=1)
    dropout: float = option(0.05, "chance that a weight of the attention is dropped", auto="0", ge=0, lt=1)
    predicted: Literal["full", "pos"] = option("full", "predict a hidden token's points with their features, or where they lie")
    chamfer: float = option(1.0, "weight of the points' distance", ge=0)
    energy: float = option(1.0, "weight of the features' error; 0 for Point-MAE", ge=0)
    turn: Turn = option("free", "how clouds are turned: anyhow, about the third axis, or not at all")
    turn_step: float = option(0.0, "degrees that angles are multiples of; 0 for any", ge=0, le=180)
    pool: Literal["mean", "mean+max"] = option(
        "mean", "features of a cloud: the mean of its tokens, or that and their maximum, twice as long", auto="mean+max"
    )


class Hidden(NamedTuple):
    """What a forward pass came to.

    Attributes:
        tokens: of the batch.
        mask: bool `[B, T]`, which are hidden.
        encoded, decoded: `[B, T, D]`; 0 where nothing was seen, and what the decoder made of all.
        points: `[M, S, c]`, the predicted points of the M hidden tokens.
        values: `[M, S, F]`, the predicted features of their true points; None where there are none.
    """

    tokens: Tokens
    mask: Tensor
    encoded: Tensor
    decoded: Tensor
    points: Tensor
    values: Tensor | None


class PolarMAE(Method):
    """Young, Jwa, Terao, 2025."""

    name = "polar-mae"
    paper = Paper(
        "Particle Trajectory Representation Learning with Masked Point Modeling",
        "Young, Jwa, Terao",
        2025,
        "arXiv",
        "DeepLearnPhysics/PoLAr-MAE",
    )
    kinds = ("points",)
    tokens = True
    rebuilds = True
    Options = PolarMAEOptions
    paper_training = {
        "encoder": "point-vit-small",
        "size": 4096,
        "batch": 128,
        "epochs": 64,  # 500,000 steps over a million events, 12,500 of them warm-up
        "warmup_epochs": 2,
        "optimiser": "adamw",
        "lr": 1e-4,
        "lr_end": 8.6e-6,
        "weight_decay": 0.05,
        "clip": 3.0,
    }

    @classmethod
    def auto(cls, facts: Facts) -> dict[str, Chosen]:
        points, small = min(facts.spec.size[0], facts.size), facts.device == "cpu"
        count = min(TOKENS, max(points // POINTS, 8))
        radius = radius_of(1 - facts.sparse, 1 - facts.flat, count)
        slots = next(size for size in (8, 16, 32) if size >= min(1.3 * points / count, 32))
        return {
            "mask_ratio": Chosen(0.6, "as published"),
            "radius": Chosen(radius, f"for some {count} tokens a cloud, by how much of its pictures is filled"),
            "neighbours": Chosen(facts.size, "all, because cut lists lose centres that are needed"),
            "slots": Chosen(slots, f"{points} points are typical"),
            "most": Chosen(4 * slots, "four times the slots"),
            "pointnet": Chosen(32 if small else 128, "a small network is enough"),
            "norm": Chosen("token", "a cloud's features do not depend on the others of its batch"),
            "relative_bias": Chosen("distance", "without it short runs stay at what one constant token gives"),
            "decoder_depth": Chosen(1 if small else 2, "a small decoder is enough"),
            "drop_path": Chosen(0.0, "short runs"),
            "dropout": Chosen(0.0, "short runs"),
            "pool": Chosen("mean+max", "what one part of a cloud says is not lost among the others"),
            "train.optimiser": Chosen("adamw", "as published"),
            "train.lr": Chosen(
                1e-3 * (facts.batch / 16) ** 0.5 if facts.batch < 64 else 2e-3, "1e-3 x sqrt(batch / 16), 2e-3 at most"
            ),
            "train.weight_decay": Chosen(0.05, "as published"),
            "train.clip": Chosen(3.0, "as published"),
        }

    @classmethod
    def encoder_options(cls, options: Any, encoder: str) -> dict[str, Any]:
        if not encoder.startswith("point-vit"):
            return {}
        cut = ("radius", "overlap", "neighbours", "slots", "most", "mean_centres")
        same = {name: getattr(options, name) for name in (*cut, "norm", "relative_bias", "drop_path", "dropout", "pool")}
        return same | {"hidden": [options.pointnet, 2 * options.pointnet]}

    @classmethod
    def extent(cls, options: Any, size: int) -> tuple[int, ...]:
        return (size,)

    @classmethod
    def check(cls, options: Any, encoder: Encoder, spec: Spec, size: int, batch: int) -> None:
        if not isinstance(encoder, PointTransformer):
            raise TacitError("polar-mae hides tokens of points; use --encoder point-vit-micro or another of that family")
        if not options.chamfer and not (options.energy and spec.channels > 3):
            raise TacitError(
                "chamfer=0 leaves nothing to predict; give one of chamfer and energy a weight, and points a feature"
            )

    def __init__(self, options: PolarMAEOptions, encoder: Encoder, spec: Spec, size: int) -> None:
        super().__init__(options, encoder, spec, size)
        assert isinstance(encoder, PointTransformer)  # `check` saw to that
        self.student: PointTransformer = encoder
        o, width, features = options, encoder.token_width, spec.channels - 3
        self.slots: int = encoder.cut["size"]
        self.told = spec.channels if o.predicted == "full" else 3
        self.mask_token = nn.Parameter(torch.zeros(width))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        self.decoder = RaggedTransformer(
            width, o.decoder_depth, encoder.heads, o.norm, True, encoder.mlp_ratio, o.drop_path, o.dropout
        )
        self.point_head = nn.Linear(width, self.slots * self.told)
        self.ordered, self.value_head = None, None
        if features and o.energy:
            self.ordered = PointNet(3, width, encoder.hidden, ordered=True)
            self.value_head = nn.Linear(2 * width, self.slots * features)
        self.constant = nn.Parameter(torch.rand(self.slots, self.told) - 0.5)

    def views(self) -> dict[str, View]:
        return {"view": PointView(self.size, turn=self.options.turn, step=self.options.turn_step or None)}

    def forward(self, views: dict[str, Tensor], draws: Draws, progress: Progress) -> Terms:
        found = self.predict(views["view"], draws)
        true, there = found.tokens.patches[found.mask], found.tokens.point_mask[found.mask]  # [M, S, C], [M, S]
        shape, counts = true[..., : self.told], there.sum(1)
        chamfer = distributed.mean_of_rows(ragged_chamfer(found.points, shape, counts))
        # What one token, the same for all, would come to: of no weight, but it learns.
        constant = distributed.mean_of_rows(ragged_chamfer(self.constant.expand_as(shape), shape, counts))
        total = self.options.chamfer * chamfer + (constant - constant.detach())
        parts, watch = {"chamfer": chamfer.detach()}, {"chamfer_of_one_token": constant.detach()}
        if found.values is not None:
            values = true[..., 3:][there]  # [P, F]
            error = distributed.mean_of_rows((wide(found.values)[there] - values).square().mean(1))
            total = total + self.options.energy * error
            mean = distributed.total(values.sum(0)) / distributed.rows(values)
            parts["energy"] = error.detach()
            watch["energy_of_the_mean"] = distributed.mean_of_rows((values - mean).square().mean(1))
        watch["tokens"] = found.tokens.valid.sum(1).float().mean()
        return Terms(total, parts, watch=watch)

    def predict(self, x: Tensor, draws: Draws) -> Hidden:
        """Hide most tokens of the clouds `[B, C + 1, N]`, and say what was in them."""
        encoder, training = self.student, draws if self.training else None
        tokens = encoder.tokenize(x, encoder.group(x))
        slots = tokens.valid.shape[1]
        hidden, seen = hide_tokens(draws.uniform("mask", slots), tokens.valid.sum(1), self.options.mask_ratio)
        keep = places(seen)
        out = encoder.attend(tokens, keep, training.within("encoder") if training else None).tokens
        encoded = put_back(out * (keep >= 0)[..., None], keep, slots)
        z = encoded + (self.mask_token * hidden[..., None]).to(encoded.dtype)
        inner = training.within("decoder") if training else None
        where = encoder.pos_embed(tokens.centres)
        decoded = self.decoder(z, where, tokens.valid, encoder.bias(tokens.centres), inner).tokens
        told = decoded[hidden]  # [M, D]
        points, values = self.point_head(told).unflatten(1, (self.slots, self.told)), None
        if self.ordered is not None and self.value_head is not None:
            order = self.ordered(tokens.patches[hidden][..., :3], tokens.point_mask[hidden])
            values = self.value_head(torch.cat([order, told.to(order.dtype)], dim=1)).unflatten(1, (self.slots, -1))
        return Hidden(tokens, hidden, encoded, decoded, points, values)

    def decays(self, name: str, parameter: Tensor) -> bool:
        """As published, all of them."""
        return name != "constant"

    def pictures(self, views: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        x = views["view"]
        found = self.predict(x, draws)
        radius, centres = self.student.radius, found.tokens.centres[:, :, None]
        around = found.tokens.patches[..., :3] * radius + centres  # [B, T, S, 3], where the tokens' points lie
        made = torch.zeros_like(around)
        made[found.mask] = found.points[..., :3].float() * radius + centres[found.mask]
        rows = []
        for i in range(min(len(x), 6)):
            cloud = x[i, :3, x[i, -1] > 0].T
            slots, hidden = found.tokens.point_mask[i], found.mask[i]
            visible = around[i, ~hidden][slots[~hidden]]
            guessed, truth = made[i, hidden][slots[hidden]], around[i, hidden][slots[hidden]]
            clouds = ([cloud], [visible], [visible, guessed], [visible, truth])
            rows.append([projected(sets, cloud) for sets in clouds])
        caption = (
            f"Clouds from above; the points of the tokens that the encoder sees ({1 - self.options.mask_ratio:.0%}); "
            "with them, in orange, what the decoder makes of the hidden ones; and what is really there"
        )
        return {caption: strip(*(torch.stack(list(column)) for column in zip(*rows, strict=True)))} if rows else {}
