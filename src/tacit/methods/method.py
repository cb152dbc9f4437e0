"""The contract of a method: what is its own, and nothing that another method also has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.data.spec import Batch, Spec
from tacit.data.text.wording import Wording
from tacit.nn.encoder import Encoder
from tacit.nn.text import Reader
from tacit.views.view import View


@dataclass(frozen=True)
class Paper:
    """Where a method comes from."""

    title: str
    authors: str
    year: int
    venue: str
    repository: str = ""


@dataclass(frozen=True)
class Progress:
    """How far a run is. Everything that changes over a run is a function of this."""

    step: int
    steps: int
    epoch_steps: int

    @property
    def fraction(self) -> float:
        """In `[0, 1)`."""
        return self.step / self.steps

    @property
    def epoch(self) -> float:
        """Fractional, from 0."""
        return self.step / self.epoch_steps

    @property
    def epochs(self) -> float:
        return self.steps / self.epoch_steps


@dataclass
class Terms:
    """What a forward pass came to.

    Attributes:
        total: the scalar that is differentiated.
        parts: the terms it is made of, by name; they add up to the total.
        chance: what `total` would be if nothing had been learned, as far as that is known.
        watch: further figures for the record, without gradient.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    chance: float | None = None
    watch: dict[str, Tensor] = field(default_factory=dict)


Rows = dict[str, Tensor]
"""What a contrastive loss knows of the samples of a batch, by name, a row for each: `[N, ...]`."""


@dataclass(frozen=True)
class Chosen:
    """A value that `auto` chose, and why, in a few words."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Facts:
    """What `auto` knows about the data, the machine and the time when it chooses.

    Attributes:
        spec: what samples look like.
        samples: how many there are to train on.
        duplicates: share of samples with a near-duplicate, in `[0, 1]`.
        sparse: share of pixels at the background's value, in `[0, 1]`: near 1 for drawings, glyphs, cells on black.
        flat: share of patches whose spread is under 2 of 255 grey levels.
        mirrored: whether a mirror image means the same; None when nobody said and nothing hints at it.
        batch: samples per step.
        steps: how many steps the run has (an estimate until throughput is measured).
        size: side of the view, in pixels.
        extent: of the view, all its axes.
        encoder: name of the encoder that was chosen.
        width: of the features that this encoder gives.
        device: `cpu`, `cuda` or `mps`.
        captions: of the samples that were looked at, where the data has any.
    """

    spec: Spec
    samples: int
    duplicates: float
    sparse: float
    flat: float
    mirrored: bool | None
    batch: int
    steps: int
    size: int
    extent: tuple[int, ...]
    encoder: str
    width: int
    device: str
    captions: tuple[str, ...] = ()

    @property
    def residual(self) -> bool:
        """Whether the encoder is a residual network for images, as far as its name says: also `timm:NAME`, `file.py:Class`."""
        return "resnet" in self.encoder.rpartition(":")[2].lower()


class Options(BaseModel):
    """Typed options of a method; unknown names and values out of bounds are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def option(default: Any, meaning: str, auto: str = "", **bounds: Any) -> Any:
    """An option: its value in the recipe `paper`, its meaning, the rule of `auto` in words, its bounds (`ge`, `lt` ...)."""
    return Field(default, description=meaning, json_schema_extra={"auto": auto}, **bounds)


