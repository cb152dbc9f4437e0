"""Mod-X: Continual Vision-Language Representation Learning with Off-Diagonal Information.

Pairs arrive in phases that are not kept: a CLIP model goes on learning from each new set, and what it was before that phase
watches. While it fits the new pairs, each row of a batch's similarities stays near what the previous model makes of it, as a
distribution over all columns, wherever that model was right about the row: so the two towers do not turn away from each other,
and old pictures still find their captions. The previous model is frozen, and a row that it had wrong teaches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.methods.clip import CLIP, CLIPOptions
from tacit.methods.method import Chosen, Facts, Paper, Progress, Rows, Terms, option
from tacit.methods.pictures import enlarged, histogram, stretched
from tacit.nn.encoder import Encoder
from tacit.objectives.pairs import MOD_X_CEILING, Compared, align, clamp_scale, screen
from tacit.views.image import CentreView
from tacit.views.view import View

KEPT = (
    "encoder", "size", "loss", "init_scale", "bias", "out", "text", "vocabulary", "context", "quick_gelu", "pool", "normalise",
)  # fmt: skip
"""What stays as the previous model has it."""

FIRST_MODEL: dict[str, Any] = {
    "encoder": "clip-resnet50",
    "size": 224,
    "out": 1024,
    "text": "text-medium",
    "quick_gelu": True,
    "area": 1.0,
    "batch": 280,
    "lr": 5e-4,
    "beta2": 0.999,
    "weight_decay": 0.01,
}
"""How the card of clip differs where the recipe of the paper trains the model before all phases."""

PER_ROW = 5600
"""Weight of a row's alignment as published, 20 x 280: the rows are summed up, while the contrast is their mean."""


class ModXOptions(CLIPOptions):
    alpha: float = option(20.0, "weight of staying near the previous model; 0: plain fine-tuning", auto="5600 / batch", ge=0)
    align_temperature: float = option(1.0, "what cosines are divided by before they are distributions to stay near", gt=0)
    align_reduction: Literal["sum", "mean"] = option(
        "sum", "over the rows of a batch; mean: 280 times the weight is as published"
    )
    screen: bool = option(True, "stay near the previous model only in rows where it finds the partner first")
    screen_ties: Literal["first", "equal"] = option(
        "first", "of captions that are equal only the first is right, or each", auto="equal"
    )
    diagonal: Literal["keep", "drop"] = option(
        "keep", "whether partners belong to the distributions, or only what lies beside them"
    )
    area: float = option(
        1.0,
        "least share of the picture that is shown; 1: its central square, and no mirror",
        auto="0.5 where captions name no place, size or number, else 0.9",
        gt=0,
        le=1,
    )


