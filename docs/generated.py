"""Fill in the sections of the documents that are made from the code: `python docs/generated.py`.

A section lies between `<!-- begin NAME -->` and `<!-- end NAME -->`: tables of methods from the catalogue, and what was
measured from `quality.json`, `claims.json`, `scale.json` and `verdict.json` in `benchmarks/results/`; on the page
of speed, from every script there that is named in `PAIRED`, and pictures of what grows.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))  # whose scripts know how to table what they found

import layout  # noqa: E402

PAIRED = (
    "startup", "views", "steps", "peers", "waiting", "embed", "index", "store", "clips", "inputs", "grouping", "masking", "knn",
    "probe", "memory",
)  # fmt: skip
"""Scripts of `benchmarks/` whose results have rows for the table of speed, in the order in which they stand there."""


def section(text: str, name: str, content: str) -> str:
    """The text with another content between the markers of a section, which must be there once."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    assert text.count(begin) == text.count(end) == 1, f"markers of {name}"
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)


def methods(folder: str) -> str:
    """The table of methods; links are relative to a page from which the methods' pages lie in `folder`."""
    catalogue = json.loads((ROOT / "src/tacit/methods/catalogue.json").read_text())
    lines = []
    for name, entry in catalogue.items():
        paper, idea = entry["paper"], re.match(r".*?[.](?= |$)", entry["idea"])
        assert idea is not None
        authors = paper["authors"].split(", ")
        who = authors[0] if len(authors) == 1 else f"{authors[0]} et al."
        where = f"{who}, {paper['venue']} {paper['year']}"
        lines.append((f"[{name}]({folder}{name}.md)", ", ".join(entry["kinds"]), where, idea[0]))
    return layout.table(["method", "kinds", "paper", "in one sentence"], lines)


def measured(host: str | None = None) -> str:
    """k-NN / linear probe on test in the runs of `quality.py` with most seeds: one method on all sets, or all on bundled sets."""
    from quality_table import LIGHTLY, repeated

    content = read("quality")
    bundled = {folder.name for folder in (ROOT / "src/tacit/data/samples").iterdir()}
    rows = [row for row in content["runs"] if not row["host"].startswith(LIGHTLY)]
    return repeated(content, [row for row in rows if (row["data"] in bundled if host is None else row["host"] == host)])


def read(name: str) -> dict[str, Any]:
    """What a benchmark has stored so far."""
    path = ROOT / f"benchmarks/results/{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {"runs": []}


def verdicts() -> str:
    """The verdict against the truth: how often, then run by run; judged by the rules of today."""
    from verdict import RESULTS, summary, table

    runs = json.loads(RESULTS.read_text())["runs"]
    return f"{summary(runs)}\n\n<details><summary>Run by run</summary>\n\n{table(runs)}\n\n</details>"


def trust(page: Path) -> Iterator[tuple[Path, str]]:
    """The page of attacks."""
    from attacks import inputs, kills

    text = section(page.read_text(), "kills", kills(read("kills")))
    text = section(text, "inputs", inputs(read("hostile")))
    text = section(text, "soak", tabled("soak", lambda content: "\n\nOn"))
    yield page, section(text, "ranks", tabled("ranks", lambda content: "\n\nOn"))


def scale() -> str:
    """What was measured with many samples, and the same for a billion."""
    from scale import table

    return table(json.loads((ROOT / "benchmarks/results/scale.json").read_text()))


def tabled(script: str, said: Callable[[dict[str, Any]], str]) -> str:
    """What a script of `benchmarks/` found, as it tables its runs, with what is `said` of them and the machine behind it."""
    content = read(script)
    if not content["runs"]:
        return "Not measured yet."
    machine = "{cores} cores of {processor}, torch {torch}".format(**content["machine"])
    return f"{import_module(script).table(content['runs'])}{said(content)} {machine}."


def paper_threads(content: dict[str, Any]) -> str:
    """What the published recipes stepped on."""
    return f"\n\n{content['machine']['threads']} thread(s), on"


def claims() -> str:
    """The papers' claims that can be seen at small scale, and whether they were."""
    return tabled("claims", lambda content: "\n\nOn")


def sides() -> str:
    """What a short run learns from views of different sides."""

    def said(content: dict[str, Any]) -> str:
        threads = " or ".join(sorted({str(run["threads"]) for run in content["runs"]}))
        return f"\n\nk-NN / linear probe on test, in per cent; {threads} thread(s), on"

    return tabled("sides", said)


