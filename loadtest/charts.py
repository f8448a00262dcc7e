"""The chart of a benchmark: items a second by request size, bare and served, as an SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 60, 50
_GRID_LINES = 5
_COLOURS = {"bare": "#8d99ae", "warm": "#d1495b", "half": "#edae49", "cold": "#30638e"}
_NAMES = {
    "bare": "bare onnxruntime",
    "warm": "served, warm",
    "half": "served, half warm",
    "cold": "served, cold",
}


def chart(results: Sequence[dict[str, Any]], title: str) -> str:
    """Draw the throughput results of `bench.json`; served bars carry served / bare."""
    sizes = list(dict.fromkeys(each["candidates"] for each in results))
    series = ["bare", *dict.fromkeys(each["cache"] for each in results)]
    most = max(max(each["bare_items_per_s"], each["served_items_per_s"]) for each in results)
    step = _step(most / _GRID_LINES)
    top = step * (int(most / step) + 1)
    height = _HEIGHT - _TOP - _BOTTOM
    parts = [_text(_LEFT, 24, title, size=15)]
    for line in range(round(top / step) + 1):
        y = _HEIGHT - _BOTTOM - height * line * step / top
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{line * step:,.0f}", anchor="end"))
    group = (_WIDTH - _LEFT - _RIGHT) / len(sizes)
    bar = group * 0.8 / len(series)
    for at, size in enumerate(sizes):
        left = _LEFT + at * group + group * 0.1
        found = {each["cache"]: each for each in results if each["candidates"] == size}
        for place, name in enumerate(series):
            each = found.get(name, next(iter(found.values())))
            value = each["bare_items_per_s" if name == "bare" else "served_items_per_s"]
            tall = height * value / top
            x, y = left + place * bar, _HEIGHT - _BOTTOM - tall
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{bar - 2:.1f}" height="{tall:.1f}" '
                f'fill="{_COLOURS[name]}"/>'
            )
            if name != "bare":
                parts.append(_text(x + bar / 2 - 1, y - 4, f"{each['ratio']:.2f}x", "middle", 10))
        parts.append(_text(left + group * 0.4, _HEIGHT - _BOTTOM + 18, f"{size}", "middle"))
    parts.append(_text(_LEFT + group * len(sizes) / 2, _HEIGHT - 12, "candidates", "middle"))
    for place, name in enumerate(series):
        x = _LEFT + place * 160
        parts.append(f'<rect x="{x}" y="36" width="11" height="11" fill="{_COLOURS[name]}"/>')
        parts.append(_text(x + 16, 46, _NAMES[name]))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _step(least: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** (len(str(int(least))) - 1)
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#222">'
        f"{escape(text)}</text>"
    )
