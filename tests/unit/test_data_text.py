"""The tokenizer and the packing of its ids."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from tacit.core.errors import TacitError
from tacit.data.text.pack import fitting_context, pack, trim
from tacit.data.text.tokenizer import BASE, Tokenizer, clean

TEXTS = ["A red dog's 12 balls", "a red cat can't &amp;amp; won't", "the  red dogs caf\u00e9", "a blue ball, a red ball!"] * 2


def letters() -> list[str]:
    """The sign that stands for each byte, as byte-level tokenizers have it, and the order of their ids."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return printed + others


def learn_by_hand(texts: list[str], size: int) -> tuple[list[tuple[int, int]], dict[str, list[int]]]:
    """The joined pairs in order, and the ids of every piece: from the card, with loops."""
    place = {byte: index for index, byte in enumerate(letters())}
    count = Counter(piece for text in texts for piece in pieces(text))
    words = {piece: [place[byte] for byte in piece.encode()] for piece in count}
    for ids in words.values():
        ids[-1] += 256
    merges: list[tuple[int, int]] = []
    while len(merges) < size - BASE - 2:
        pairs = Counter()
        for piece, ids in words.items():
            for pair in pairwise(ids):
                pairs[pair] += count[piece]
        if not pairs or max(pairs.values()) < 2:
            break
        best = min(pair for pair, times in pairs.items() if times == max(pairs.values()))
        for ids in words.values():
            i = 0
            while i < len(ids) - 1:
                if (ids[i], ids[i + 1]) == best:
                    ids[i : i + 2] = [BASE + len(merges)]
                i += 1
        merges.append(best)
    return merges, words


def pieces(text: str) -> list[str]:
    return re.findall(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\s\w]|_)+", clean(text).lower())


@pytest.mark.parametrize("size", [BASE + 2, BASE + 12, 4000])
def test_pairs_are_learned_as_by_hand(size):
    merges, words = learn_by_hand(TEXTS, size)
    made = Tokenizer.train(TEXTS, size)
    assert made.vocabulary == BASE + len(merges) + 2
    assert (made.start, made.end) == (made.vocabulary - 2, made.vocabulary - 1)
    assert made.ids(TEXTS) == [[i for piece in pieces(text) for i in words[piece]] for text in TEXTS]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text("abc' é1", max_size=12), min_size=1, max_size=8), st.integers(BASE + 2, BASE + 40))
def test_any_pairs_are_learned_as_by_hand(texts, size):
    _, words = learn_by_hand(texts, size)
    assert Tokenizer.train(texts, size).ids(texts) == [[i for piece in pieces(text) for i in words[piece]] for text in texts]


def test_the_order_of_texts_does_not_matter_and_training_is_repeatable(tmp_path):
    for name, texts in (("a", TEXTS), ("b", TEXTS[::-1])):
        Tokenizer.train(texts).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_text_is_unknown():
    """Signs that were never seen, also as the last of a word, are their bytes."""
    made = Tokenizer.train(TEXTS)
    place = {byte: index for index, byte in enumerate(letters())}
    for sign in ("\u2603", "\u4e2d", "\U0001f600", "\u00fc", "z"):
        *before, last = sign.encode()
        assert made.ids([sign]) == [[*(place[byte] for byte in before), 256 + place[last]]]


def test_half_a_surrogate_pair_is_no_obstacle():
    assert Tokenizer.train(["\ud800 red"]).ids(["\ud800"]) == Tokenizer.train(["? red"]).ids(["?"])


def test_text_is_cleaned():
    assert clean(" a\n&amp;lt;b&amp;gt;\t c ") == "a <b> c"
    made = Tokenizer.train(TEXTS)
    first, *others = made.ids(["a red caf\u00e9", "  A RED\ncaf\u00e9 ", "a red cafe\u0301"])
    assert all(each == first for each in others)


def test_a_text_that_spells_the_end_token_does_not_end():
    made = Tokenizer.train(TEXTS)
    ids = made.ids(["a <end> b <start>"])[0]
    assert made.end not in ids
    assert made.start not in ids


def test_a_saved_tokenizer_is_the_same(tmp_path):
    made = Tokenizer.train(TEXTS)
    made.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert torch.equal(again(TEXTS, 10), made(TEXTS, 10))
    assert (again.vocabulary, again.start, again.end, again.pad) == (made.vocabulary, made.start, made.end, made.pad)


