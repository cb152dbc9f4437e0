"""Fill in the sections of the documents that are made from the code: `python docs/generated.py`.

A section lies between `<!-- begin NAME -->` and `<!-- end NAME -->`. What is made by a benchmark is not touched here.
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


def current() -> Iterator[tuple[Path, str]]:
    """Every page with such a section, and what it should say."""
    for page, folder in ((ROOT / "README.md", "docs/methods/"), (ROOT / "docs/methods/README.md", "")):
        yield page, section(page.read_text(), "methods", methods(folder))


if __name__ == "__main__":
    for page, text in current():
        page.write_text(text)
