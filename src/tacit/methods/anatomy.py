"""Anatomy (SAM): every place of a volume gets one vector that says which place of the body it is, fine and coarse.

Each place of a crop has to find itself in a second crop of the volume, which overlaps it at another scale and in another light:
its fine vector among those of both crops that look most like it, its coarse one also among those of other volumes. What has
learned that finds the same place in another body, too, and Alice finds its pairs with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.methods.method import Chosen, Facts, Method, Options, Paper, Progress, Terms, option
from tacit.methods.pictures import shown, strip
from tacit.nn.anatomy import FINE, AnatomyNet
from tacit.nn.encoder import Encoder
from tacit.objectives.anatomy import anatomy_contrast, pairs, places_at
from tacit.views.view import View
from tacit.views.volume import Light, normalised, to_unit
from tacit.views.volume_overlap import OverlapView, cell_places


class AnatomyOptions(Options):
    dims: int = option(128, "length of a vector", auto="64", ge=2)
    coarse: int = option(16, "voxels to a coarse cell, a power of 2", auto="8 for crops below 64 voxels, 4 below 32", ge=4)
    zoom: float = option(0.2, "crops show boxes up to so much larger or smaller", ge=0, lt=1)
    jitter: float = option(0.2, "how far values are scaled, shifted and bent, in each crop for itself", ge=0, lt=1)
    temperature: float = option(0.5, "what similarities are divided by", gt=0)
    anchors: int = option(100, "places of each crop that look for themselves in the other", ge=1)
    fine_near: float = option(2.5, "voxels that the centres of two fine cells of one place lie apart at most", gt=0)
    fine_far: float = option(1.5, "voxels that a fine cell lies from one of another place at least", ge=0)
    fine_hardest: int = option(500, "fine cells of other places, those most alike, that an anchor is set against", ge=1)
    coarse_near: float = option(12.5, "the same for coarse cells: of one place at most", gt=0)
    coarse_far: float = option(2.5, "of another place at least", ge=0)
    coarse_hardest: int = option(200, "coarse cells of other places", ge=1)
    strangers: int = option(300, "coarse cells of the other volumes, drawn, that an anchor is set against, too", ge=0)
    normalise: Literal["none", "data"] = option("data", "what is subtracted and divided by")


class Anatomy(Method):
    """Yan, Cai, Jin, Miao, Guo, Harrison, Tang, Xiao, Lu, Lu, 2020."""

    name = "anatomy"
    paper = Paper(
        "SAM: Self-supervised Learning of Pixel-wise Anatomical Embeddings in Radiological Images",
        "Yan, Cai, Jin, Miao, Guo, Harrison, Tang, Xiao, Lu, Lu",
        2020,
        "arXiv",
        "alibaba-damo-academy/self-supervised-anatomical-embedding-v2",
    )
    kinds = ("volume",)
    by_place = True
    negatives = True
    Options = AnatomyOptions
    paper_training = {
        "encoder": "anatomy-small",
        "size": 96,
        "batch": 8,
        "steps": 20_000,
        "schedule": "constant",
        "optimiser": "sgd",
        "lr": 0.02,
    }

    @classmethod
    def auto(cls, facts: Facts) -> dict[str, Chosen]:
        coarse = 16 if facts.size >= 64 else 8 if facts.size >= 32 else 4
        small = facts.device == "cpu"
        return {
            "dims": Chosen(64, "enough to tell places of one body apart"),
            "coarse": Chosen(coarse, f"crops of {facts.size} voxels"),
            "train.encoder": Chosen("anatomy-mini" if small else "anatomy-small", f"on a {facts.device}"),
            "train.optimiser": Chosen("adamw", "short runs"),
            "train.lr": Chosen(1e-3, "usual for AdamW"),
            "train.weight_decay": Chosen(1e-4, "weak: nothing is learned by heart in a short run"),
        }

    @classmethod
    def encoder_options(cls, options: Any, encoder: str) -> dict[str, Any]:
        return {"out": options.dims, "coarse": options.coarse} if encoder.startswith("anatomy") else {}

    @classmethod
    def extent(cls, options: Any, size: int) -> tuple[int, ...]:
        return (size, size, size)

    @classmethod
    def check(cls, options: Any, encoder: Encoder, spec: Spec, size: int, batch: int) -> None:
        if not isinstance(encoder, AnatomyNet):
            raise TacitError("anatomy needs a network with fine and coarse maps; use --encoder anatomy-mini or anatomy-small")
        if size % options.coarse or size < 2 * options.coarse:
            raise TacitError(
                f"crops of {size} voxels do not divide into two or more coarse cells of {options.coarse} along each axis; "
                "change --set size=... or --set coarse=..."
            )

    def __init__(self, options: AnatomyOptions, encoder: Encoder, spec: Spec, size: int) -> None:
        super().__init__(options, encoder, spec, size)
        assert isinstance(encoder, AnatomyNet)  # `check` saw to that
        self.student: AnatomyNet = encoder

    def views(self) -> dict[str, View]:
        o, extent = self.options, (self.size, self.size, self.size)
        light = Light(o.jitter, o.jitter / 2, o.jitter)
        return {
            "first": OverlapView("first", extent, o.zoom, light, o.normalise),
            "second": OverlapView("second", extent, o.zoom, light, o.normalise),
            "places": OverlapView("places", extent, o.zoom),
        }

    def forward(self, views: dict[str, Tensor], draws: Draws, progress: Progress) -> Terms:
        o = self.options
        maps = self.student(torch.cat([views["first"], views["second"]]), taps=("fine", "coarse")).taps
        fine = self.level(maps["fine"], views["places"], FINE, (o.fine_near, o.fine_far), o.fine_hardest, draws.within("fine"))
        coarse = self.level(
            maps["coarse"], views["places"], o.coarse, (o.coarse_near, o.coarse_far), o.coarse_hardest, draws.within("coarse"),
            o.strangers,
        )  # fmt: skip
        parts = {"fine": fine[0], "coarse": coarse[0]}
        total = torch.stack(list(parts.values())).sum()
        watch = {"fine_paired": fine[1], "coarse_paired": coarse[1]}
        return Terms(total, {name: term.detach() for name, term in parts.items()}, watch=watch)

    def level(
        self,
        maps: Tensor,
        places: Tensor,
        stride: int,
        apart: tuple[float, float],
        hardest: int,
        draws: Draws,
        strangers: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """The contrast of one level, from both crops in turn, and the share of anchors whose place the other crop shows.

        Args:
            maps: unit vectors `[2B, D, *grid]`, those of first crops first.
            places: `[B, 2, 6]`, where the crops lie.
            stride: voxels to a cell.
            apart: how far two cells of one place lie apart at most, and of two places at least.
        """
        near, far = apart
        vectors = maps.flatten(2).transpose(1, 2).chunk(2)  # [B, M, D] each
        where = [cell_places(each, maps.shape[2:], stride) for each in places.unbind(1)]  # [B, M, 3] each
        others = self.strangers(torch.cat(vectors, dim=1), strangers, draws) if strangers else None
        terms, shares = [], []
        for mine, other in ((0, 1), (1, 0)):
            count = min(self.options.anchors, where[0].shape[1])
            found = pairs(where[mine], where[other], draws.uniform(f"anchors{mine}", where[0].shape[1]), count, near)
            allowed = torch.cdist(places_at(where[mine], found.first), torch.cat(where, dim=1)) > far
            loss = anatomy_contrast(
                places_at(vectors[mine], found.first), places_at(vectors[other], found.second), torch.cat(vectors, dim=1),
                allowed, found.found, self.options.temperature, hardest, others,
            )  # fmt: skip
            share = found.found.to(loss.dtype).mean()
            terms.append(loss * share / distributed.mean(share).clamp(min=1e-6))  # the mean over the anchors of all ranks
            shares.append(share)
        return torch.stack(terms).mean(), torch.stack(shares).mean()

    def strangers(self, vectors: Tensor, count: int, draws: Draws) -> Tensor | None:
        """About `count` cells of all other volumes of the step, evenly, `[B, R, D]`, of the cells `[B, M, D]` of each."""
        rows, world = len(vectors), distributed.world_size()
        if rows * world == 1:
            return None
        each = min(vectors.shape[1], -(-count // (rows * world - 1)))
        given = distributed.gather(places_at(vectors, draws.permutation("strangers", vectors.shape[1])[:, :each]))
        own = distributed.rank() * rows + torch.arange(rows, device=vectors.device)
        others = torch.arange(len(given) - 1, device=vectors.device)
        return given[others + (others >= own[:, None])].flatten(1, 2)

    @torch.no_grad()
    def describe(self, every: Iterable[Batch]) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Fine and coarse unit vectors `[D, *grid]` of whole volumes, by row; each is looked at by itself, without padding."""
        for batch in every:
            student = self.student.to(batch.data.device).eval()
            for row, data, size in zip(batch.ids.tolist(), batch.data, batch.sizes.tolist(), strict=True):
                x = to_unit(data[(slice(None), *map(slice, size))][None], self.spec)
                maps = student(normalised(x, self.options.normalise, self.spec), taps=("fine", "coarse")).taps
                yield row, [maps[level][0].float().cpu().numpy() for level in ("fine", "coarse")]

    def pictures(self, views: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        first, second = views["first"][:8], views["second"][:8]
        fine = self.student(torch.cat([first, second]), taps=("fine",)).taps["fine"]
        one, two = (each.float() for each in fine.chunk(2))
        asked = one[:, :, one.shape[2] // 2, one.shape[3] // 2, one.shape[4] // 2]  # [B, D], the middle of the first crop
        alike = torch.einsum("bd,bdxyz->bxyz", asked, two).amax(dim=1)[:, None].flip(2)  # from the front
        middle = self.size // 2
        cross = first[:, :1, :, middle].clone().flip(2)
        cross[:, :, :, middle] = cross[:, :, self.size - 1 - middle] = cross.amax()
        caption = "A place (where the lines cross), the other crop of that volume, and how alike every place of that is"
        rows = (cross, second[:, :1, :, middle].flip(2), F.interpolate(alike, [self.size] * 2, mode="nearest"))
        return {caption: strip(*(shown(row) for row in rows))}
