"""Broken copies of sound bytes: bits, cuts, insertions, exchanged and huge fields, things put into each other."""

from __future__ import annotations

import copy
import json
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tomli_w

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Random = np.random.Generator

EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, 1 << 63)
THINGS: tuple[Any, ...] = (
    0, 1, -1, 3.7, -0.0, 1e300, float("nan"), float("inf"), 10**9, 10**18, -(10**18), True, False, "", "x", "../../etc/passwd",
    "/dev/zero", "\n\t\r", "<img src=x onerror=alert(1)>", "\x00\x1b]0;x\x07", "é" * 300, "timm:resnet18", "other.py:Class",
    [], {}, [[]], [0], ["x"], [10**9] * 5, {"x": 1}, {"": {"": []}}, list(range(300)),
)  # fmt: skip
"""What may stand in a tree where something else was expected."""

WORDS = (
    b"", b"0", b"-1", b"1e999", b"nan", b"NaN", b"inf", b"Infinity", b"null", b"true", b"[]", b"{}", b'""', b"9" * 20,
    b"1" + b"0" * 9, b"[" * 8, b'{"a":' * 2000, b"[" * 20000, b"\0", b"\xff\xfe", b"\n", b"\r\n", b"\t", b'"', b"'", b"../../x",
    b"/dev/zero", b"a" * 70000, "\N{GRINNING FACE}".encode(), b"\\ud800", b"<script>alert(1)</script>", b"%s%n", b"${HOME}",
)  # fmt: skip


def mutations(seed: bytes, count: int, others: Sequence[bytes] = (), start: int = 0) -> Iterator[bytes]:
    """`count` broken copies of `seed`, a function of its length and `start` alone; `others` are what is put into it.

    Of JSON and TOML every other copy is still that, with another thing in a place or under a name.
    """
    tree = _parsed(seed)
    for number in range(start, start + count):
        random = np.random.default_rng((len(seed), number))
        if tree is not None and number % 2:
            yield tree.dump(_altered(tree.content, random))
            continue
        changed = bytearray(seed)
        for _ in range(int(random.integers(1, 5))):
            if changed:
                OPERATORS[int(random.integers(len(OPERATORS)))](changed, random, others)
        yield bytes(changed)


@dataclass(frozen=True)
class _Tree:
    content: Any
    dump: Callable[[Any], bytes]


def _parsed(seed: bytes) -> _Tree | None:
    try:
        return _Tree(json.loads(seed), lambda content: json.dumps(content).encode())
    except ValueError:
        pass
    try:
        return _Tree(tomllib.loads(seed.decode()), lambda content: tomli_w.dumps(content).encode())
    except (ValueError, tomllib.TOMLDecodeError):
        return None


def _altered(content: Any, random: Random) -> Any:
    """The same tree with one value, or one name, exchanged or left out."""
    content = copy.deepcopy(content)
    places = [(node, key) for node in _nodes(content) for key in (node if isinstance(node, dict) else range(len(node)))]
    if isinstance(content, list) and random.random() < 0.03:
        return THINGS[int(random.integers(len(THINGS)))]
    for _ in range(int(random.integers(1, 3))):
        node, key = places[int(random.integers(len(places)))]
        thing = THINGS[int(random.integers(len(THINGS)))]
        if isinstance(node, dict) and random.random() < 0.3:
            value = node.pop(key, None)
            if random.random() < 0.5:
                node[str(thing)] = value
        elif isinstance(node, dict) or key < len(node):
            node[key] = thing
    return content


def _nodes(content: Any) -> Iterator[Any]:
    if isinstance(content, (dict, list)):
        yield content
        for child in content.values() if isinstance(content, dict) else content:
            yield from _nodes(child)


def _place(changed: bytearray, random: Random) -> int:
    """Any place, half of the time one near the beginning, where headers are."""
    steep = 4 if random.random() < 0.5 else 1
    return min(int(len(changed) * random.random() ** steep), len(changed) - 1)


def _flip(changed: bytearray, random: Random, others: Sequence[bytes]) -> None:
    for _ in range(int(random.integers(1, 4))):
        changed[_place(changed, random)] ^= 1 << int(random.integers(8))


def _byte(changed: bytearray, random: Random, others: Sequence[bytes]) -> None:
    changed[_place(changed, random)] = int(random.integers(256))


def _cut(changed: bytearray, random: Random, others: Sequence[bytes]) -> None:
    del changed[_place(changed, random) :]


def _remove(changed: bytearray, random: Random, others: Sequence[bytes]) -> None:
    at = _place(changed, random)
    del changed[at : at + int(random.integers(1, 40))]


def _insert(changed: bytearray, random: Random, others: Sequence[bytes]) -> None:
    at = _place(changed, random)
    changed[at:at] = random.bytes(int(random.integers(1, 40)))


def _double(changed: bytearray, random: Random, others: Sequence[bytes]) -> None:
    at, length = _place(changed, random), int(random.integers(1, 200))
    changed[at:at] = changed[at : at + length]


def _huge(changed: bytearray, random: Random, others: Sequence[bytes]) -> None:
    """An extreme number where a size or an offset may lie, of any width, in either order of bytes."""
    at, width = _place(changed, random), random.choice(["B", "H", "I", "Q"])
    value = int(random.choice(np.array(EXTREMES, dtype=object))) % (1 << 8 * struct.calcsize(width))
    field = struct.pack(random.choice(["<", ">"]) + width, value)
    changed[at : at + len(field)] = field


def _exchange(changed: bytearray, random: Random, others: Sequence[bytes]) -> None:
    """Two fields change places."""
    length = int(random.choice([1, 2, 4, 8, 12, 16]))
    first, second = sorted((_place(changed, random), _place(changed, random)))
    if first + length <= second and second + length <= len(changed):
        one, other = changed[first : first + length], changed[second : second + length]
        changed[first : first + length], changed[second : second + length] = other, one


def _number(changed: bytearray, random: Random, others: Sequence[bytes]) -> None:
    """A run of digits, or a word, becomes something that was not expected there."""
    at = _place(changed, random)
    inside = _digits if random.random() < 0.5 else _letters
    while at > 0 and inside(changed[at]) and inside(changed[at - 1]):
        at -= 1
    end = at
    while end < len(changed) and inside(changed[end]) and end - at < 64:
        end += 1
    changed[at:end] = WORDS[int(random.integers(len(WORDS)))]


def _nest(changed: bytearray, random: Random, others: Sequence[bytes]) -> None:
    """The whole in itself, or another file in it."""
    inner = others[int(random.integers(len(others)))] if others and random.random() < 0.5 else bytes(changed)
    at = _place(changed, random)
    changed[at:at] = inner[: 1 << 16]


def _digits(byte: int) -> bool:
    return 48 <= byte <= 57


def _letters(byte: int) -> bool:
    return 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122 or byte in b"_.-"


OPERATORS: tuple[Callable[[bytearray, Random, Sequence[bytes]], None], ...] = (
    _flip, _flip, _byte, _cut, _remove, _insert, _double, _huge, _huge, _exchange, _number, _number, _nest,
)  # fmt: skip