class Method(nn.Module):
    """A published system. See `CONTRIBUTING.md` for the smallest complete example.

    A subclass sets the class attributes, builds its modules in `__init__` and defines `views` and `forward`; the rest has
    a default that is right for most methods.
    """

    name: ClassVar[str]
    paper: ClassVar[Paper]
    kinds: ClassVar[tuple[str, ...]]
    needs: ClassVar[dict[str, str]] = {}
    """What has to be trained first, by name, and the method that trains it; `__init__` takes each, trained, by its name."""
    serves_as: ClassVar[str] = ""
    """The method that a run is one of to those who need it, if not its own: with that one's options and weights."""
    tokens: ClassVar[bool] = False
    """Whether the encoder has to be able to look at a subset of tokens."""
    rebuilds: ClassVar[bool] = False
    """Whether it predicts the input itself, a loss that is not lowered by saying the same of all samples."""
    negatives: ClassVar[bool] = False
    """Whether the loss sets samples against others of the batch."""
    anchors: ClassVar[tuple[str, ...]] = ()
    """Parts of the loss that are 0 at first and hold the model to what it was: they may rise, and are no part of what the
    verdict takes for the loss."""
    by_place: ClassVar[bool] = False
    """Whether it tells places apart and makes samples alike at each: the verdict then looks for a collapse among places."""
    partners: ClassVar[bool] = False
    """Whether a view shows two samples at once: the batch then has another one for each, as its part `partner`."""
    Options: ClassVar[type[Options]]
    paper_training: ClassVar[dict[str, Any]] = {}
    """The card's recipe for everything that is not the method's own: encoder, batch, optimiser, rate, schedule."""
    paper_columns: ClassVar[dict[str, dict[str, Any]]] = {}
    """Further recipes of the card, `--recipe paper:NAME`: what differs from the first one, of its options and of training."""

    def __init__(self, options: Any, encoder: Encoder, spec: Spec, size: int) -> None:
        super().__init__()
        self.options, self.spec, self.size = options, spec, size
        self.student = encoder

    @classmethod
    def auto(cls, facts: Facts) -> dict[str, Chosen]:
        """Options (`temperature`) and training values (`train.lr`) that suit the facts, each with its reason."""
        return {}

    @classmethod
    def needed(cls, given: Mapping[str, Any], recipe: str, samples: int) -> dict[str, dict[str, Any]]:
        """The needs of a run, and which options each is trained with.

        Args:
            given: the options that the user set.
            recipe: `auto`, `quick`, `paper` or `paper:NAME`.
            samples: how many there are.
        """
        return {name: {} for name in cls.needs}

    @classmethod
    def inherits(cls, needs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Values that the needs leave no choice about, from each one's own values; options and training alike, by name."""
        return {}

    @classmethod
    def spec_given(cls, spec: Spec, needs: Mapping[str, Spec]) -> Spec:
        """What samples look like to the method, given what they looked like to each of its needs."""
        return spec

    @classmethod
    def encoder_options(cls, options: Any, encoder: str) -> dict[str, Any]:
        """How the paper builds an encoder of this name: positions, first values, drop path."""
        return {}

    @classmethod
    def extent(cls, options: Any, size: int) -> tuple[int, ...]:
        """What the encoder is shown, given the side of the views in pixels: height and width, for images."""
        return (size, size)

    @classmethod
    def wording(cls, options: Any) -> Wording | None:
        """The form in which captions are read; None where they are not."""
        return None

    @classmethod
    def check(cls, options: Any, encoder: Encoder, spec: Spec, size: int, batch: int) -> None:
        """Refuse what cannot work, with a `TacitError`, before anything is computed."""

    @property
    def encoder(self) -> Encoder:
        """What is kept."""
        return self.student

    @property
    def projector(self) -> nn.Module | None:
        """From the encoder's pooled features to what the loss sees, for the verdict; None where there is no such thing."""
        return None

    @property
    def reader(self) -> Reader | None:
        """From the tokens of a caption to where `projector` puts its picture, to be kept for search; None without captions."""
        return None

    def views(self) -> dict[str, View]:
        """What each sample becomes, by name."""
        raise NotImplementedError

    def forward(self, views: dict[str, Tensor], draws: Draws, progress: Progress) -> Terms:
        raise NotImplementedError

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay acts on a parameter: on all with two or more dimensions, unless the card says otherwise."""
        return parameter.ndim > 1

    def before_run(self, every: Iterable[Batch], folder: Path) -> None:
        """Whole-set work before the first step, and again before a run goes on; views are asked for afterwards.

        The first rank is asked first, and alone: what it leaves in `folder` is there for the others, and when the run goes on.

        Args:
            every: all samples once, in the order of their rows, on the device; bad ones are missing. Nothing is read unless
                it is gone through.
            folder: of the run, for what its needs make.
        """

    def before_step(self, progress: Progress) -> None:
        """Before the first pass of a step: copies that move before they teach. A pass itself changes no weight."""

    def after_backward(self, progress: Progress) -> None:
        """Between clipping and the optimiser's step: freezing by dropping gradients."""

    def after_step(self, progress: Progress) -> None:
        """After the optimiser's step: teachers that follow, queues. Once a step, also under accumulation."""

    @torch.no_grad()
    def pictures(self, views: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        """Pictures for the report by name: float `[C, H, W]` in `[0, 1]`, C 1 or 3."""
        return {}


class Contrastive(Method):
    """A method whose loss sets the samples of a batch against each other by a few rows of each, and by nothing else.

    It defines `embed` and `compare` instead of `forward`, so that a step of several passes can have the negatives of all.
    """

    negatives = True

    def embed(self, views: dict[str, Tensor], draws: Draws) -> Rows:
        """All that the loss has to know of these samples."""
        raise NotImplementedError

    def compare(self, rows: Rows, progress: Progress) -> Terms:
        """The loss of rows, which those of other ranks may be gathered to."""
        raise NotImplementedError

    def forward(
        self, views: dict[str, Tensor], draws: Draws, progress: Progress, then: Callable[[Rows], Any] | None = None
    ) -> Any:
        """`Terms`; or what `then` makes of the rows: inside, because weights may be whole only as long as this lasts."""
        rows = self.embed(views, draws)
        return self.compare(rows, progress) if then is None else then(rows)
