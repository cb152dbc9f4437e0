"""Samples that can be read: what every verb works on, wherever they came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError, nearest
from tacit.data.index import Index
from tacit.data.kinds.kind import Form, Kind
from tacit.data.payload import Limits, Payload, Unreadable
from tacit.data.rows import Rows
from tacit.data.sources.source import Read
from tacit.data.text.wording import Words, drawn_captions
from tacit.data.window import Part


@dataclass(frozen=True, eq=False)
class Collection:
    """Samples of one kind, as `open_data` makes them.

    Attributes:
        kind: the module that knows the kind.
        index: the table of the samples.
        description: one sentence: how the input was understood, and why.
        form: what all samples are brought to: channels, dtype, and their typical extent as they lie there.
        origin: `[N]`, the row of the source for each row here.
        fetch: reads a row of the source.
        limits: how much a single sample may ask for.
        late_labels: reads the labels of some rows of the source, where the table does not have them.
        words: what makes tokens of captions, where they are wanted.
        fetch_mask: reads the labels of the places of a row of the source, where there are any.
    """

    kind: Kind
    index: Index
    description: str
    form: Form
    origin: np.ndarray | Rows
    fetch: Read
    limits: Limits
    late_labels: Callable[[np.ndarray], list[str]] | None = None
    words: Words | None = None
    fetch_mask: Read | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def fingerprint(self) -> str:
        """A hexadecimal number of the paths, sizes and times of these samples."""
        return self.index.fingerprint

    @property
    def paths(self) -> list[str]:
        return self.index.paths

    @property
    def labels(self) -> np.ndarray | None:
        """The samples' labels as strings (objects), for evaluation only; None where there are none."""
        if self.late_labels is not None:
            return np.array(self.late_labels(np.asarray(self.origin)), dtype=object)
        return self.index.strings("label")

    def read(self, row: int) -> Payload:
        """The sample as it lies in its source. Raises `Unreadable`."""
        return self.fetch(int(self.origin[row]), self.limits)

    def decode(self, row: int, side: int | None = None, part: Part | None = None) -> np.ndarray:
        """`[*extent, C]` in the run's channels and dtype, its shorter side at most `side`. Raises `Unreadable`.

        With `part`, only what it wants of the sample.
        """
        decoded = self.kind.decode(self.read(row), self.form, side, self.name(row), self.limits, part)
        if not decoded.size:
            raise Unreadable(f"it holds no values: {' x '.join(map(str, decoded.shape))}")
        return decoded

    def mask(self, row: int, side: int | None = None, part: Part | None = None) -> np.ndarray:
        """Labels of the places that `decode` gives with the same arguments, int64 `[*extent]`, for evaluation only.

        Raises `Unreadable`, or a `TacitError` where the data has no such labels at all.
        """
        if self.fetch_mask is None or self.kind.mask is None:
            raise TacitError(
                "this data has no labels of points, pixels or voxels; give a manifest with a column 'mask' that names a file "
                "of labels for each sample, or folders `images` and `masks` with the same names in them"
            )
        payload = self.fetch_mask(int(self.origin[row]), self.limits)
        return self.kind.mask(payload, self.form, side, self.index.table["mask"][row].as_py() or "", self.limits, part)

    def glance(self, row: int, side: int | None = None) -> np.ndarray:
        """As much of a sample as tells what it looks like."""
        window = self.kind.glance
        return self.decode(row, side, None if window is None else lambda extent: window(extent, ()))

    def extra(self, draws: Draws) -> dict[str, Tensor]:
        """What batches of these rows have beside decoded samples: the tokens of a caption of each, where they are wanted."""
        return {} if self.words is None else {"tokens": self.words(drawn_captions(self.index.table, draws))}

    def name(self, row: int) -> str:
        """The path of a sample as the table has it; empty where there is none."""
        return self.index.table["path"][row].as_py() or ""

    def select(self, rows: str | Sequence[int] | np.ndarray) -> Collection:
        """Some of the samples, by row numbers, by a mask or by the name of a split."""
        if isinstance(rows, str):
            values = self.index.strings("split")
            if values is None or rows not in self.index.splits:
                there = f"there are {', '.join(self.index.splits)}" if self.index.splits else "this data has no splits"
                raise TacitError(f"no split '{rows}': {there}{nearest(rows, self.index.splits)}")
            rows = np.flatnonzero(values == rows)
        chosen = np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        return replace(self, index=self.index.take(chosen), origin=self.origin[chosen])

    def with_channels(self, channels: int) -> Collection:
        """The same samples with as many channels as an encoder expects: grey is repeated for three; else a `TacitError`."""
        if channels == self.form.channels:
            return self
        if (self.form.channels, channels) != (1, 3):
            raise TacitError(
                f"the data has {self.form.channels} channel(s), the encoder was trained on {channels}; give data that fits"
            )
        return replace(self, form=replace(self.form, channels=channels))
