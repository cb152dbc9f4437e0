"""What can be seen of a representation without labels, on samples that training never touches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.data.spec import Batch, Spec
from tacit.evaluation import figures
from tacit.nn.encoder import Encoder
from tacit.nn.norms import settled
from tacit.views.sight import sight
from tacit.views.view import View

CHUNK = 128

CHECKS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""When the verdict looks, as shares of the run: dense at the start, where collapse shows."""

LOOKS = len(CHECKS) + 1
"""How many looks at encoders that is: before the first step there are two, with batch statistics as made and settled."""

CELLS = 1024
"""Of so many places at most the rank is taken."""

VIEWS = ("first", "second", "third")
"""The third makes the comparison of two encoders half again as sharp: a sample's luck with its crops evens out."""

PAIRS = ((0, 1), (1, 2), (2, 0))


class Seen(NamedTuple):
    """What one look says.

    Attributes:
        figures: by name; those of what the loss sees under `projector_...`.
        scores: how well each held-back sample's views are found (`figures.finding`), by probe: to compare encoders sample by
            sample.
    """

    figures: dict[str, float]
    scores: dict[str, list[float]]


class Watch:
    """Figures of an encoder on fixed views of every held-back sample.

    Args:
        batch: the held-back samples.
        probes: what they are looked at through, by name; the same for every method of a kind, so that figures compare. All
            figures but the finding of second views are of the first probe.
        seed: fixes the views for the whole run, and for other runs with the same seed.
        places: whether to look at places of samples, too: their effective rank becomes the figure `place_rank`.
    """

    def __init__(self, batch: Batch, probes: Mapping[str, View], spec: Spec, seed: int, places: bool = False) -> None:
        self.batch, self.probes, self.spec, self.seed, self.places = batch, dict(probes), spec, seed, places

    def __len__(self) -> int:
        return len(self.batch)

    @torch.no_grad()
    def look(self, encoder: Encoder, projector: nn.Module | None, device: torch.device) -> Seen:
        """At the pooled features, and at what the loss sees."""
        tokens: list[Tensor] = []

        def pooled(x: Tensor) -> Tensor:
            encoded = encoder(x)
            if self.places:
                tokens.append(encoded.tokens.flatten(0, 1).float().cpu())
            return encoded.pooled

        with evaluating(encoder):
            views = self._views(device, pooled)
        seen = describe(views)
        if self.places:
            cells = torch.cat(tokens).chunk(len(self.probes) * len(VIEWS))[0]  # of the first view of the first probe
            seen.figures["place_rank"] = figures.effective_rank(cells[:: -(-len(cells) // CELLS)])
        if projector is not None:
            with evaluating(projector):
                main = next(iter(views.values()))
                projected = describe({"": [projector(rows.to(device)).float().cpu() for rows in main]})
            seen.figures.update({f"projector_{name}": value for name, value in projected.figures.items()})
        return seen

    @torch.no_grad()
    def look_untrained(self, encoder: Encoder, projector: nn.Module | None, device: torch.device) -> tuple[Seen, Seen]:
        """At an encoder before its first step: as made, and at the better of that and of it with settled batch statistics."""
        made = self.look(encoder, projector, device)
        other = settled(encoder, self._parts(next(iter(self.probes)), VIEWS[0], device))
        if other is encoder:
            return made, made
        ready = self.look(other, projector, device)
        best = {name: max(made.scores[name], ready.scores[name], key=sum) for name in self.probes}
        return made, Seen(max(made, ready, key=lambda seen: seen.figures["second_view"]).figures, best)

    @torch.no_grad()
    def look_at_input(self) -> Seen:
        """At raw input, coarse and centred: what there is to find before anything is encoded."""
        views = self._views(torch.device("cpu"), sight(self.spec.kind).flat)
        return describe({name: [view - rows[0].mean(dim=0) for view in rows] for name, rows in views.items()})

    def compare(self, now: Seen, before: Mapping[str, Mapping[str, list[float]]]) -> dict[str, float]:
        """By how many standard errors second views are found better than by each baseline: `crops_ahead_of_untrained` ..."""
        return {
            f"{probe}_ahead_of_{name}": figures.lead(torch.tensor(now.scores[probe]), torch.tensor(scores[probe]))
            for probe in self.probes
            for name, scores in before.items()
        }

    def _views(self, device: torch.device, encode: Callable[[Tensor], Tensor]) -> dict[str, list[Tensor]]:
        """Three features `[N, D]` of all samples, by probe."""
        return {
            probe: [torch.cat([encode(part).float().cpu() for part in self._parts(probe, name, device)]) for name in VIEWS]
            for probe in self.probes
        }

    def _parts(self, probe: str, name: str, device: torch.device) -> Iterator[Tensor]:
        for start in range(0, len(self.batch), CHUNK):
            part = self.batch.rows(start, start + CHUNK).to(device)
            yield self.probes[probe](part, Draws(self.seed, 0, part.ids, f"watch/{probe}/{name}/"), self.spec)


def describe(views: Mapping[str, Sequence[Tensor]]) -> Seen:
    """Rank, spread, uniformity, alignment and second-view finding of three features `[N, D]` of the same samples, by probe."""
    main = next(iter(views.values()))
    named = {
        "effective_rank": figures.effective_rank(main[0]),
        "spread": figures.spread(main[0]),
        "uniformity": figures.uniformity(main[0]),
        "alignment": sum(figures.alignment(main[i], main[j]) for i, j in PAIRS) / len(PAIRS),
        "second_view": sum(figures.second_view(main[i], main[j]) for i, j in PAIRS) / len(PAIRS),
    }
    scores = {
        probe: torch.stack([figures.finding(rows[i], rows[j]) for i, j in PAIRS]).mean(dim=0).tolist()
        for probe, rows in views.items()
    }
    return Seen(named, scores)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module in evaluation mode; afterwards each part is in the mode it was in."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
