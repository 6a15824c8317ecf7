"""Charts as SVG, of two kinds: bars and lines."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

WIDTH = 760
COLOURS = ("#3366cc", "#dc3912", "#109618", "#ff9900", "#990099", "#0099c6", "#666666", "#b82e2e")


def document(height: float, title: str, parts: Sequence[str]) -> str:
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}"'
        ' font-family="sans-serif" font-size="13">'
    )
    return "\n".join(
        [
            root,
            f'<rect width="{WIDTH}" height="{height:g}" fill="white"/>',
            text(16, 26, title, size=16),
            *parts,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 13) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#222">'
        f"{escape(words)}</text>"
    )


def square(x: float, y: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="10" height="10" fill="{colour}"/>'


def bars(title: str, figures: Mapping[str, float]) -> str:
    """Horizontal bars, the longest first."""
    left, right, row = 190, 90, 28
    longest = max(figures.values())
    parts: list[str] = []
    ranked = sorted(figures.items(), key=lambda pair: -pair[1])
    for number, (label, figure) in enumerate(ranked):
        y = 48 + number * row
        length = figure / longest * (WIDTH - left - right)
        colour = COLOURS[0] if label.startswith("gprochat") else "#aab4c4"
        parts += [
            text(left - 8, y + 15, label, anchor="end"),
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{row - 8}" fill="{colour}"/>',
            text(left + length + 6, y + 15, f"{figure:,.0f}"),
        ]
    return document(60 + len(figures) * row, title, parts)


def lines(
    title: str, across: str, up: str, series: Mapping[str, Sequence[tuple[float, float]]]
) -> str:
    """Lines through points, on logarithmic axes."""
    left, top, right, bottom, height = 60, 60, 230, 50, 420
    points = [point for line in series.values() for point in line]
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = (
        10 ** floor(log10(min(y for _, y in points))),
        10 ** ceil(log10(max(y for _, y in points))),
    )

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + log10(x / low_x) / log10(high_x / low_x) * (WIDTH - left - right),
            height - bottom - log10(y / low_y) / log10(high_y / low_y) * (height - top - bottom),
        )

    parts = [
        text(left, top - 12, up),
        text((left + WIDTH - right) / 2, height - 12, across, anchor="middle"),
    ]
    for power in range(round(log10(low_y)), round(log10(high_y)) + 1):
        for step in (1, 2, 5):
            value = step * 10**power
            if value > high_y:
                break
            _, y = place(low_x, value)
            parts += [
                f'<path d="M{left} {y:.1f}H{WIDTH - right}" stroke="#dddddd"/>',
                text(left - 6, y + 4, f"{value:g}", anchor="end", size=11),
            ]
    for x in sorted({x for x, _ in points}):
        parts.append(
            text(place(x, low_y)[0], height - bottom + 18, f"{x:g}", anchor="middle", size=11)
        )
    # Names beside the ends of their lines, apart from each other.
    free = float(top)
    ranked = sorted(series.items(), key=lambda pair: place(*pair[1][-1])[1])
    for number, (label, line) in enumerate(ranked):
        colour = COLOURS[number % len(COLOURS)]
        places = [place(*point) for point in line]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        free = max(free + 17, places[-1][1])
        parts += [
            square(WIDTH - right + 14, free - 5, colour),
            text(WIDTH - right + 30, free + 4, label),
        ]
    return document(height, title, parts)
