"""Captions on their way to a text tower: one of each sample's, as a row of token ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.data.text.pack import pack
from tacit.data.text.tokenizer import Tokenizer

COLUMN = "caption"


@dataclass(frozen=True)
class Wording:
    """The form of captions.

    Attributes:
        vocabulary: V, ids that a text tower has rows for; a tokenizer with fewer leaves some of them unused.
        context: C, tokens of a row, start and end included.
    """

    vocabulary: int
    context: int

    @property
    def start(self) -> int:
        return self.vocabulary - 2

    @property
    def end(self) -> int:
        """The largest id: towers are read where it stands."""
        return self.vocabulary - 1

    def trained(self, captions: Sequence[str]) -> Tokenizer:
        """A tokenizer that has these captions' own pairs."""
        return Tokenizer.train(captions, self.vocabulary)

    def rows(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Ids of texts as int64 `[B, C]`; see `pack`."""
        return pack(ids, self.context, self.start, self.end)

    def made_up(self, count: int, generator: torch.Generator) -> Tensor:
        """Rows of any ids, as long as a row can be, int64 `[B, C]`."""
        return self.rows(torch.randint(0, self.start, (count, self.context - 2), generator=generator).tolist())


@dataclass(frozen=True, eq=False)
class Words:
    """What turns captions into tokens, as a run has it."""

    tokenizer: Tokenizer
    wording: Wording

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """int64 `[B, C]`."""
        return self.wording.rows(self.tokenizer.ids(texts))


def fingerprint(tokenizer: str) -> str:
    """A hexadecimal number of the content of a `tokenizer.json`."""
    return hashlib.blake2b(tokenizer.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def captions_of(table: pa.Table, row: int) -> list[str]:
    """The captions of a sample: one, several where the cell is a list, one without words where there is none."""
    said = table[COLUMN][row].as_py() if COLUMN in table.column_names else None
    each = said if isinstance(said, list) else [said]
    return [str(text) for text in each if text is not None] or [""]


def every_caption(table: pa.Table) -> Iterator[str]:
    """Those of all samples, without the empty ones."""
    for row in range(len(table)):
        yield from filter(str.strip, captions_of(table, row))


def drawn_captions(table: pa.Table, draws: Draws) -> list[str]:
    """One caption of each of these rows; of several, any, and another one in another epoch."""
    found = []
    for row, share in zip(draws.samples.tolist(), draws.uniform("caption").tolist(), strict=True):
        several = captions_of(table, row)
        found.append(several[min(int(share * len(several)), len(several) - 1)])
    return found
