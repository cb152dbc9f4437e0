"""Panels of lines beside the lines that were expected, as an SVG: drawn here, so that the same figures give the same file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from chart import COLOURS, FONT, HEIGHT, LEFT, TOP, WIDTH, Points

MORE = COLOURS | {"child-video": "#be185d", "polar-mae": "#4d7c0f"}
EXPECTED = ' stroke-dasharray="4 3"'
COLUMNS, BELOW, ROOM = 4, 46, 24
"""Panels side by side; pixels below a panel's lines, and more of them to the left than in `chart`, for longer numbers."""


@dataclass(frozen=True)
class Panel:
    """What is drawn in one frame.

    Attributes:
        title, across: above, and below the axis.
        lines: what was measured, by name.
        expected: the same as it should be, dashed in the colour of the name.
        logarithmic: both axes; else they begin at 0.
    """

    title: str
    across: str
    lines: Mapping[str, Points]
    expected: Mapping[str, Points] = field(default_factory=dict)
    logarithmic: bool = False


def law(points: Points, power: float) -> Points:
    """What grows with this power of x, through the last of the points."""
    x, y = points[-1]
    return [(at, y * (at / x) ** power) for at, _ in points]


def drawn(title: str, panels: Sequence[Panel]) -> str:
    """The whole picture."""
    columns = min(COLUMNS, len(panels))
    width, height = columns * (WIDTH + ROOM) + 10, -(-len(panels) // columns) * (HEIGHT + 16) + 30
    placed = [each(panel, i % columns * (WIDTH + ROOM), i // columns * (HEIGHT + 16)) for i, panel in enumerate(panels)]
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="t">',
        f'<title id="t">{title}</title>',
        f"<style>text {{ {FONT} }} .name {{ font-weight: 600 }} .right {{ text-anchor: end }}",
        ".middle { text-anchor: middle } .grid { stroke: #d8dee4 } path { fill: none; stroke-width: 2 }</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *placed, legend(names, height - 10), "</svg>", "",
    ])  # fmt: skip


def each(panel: Panel, x: float, y: float) -> str:
    """One panel with its upper left corner there."""
    x += LEFT + ROOM
    wide, tall = WIDTH - LEFT - 15, HEIGHT - TOP - BELOW + 16
    points = [point for lines in (panel.lines, panel.expected) for line in lines.values() for point in line]
    named, marked = sorted({at for at, _ in points}), marks([value for _, value in points], panel.logarithmic)
    of_x = scale(named[0] if panel.logarithmic else 0.0, named[-1], panel.logarithmic)
    of_y = scale(marked[0], marked[-1], panel.logarithmic)

    def place(at: float, value: float) -> tuple[float, float]:
        return x + wide * of_x(at), y + TOP + tall * (1 - of_y(value))

    out = [f'<text class="name" x="{x}" y="{y + 18}">{panel.title}</text>']
    for mark in marked:
        level = place(named[0], mark)[1]
        out.append(f'<line class="grid" x1="{x}" x2="{x + wide}" y1="{level:.1f}" y2="{level:.1f}"/>')
        out.append(f'<text class="right" x="{x - 6}" y="{level + 4:.1f}">{number(mark)}</text>')
    for at in named:
        out.append(f'<text class="middle" x="{place(at, marked[-1])[0]:.1f}" y="{y + TOP + tall + 18}">{number(at)}</text>')
    out.append(f'<text class="middle" x="{x + wide / 2}" y="{y + TOP + tall + 34}">{panel.across}</text>')
    for lines, dash in ((panel.expected, EXPECTED), (panel.lines, "")):
        for name, line in lines.items():
            spots, colour = [place(*point) for point in line], colour_of(name)
            path = " L".join(f"{a:.1f} {b:.1f}" for a, b in spots)
            out.append(f'<path d="M{path}" stroke="{colour}"{dash}/>')
            if not dash:
                out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in spots]
    return "\n".join(out)


def scale(low: float, high: float, logarithmic: bool) -> Callable[[float], float]:
    """Where along an axis a value lies: 0 at its beginning, 1 at its end."""
    if logarithmic:
        return lambda value: math.log(value / low) / (math.log(high / low) or 1.0)
    return lambda value: (value - low) / (high - low)


def marks(values: Sequence[float], logarithmic: bool) -> list[float]:
    """Round values that are marked on an axis; all others lie between the first and the last."""
    if logarithmic:
        first = math.floor(math.log10(min(values)))
        last = max(first + 1, math.ceil(math.log10(max(values))))
        fine = (1, 2, 5) if last - first <= 2 else (1,)
        return [step * 10.0**ten for ten in range(first, last) for step in fine] + [10.0**last]
    step = 10 ** math.floor(math.log10(max(values)))
    step = next(fine for fine in (step / 5, step / 2, step, 2 * step) if max(values) / fine <= 6)
    return [step * turn for turn in range(math.ceil(max(values) / step) + 1)]


RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float) -> str:
    """Short: 0.02, 75, 10⁶."""
    power = math.log10(value) if value > 0 else 0.0
    if power.is_integer() and not -3 < power < 4:
        return "10" + f"{power:.0f}".translate(RAISED)
    return f"{value:g}"


def colour_of(name: str) -> str:
    return MORE.get(name, "#1f2328")


def legend(names: Sequence[str], y: float) -> str:
    """What the lines are."""
    out, x = [], float(LEFT)
    for name, dash in [*((name, "") for name in names), ("expected", EXPECTED)]:
        out.append(f'<path d="M{x} {y - 4}H{x + 28}" stroke="{colour_of(name)}"{dash}/>')
        out.append(f'<text x="{x + 34}" y="{y}">{name}</text>')
        x += 60 + 6.5 * len(name)
    return "\n".join(out)
