"""RSPNet: Relative Speed Perception for Unsupervised Video Representation Learning.

Two clips of every film are shown at two speeds to a convolutional network and to a copy that moves slowly. One head has to
place clips of equal speed closer together than clips of different speed, whatever those speeds are; another has to recognise
the film at either speed among keys of other films. Keys never carry a gradient; the copy moves before it makes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.methods.augment import AugmentedOptions, contrastive_views
from tacit.methods.clips import ClipOptions, clip_rules, films, histograms
from tacit.methods.method import Chosen, Facts, Method, Paper, Progress, Terms, option
from tacit.nn.ema import follow, teacher_of
from tacit.nn.encoder import Encoder
from tacit.nn.heads3d import activation_map, last_map, map_head
from tacit.nn.queue import Queue, in_other_company, whole_batches
from tacit.objectives.pairs import unit
from tacit.objectives.precision import wide
from tacit.objectives.speed import appearance, appearance_chance, relative_speed, scores, speed_accuracy
from tacit.views.clips import Speeds, fast_ones
from tacit.views.image import ImageView, Jitter
from tacit.views.video import ClipView
from tacit.views.view import View

POOLED = ("linear", "mlp")
"""Heads that see a map only through its mean."""


class RSPNetOptions(AugmentedOptions, ClipOptions):
    stride: int = option(
        1, "frames from one frame of a slow clip to the next", auto="1 to 4, by the videos' length", ge=1, le=1024
    )
    speeds: tuple[int, ...] = option((2,), "how much faster fast clips are; of several, one is drawn a step", min_length=1)
    slow: float = option(0.5, "share of the samples whose query is slow", ge=0, le=1)
    temperature: float = option(0.07, "divides all cosine similarities", auto="0.1", gt=0)
    margin: float = option(
        2.0, "by how much equal speeds have to be closer, over the temperature", auto="0.14 / temperature", gt=0
    )
    appearance_weight: float = option(1.0, "of the task to recognise the film", ge=0)
    speed_weight: float = option(1.0, "of the task to tell speeds apart", ge=0)
    speed_task: Literal["relative", "absolute"] = option("relative", "compare two clips, or say if one is fast (a baseline)")
    positives: Literal["both", "same"] = option("both", "films are recognised by keys of both speeds, or of the query's own")
    queue: int = option(16384, "keys of other films to tell a film from", auto="a quarter of the samples", ge=1, le=2**22)
    skip_own: bool = option(False, "leave a film's own former keys out", auto="below 1,000 samples, where they are many")
    momentum: float = option(0.999, "how much of the momentum copy stays", auto="1 - 10 / steps, 0.999 at most", ge=0, le=1)
    head: Literal["linear", "mlp", "conv", "convbn"] = option("linear", "what the two heads are made of")
    head_out: int = option(128, "dimensions in which clips are compared", auto="64", ge=1)
    norm: Literal["batch", "group"] = option("batch", "norms of a convolutional encoder; in group-norm no clip sees another")
    splits: int = option(
        4, "shuffled parts that keys are encoded in, so that batch-norm gives nothing away", auto="2 below 64 samples", ge=1
    )
    area: float = option(0.4, "least share of the frame that a clip shows", auto="0.8: zoom looks like speed", gt=0, le=1)
    jitter: float = option(0.4, "brightness, contrast and saturation change by up to this share", ge=0, le=1)
    hue: float = option(0.4, "and hue by so many turns of the colour circle", auto="0.1: colour is content", ge=0, le=0.5)
    jitter_chance: float = option(1.0, "chance of changing colours at all", ge=0, le=1)
    normalise: Literal["none", "data", "imagenet", "films"] = option(
        "imagenet", "what is subtracted and divided by", auto="data"
    )


class RSPNet(Method):
    """Chen, Huang, He, Long, Zeng, Wen, Tan, Gan, AAAI 2021."""

    name = "rspnet"
    paper = Paper(
        "RSPNet: Relative Speed Perception for Unsupervised Video Representation Learning",
        "Chen, Huang, He, Long, Zeng, Wen, Tan, Gan",
        2021,
        "AAAI",
        "PeihaoChen/RSPNet",
    )
    kinds = ("video",)
    Options = RSPNetOptions
    paper_training = {
        "encoder": "r3d18",
        "size": 112,
        "batch": 256,
        "epochs": 200,
        "optimiser": "sgd",
        "lr_per_256": 0.4,
        "lr_end": 4e-4,
        "momentum": 0.9,
        "weight_decay": 1e-4,
    }
    paper_columns = {
        "c3d": {"encoder": "c3d", "batch": 128, "lr_end": 2e-4},
        "r2plus1d": {"encoder": "r2plus1d", "batch": 128, "lr_per_256": 0.2, "lr_end": 1e-4},
        "s3d-g": {"encoder": "s3d-g", "size": 224, "lr_per_256": 0.2, "lr_end": 2e-4},
        "s3d-g-1000": {"encoder": "s3d-g", "size": 224, "lr_per_256": 0.2, "lr_end": 2e-4, "epochs": 1000},
    }

    @classmethod
    def auto(cls, facts: Facts) -> dict[str, Chosen]:
        few = facts.samples < 1000
        known = contrastive_views(facts) | clip_rules(facts, speed=2)
        shared = {name: known[name] for name in ("frames", "stride", "grey", "flip", "normalise")}
        return shared | {
            "temperature": Chosen(0.1, "short runs"),
            "margin": Chosen(1.4, "0.14 in cosines, as published"),
            "queue": Chosen(
                whole_batches(min(facts.samples // 4, 16384), facts.batch), f"a quarter of {facts.samples} samples"
            ),
            "skip_own": Chosen(few, "most of the queue would be false negatives" if few else "own keys are rare"),
            "momentum": Chosen(min(max(1 - 10 / facts.steps, 0.9), 0.999), f"a memory of a tenth of {facts.steps} steps"),
            "head_out": Chosen(64, "small data"),
            "splits": Chosen(
                next((parts for parts in (4 if facts.batch >= 64 else 2, 2, 3) if facts.batch % parts == 0), 1),
                f"equal parts of {facts.batch} clips that suffice for batch-norm",
            ),
            "area": Chosen(0.8, "a crop of 0.4 is a zoom, which looks like another speed"),
            "hue": Chosen(0.1, "colour is content"),
            "train.optimiser": Chosen("adamw", "SGD was seen to leave chance far later"),
            "train.lr": Chosen(2e-3 * math.sqrt(facts.batch / 32), "2e-3 x sqrt(batch / 32)"),
            "train.weight_decay": Chosen(0.02, "small data"),
        }

    @classmethod
    def encoder_options(cls, options: Any, encoder: str) -> dict[str, Any]:
        return {"norm": options.norm} if encoder.startswith(("r3d", "r2plus1d", "c3d", "s3d")) else {}

    @classmethod
    def extent(cls, options: Any, size: int) -> tuple[int, ...]:
        return (options.frames, size, size)

    @classmethod
    def check(cls, options: Any, encoder: Encoder, spec: Spec, size: int, batch: int) -> None:
        if min(options.speeds) < 2:
            raise TacitError(f"speeds={list(options.speeds)}: fast clips have to be at least twice as fast")
        if spec.size[0] < 2 * max(options.speeds):
            raise TacitError(f"films of {spec.size[0]} frames cannot be played {max(options.speeds)} times as fast")
        if batch > options.queue:
            raise TacitError(f"the keys of a batch of {batch} do not fit into queue={options.queue}; raise it")
        parts = options.splits * distributed.world_size()
        if options.splits > 1 and batch % parts:
            raise TacitError(
                f"a batch of {batch} is not made of {parts} equal parts to encode keys in; change --set splits=..."
            )
        if not all(encoder.grid(cls.extent(options, size))):
            raise TacitError(f"clips of {options.frames} frames of {size} pixels are too small; raise size or frames")

    def __init__(self, options: RSPNetOptions, encoder: Encoder, spec: Spec, size: int) -> None:
        super().__init__(options, encoder, spec, size)
        o = options
        speed = map_head(o.head, encoder.width, 1 if o.speed_task == "absolute" else o.head_out)
        self.heads = nn.ModuleDict({"appearance": map_head(o.head, encoder.width, o.head_out), "speed": speed})
        self.teacher, self.teacher_heads = teacher_of(encoder), teacher_of(self.heads)
        self.queue, self.speeds = Queue(o.queue, o.head_out), Speeds(o.frames, o.speeds)
        self.fresh: list[tuple[Tensor, Tensor]] = []
        """The other speed's keys of this step, and whose they are, for each of the passes that it is made of."""

    @property
    def projector(self) -> nn.Module | None:
        """What recognises films, where it sees no more of a map than its mean."""
        head = self.heads["appearance"]
        assert isinstance(head, nn.Sequential)
        return head[2:] if self.options.head in POOLED else None

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Everything, norms and biases too."""
        return True

    def views(self) -> dict[str, View]:
        o = self.options
        look = ImageView(
            self.size,
            area=(o.area, 1.0),
            flip=o.flip,
            jitter=Jitter(o.jitter, o.jitter, o.jitter, o.hue, probability=o.jitter_chance),
            grey=o.grey,
            interpolation="bilinear",
            normalise=o.normalise,
        )
        view = ClipView(len(self.speeds.shown), look, self.speeds.window(o.stride))
        return dict.fromkeys(("clip_q", "clip_k"), view)

    def forward(self, views: dict[str, Tensor], draws: Draws, progress: Progress) -> Terms:
        o, fast = self.options, self.fast(draws)
        q, k, other = self.clips(views, fast, self.speed(draws, progress))
        with torch.no_grad():  # the other speed's keys first, as published
            o_a, o_m = self.key(other, draws.within("other"))
            k_a, k_m = self.key(k, draws.within("same"))
        q_a, q_m = self.student_says(q)
        keys = [unit(k_a), unit(o_a)] if o.positives == "both" else [unit(k_a)]
        own = self.queue.own(draws.samples) if o.skip_own else None
        recognised = appearance(unit(q_a), keys, self.queue.keys.clone(), o.temperature, own)
        told, right, unknown = self.told(q_m, k_m, o_m, fast)
        if self.training:
            self.fresh.append((unit(o_a), draws.samples))
        return Terms(
            o.appearance_weight * recognised + o.speed_weight * told,
            {"appearance": recognised.detach(), "speed": told.detach()},
            chance=o.appearance_weight * appearance_chance(o.queue, len(keys)) + o.speed_weight * unknown,
            watch={"speed_accuracy": right, "real_keys": (self.queue.pushed / o.queue).clamp(max=1)},
        )

    def told(self, query: Tensor, same: Tensor, other: Tensor, fast: Tensor) -> tuple[Tensor, Tensor, float]:
        """The loss on speeds, how many were told apart, and what the loss is by chance."""
        o = self.options
        if o.speed_task == "absolute":
            logit = wide(query)[:, 0]
            right = ((logit.detach() > 0) == fast).float().mean()
            return F.binary_cross_entropy_with_logits(logit, fast.to(logit)), right, math.log(2)
        near, far = (scores(unit(query), unit(key), o.temperature) for key in (same, other))
        return relative_speed(near, far, o.margin), speed_accuracy(near.detach(), far.detach()).float(), o.margin

    def speed(self, draws: Draws, progress: Progress) -> int:
        """How much faster fast clips are in this step, the same for all samples."""
        step = Draws(draws.seed, 0, torch.tensor([progress.step]), "rspnet/")
        return self.options.speeds[int(step.integers("speed", 0, len(self.options.speeds)))]

    def fast(self, draws: Draws) -> Tensor:
        """Bool `[B]`: whose query is fast. The slow share is taken of the whole batch, whichever rank a sample is on."""
        order = distributed.gather(draws.uniform("fast")).argsort()
        return distributed.mine(fast_ones(order, self.options.slow))

    def clips(self, views: Mapping[str, Tensor], fast: Tensor, speed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Query and key at the sample's own speed, and the key's clip at the other one: `[B, C, frames, H, W]` each."""
        q, k, play = views["clip_q"], views["clip_k"], self.speeds.play
        return play(q, fast, speed), play(k, fast, speed), play(k, ~fast, speed)

    def student_says(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        return said(self.student, self.heads, clips)

    def teacher_says(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        return said(self.teacher, self.teacher_heads, clips)

    def key(self, clips: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """What the copy says, of clips in other company than the queries are in: `[B, P]` and `[B, P]`."""
        rows = in_other_company(
            lambda part: torch.cat(self.teacher_says(part), dim=1), clips, draws.uniform("company"), self.options.splits
        )
        return rows[:, : self.options.head_out], rows[:, self.options.head_out :]

    def before_step(self, progress: Progress) -> None:
        """The momentum copy follows before it makes keys."""
        follow(self.teacher, self.student, self.options.momentum)
        follow(self.teacher_heads, self.heads, self.options.momentum)

    def after_step(self, progress: Progress) -> None:
        """Keys of the other speed join the queue, in the order of the index: neither ranks nor passes matter then."""
        if self.fresh:
            keys, owners = (distributed.gather(torch.cat(each)) for each in zip(*self.fresh, strict=True))
            order = owners.argsort()
            self.queue.push(keys[order], owners[order])
            self.fresh.clear()

    def pictures(self, views: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        o, fast, speed = self.options, self.fast(draws), max(self.options.speeds)
        q, k, other = self.clips(views, fast, speed)
        drawn = {}
        for row, word in ((int(fast.int().argmin()), "slow"), (int(fast.int().argmax()), "fast")):
            drawn[f"Three {o.frames}-frame clips of a film: the {word} query, its key at the same speed, and at the other"] = (
                films(q[row], k[row], other[row])
            )
        if o.speed_task == "relative":
            query, *keys = self.student_says(q), self.teacher_says(k), self.teacher_says(other)
            cosines = [F.cosine_similarity(wide(query[1]), wide(key[1])) for key in keys]
            drawn["Similarity of clips from -1 to 1: of equal speed (above), of different speed (below)"] = histograms(*cosines)
        if o.head == "linear":
            drawn["Frames, where they speak for the same film, and where for the same speed"] = self.where(q[:1], k[:1])
        return drawn

    def where(self, q: Tensor, k: Tensor) -> Tensor:
        """Rows of frames of the first query, and of its cells that speak for each head's similarity to its key."""
        there, here, rows = last_map(self.teacher, k), last_map(self.student, q), [films(q[0])]
        for name in self.heads:
            weight, other = (self.get_parameter(f"{heads}.{name}.2.weight") for heads in ("heads", "teacher_heads"))
            maps = activation_map(here, weight, there, other)[:, None].float()  # [1, 1, t, h, w]
            rows.append(films(F.interpolate(maps, q.shape[2:], mode="nearest")[0]).expand(len(rows[0]), -1, -1))
        return torch.cat(rows, dim=1)


def said(encoder: Encoder, heads: nn.Module, clips: Tensor) -> tuple[Tensor, Tensor]:
    """What the head for films and the head for speed make of clips: `[B, P]` each, not normalised."""
    seen = last_map(encoder, clips)
    return heads.get_submodule("appearance")(seen), heads.get_submodule("speed")(seen)
