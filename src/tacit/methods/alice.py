"""Alice: Anatomical Invariance Modeling and Semantic Alignment in 3D Medical Image Analysis.

Two crops that show the same place of two bodies are the two views of a student and of a teacher that follows it. From columns
of voxels that are mostly hidden, the student says what the teacher says of the other crop as a whole; what the teacher says of
each place of the same crop, after the places of its encoder have looked for what belongs to them among the places of both
decoders (CASA); and what the voxels were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.maps import Maps
from tacit.data.spec import Batch, Spec
from tacit.methods.anatomy import Anatomy
from tacit.methods.method import Chosen, Facts, Method, Options, Paper, Progress, Terms, option
from tacit.methods.pictures import planes, shown, strip
from tacit.nn.anatomy import FINE
from tacit.nn.casa import CASA, AlignmentHead
from tacit.nn.centre import Centre
from tacit.nn.ema import follow, momentum, teacher_of
from tacit.nn.encoder import Encoder
from tacit.nn.swin3d import Swin3D, Swin3DDecoder
from tacit.objectives.alignment import half_square, same_view
from tacit.objectives.distil import cross_view, entropy, sharpen, teacher_temperature
from tacit.views.view import View
from tacit.views.volume_masks import hidden_of, hide_boxes, hide_columns, spread
from tacit.views.volume_match import Matching
from tacit.views.volume_pairs import PairView


class AliceOptions(Options):
    partner: Literal["matched", "position", "random", "self"] = option(
        "matched",
        "what the second crop shows: of another volume the place most alike, that at the same relative position, or any; "
        "or the same place again",
        auto="by position with under 100 volumes and no anatomy given",
    )
    match_score: float = option(0.7, "places that are less alike are drawn anew", auto="0.5", ge=-1, le=1)
    match_tries: int = option(101, "how often they are drawn at most", ge=1)
    augment: bool = option(False, "turn crops by up to 15 degrees and add noise", auto="true with under 100 volumes")
    mask: Literal["column", "block"] = option("column", "what is hidden: columns through the whole depth, or boxes")
    mask_ratio: float = option(0.75, "share of the columns (boxes) that is hidden, rounded up", gt=0, lt=1)
    mask_patch: int = option(16, "side of a column (box), in voxels", auto="8 below 64 voxels", ge=1)
    casa: bool = option(True, "align tokens by cross-attention; else they are compared as they come")
    casa_heads: int = option(8, "heads of the cross-attention", auto="4", ge=1)
    casa_width: int = option(64, "width of a head", auto="16", ge=1)
    casa_hidden: int = option(2048, "hidden width after it", auto="2 K", ge=1)
    casa_dropout: float = option(0.1, "share of it that is silenced", ge=0, lt=1)
    prototypes: int = option(512, "K, what teacher and student spread their opinion over", auto="128 on a processor", ge=2)
    head_width: int = option(2048, "hidden width of the head", auto="256 on a processor", ge=1)
    bottleneck: int = option(256, "dimensions in which features are compared to prototypes", auto="64 on a processor", ge=1)
    head_norm: bool = option(False, "batch-norm inside the head", auto="true")
    lambda_cls: float = option(1.0, "weight of the term of whole crops", ge=0)
    lambda_patch: float = option(1.0, "weight of the term of places", ge=0)
    lambda_rec: float = option(10.0, "weight of the reconstruction", ge=0)
    rec_on: Literal["all", "hidden"] = option("all", "voxels that the reconstruction is judged by")
    student_temperature: float = option(0.1, "sharpness of the student", gt=0)
    teacher_temperature: float = option(0.01, "sharpness of the teacher", auto="0.07", gt=0)
    teacher_temperature_start: float = option(0.008, "the same in the first epoch", auto="0.04", gt=0)
    temperature_epochs: int = option(30, "epochs from one to the other", auto="30 % of them", ge=0)
    patch_student_temperature: float = option(0.1, "sharpness of the student about places", auto="0.5", gt=0)
    patch_teacher_temperature: float = option(0.0, "sharpness of the teacher about them; 0: as of crops", auto="0.2", ge=0)
    centre_momentum: float = option(0.9, "how much of the centre stays at each step", ge=0, le=1)
    patch_centre_momentum: float = option(0.9, "the same for the centre of places", ge=0, le=1)
    momentum: float = option(0.996, "how much of the teacher stays at the first step", auto="0.98 to 0.996", ge=0, le=1)
    freeze_last: float = option(1.0, "epochs during which the prototypes stay as they are", auto="1 % of the run", ge=0)
    drop_path: float = option(0.2, "chance that a branch of the last block is dropped", auto="0.1", ge=0, lt=1)
    normalise: Literal["none", "data"] = option("none", "what is subtracted and divided by; hidden is then 0", auto="data")


ENOUGH = 100
"""Volumes from which on `auto` finds pairs by what was learned from them, and needs no changes of crops."""

PAIR = ("query", "anchor", "score")
"""Views of a pair; the last one, how alike its places are, only where they are matched."""


class Seen(NamedTuple):
    """What a backbone says of crops: vectors `[2B, D]`, tokens of the encoder `[2B, L, D]` and of the decoder `[2B, M, D']`."""

    vectors: Tensor
    encoder: Tensor
    decoder: Tensor


class Alice(Method):
    """Jiang, Sun, Guo, Bai, Yan, Lu, Xu, ICCV 2023."""

    name = "alice"
    paper = Paper(
        "Anatomical Invariance Modeling and Semantic Alignment for Self-supervised Learning in 3D Medical Image Analysis",
        "Jiang, Sun, Guo, Bai, Yan, Lu, Xu",
        2023,
        "ICCV",
        "alibaba-damo-academy/alice",
    )
    kinds = ("volume",)
    by_place = True
    needs = {"anatomy": "anatomy"}
    partners = True
    Options = AliceOptions
    paper_training = {
        "encoder": "swin3d-base",
        "size": 64,
        "batch": 8,
        "epochs": 1000,
        "warmup_epochs": 50,
        "optimiser": "adamw",
        "schedule": "cosine-inclusive",
        "lr": 1.25e-5,
        "lr_end": 1e-6,
        "weight_decay": 0.04,
        "weight_decay_end": 0.4,
        "clip": 3.0,
        "clip_per_tensor": True,
    }

    @classmethod
    def auto(cls, facts: Facts) -> dict[str, Chosen]:
        small = facts.device == "cpu"
        prototypes = 128 if small else 512
        epochs = facts.steps / max(1, facts.samples // facts.batch)
        usual = max(1e-4, 5e-4 * facts.batch / 256)
        kept, lr = (0.98, 1e-3) if facts.steps < 1000 else (0.99, 5e-4) if facts.steps < 5000 else (0.996, usual)
        side = 16 if facts.size >= 64 else 8 if facts.size >= 32 else 4
        return {
            "mask_patch": Chosen(side, f"crops of {facts.size} voxels"),
            "partner": Chosen("position" if facts.samples < ENOUGH else "matched", f"{facts.samples} volumes"),
            "match_score": Chosen(0.5, "an anatomy that was trained briefly"),
            "augment": Chosen(facts.samples < ENOUGH, f"{facts.samples} volumes"),
            "casa_heads": Chosen(4, "few prototypes"),
            "casa_width": Chosen(16, "few prototypes"),
            "casa_hidden": Chosen(2 * prototypes, "twice the prototypes"),
            "prototypes": Chosen(prototypes, f"on a {facts.device}"),
            "head_width": Chosen(256 if small else 2048, f"on a {facts.device}"),
            "bottleneck": Chosen(64 if small else 256, f"on a {facts.device}"),
            "head_norm": Chosen(True, "without it all places look alike after ten steps"),
            "teacher_temperature": Chosen(0.07, "iBOT's: safer for few samples"),
            "teacher_temperature_start": Chosen(0.04, "iBOT's: safer for few samples"),
            "temperature_epochs": Chosen(max(1, round(0.3 * epochs)), "30 % of the epochs"),
            "patch_student_temperature": Chosen(0.5, "aligned logits have a deviation of 1, not of 0.06"),
            "patch_teacher_temperature": Chosen(0.2, "sharper would be one-hot from the first step"),
            "momentum": Chosen(kept, f"{facts.steps} steps"),
            "freeze_last": Chosen(round(0.01 * epochs, 4), "1 % of the run"),
            "drop_path": Chosen(0.1, "short runs"),
            "normalise": Chosen("data", "what all crops have in common, their brightness, drowns the rest else"),
            "train.optimiser": Chosen("adamw", "as published"),
            "train.lr": Chosen(lr, f"{facts.steps} steps"),
            "train.lr_end": Chosen(lr / 100, "a hundredth of the rate"),
            "train.weight_decay": Chosen(0.04, "constant in short runs"),
            "train.clip": Chosen(3.0, "as published"),
            "train.clip_per_tensor": Chosen(True, "as published"),
        }

    @classmethod
    def needed(cls, given: Mapping[str, Any], recipe: str, samples: int) -> dict[str, dict[str, Any]]:
        usual = "matched" if recipe.startswith("paper") or samples >= ENOUGH else "position"
        return {"anatomy": {}} if given.get("partner", usual) == "matched" else {}

    @classmethod
    def inherits(cls, needs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return {"partner": "matched"} if "anatomy" in needs else {}

    @classmethod
    def encoder_options(cls, options: Any, encoder: str) -> dict[str, Any]:
        return {"drop_path": options.drop_path} if encoder.startswith("swin3d") else {}

    @classmethod
    def extent(cls, options: Any, size: int) -> tuple[int, ...]:
        return (size, size, size)

    @classmethod
    def check(cls, options: Any, encoder: Encoder, spec: Spec, size: int, batch: int) -> None:
        if not isinstance(encoder, Swin3D) or len(encoder.depths) < 2:
            raise TacitError("alice needs a U-shaped network for volumes; use --encoder swin3d-micro or another swin3d")
        if size % (step := 2 ** len(encoder.depths)):
            raise TacitError(f"crops of {size} voxels are not halved {len(encoder.depths)} times; give a multiple of {step}")
        if size % options.mask_patch:
            raise TacitError(f"mask_patch={options.mask_patch} does not divide crops of {size} voxels; change either")
        hidden_of((size // options.mask_patch) ** (2 if options.mask == "column" else 3), options.mask_ratio)
        if options.partner != "self" and batch < 2:
            raise TacitError("a volume needs another one as its partner: give a batch of 2 at least, or --set partner=self")

    def __init__(self, options: AliceOptions, encoder: Encoder, spec: Spec, size: int, anatomy: Method | None = None) -> None:
        super().__init__(options, encoder, spec, size)
        assert isinstance(encoder, Swin3D)  # `check` saw to that
        if anatomy is not None and anatomy.spec.channels != spec.channels:
            raise TacitError(
                f"the anatomy was trained on volumes of {anatomy.spec.channels} channels, here are {spec.channels}; "
                "leave it out, or give another"
            )
        self.anatomy = [anatomy]  # in a list: it is no part of what is trained and kept
        self.matching: Matching | None = None
        self.student: Swin3D = encoder
        o, width = options, encoder.width
        self.decoder = Swin3DDecoder(encoder, spec.channels)
        self.head = AlignmentHead(
            width, width, self.decoder.width, o.prototypes, o.head_width, o.bottleneck, batch_norm=o.head_norm
        )
        self.casa = CASA(o.prototypes, o.casa_heads, o.casa_width, o.casa_hidden, o.casa_dropout) if o.casa else None
        if self.casa is None:
            self.head.mlp4.requires_grad_(False)  # nobody asks for the decoder's tokens
        self.teacher = teacher_of(encoder)
        self.teacher_decoder = teacher_of(self.decoder)
        self.teacher_head = self.head.teacher()
        self.center = Centre(o.prototypes, o.centre_momentum)
        self.center_patch = Centre(o.prototypes, o.patch_centre_momentum)

    @property
    def projector(self) -> nn.Module:
        return self.head

    def views(self) -> dict[str, View]:
        o, extent = self.options, (self.size, self.size, self.size)
        matched = o.partner == "matched"
        tries = o.match_tries if matched else 1
        return {
            which: PairView(which, extent, o.partner, o.augment, o.normalise, self.matching, tries)
            for which in PAIR[: 3 if matched else 2]
        }

    def before_run(self, every: Iterable[Batch], folder: Path) -> None:
        """What the anatomy says of every volume, once; pairs are found in that."""
        (anatomy,) = self.anatomy
        if isinstance(anatomy, Anatomy):
            maps = Maps.made(folder / "anatomy-maps", anatomy.describe(every))
            self.matching = Matching(maps, FINE, self.options.match_score)

    def forward(self, views: dict[str, Tensor], draws: Draws, progress: Progress) -> Terms:
        x = torch.cat([views["query"], views["anchor"]])  # [2B, C, X, Y, Z], view by view
        hidden = self.hide(draws)
        alive = draws if self.training else None
        student, reconstruction = self.sees(x * (1 - hidden), alive)
        terms = self.loss(student, self.teaches(x), reconstruction, x, hidden, alive, progress)
        if "score" in views:
            terms.watch["match"] = views["score"].mean()
            terms.watch["unmatched"] = (views["score"] <= self.options.match_score).to(x.dtype).mean()
        return terms

    def hide(self, draws: Draws) -> Tensor:
        """Which voxels the student does not see, `[2B, 1, X, Y, Z]`, 1 where hidden: drawn for each view for itself."""
        o, side = self.options, self.size // self.options.mask_patch
        masks = []
        for view in ("query", "anchor"):
            order = draws.within("mask").permutation(view, side ** (2 if o.mask == "column" else 3))
            if o.mask == "column":  # upright: the depth comes first here, and last where columns are made
                mask = hide_columns(order, [side, side], o.mask_ratio).movedim(-1, 1)
            else:
                mask = hide_boxes(order, [side, side, side], o.mask_ratio)
            masks.append(spread(mask, [self.size] * 3))
        return torch.cat(masks)

    def sees(self, x: Tensor, draws: Draws | None = None) -> tuple[Seen, Tensor]:
        """The student's features of crops, and their reconstruction."""
        seen = self.student(x, draws=draws.within("encoder") if draws else None, taps=self.student.maps)
        maps = [seen.taps[name] for name in self.student.maps]
        tokens, made = self.decoder(maps, x.shape[2:], draws.within("decoder") if draws else None)
        return Seen(seen.pooled, seen.tokens, tokens), made

    @torch.no_grad()
    def teaches(self, x: Tensor) -> Seen:
        """The teacher's features of whole crops; nothing is dropped in it."""
        seen = self.teacher(x, taps=self.teacher.maps)
        return Seen(seen.pooled, seen.tokens, self.teacher_decoder.first([seen.taps[name] for name in self.teacher.maps]))

    def places(self, student: Seen, teacher: Seen, draws: Draws | None = None) -> tuple[Tensor, Tensor]:
        """Logits of places `[2B, L, K]` by the student, and by the teacher for the student's places."""
        asked = self.head.of_encoder(student.encoder)
        if self.casa is None:
            with torch.no_grad():
                return asked, self.teacher_head.of_encoder(teacher.encoder)
        own = self.casa(asked, self.head.of_decoder(student.decoder), draws.within("casa.student") if draws else None)
        with torch.no_grad():
            keys = self.teacher_head.of_decoder(teacher.decoder)
            return own, self.casa(asked, keys, draws.within("casa.teacher") if draws else None)

    def loss(
        self,
        student: Seen,
        teacher: Seen,
        reconstruction: Tensor,
        volumes: Tensor,
        hidden: Tensor,
        draws: Draws | None,
        progress: Progress,
    ) -> Terms:
        """The three terms of what both backbones said, with the centres of before this step."""
        o = self.options
        sharpness = teacher_temperature(
            int(progress.epoch), o.teacher_temperature_start, o.teacher_temperature, o.temperature_epochs
        )
        said = self.head(student.vectors)
        with torch.no_grad():
            heard = self.teacher_head(teacher.vectors)
        said_places, heard_places = self.places(student, teacher, draws)
        target = sharpen(heard, self.center.of(), sharpness)
        target_places = sharpen(heard_places, self.center_patch.of(), o.patch_teacher_temperature or sharpness)
        parts = {
            "cls": o.lambda_cls * cross_view(said, target, o.student_temperature, views=2),
            "patch": o.lambda_patch * same_view(said_places, target_places, o.patch_student_temperature),
            "rec": o.lambda_rec * half_square(reconstruction, volumes, hidden if o.rec_on == "hidden" else None),
        }
        if self.training:
            self.center.hear(heard)
            self.center_patch.hear(heard_places)
        total = torch.stack(list(parts.values())).sum()
        watch = {
            "teacher_entropy": entropy(target),
            "patch_entropy": entropy(target_places),
            "centre": self.center.mean.norm(),
            "centre_patch": self.center_patch.mean.norm(),
        }
        return Terms(total, {name: term.detach() for name, term in parts.items()}, watch=watch)

    def after_backward(self, progress: Progress) -> None:
        if progress.epoch < self.options.freeze_last:
            self.head.hold()

    def after_step(self, progress: Progress) -> None:
        self.center.move()
        self.center_patch.move()
        kept = momentum(progress.fraction, self.options.momentum)
        follow(self.teacher, self.student, kept)
        follow(self.teacher_decoder, self.decoder, kept)
        follow(self.teacher_head, self.head, kept)

    def pictures(self, views: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        query, anchor = views["query"], views["anchor"]
        x, hidden = torch.cat([query, anchor]), self.hide(draws)
        student, made = self.sees(x * (1 - hidden))
        guess = made[: len(query)].clamp(query.min(), query.max())
        rows = [planes(volume[:4]) for volume in (query * (1 - hidden[: len(query)]), guess, query)]
        drawn = {
            "Crops of the same place (from above, the front, the side), and below them what they are paired with": strip(
                *(shown(planes(crop[:4])) for crop in (query, anchor))
            ),
            "What the student sees, what it makes of that, and what was there": strip(*map(shown, rows)),
        }
        if self.casa is None:
            return drawn
        asked, teacher = self.head.of_encoder(student.encoder), self.teaches(x)
        middle = asked[:, asked.shape[1] // 2, None]  # one place, near the middle of the crop
        keys = (self.head.of_decoder(student.decoder), self.teacher_head.of_decoder(teacher.decoder))
        maps = [self.looked_at(self.casa.attention(middle, key)) for key in keys]
        caption = "Where the middle place of a crop looks among the student's cells, and among the teacher's, summed over depth"
        return drawn | {caption: strip(shown(query[:8, :, self.size // 2].flip(2)), *maps)}

    def looked_at(self, attention: Tensor) -> Tensor:
        """Weights over decoder cells `[2B, heads, 1, M]`, the first eight seen from above: `[8, 1, size, size]` in `[0, 1]`."""
        side = self.size // 2 ** (len(self.student.depths) - 1)
        above = attention.mean(dim=(1, 2)).unflatten(1, (side, side, side)).sum(dim=1)[: min(8, len(attention) // 2), None]
        return shown(F.interpolate(above.flip(2), [self.size, self.size], mode="nearest"))
