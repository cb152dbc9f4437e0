"""The catalogue of methods, written to `catalogue.json` beside this file so that listing it imports no tensor library.

`make catalogue` writes it anew from the methods themselves; a test holds the two together.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tacit.core.errors import TacitError, nearest

FILE = Path(__file__).with_name("catalogue.json")


def load() -> dict[str, Any]:
    """Methods by name, as `describe` says them."""
    return json.loads(FILE.read_text())


def describe() -> dict[str, Any]:
    """The catalogue, from the classes."""
    from tacit.methods.registry import METHODS, method

    return {name: _describe(method(name)) for name in sorted(METHODS)}


def _describe(method: Any) -> dict[str, Any]:
    module = sys.modules[method.__module__]
    heading, _, idea = (module.__doc__ or "").strip().partition("\n\n")
    return {
        "title": heading,
        "idea": " ".join(idea.split()),
        "paper": vars(method.paper),
        "kinds": list(method.kinds),
        "needs": dict(method.needs),
        "options": {
            name: {
                "meaning": info.description,
                "type": _type(info.annotation),
                "bounds": _bounds(info.metadata),
                "paper": info.default,
                "auto": (info.json_schema_extra or {}).get("auto") or "as in the paper",
            }
            for name, info in method.Options.model_fields.items()
        },
        "training": method.paper_training,
        "columns": method.paper_columns,
    }


def overview() -> str:
    """One line per method."""
    rows = [(name, ", ".join(entry["kinds"]), f"{entry['title']} ({entry['paper']['year']})") for name, entry in load().items()]
    return "\n".join([_row(("METHOD", "KINDS", "PAPER")), *map(_row, rows), "", "tacit methods NAME shows every option."])


def details(name: str) -> str:
    """Everything about one method."""
    catalogue = load()
    if name not in catalogue:
        raise TacitError(f"no method '{name}'{nearest(name, catalogue)}; `tacit methods` lists them")
    entry = catalogue[name]
    paper = entry["paper"]
    lines = [
        entry["title"],
        f"{paper['authors']}, {paper['venue']} {paper['year']}" + (f" ({paper['repository']})" if paper["repository"] else ""),
        "",
        entry["idea"],
        "",
        f"kinds of data: {', '.join(entry['kinds'])}",
        f"needs: {', '.join(entry['needs']) or 'nothing'}",
        "",
        "options (--set name=value):",
    ]
    for option, info in entry["options"].items():
        bounds = f", {info['bounds']}" if info["bounds"] else ""
        lines += [
            f"  {option}: {info['meaning']} ({info['type']}{bounds})",
            f"      paper: {json.dumps(info['paper'])}   auto and quick: {info['auto']}",
        ]
    lines += ["", "training as published (--recipe paper): " + ", ".join(f"{k} {v}" for k, v in entry["training"].items())]
    lines += [
        f"  --recipe paper:{column}: " + ", ".join(f"{k} {v}" for k, v in changed.items())
        for column, changed in entry["columns"].items()
    ]
    return "\n".join(lines)


def _row(cells: tuple[str, ...]) -> str:
    return f"{cells[0]:<12}{cells[1]:<12}{cells[2]}"


def _type(annotation: Any) -> str:
    choices = getattr(annotation, "__args__", ())
    if choices and not isinstance(choices[0], type):
        return " | ".join(map(str, choices))
    return getattr(annotation, "__name__", str(annotation)) if not choices else str(annotation)


def _bounds(metadata: list[Any]) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "multiple of"}
    return ", ".join(f"{signs[name]} {getattr(m, name)}" for m in metadata for name in signs if hasattr(m, name))


if __name__ == "__main__":
    content = json.dumps(describe(), indent=1, ensure_ascii=False) + "\n"
    if "--write" in sys.argv:
        FILE.write_text(content)
    else:
        print(content, end="")
