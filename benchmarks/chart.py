"""Accuracy over minutes, a panel for each set, as an SVG: drawn here, so that the same figures give the same file."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from quality_table import LIGHTLY, by, values

PICTURE = Path(__file__).parents[1] / "docs/images/quality.svg"
COLOURS = {"simclr": "#2563eb", "moco-v3": "#0d9488", "dino": "#c2410c", "mae": "#7c3aed"}
LINES = {"supervised": ("#7d8590", "6 4"), "untrained": ("#7d8590", "1 4"), "raw pixels": ("#7d8590", "9 3 2 3")}
WIDTH, HEIGHT, LEFT, TOP, COLUMNS = 240, 200, 40, 28, 4
"""Of a panel, and of its margins, in pixels; panels side by side."""

Points = list[tuple[float, float]]


def chart(rows: list[dict[str, Any]]) -> str:
    """Linear probe in per cent against minutes (doubling from step to step); means over seeds.

    Where the number of threads differs, the rows with the most cells are drawn. Examples of others are dashed in the colour of
    their method.
    """
    rows = [row for row in rows if row["part"] in ("minutes", "supervised")]
    threads = max(by(rows, "threads"), key=lambda found: len(found[1]))[0] if rows else 0
    sets = by([row for row in rows if row["threads"] == threads], "data")
    down = math.ceil(len(sets) / COLUMNS)
    width, height = COLUMNS * WIDTH + 10, down * HEIGHT + 40
    panels = (panel(data, found, i % COLUMNS * WIDTH, i // COLUMNS * HEIGHT) for i, (data, found) in enumerate(sets))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="t">',
        '<title id="t">Linear probe on test over minutes of pretraining, for each set and method</title>',
        f"<style>text {{ {FONT} }} .name {{ font-weight: 600 }} .right {{ text-anchor: end }}",
        ".middle { text-anchor: middle } .grid { stroke: #d8dee4 } path { fill: none; stroke-width: 2 }</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *panels, legend(down * HEIGHT + 24), "</svg>", "",
    ])  # fmt: skip


FONT = 'font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328'


def lines_of(rows: list[dict[str, Any]]) -> dict[str, Points]:
    """Every line by name: minutes and per cent."""
    found: dict[str, Points] = {}

    def add(name: str, minutes: float, mine: list[float]) -> None:
        if mine:
            found.setdefault(name, []).append((minutes, 100 * statistics.fmean(mine)))

    runs = [row for row in rows if row["part"] == "minutes"]
    for (host, minutes), mine in sorted(by(runs, "host", "minutes")):
        add(host, minutes, values(mine, "linear run"))
    for minutes, mine in sorted(by(runs, "minutes")):
        add("untrained", minutes, values(mine, "linear untrained"))
        add("raw pixels", minutes, values(mine, "linear input"))
    labelled = [row for row in rows if row["part"] == "supervised" and row["labels"] == "all"]
    for minutes, mine in sorted(by(labelled, "minutes")):
        best = max(statistics.fmean(values(of, "supervised") or [0.0]) for _, of in by(mine, "encoder"))
        add("supervised", minutes, [best])
    return found


def panel(data: str, rows: list[dict[str, Any]], x: float, y: float) -> str:
    """One set."""
    lines = lines_of(rows)
    times = sorted({minutes for points in lines.values() for minutes, _ in points})
    shares = [share for points in lines.values() for _, share in points]
    if not shares:
        return f'<text class="name" x="{x + LEFT}" y="{y + 18}">{data}</text>'
    step = 5 if max(shares) - min(shares) <= 25 else 10 if max(shares) - min(shares) <= 50 else 20
    low, high = step * math.floor(min(shares) / step), step * math.ceil(max(shares) / step + 1e-9)
    inner, tall = WIDTH - LEFT - 15, HEIGHT - TOP - 30
    span = math.log(times[-1] / times[0]) or 1.0

    def place(minutes: float, share: float) -> tuple[float, float]:
        return x + LEFT + inner * math.log(minutes / times[0]) / span, y + TOP + tall * (high - share) / (high - low)

    out = [f'<text class="name" x="{x + LEFT}" y="{y + 18}">{data}</text>']
    for share in range(low, high + 1, step):
        _, at = place(times[0], share)
        out.append(f'<line class="grid" x1="{x + LEFT}" x2="{x + LEFT + inner}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text class="right" x="{x + LEFT - 6}" y="{at + 4:.1f}">{share}</text>')
    for number, minutes in enumerate(times):
        at, _ = place(minutes, low)
        said = f"{minutes:g}" if number else f"{minutes:g} min"
        out.append(f'<text class="middle" x="{at:.1f}" y="{y + TOP + tall + 18}">{said}</text>')
    for name, points in lines.items():
        colour, dash = style(name)
        spots = [place(*point) for point in points]
        path = " L".join(f"{a:.1f} {b:.1f}" for a, b in spots)
        if len(spots) == 1 and name in ("untrained", "raw pixels"):  # as good after any number of minutes
            path += f" h{inner}"
        out.append(f'<path d="M{path}" stroke="{colour}"{dash}/>')
        if not dash or name == "supervised":
            out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in spots]
        elif name.startswith(LIGHTLY):
            out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="white" stroke="{colour}"/>' for a, b in spots]
    return "\n".join(out)


def style(name: str) -> tuple[str, str]:
    """Colour, and the attribute of a dashed line."""
    colour, dash = LINES.get(name, (COLOURS.get(name.removeprefix(LIGHTLY), "#1f2328"), ""))
    dash = "4 3" if name.startswith(LIGHTLY) else dash
    return colour, f' stroke-dasharray="{dash}"' if dash else ""


def legend(y: float) -> str:
    """What the lines are."""
    out, x = [], float(LEFT)
    for name in (*COLOURS, *LINES, "lightly's example"):
        colour, dash = style(LIGHTLY if name.startswith("lightly") else name)
        out.append(f'<path d="M{x} {y - 4}H{x + 28}" stroke="{colour}"{dash}/><text x="{x + 34}" y="{y}">{name}</text>')
        x += 60 + 6.5 * len(name)
    return "\n".join(out)
