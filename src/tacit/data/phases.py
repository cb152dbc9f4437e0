"""A stream of data that arrives in parts."""

from __future__ import annotations


def bounds(samples: int, phases: int) -> list[int]:
    """Where the phases of a stream begin and end: phase k has the samples `bounds[k]` up to `bounds[k + 1]`, in their order.

    `int((n / P) k)`, the division first, as Mod-X has it, but for the last bound: that product can fall one short of n, and the
    last sample would never be seen.
    """
    return [*(int(samples / phases * k) for k in range(phases)), samples]
