"""What `quality.py` found, as Markdown tables: means over seeds, failures included, and counts of where a host is ahead."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from cells import mean
from layout import table

Row = dict[str, Any]
PROTOCOLS = ("knn", "linear")
NOTHING = "Not measured yet."
LIGHTLY = "lightly "
"""What stands before the method where its run is an example of lightly's."""
BALANCED = "wbc_types"
"""Its classes differ much in size, so it has a second row, of balanced accuracy."""


def tables(content: dict[str, Any]) -> dict[str, str]:
    """Every table by name; where there are no cells it says so."""
    rows = content["runs"]
    of = {name: [row for row in rows if row["part"] == name] for name in ("minutes", "samples", "unseen", "init", "supervised")}
    timed = [row for row in of["minutes"] if not row["host"].startswith(LIGHTLY)]
    parts: dict[str, tuple[list[Row], Callable[[list[Row]], str]]] = {
        "minutes": (timed, lambda found: budgets(found, "minutes", "min")),
        "lightly": (beside_lightly(of["minutes"]), lightly),
        "counts": (timed, counts),
        "samples": (of["samples"], lambda found: budgets(found, "samples", "samples")),
        "unseen": (of["unseen"], lambda found: budgets(found, "minutes", "min")),
        "init": (of["init"], lambda found: init(found, timed)),
        "supervised": (of["supervised"], supervised),
        "failures": (rows, failures),
    }
    made = {}
    for name, (mine, part) in parts.items():
        made[name] = "\n\n".join(
            f"{part(found)}\n\n{condition(content['machine'], threads, found)}" for threads, found in by(mine, "threads")
        )
    return {name: text or NOTHING for name, text in made.items()}


def condition(machine: dict[str, Any], threads: int, rows: list[Row]) -> str:
    """The sentence below a table."""
    seeds, many = len({row["seed"] for row in rows}), threads > 1
    what = f"{seeds} seed{'s' if seeds > 1 else ''}; {threads} thread{'s' if many else ''} a job"
    return f"{what}, on {machine['processor']} with {machine['cores']} cores, torch {machine['torch']}."


def by(rows: Iterable[Row], *names: str) -> list[tuple[Any, list[Row]]]:
    """Rows with the same values of these columns together, in the order in which the values first appear."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in names)
        found.setdefault(key if len(names) > 1 else key[0], []).append(row)
    return list(found.items())


def values(rows: list[Row], figure: str) -> list[float]:
    return [row[figure] for row in rows if figure in row]


def behind(rows: list[Row], protocol: str, other: str) -> bool:
    """Whether the runs' mean is not above that of `untrained` or `input`."""
    theirs = values(rows, f"{protocol} {other}")
    return bool(theirs) and statistics.fmean(values(rows, f"{protocol} run")) <= statistics.fmean(theirs)


def clearly_behind(rows: list[Row], protocol: str) -> bool:
    """Whether runs are below the untrained encoder, seed by seed, by more than the deviation of that difference."""
    both = [row for row in rows if f"{protocol} run" in row and f"{protocol} untrained" in row]
    gains = [row[f"{protocol} run"] - row[f"{protocol} untrained"] for row in both]
    return len(gains) > 1 and statistics.fmean(gains) < -statistics.stdev(gains)


def figure(rows: list[Row], protocol: str) -> str:
    """The runs' mean, marked where it is not above the untrained encoder (u) or raw pixels (r)."""
    done = [row for row in rows if f"{protocol} run" in row]
    if not done:
        return "-"
    marks = "".join(mark for mark, other in (("u", "untrained"), ("r", "input")) if behind(done, protocol, other))
    return mean(values(done, f"{protocol} run")) + (f" <sup>{marks}</sup>" if marks else "")


def pair(rows: list[Row], protocols: Iterable[str], of: str) -> str:
    """k-NN / linear probe of `run`, `untrained` or `input`, without marks."""
    found = [mean(values(rows, f"{protocol} {of}")) for protocol in protocols]
    return " / ".join(found) if set(found) != {"-"} else ""


def stopped(rows: list[Row]) -> str:
    count = sum("stopped" in row for row in rows)
    return f" ({count} of {len(rows)} stopped)" if count else ""


def budgets(rows: list[Row], limit: str, unit: str) -> str:
    """k-NN and linear probe of every set and host, a column for each budget; baselines where there are most runs."""
    most = sorted({row[limit] for row in rows})
    lines = []
    for (data, host), mine in by(rows, "data", "host"):
        at = dict(by(mine, limit))
        most_runs = at[max(at, key=lambda size: (len(at[size]), size))]
        for kind in ("", "balanced ")[: 1 + (data == BALANCED)]:
            names = [f"{protocol} {kind}".strip() for protocol in PROTOCOLS]
            beside = [pair(most_runs, names, of) for of in ("input", "untrained")]
            runs = [
                " / ".join(figure(at[size], name) for name in names) + stopped(at[size]) if size in at else "" for size in most
            ]
            lines.append([data + (", balanced" if kind else ""), host, *beside, *runs])
    return table(["set", "method", "raw pixels", "untrained", *(f"{size:,g} {unit}" for size in most)], lines)


def beside_lightly(rows: list[Row]) -> list[Row]:
    """Lightly's examples, and the runs of the same methods on the same sets with as many minutes, threads and the same seed."""
    ended = [row for row in rows if "stopped" not in row]
    sides = Counter(_cell(row) for row in ended)
    return [row for row in ended if sides[_cell(row)] == 2]


