"""Byte pairs, learned from the user's own text: nothing is downloaded, and no text is unknown.

The rule is that of CLIP's tokenizer. Cleaned, lower-cased text is cut into pieces: contractions, runs of letters, single
digits, runs of other signs. A piece is its UTF-8 bytes, the last of which is marked as final. The most frequent neighbours
inside pieces become one symbol, again and again; of equally frequent pairs that of the smaller ids comes first.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tacit.core.errors import TacitError, said
from tacit.core.files import read_text, write_text
from tacit.data.text.pack import pack

if TYPE_CHECKING:
    import tokenizers

PIECES = r"'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
FINAL = "</w>"
BASE = 512
"""The 256 bytes, and again as the last ones of a piece."""

MOST = 10_000_000
"""Ids that a tokenizer can have: every one has a row in a trunk's table."""

LEARNED_FROM = 10_000
"""Letters of a text that pairs are learned from: the time it takes grows with the square of a word's length."""

STARTS = ("<start>", "<|startoftext|>", "<s>", "[CLS]", "<bos>")
ENDS = ("<end>", "<|endoftext|>", "</s>", "[SEP]", "<eos>", "<|end_of_text|>")
PADS = ("<pad>", "[PAD]", "<|pad|>")
"""What the tokens are called, here and in the files of others; the first that is found is taken."""


def clean(text: str) -> str:
    """Text without the escapes of web pages (some are escaped twice), every run of white space being one space.

    Halves of surrogate pairs, which no UTF-8 can hold, become question marks.
    """
    text = " ".join(html.unescape(html.unescape(text)).split())
    return text.encode(errors="replace").decode()


class Tokenizer:
    """Text to ids and rows of ids.

    Attributes:
        vocabulary: V; ids lie in `[0, V)`.
        start, end: ids that every row has; `end` is the largest id where tacit trained the tokenizer.
        pad: the id that fills up a row; 0, an ordinary id, where there is none of its own.
    """

    def __init__(self, content: str, origin: str = "the tokenizer") -> None:
        """Rebuild a tokenizer from the JSON of the `tokenizers` library: tacit's own or any other.

        One that has no start or end token, by any of the usual names, gets it.

        Args:
            content: what `save` wrote, or the library did.
            origin: how an error names it.

        Raises:
            TacitError: this is no such file.
        """
        library = _library()
        with _refused(f"{origin} is no tokenizer.json of the tokenizers library"):
            self._inner = library.Tokenizer.from_str(_checked(content))
            # Rows are cut and filled here, and a text that spells a token's name is text.
            self._inner.no_truncation()
            self._inner.no_padding()
            self._inner.encode_special_tokens = True
            self.start, self.end = self._special(STARTS), self._special(ENDS)
            self.vocabulary = 1 + max(self._inner.get_vocab().values())
        if self.vocabulary > MOST:
            raise TacitError(f"{origin} has {self.vocabulary:,} ids, more than the {MOST:,} that a table is made for")
        self.pad = next((found for name in PADS if (found := self._inner.token_to_id(name)) is not None), 0)

    @classmethod
    def train(cls, texts: Iterable[str], size: int = BASE + 2000 + 2) -> Tokenizer:
        """Learn pairs until there are `size` ids, or none comes twice; the same texts, in any order, give the same ids.

        Ids are the 512 bytes, the joined pairs in the order of their making, `<start>`, `<end>`.

        Args:
            texts: of the training split alone.
            size: V at the most, at least 514.
        """
        if size < BASE + 2:
            raise TacitError(f"a vocabulary of {size:,} ids was asked for; {BASE + 2} were expected at least")
        library = _library()
        letters = sorted(library.pre_tokenizers.ByteLevel.alphabet())
        base = [*letters, *(letter + FINAL for letter in letters)]
        learning = _pieces(library.models.BPE(end_of_word_suffix=FINAL))
        # As "special" symbols the base has its ids before any text is seen; the tokenizer that comes out knows none of it.
        trainer = library.trainers.BpeTrainer(
            vocab_size=size - 2, min_frequency=2, special_tokens=base, end_of_word_suffix=FINAL, show_progress=False
        )
        learning.train_from_iterator((clean(text)[:LEARNED_FROM] for text in texts), trainer)
        learned = json.loads(learning.to_str())["model"]
        merges = [tuple(pair) for pair in learned["merges"]]
        made = _pieces(library.models.BPE(vocab=learned["vocab"], merges=merges, end_of_word_suffix=FINAL))
        return cls(made.to_str())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read a `tokenizer.json`; see `__init__`."""
        return cls(read_text(path), str(path))

    @property
    def content(self) -> str:
        """What `__init__` takes."""
        return self._inner.to_str(pretty=True) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        write_text(path, self.content)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without start and end, however many."""
        # A file of the user's may know neither a word nor a sign for unknown ones.
        with _refused("the tokenizer cannot read these texts", "; train it on them"):
            encoded = self._inner.encode_batch([clean(text) for text in texts], add_special_tokens=False)
        return [each.ids for each in encoded]

    def __call__(self, texts: Sequence[str], context: int) -> Tensor:
        """The texts as rows, int64 `[B, context]`: start, ids, end, filled up or cut; see `pack`."""
        return pack(self.ids(texts), context, self.start, self.end, self.pad)

    def _special(self, names: Sequence[str]) -> int:
        """The id of the first of these names that is known, else of the first one, made anew."""
        for name in names:
            if (found := self._inner.token_to_id(name)) is not None:
                return found
        self._inner.add_special_tokens([names[0]])
        return self._inner.token_to_id(names[0])


@contextmanager
def _refused(what: str, mend: str = "") -> Iterator[None]:
    """Whatever the library raises is a `TacitError`: a panic of its Rust, too, which is no `Exception`."""
    try:
        yield
    except (TacitError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as problem:
        raise TacitError(f"{what} ({said(problem)}){mend}") from problem


def _checked(content: str) -> str:
    """The same JSON, each name once, without what makes the library read beyond a string and end the process.

    It cuts as many bytes off the second half of a merge as the prefix of such halves has letters, and never looks at them.
    """
    parsed = json.loads(content)
    model = parsed["model"]
    if prefix := model.get("continuing_subword_prefix") or "":
        halves = (merge.split(" ")[-1] if isinstance(merge, str) else merge[-1] for merge in model.get("merges", ()))
        if not prefix.isascii() or not all(half.startswith(prefix) for half in halves):
            raise ValueError(f"its merges do not have the prefix {prefix[:20]!r}")
    return json.dumps(parsed)


def _pieces(model: Any) -> tokenizers.Tokenizer:
    """A tokenizer that cuts text into the pieces within which this model joins bytes."""
    library = _library()
    made = library.Tokenizer(model)
    made.normalizer = library.normalizers.Sequence([library.normalizers.NFC(), library.normalizers.Lowercase()])
    made.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.Split(library.Regex(PIECES), "removed", invert=True),
            library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return made


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise TacitError("text needs tokenizers, which is not installed: pip install 'tacit[text]'") from None
    return tokenizers