class ModX(CLIP):
    """Ni et al., ICML 2023."""

    name = "mod-x"
    paper = Paper(
        "Continual Vision-Language Representation Learning with Off-Diagonal Information",
        "Ni, Wei, Tang, Zhuang, Tian",
        2023,
        "ICML",
        "ZixuanNi/Mod-X",
    )
    needs = {"previous": "clip"}
    serves_as = "clip"
    anchors = ("align",)
    Options = ModXOptions
    paper_training = {
        "encoder": "clip-resnet50",
        "size": 224,
        "batch": 280,
        "epochs": 35,
        "warmup_epochs": 7,
        "optimiser": "adamw",
        "lr": 5e-4,
        "weight_decay": 0.1,
    }
    paper_columns = {}

    @classmethod
    def auto(cls, facts: Facts) -> dict[str, Chosen]:
        chosen = super().auto(facts)
        first = chosen["train.lr"].value
        return chosen | {
            "alpha": Chosen(PER_ROW / facts.batch, f"as much for each row as published, in a sum of {facts.batch}"),
            "screen_ties": Chosen("equal", "what reads alike is as right as the partner"),
            "train.lr": Chosen(0.5 * first, f"half of a first model's {first:g}"),
            "train.beta2": Chosen(0.999, "as published"),
            "train.warmup": Chosen(int(0.2 * facts.steps), "20 % of the phase, as published"),
        }

    @classmethod
    def needed(cls, given: Mapping[str, Any], recipe: str, samples: int) -> dict[str, dict[str, Any]]:
        said = {name: value for name, value in given.items() if name in (*KEPT, "init")}
        return {"previous": said if recipe != "paper" else FIRST_MODEL | said}

    @classmethod
    def inherits(cls, needs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return {name: needs["previous"][name] for name in KEPT} | {"init": ""}

    @classmethod
    def spec_given(cls, spec: Spec, needs: Mapping[str, Spec]) -> Spec:
        """A picture has to be the same to both models: what is subtracted and divided by stays what it was."""
        before = needs["previous"]
        if before.channels != spec.channels:
            raise TacitError(
                f"the previous model sees {before.channels} channel(s), the data has {spec.channels}; give data that fits"
            )
        return replace(spec, mean=before.mean, std=before.std)

    def __init__(self, options: ModXOptions, encoder: Encoder, spec: Spec, size: int, previous: CLIP) -> None:
        super().__init__(options, encoder, spec, size)
        self.load_state_dict(previous.state_dict())  # t and running statistics included
        self.previous = previous.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> ModX:
        super().train(mode)
        self.previous.eval()
        return self

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Everything: norms, positions and t, too."""
        return True

    def views(self) -> dict[str, View]:
        o = self.options
        return super().views() | ({"image": CentreView(self.size, o.normalise)} if o.area == 1 else {})

    def embed(self, views: dict[str, Tensor], draws: Draws) -> Rows:
        rows = super().embed(views, draws)
        if self.options.alpha:
            with torch.no_grad():
                before = self.previous.embed(views, draws)
            rows |= {"image before": before["image"], "text before": before["text"]}
        return rows

    def compare(self, rows: Rows, progress: Progress) -> Terms:
        o, now = self.options, self.compared(rows)  # S, the cosines of either direction
        same = self.repeated(rows, now) if "mask" in o.duplicates or "equal" in o.screen_ties else None
        terms = self.contrasted(now, same if o.duplicates == "mask" else None)
        if not o.alpha:
            return terms
        before = self.previous.compared({"image": rows["image before"], "text": rows["text before"]})  # O, without gradient
        kept = self.kept(before, same)
        aligned = o.alpha * self.aligned(before, now, kept)  # alpha A
        watch = {
            "kept_pictures": kept[0].float().mean(),
            "kept_captions": kept[1].float().mean(),
            "align_share": (aligned / terms.total).detach(),
        }
        return Terms(terms.total + aligned, terms.parts | {"align": aligned.detach()}, terms.chance, terms.watch | watch)

    def kept(self, before: Compared, same: Tensor | None) -> tuple[Tensor, Tensor]:
        """The rows in which the previous model was right, bool `[N]`: of pictures, and by themselves of captions."""
        both, o = (before.of_image, before.of_text), self.options
        if not o.screen:
            return torch.ones_like(both[0][:, 0], dtype=torch.bool), torch.ones_like(both[1][:, 0], dtype=torch.bool)
        equal = same if o.screen_ties == "equal" else None
        return screen(both[0], before.offset, equal), screen(both[1], before.offset, equal)

    def aligned(self, before: Compared, now: Compared, kept: tuple[Tensor, Tensor]) -> Tensor:
        """A: how far the kept rows have gone from the previous model's, half of either direction; summed, or their mean."""
        o = self.options
        how = (o.align_temperature, o.diagonal == "keep", now.offset)
        of_image = align(before.of_image, now.of_image, kept[0], *how)
        of_text = align(before.of_text, now.of_text, kept[1], *how)
        together = (of_image + of_text) / 2
        return together if o.align_reduction == "sum" else together / now.of_image.shape[1]

    def after_step(self, progress: Progress) -> None:
        clamp_scale(self.log_scale, MOD_X_CEILING)

    def pictures(self, views: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        with distributed.apart():
            rows = super().embed(views, draws)
            before, now = self.previous.compared(self.previous.embed(views, draws)), self.compared(rows)
            kept = self.kept(before, self.repeated(rows, now))[0]
        turns = [turned(before.f, now.f), turned(before.g, now.g)]
        turns.append((turns[0] - turns[1]).abs())
        most = max(1.0, *(float(each.max()) for each in turns))
        pictures, captions, apart = (float(each.median()) for each in turns)
        shown = {
            f"Similarity of pictures (rows) to captions (columns) before this phase: the {int((~kept).sum())} red rows of "
            f"{len(kept)} are free to change, since another caption came first": marked(before.of_image, kept),
            "The same after it: grey rows should be as they were, and partners lie on the diagonal": marked(now.of_image, kept),
            f"How far features turned in this phase, from 0 to {most:.0f} degrees: those of pictures (top, median "
            f"{pictures:.1f}), of captions (middle, {captions:.1f}), and the difference of both (bottom, {apart:.1f}), "
            "which is what breaks retrieval": torch.cat([histogram(each, most) for each in turns], dim=1),
        }
        return shown | super().pictures(views, draws)


def turned(before: Tensor, now: Tensor) -> Tensor:
    """The angle between unit rows `[N, D]` before and now, in degrees `[N]`."""
    return torch.rad2deg(torch.arccos((before * now).sum(dim=1).clamp(-1, 1)))


def marked(cosine: Tensor, kept: Tensor) -> Tensor:
    """Cosines `[N, N]` as grey levels, in red where a row is not kept: `[3, H, W]`."""
    grey = stretched(cosine)
    return torch.cat([enlarged(grey), *(enlarged(grey * kept[:, None]) for _ in range(2))])