def lightly(rows: list[Row]) -> str:
    """Methods beside lightly's examples of them, and how often which is ahead."""
    theirs = {_cell(row): row for row in rows if row["host"].startswith(LIGHTLY)}
    ours = [row for row in rows if not row["host"].startswith(LIGHTLY)]
    lines, ahead = [], dict.fromkeys(PROTOCOLS, 0)
    for (data, host, minutes), mine in by(ours, "data", "host", "minutes"):
        both = mine, [theirs[_cell(row)] for row in mine]
        seen = (f"{statistics.median(values(found, 'samples_seen')):,.0f}" for found in both)
        lines.append([data, host, f"{minutes:g}", *(pair(found, PROTOCOLS, "run") for found in both), *seen])
        for protocol in PROTOCOLS:
            own, other = (statistics.fmean(values(found, f"{protocol} run")) for found in both)
            ahead[protocol] += own > other
    head = ["set", "method", "minutes", "tacit", "lightly", "images seen", "by lightly"]
    told = f"Ahead of lightly in {ahead['knn']} of {len(lines)} rows by k-NN, in {ahead['linear']} by the linear probe."
    return f"{table(head, lines)}\n\n{told}"


def _cell(row: Row) -> tuple[Any, ...]:
    return row["host"].removeprefix(LIGHTLY), *(row[name] for name in ("data", "minutes", "seed", "threads"))


def repeated(content: dict[str, Any], rows: list[Row]) -> str:
    """The runs of as many minutes as most have, set by set and method by method, beside both baselines."""
    rows = max((found for _, found in by((row for row in rows if row["part"] == "minutes"), "minutes")), key=len, default=[])
    if not rows:
        return NOTHING
    lines = []
    for (data, host), mine in by(rows, "data", "host"):
        verdicts = Counter(row.get("verdict", "stopped") for row in mine)
        seen = statistics.median(row.get("samples_seen", 0) for row in mine)
        beside = [pair(mine, PROTOCOLS, of) for of in ("run", "untrained", "input")]
        lines.append([data, host, *beside, ", ".join(f"{n} {said}" for said, n in verdicts.items()), f"{seen:,.0f}"])
    head = ["set", "method", "k-NN / linear", "untrained", "raw pixels", "verdicts", "samples seen"]
    told = condition(content["machine"], rows[0]["threads"], rows)
    return f"{table(head, lines)}\n\nPer cent on test after {rows[0]['minutes']:g} minutes; {told}"


def counts(rows: list[Row]) -> str:
    """On how many sets each host is above both baselines, and where it is clearly below the untrained encoder."""
    lines = []
    for (host, minutes), mine in sorted(by(rows, "host", "minutes")):
        sets = by(mine, "data")
        above = [
            sum(
                not stopped(found) and not any(behind(found, protocol, other) for other in ("untrained", "input"))
                for _, found in sets
            )
            for protocol in ("linear", "knn")
        ]
        below = [
            f"{data} ({name})"
            for data, found in sets
            for protocol, name in (("linear", "probe"), ("knn", "k-NN"))
            if clearly_behind(found, protocol)
        ]
        verdicts = Counter(row.get("verdict", "stopped") for row in mine)
        said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        of = [f"{number} of {len(sets)}" for number in above]
        lines.append([host, f"{minutes:g}", *of, ", ".join(below) or "nowhere", said])
    head = ["method", "minutes", "probe above both", "k-NN above both", "clearly below untrained", "verdicts"]
    return table(head, lines)


def init(rows: list[Row], scratch: list[Row]) -> str:
    """Starting from the weights of a run on another set, beside the same minutes from the first values."""
    same = dict(by(scratch, "data", "host", "minutes", "threads"))
    lines = []
    for (data, host, minutes, threads, start), mine in by(rows, "data", "host", "minutes", "threads", "start"):
        beside = same.get((data, host, minutes, threads), [])
        found = [pair(mine, PROTOCOLS, "run") + stopped(mine), pair(beside, PROTOCOLS, "run") + stopped(beside)]
        found += [pair(mine, PROTOCOLS, of) for of in ("untrained", "input")]
        lines.append([data, host, f"{minutes:g}", start, *found])
    return table(["set", "method", "minutes", "weights from", "from them", "from scratch", "untrained", "raw pixels"], lines)


def supervised(rows: list[Row]) -> str:
    """An encoder trained on labels alone, beside what the pretrained one makes of as many."""
    lines = []
    for (data, host, minutes, labels), mine in by(rows, "data", "host", "minutes", "labels"):
        names = ("supervised", "linear run", "fine-tuned", "linear untrained", "linear input")
        encoder = next((row["encoder"] for row in mine if "encoder" in row), "-")
        found = [mean(values(mine, name)) for name in names]
        lines.append([data, host, encoder, f"{minutes:g}", labels, found[0] + stopped(mine), *found[1:]])
    head = ["set", "method", "encoder", "minutes", "labels a class", "from labels alone", "linear on the run"]
    return table([*head, "run fine-tuned", "linear on the untrained", "linear on raw pixels"], lines)


def failures(rows: list[Row]) -> str:
    """Why runs stopped, one line each."""
    found = [row for row in rows if "stopped" in row]
    if not found:
        return "No run stopped."
    limits = [f"{row['minutes']:g} minutes" if "minutes" in row else f"{row['samples']:,} samples" for row in found]
    return table(
        ["part", "set", "method", "budget", "seed", "why"],
        (
            [row["part"], row["data"], row["host"], limit, str(row["seed"]), row["stopped"].replace("|", "\\|")]
            for row, limit in zip(found, limits, strict=True)
        ),
    )
