"""A `tokenizer.json` that somebody made to harm: refused in one line, whatever it does to the library that reads it."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from tests.fuzz.seeds_kinds import CAPTIONS

from tacit.core.errors import TacitError
from tacit.data.text.tokenizer import Tokenizer

PLAIN = {"a": 0, "b": 1, "ab": 2}
CHARSMAP = base64.b64encode(struct.pack("<II", 4, 0xFFFFFFFF) + b"abc\0").decode()


def content(prefix: str | None = None, vocabulary: dict[str, int] = PLAIN, merge: Any = "a b", **parts: Any) -> str:
    model = {"type": "BPE", "vocab": vocabulary, "merges": [merge], "continuing_subword_prefix": prefix}
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model, **parts})


HALVES = {
    "prefix longer than a half": content("####"),
    "prefix that no half has": content("#", {"a": 0, "é": 1, "aé": 2}, "a é"),
    "prefix that no half has, in pairs": content("#", {"a": 0, "é": 1, "aé": 2}, ["a", "é"]),
    "prefix with more bytes than letters": content("é", {"a": 0, "ébb": 1, "abb": 2}, "a ébb"),
}
PANICS = {
    "pieces of no letter": content(pre_tokenizer={"type": "FixedLength", "length": 0}),
    "letters beyond their table": content(normalizer={"type": "Precompiled", "precompiled_charsmap": CHARSMAP}),
}


@pytest.mark.parametrize("hostile", HALVES.values(), ids=HALVES)
def test_merges_that_would_end_the_process_are_refused_before_the_library_sees_them(hostile: str) -> None:
    with pytest.raises(TacitError, match=r"^mine is no tokenizer\.json .*prefix"):
        Tokenizer(hostile, "mine")


@pytest.mark.parametrize("hostile", PANICS.values(), ids=PANICS)
def test_a_panic_of_the_library_is_an_error_in_one_line(hostile: str) -> None:
    with pytest.raises(TacitError, match=r"^the tokenizer cannot read these texts \(.+\); train it on them$"):
        Tokenizer(hostile)(CAPTIONS, 8)


def test_what_is_looked_at_is_what_the_library_reads() -> None:
    """Of two models in one file the library would build both."""
    model = json.dumps(json.loads(content())["model"])
    twice = f'{HALVES["prefix that no half has"][:-1]}, "model": {model}}}'
    assert Tokenizer(twice).ids(["ab"]) == Tokenizer(content()).ids(["ab"])


@pytest.mark.timeout(20)
def test_a_word_of_a_million_letters_is_learned_from_as_far_as_that_is_quick() -> None:
    words = ["a" * 1_000_000, *CAPTIONS]
    made = Tokenizer.train(words, 600)
    assert made(words, 8).shape == (len(words), 8)


def test_merges_that_have_their_prefix_are_read() -> None:
    made = Tokenizer(content("#", {"a": 0, "#b": 1, "ab": 2}, "a #b"))
    assert made.ids(["ab a"]) == Tokenizer(made.content).ids(["ab a"])
