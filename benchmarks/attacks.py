"""What attacks came to, as Markdown: kills and mutated inputs. Their scripts store the figures."""

from __future__ import annotations

from typing import Any

from layout import table


def kills(found: dict[str, Any]) -> str:
    """A line per method: how often it was killed, in which commands, and what became of it."""
    lines = []
    for method, row in found["hosts"].items():
        of: dict[str, int] = {}
        for moment, counts in row["moments"].items():
            verb = moment.partition(":")[0]
            of[verb] = of.get(verb, 0) + counts["kills"]
        lines.append(
            [method, *(str(of.get(verb, 0)) for verb in ("pretrain", "evaluate", "embed")), row["kills"], row["survived"]]
        )
    head = ["method", "in pretrain", "in evaluate", "in embed", "kills", "survived"]
    moments = len({moment for row in found["hosts"].values() for moment in row["moments"]})
    said = f"{found['survived']} of {found['kills']} kills survived, at {moments} kinds of moment."
    return f"{table(head, (map(str, line) for line in lines))}\n\n{said}"


def inputs(found: dict[str, Any]) -> str:
    """A line per family of formats."""
    families: dict[str, list[dict[str, Any]]] = {}
    for name, row in found["inputs"].items():
        families.setdefault(name.partition("/")[0], []).append(row)
    lines = []
    for family, rows in families.items():
        count, refused, read = (sum(row[name] for row in rows) for name in ("inputs", "refused", "read"))
        failures, slowest = sum(len(row["failures"]) for row in rows), max(row["slowest_s"] for row in rows)
        peak = max(row["peak_mb"] for row in rows)
        lines.append([family, len(rows), f"{count:,}", f"{refused:,}", f"{read:,}", failures, f"{slowest:.1f}", peak])
    total = sum(row["inputs"] for row in found["inputs"].values())
    head = ["of", "formats", "inputs", "refused in one line", "read", "failures", "slowest, s", "most memory, MB"]
    return f"{table(head, (map(str, line) for line in lines))}\n\n{total:,} inputs in all."