def continual() -> str:
    """What a stream of pairs does to what was learned before."""

    def said(content: dict[str, Any]) -> str:
        seeds = len({run["seed"] for run in content["runs"]})
        return f"\n\n{seeds} seed(s), {content['steps'][0]} steps of the first model, {content['steps'][1]} of a phase, on"

    return tabled("continual", said)


def places() -> str:
    """How far from its true place a trained anatomy finds a landmark in another body."""
    return tabled("anatomy", lambda content: " On")


def quality(page: Path) -> Iterator[tuple[Path, str]]:
    """The page of results, and the picture on it where there is something to draw."""
    from chart import PICTURE, chart
    from quality_table import NOTHING, tables

    content = read("quality")
    drawn = any(row["part"] == "minutes" for row in content["runs"])
    picture = f"![Linear probe over minutes of pretraining](images/{PICTURE.name})" if drawn else NOTHING
    text = page.read_text()
    for name, table in {
        "picture": picture,
        **tables(content),
        "claims": claims(),
        "sides": sides(),
        "search": tabled("search", lambda content: "\n\nPer cent on test, k-NN / linear, on"),
        "alike": tabled("alike", lambda content: "\n\nPer cent on test of `cifar10_subset`, on"),
        "whitened": tabled("whitening", lambda content: "\n\nPer cent on test after 2 minutes, plain / whitened, on"),
        "continual": continual(),
        "bundled": tabled("bundled", lambda content: "\n\nPer cent of k-NN on test, on"),
        "places": places(),
    }.items():
        text = section(text, name, table)
    yield page, text
    if drawn:
        yield PICTURE, chart(content["runs"])


def speed() -> str:
    """What each paired benchmark found, row by row, and on what machine."""
    lines: list[tuple[str, ...]] = []
    machines = set()
    for name in PAIRED:
        if not (path := ROOT / f"benchmarks/results/{name}.json").is_file():
            lines.append((f"`benchmarks/{name}.py`", "", "not measured yet", "", ""))
            continue
        content = json.loads(path.read_text())
        machines.add("{cores} cores of {processor}, torch {torch}".format(**content["machine"]))
        for row in content["rows"]:
            spread = f" ({row['least']:.2f} to {row['greatest']:.2f})" if row["pairs"] > 1 else ""
            measured, met = f"{row['median']:.2f}{spread} {row['unit']}", row["median"] <= row["most"]
            lines.append((row["what"], row["beside"], measured, f"{row['most']:.2f}", "yes" if met else "no"))
    said = "\n".join(f"Measured on {machine}." for machine in sorted(machines))
    return f"{layout.table(['what', 'beside', 'measured', 'at most', 'met'], lines)}\n\n{said}".rstrip()


def grown(page: Path) -> Iterator[tuple[Path, str]]:
    """The page of speed, and the pictures on it of what was measured."""
    import growth
    import masking

    text = section(page.read_text(), "speed", speed())
    for script in (growth, masking):
        if missing := [name for name in script.DRAWN if not (ROOT / f"benchmarks/results/{name}.json").is_file()]:
            said = f"Not measured yet: {', '.join(f'`benchmarks/{name}.py`' for name in missing)}."
        else:
            said = f"![{script.TITLE}](images/{script.PICTURE.name})"
            yield script.PICTURE, script.chart()
        text = section(text, script.__name__, said)
    yield page, text


def current() -> Iterator[tuple[Path, str]]:
    """Every page with such a section, and what it should say."""
    for page, folder in ((ROOT / "README.md", "docs/methods/"), (ROOT / "docs/methods/README.md", "")):
        text = section(page.read_text(), "methods", methods(folder))
        yield page, section(text, "measured", measured()) if "<!-- begin measured -->" in text else text
    for name in json.loads((ROOT / "src/tacit/methods/catalogue.json").read_text()):
        page = ROOT / f"docs/methods/{name}.md"
        if "<!-- begin measured -->" in (text := page.read_text()):
            yield page, section(text, "measured", measured(name))
    page = ROOT / "docs/scale.md"
    yield page, section(page.read_text(), "scale", scale())
    page = ROOT / "docs/recipes.md"
    yield page, section(page.read_text(), "paper", tabled("paper", paper_threads))
    yield from trust(ROOT / "docs/trust.md")
    yield from grown(ROOT / "docs/speed.md")
    yield from quality(ROOT / "docs/results.md")
    page = ROOT / "docs/verdict.md"
    yield page, section(page.read_text(), "verdict", verdicts())


if __name__ == "__main__":
    for page, text in current():
        page.write_text(text)