def users_own(specials: list[str]) -> Library:
    vocabulary = {name: index for index, name in enumerate([*specials, "red", "dog", "[UNK]"])}
    theirs = Library(models.WordLevel(vocabulary, unk_token="[UNK]"))
    theirs.pre_tokenizer = pre_tokenizers.Whitespace()
    theirs.enable_truncation(2)
    theirs.enable_padding(length=5)
    return theirs


def test_the_users_own_tokenizer_is_taken(tmp_path):
    users_own(["[PAD]", "[CLS]", "[SEP]"]).save(str(tmp_path / "own.json"))
    own = Tokenizer.load(tmp_path / "own.json")
    assert (own.start, own.end, own.pad, own.vocabulary) == (1, 2, 0, 6)
    assert own(["red red dog cat", "dog"], 8).tolist() == [[1, 3, 3, 4, 5, 2, 0, 0], [1, 4, 2, 0, 0, 0, 0, 0]]


def test_files_that_are_no_tokenizers_are_refused(tmp_path):
    for content in ("", "{}", "[1]", '{"model": {"type": "BPE", "vocab": {}, "merges": ["a b"]}}', "\x00"):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(TacitError, match=r"bad\.json is no tokenizer\.json"):
            Tokenizer.load(tmp_path / "bad.json")
    with pytest.raises(TacitError, match="no such file"):
        Tokenizer.load(tmp_path / "none.json")


@pytest.mark.parametrize("known", [[], ["[CLS]"], ["<|endoftext|>"]])
def test_a_tokenizer_without_start_or_end_gets_them(known, tmp_path):
    """One whose end token starts texts, too, gets another start: texts are read at the first end."""
    own = Tokenizer(users_own(known).to_str())
    assert own.start != own.end
    assert own.vocabulary == 3 + 2
    row = own(["red <end> dog"], 9)[0].tolist()
    assert (row[0], row.index(own.end)) == (own.start, 6)
    own.save(tmp_path / "own.json")
    assert Tokenizer.load(tmp_path / "own.json")(["red <end> dog"], 9)[0].tolist() == row


def test_a_tokenizer_without_a_word_for_the_unknown_says_so():
    own = Tokenizer(Library(models.WordLevel({"red": 0}, unk_token="?")).to_str())
    with pytest.raises(TacitError, match="train it on them"):
        own.ids(["blue"])


def test_ids_beyond_all_reason_are_refused():
    content = json.loads(users_own(["[CLS]", "[SEP]"]).to_str())
    content["model"]["vocab"]["red"] = 2**32 - 1
    with pytest.raises(TacitError, match="4,294,967,296 ids"):
        Tokenizer(json.dumps(content))


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(TacitError, match="514 were expected"):
        Tokenizer.train(TEXTS, 513)


# Packing


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(3, 9), max_size=9), min_size=1, max_size=5), st.integers(2, 8))
def test_rows_are_packed_as_by_hand(ids, context):
    """Mutation: a text that is cut loses its end."""
    tokens = pack(ids, context, start=10, end=11, pad=1)
    for row, text in zip(tokens.tolist(), ids, strict=True):
        expected = [10, *text, 11]
        if len(expected) > context:
            expected = [*expected[: context - 1], 11]
        assert row == expected + [1] * (context - len(expected))


def test_no_room_is_told():
    with pytest.raises(TacitError, match="no room"):
        pack([[1]], 1, 2, 3)


def test_columns_that_no_text_needs_are_cut_off():
    tokens = pack([[3], [3, 4, 5], []], 9, start=10, end=11)
    assert torch.equal(trim(tokens, 11), tokens[:, :5])
    assert torch.equal(trim(tokens[:, :4], 11), tokens[:, :4])
    assert trim(tokens[:0], 11).shape == (0, 9)


def test_a_context_fits_nearly_all_texts():
    lengths = list(range(1, 101))
    assert fitting_context(lengths, most=1000) == 99 + 2
    assert fitting_context(lengths, share=1.0, most=1000) == 100 + 2
    assert fitting_context(lengths) == 32
    assert fitting_context([0]) == 2
