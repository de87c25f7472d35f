"""The figures of a report as inline SVG. Only numbers and own words enter one: names from files stand in the page.

A report's page forbids styles that are not its own, so what matplotlib writes as `style` becomes attributes here.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mcutune.robustness.shades import Look

WIDTH, HEIGHT = 340.0, 225.0  # units of the SVG; a phone shows one figure in its width, a desktop three
_FONT = 11.0
_GAP = 11.0  # between tags at the lines' ends
_MOST_POINTS = 80
_INK, _FAINT = "#222222", "#dddddd"
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mcutune",
    "font.size": _FONT,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": "#888888",
    "xtick.color": "#888888",
    "ytick.color": "#888888",
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.7,
}
_KEPT = re.compile(r"fill|stroke|opacity|font-size|font-weight|text-anchor|clip")
_MARKS = {
    "o": "M21 7a3 3 0 1 0-6 0a3 3 0 1 0 6 0z",
    "s": "M15.2 4.2h5.6v5.6h-5.6z",
    "D": "M18 3.4l3.6 3.6-3.6 3.6-3.6-3.6z",
    "^": "M18 3.4l3.6 6.4h-7.2z",
    "v": "M18 10.6l3.6-6.4h-7.2z",
}


@dataclass(frozen=True)
class Line:
    """Values `y` [N] at `x` [N], with a band from `low` to `high` [N] where both are given, and a short own tag."""

    x: Sequence[float]
    y: Sequence[float]
    look: Look
    tag: str = ""
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def panel(
    lines: Sequence[Line], *, name: str, about: str, x_title: str, y_limits: tuple[float, float],
    whole: bool = False, even: float | None = None,
) -> Markup:  # fmt: skip
    """One small figure of lines as an SVG element that is the same for the same input.

    `name`: prefix of its ids, unlike any other figure's of the page. `about`: what a screen reader says. `whole`: x has
    whole numbers only. `even`: a dotted level.
    """
    own: Any = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    with matplotlib.rc_context(own | _SETTINGS):  # whatever the user's own settings are
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
        figure.subplots_adjust(left=0.135, right=0.93, top=0.95, bottom=0.19)
        axes = figure.subplots()
        axes.set_axisbelow(True)
        if even is not None:
            axes.axhline(even, color="#666666", linewidth=1.0, linestyle=(0, (1, 2)))
        for line in lines:
            _draw(axes, line, 0.16 if sum(one.low is not None for one in lines) < 3 else 0.07)
        axes.set_ylim(*y_limits)
        axes.set_xlabel(x_title)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value + 0.0:.4g}"))
        _tags(axes, lines, y_limits)
        written = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None, "Creator": None})
    return _inline(written.getvalue(), name, about)


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Axis limits around values, with some room. Raises ValueError where there are none that are finite."""
    finite = [value for value in values if np.isfinite(value)]
    low, high = min(finite), max(finite)
    room = 0.06 * (high - low) or 0.05 * max(abs(high), 0.1)
    return low - room, high + room


def swatch(look: Look) -> Markup:
    """The key of a line, for a legend in the page."""
    dash = f' stroke-dasharray="{" ".join(f"{part:g}" for part in look.dash)}"' if look.dash else ""
    return Markup(
        f'<svg class="swatch" viewBox="0 0 36 14" width="36" height="14" aria-hidden="true">'
        f'<path d="M0 7h36" stroke="{look.colour}" stroke-width="2" fill="none"{dash}/>'
        f'<path d="{_MARKS[look.marker]}" fill="{look.colour}"/></svg>'
    )


def _draw(axes: Axes, line: Line, shaded: float) -> None:
    thin = np.unique(np.linspace(0, len(line.x) - 1, min(len(line.x), _MOST_POINTS)).round().astype(int))
    x, y = np.asarray(line.x, float)[thin], np.asarray(line.y, float)[thin]
    if line.low is not None and line.high is not None:
        low, high = np.asarray(line.low, float)[thin], np.asarray(line.high, float)[thin]
        axes.fill_between(x, low, high, color=line.look.colour, alpha=shaded, linewidth=0)
    style: Any = (0, line.look.dash) if line.look.dash else "-"
    every = max(1, len(thin) // 8)
    axes.plot(
        x, y, color=line.look.colour, linewidth=1.6, linestyle=style, marker=line.look.marker, markersize=4.5,
        markevery=every, markeredgewidth=0,
    )  # fmt: skip


def _tags(axes: Axes, lines: Sequence[Line], y_limits: tuple[float, float]) -> None:
    """Tags at the ends of the lines, pushed apart where they would cover each other."""
    tagged = sorted((line for line in lines if line.tag), key=lambda line: (line.y[-1], line.tag))
    low, high = y_limits
    height = HEIGHT * axes.get_position().height
    gap = min(_GAP, height / max(len(tagged), 1))
    places = [float((line.y[-1] - low) / (high - low) * height) for line in tagged]
    for n in range(1, len(places)):
        places[n] = max(places[n], places[n - 1] + gap)
    for n in reversed(range(len(places))):
        ceiling = height if n == len(places) - 1 else places[n + 1] - gap
        places[n] = min(places[n], ceiling)
    for line, place in zip(tagged, places, strict=True):
        axes.text(
            1.015, place / height, line.tag, transform=axes.transAxes, color=_INK, va="center",
            ha="left", fontweight="bold", fontsize=_FONT - 1, parse_math=False,
        )  # fmt: skip


def _inline(written: bytes, name: str, about: str) -> Markup:
    """matplotlib's file as an element of a page: no styles, no metadata, no ids but those referred to, own prefix."""
    root = ET.fromstring(written)
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", written.decode()))
    for parent in list(root.iter()):
        for child in list(parent):
            if _tag(child) in ("metadata", "style"):
                parent.remove(child)
    _drop_background(root)
    for element in root.iter():
        element.attrib = _attributes(element, used, name)
        element.tag, element.tail = _tag(element), None
        element.text = element.text if element.tag == "text" else None
    box = f"0 0 {WIDTH:g} {HEIGHT:g}"
    root.attrib = {"viewBox": box, "role": "img", "stroke-linejoin": "round", "stroke-linecap": "butt"}
    inner = ET.tostring(root, encoding="unicode", short_empty_elements=True)
    return Markup(inner.replace("<svg ", f'<svg aria-label="{escape(about)}" ', 1))


def _drop_background(root: ET.Element) -> None:
    for parent in root.iter():
        for child in list(parent):
            if child.get("id") in ("patch_1", "patch_2"):
                parent.remove(child)


def _attributes(element: ET.Element, used: set[str], name: str) -> dict[str, str]:
    made: dict[str, str] = {}
    for key, value in element.attrib.items():
        key = key.rpartition("}")[2]
        if key == "style":
            pairs = (part.partition(":") for part in value.split(";") if part.strip())
            styles = {one.strip(): other.strip() for one, _, other in pairs}
            made |= {one: other.removesuffix("px") for one, other in styles.items() if _KEPT.match(one)}
        elif key == "id":
            made |= {"id": f"{name}-{value}"} if value in used else {}
        elif key == "href":
            made[key] = f"#{name}-{value.removeprefix('#')}"
        elif key == "clip-path":
            made[key] = value.replace("#", f"#{name}-")
        elif key == "transform" and value.startswith("rotate(-0 "):
            continue
        else:
            made[key] = re.sub(r"\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value)
    if "d" in made:
        made["d"] = " ".join(made["d"].split())
    return made


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]
