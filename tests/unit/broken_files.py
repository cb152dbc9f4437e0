"""What every reader of a format must do with damaged files: read them, or say in one line why not."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.mutations import mutations

from tacit.data.payload import Unreadable


def refused(read: Callable[[bytes], object], sound: bytes, count: int = 50) -> int:
    """How many of `count` broken copies of a sound file are refused; anything else that `read` raises is a failure."""
    reasons = []
    for content in mutations(sound, count):
        try:
            read(content)
        except Unreadable as problem:
            reasons.append(str(problem))
    assert all(reason.strip() and "\n" not in reason for reason in reasons)
    return len(reasons)
