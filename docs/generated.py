"""Fill in the sections of the documents that are made from the code: `python docs/generated.py`.

A section lies between `<!-- begin NAME -->` and `<!-- end NAME -->`: tables of methods from the catalogue, and what was
measured from `benchmarks/results/hosts.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def section(text: str, name: str, content: str) -> str:
    """The text with another content between the markers of a section, which must be there once."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    assert text.count(begin) == text.count(end) == 1, f"markers of {name}"
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)


def methods(folder: str) -> str:
    """The table of methods; links are relative to a page from which the methods' pages lie in `folder`."""
    catalogue = json.loads((ROOT / "src/tacit/methods/catalogue.json").read_text())
    rows = ["| method | kinds | paper | in one sentence |", "|---|---|---|---|"]
    for name, entry in catalogue.items():
        paper, idea = entry["paper"], re.match(r".*?[.](?= |$)", entry["idea"])
        assert idea is not None
        authors = paper["authors"].split(", ")
        who = authors[0] if len(authors) == 1 else f"{authors[0]} et al."
        cells = (f"[{name}]({folder}{name}.md)", ", ".join(entry["kinds"]), f"{who}, {paper['venue']} {paper['year']}", idea[0])
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def measured(host: str | None = None) -> str:
    """k-NN / linear probe in per cent on test, of all hosts or of one; with the machine, and how long each run was."""
    content = json.loads((ROOT / "benchmarks/results/hosts.json").read_text())
    runs = [run for run in content["runs"] if "stopped" not in run and host in (None, run["host"])]
    lines = [
        "| set | method | k-NN / linear | untrained | raw pixels | verdict | samples seen |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        cells = [f"{100 * run[f'knn {of}']:.1f} / {100 * run[f'linear {of}']:.1f}" for of in ("run", "untrained", "input")]
        rest = (run["verdict"], f"{run['samples_seen']:,}")
        lines.append(f"| {' | '.join((run['data'].removeprefix('sample:'), run['host'], *cells, *rest))} |")
    machine, minutes = content["machine"], sorted({f"{run['minutes']:g}" for run in runs})
    lines += [
        "",
        f"Per cent on test; one seed, {' or '.join(minutes)} minutes each, on {machine['cores']} cores of {machine['processor']}.",
    ]
    return "\n".join(lines)


def current() -> Iterator[tuple[Path, str]]:
    """Every page with such a section, and what it should say."""
    for page, folder in ((ROOT / "README.md", "docs/methods/"), (ROOT / "docs/methods/README.md", "")):
        text = section(page.read_text(), "methods", methods(folder))
        yield page, section(text, "measured", measured()) if "<!-- begin measured -->" in text else text
    for name in json.loads((ROOT / "src/tacit/methods/catalogue.json").read_text()):
        page = ROOT / f"docs/methods/{name}.md"
        yield page, section(page.read_text(), "measured", measured(name))


if __name__ == "__main__":
    for page, text in current():
        page.write_text(text)
