"""Colours of a report: cividis in steps, each with an ink that can be read on it, as CSS classes and as lines."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.colors import to_hex

STEPS = 32
_LEAST_SPAN = 0.1  # differences smaller than this do not get the whole range of colours
_DARK, _LIGHT = "#000000", "#ffffff"


@dataclass(frozen=True)
class Look:
    """How a line is drawn: colour, dashes (SVG units, () for a solid line) and marker (matplotlib's name)."""

    colour: str
    dash: tuple[float, ...]
    marker: str


_DASHES: tuple[tuple[float, ...], ...] = ((), (6.0, 2.5), (1.5, 2.0), (7.0, 2.0, 1.5, 2.0))
_MARKERS = "osD^v"


def looks(count: int) -> tuple[Look, ...]:
    """Looks that differ in colour, dashes and marker at once; the brightest yellow is left out, as paper is white."""
    colours = colormaps["viridis"]
    reach = 0.6 if count < 4 else 0.72
    place = [reach * n / max(count - 1, 1) for n in range(count)]
    return tuple(
        Look(to_hex(colours(at)), _DASHES[n % len(_DASHES)], _MARKERS[n % len(_MARKERS)]) for n, at in enumerate(place)
    )


def shade(value: float, worst: float, best: float) -> int:
    """The step of a value between the worst (0, dark) and the best (STEPS - 1, bright); either may be the larger."""
    span = best - worst
    least = _LEAST_SPAN * max(1.0, abs(best), abs(worst))
    if abs(span) < least:
        middle, half = (best + worst) / 2, (least / 2 if span >= 0 else -least / 2)
        worst, span = middle - half, 2 * half
    return round(min(max((value - worst) / span, 0.0), 1.0) * (STEPS - 1))


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` by WCAG 2."""
    parts = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours by WCAG 2: 1 to 21."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def paper_and_ink(step: int) -> tuple[str, str]:
    """Background and text colour of a step."""
    paper = to_hex(colormaps["cividis"](step / (STEPS - 1)))
    return paper, max((_DARK, _LIGHT), key=lambda ink: contrast(paper, ink))


def css() -> str:
    """One class a step: `.h0` to `.h31`."""
    made = (paper_and_ink(step) for step in range(STEPS))
    return "\n".join(f".h{n}{{background:{paper};color:{ink}}}" for n, (paper, ink) in enumerate(made)) + "\n"
