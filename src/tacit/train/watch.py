"""What can be seen of a representation without labels, on samples that training never touches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.data.spec import Batch, Spec
from tacit.evaluation import figures
from tacit.nn.encoder import Encoder
from tacit.views.view import View

CHUNK = 128


class Watch:
    """Figures of an encoder on two fixed views of every held-back sample.

    Args:
        batch: the held-back samples.
        view: what they are looked at through; the same for every method of a kind, so that figures compare.
        seed: fixes the two views for the whole run, and for other runs with the same seed.
    """

    def __init__(self, batch: Batch, view: View, spec: Spec, seed: int) -> None:
        self.batch, self.view, self.spec, self.seed = batch, view, spec, seed

    def __len__(self) -> int:
        return len(self.batch)

    @torch.no_grad()
    def figures(self, encoder: Encoder, projector: nn.Module | None, device: torch.device) -> dict[str, float]:
        """Figures of the pooled features and, under `projector_...`, of what the loss sees."""
        with evaluating(encoder):
            first, second = (self._rows(name, device, lambda x: encoder(x).pooled) for name in ("first", "second"))
        found = describe(first, second)
        if projector is not None:
            with evaluating(projector):
                projected = describe(*(projector(rows.to(device)).float().cpu() for rows in (first, second)))
            found |= {f"projector_{name}": value for name, value in projected.items()}
        return found

    @torch.no_grad()
    def figures_of_input(self) -> dict[str, float]:
        """The same of raw input, averaged down to 32 places an axis: what there is to find before anything is encoded."""

        def flat(x: Tensor) -> Tensor:
            if x.ndim == 4:
                x = nn.functional.adaptive_avg_pool2d(x, (min(32, x.shape[2]), min(32, x.shape[3])))
            return x.flatten(1)

        return describe(*(self._rows(name, torch.device("cpu"), flat) for name in ("first", "second")))

    def _rows(self, name: str, device: torch.device, encode: Callable[[Tensor], Tensor]) -> Tensor:
        rows = []
        for start in range(0, len(self.batch), CHUNK):
            part = self.batch.rows(start, start + CHUNK).to(device)
            seen = self.view(part, Draws(self.seed, 0, part.ids, f"watch/{name}/"), self.spec)
            rows.append(encode(seen).float().cpu())
        return torch.cat(rows)


def describe(first: Tensor, second: Tensor) -> dict[str, float]:
    """Rank, spread, uniformity, alignment and second-view finding of paired features `[N, D]`."""
    return {
        "effective_rank": figures.effective_rank(first),
        "spread": figures.spread(first),
        "uniformity": figures.uniformity(first),
        "alignment": figures.alignment(first, second),
        "second_view": figures.second_view(first, second),
    }


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
