"""Both towers of a run that learned from captions, as protocols see them: as training left them, and before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tacit.data.spec import Batch
from tacit.evaluation.subject import Joint
from tacit.evaluation.task import BATCH
from tacit.nn.encoder import Encoder
from tacit.nn.init import seeded
from tacit.nn.text import Reader
from tacit.nn.towers import projection
from tacit.use.reading import Reading
from tacit.use.run import OpenRun


class Towers:
    """The towers of a run; a `TacitError` where it learned from no captions."""

    def __init__(self, run: OpenRun) -> None:
        self.run, self.reading = run, Reading(run)

    def trained(self) -> Joint:
        reading = self.reading
        head = None if reading.head is None else _linear(reading.head)
        return self._joint(self.run.encoder, head, reading.reader)

    def untrained(self, encoder: Encoder) -> Joint:
        """An untrained image tower beside the text tower with the weights that the run started from."""
        shape = None if self.reading.head is None else self.reading.head.shape
        with seeded(self.run.seed, "method"):  # first values are drawn as a method draws them, in this order
            head = None if shape is None else projection(shape[1], shape[0])
            reader = Reader(**self.reading.reader.config).eval()
        return self._joint(encoder, head, reader)

    def _joint(self, encoder: Encoder, head: nn.Module | None, reader: Reader) -> Joint:
        run = self.run
        encode, head, reader = run.encode(of=encoder), (head or nn.Identity()).to(run.device), reader.to(run.device)

        @torch.no_grad()
        def pictures(batch: Batch) -> Tensor:
            return head(encode(batch))

        @torch.no_grad()
        def captions(tokens: Tensor) -> Tensor:
            return torch.cat([reader(rows.to(run.device)).float() for rows in tokens.split(BATCH)])

        return Joint(pictures, self.reading.words, captions)


def _linear(weight: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    made.load_state_dict({"weight": weight})
    return made
