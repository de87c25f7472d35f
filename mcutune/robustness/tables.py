"""What the tables of report.html show, from a report: places, shades, marks of intervals. Text only, no markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mcutune.domain.task import METRICS
from mcutune.robustness.equivalence import NOT_WORSE, UNDECIDED, WORSE
from mcutune.robustness.shades import shade

Entry = dict[str, Any]

_GROUPED_FROM = 16  # combinations: from here on a table is cut into one part a number of modalities
_MARK = 120.0  # width of the drawing of an interval
SUMMARIES = {
    "mean_all": "mean of all {over}",
    "mean_incomplete": "mean of the {over} incomplete",
    "worst": "worst of {over}",
    "cvar": "mean of the worst quarter of {over}",
    "area": "mean over the curve ({over} points)",
}
_ALPHA = 0.05
_MARGIN = {NOT_WORSE: "✓ no", WORSE: "✗ yes", UNDECIDED: "? not shown", "": ""}  # worse by the margin or more
_WORDS = {
    "rate": "missing rate {rest}",
    "share": "block of {rest}",
    "sigma": "σ {rest}",
    "setting": "{rest}",
    "normalisation": "{rest} normalisation",
}


@dataclass(frozen=True)
class Place:
    """A row's name: a combination as its modalities with ● for present and ○ for absent, or a scenario, or both."""

    parts: tuple[str, ...]
    dots: str
    scenario: str

    @property
    def size(self) -> int:
        """How many modalities are present; 0 for a scenario."""
        return len(self.parts)


@dataclass(frozen=True)
class Mark:
    """An interval as a drawing: positions from 0 to 120; `zero`: where no difference is."""

    at: str
    low: str | None
    high: str | None
    zero: str | None = None


@dataclass(frozen=True)
class Cell:
    """A value, its interval ('' where there is none), its shade, and the value so signed that more is better."""

    value: str
    bounds: str
    shade: int
    signed: float
    more: str = ""


@dataclass(frozen=True)
class Row:
    place: Place
    cells: tuple[Any, ...]
    new: bool = False  # whether the number of modalities is another than in the row above


@dataclass(frozen=True)
class Part:
    """Rows of one table; `title` where the table is cut into parts; `ends`: the worst and the best row's cell."""

    title: str
    metric: str
    ends: tuple[tuple[Cell, Place], ...]
    open: bool
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Heat:
    """Places by metrics. `scales`: worst, best, 'lower is better' or '' of each column. `left_out`: rows not shown."""

    model: str
    titles: tuple[str, ...]
    scales: tuple[tuple[str, str, str], ...]
    parts: tuple[Part, ...]
    summaries: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...]
    left_out: int


@dataclass(frozen=True)
class Numbers:
    """Everything known of each value of one metric of one model."""

    model: str
    metric: str
    scale: tuple[str, str]
    rows: tuple[Row, ...]
    left_out: int


@dataclass(frozen=True)
class Forest:
    """Paired differences of one metric; `verdicts`: how many places are better, worse, and not shown to differ.

    `margin`: the loss that is accepted, '' where none was asked about; `kept`: places shown not to lose more.
    """

    reference: str
    metric: str
    lower_is_better: bool
    tests: str
    family: int
    scale: tuple[str, str]
    verdicts: tuple[int, int, int]
    margin: str
    kept: int
    rows: tuple[Row, ...]
    left_out: int


def number(value: float | None) -> str:
    """Three decimals; a dash where there is none."""
    return "–" if value is None else f"{value + 0.0:.3f}".replace("-0.000", "0.000")


def gap(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.3f}".replace("-0.000", "0.000").replace("+0.000", "0.000")


def chance(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def bounds(one: Entry) -> str:
    """`0.728 to 0.790`, '' where there is no interval."""
    return "" if one["low"] is None or one["high"] is None else f"{number(one['low'])} to {number(one['high'])}"


def title(metric: str) -> str:
    """As a column head: `UA`, `MAE, lower is better`."""
    short = {"wa": "WA", "ua": "UA", "f1": "F1", "acc2": "ACC2", "f1_nonzero": "F1 non-zero", "mae": "MAE"}
    return short.get(metric, "Pearson r" if metric == "pearson" else metric)


def main_metric(names: Iterable[str]) -> str:
    """The metric that speaks for a report: ua or mae, else the first."""
    known = list(dict.fromkeys(names))
    return next((name for name in ("ua", "mae") if name in known), known[0])


def main_first(names: Iterable[str]) -> list[str]:
    """Metrics, each once, the one that speaks for the report before the others."""
    known = list(dict.fromkeys(names))
    return sorted(known, key=lambda name: name != main_metric(known))


def place_of(one: Entry, modalities: Sequence[str], scenarios: bool = True) -> Place:
    """The place of a measurement or comparison."""
    label, scenario = one.get("combination"), str(one.get("scenario", ""))
    parts = tuple(str(label).split("+")) if label is not None else ()
    known = bool(parts) and set(parts) <= set(modalities)
    dots = "".join("●" if name in parts else "○" for name in modalities) if known else ""
    kind, _, rest = scenario.partition("=")
    shown = _WORDS.get(kind, "{all}").format(rest=rest.replace("=", " "), all=scenario)
    return Place(parts, dots, shown if scenarios or not parts else "")


def heat(measured: Sequence[Entry], summaries: Sequence[Entry], modalities: Sequence[str], most: int) -> Heat:
    """The heat map of one model under one protocol; `most`: how many rows at most, the worst first."""
    metrics = main_first(one["metric"] for one in measured)
    ranked = metrics[0]
    several = len({one["scenario"] for one in measured}) > 1
    cells = {(one["combination"], one["scenario"], one["metric"]): one for one in measured}
    places = list(dict.fromkeys((one["combination"], one["scenario"]) for one in measured))
    scales = {
        metric: scale(metric, [one["value"] for one in measured if one["metric"] == metric]) for metric in metrics
    }
    kept = _worst(places, [_signed(ranked, cells.get((*at, ranked))) for at in places], most)
    rows, size = [], None
    for at in kept:
        found = [cells.get((*at, metric)) for metric in metrics]
        named = next(one for one in found if one is not None)
        place = place_of(named, modalities, several)
        shown = [cell(one, *scales[metric]) if one else None for one, metric in zip(found, metrics, strict=True)]
        rows.append(Row(place, tuple(shown), size is not None and place.size != size))
        size = place.size
    return Heat(
        measured[0]["model"],
        tuple(map(title, metrics)),
        tuple(
            (number(w), number(b), "" if higher_is_better(name) else "lower is better")
            for name, (w, b) in scales.items()
        ),
        _parts(rows, metrics.index(ranked), title(ranked), len(modalities)),
        tuple(_summary(summaries, *of, metrics) for of in dict.fromkeys(map(_named, summaries))),
        len(places) - len(kept),
    )


def scale(metric: str, values: Sequence[float]) -> tuple[float, float]:
    """The worst and the best of values."""
    return (min(values), max(values)) if higher_is_better(metric) else (max(values), min(values))


def higher_is_better(metric: str) -> bool:
    return metric not in METRICS or METRICS[metric].higher_is_better


def cell(one: Entry, worst: float, best: float, more: str = "") -> Cell:
    signed = one["value"] if best >= worst else -one["value"]
    return Cell(number(one["value"]), bounds(one), shade(one["value"], worst, best), signed, more)


def numbers(measured: Sequence[Entry], metric: str, modalities: Sequence[str], most: int) -> Numbers:
    """All that is known of each value of a metric; `measured` of one model and protocol."""
    mine = [one for one in measured if one["metric"] == metric]
    low, high = _range(mine)
    several = len({one["scenario"] for one in measured}) > 1
    kept = _worst(mine, [_signed(metric, one) for one in mine], most)
    rows = []
    for one in kept:
        spread = (number(one["seeds_sd"]), one["seeds"], number(one["folds_sd"]), one["folds"])
        cells = (_mark(one, "value", low, high), number(one["value"]), bounds(one), one["n"], one["groups"], *spread)
        rows.append(Row(place_of(one, modalities, several), cells))
    return Numbers(
        mine[0]["model"], title(metric), (number(low), number(high)), tuple(rows), len(mine) - len(kept)
    )  # fmt: skip


def forest(compared: Sequence[Entry], modalities: Sequence[str], most: int) -> Forest:
    """Paired differences; `compared` of one protocol, reference and metric."""
    metric, first = compared[0]["metric"], compared[0]
    low, high = _range([{**one, "value": one["difference"]} for one in compared])
    reach = max(abs(low), abs(high))
    several = len({one["scenario"] for one in compared}) > 1
    verdicts = [_verdict(one) for one in compared]
    kept = _worst(list(compared), [_signed(metric, {"value": one["difference"]}) for one in compared], most)
    rows = []
    for one in kept:
        mark = _mark(one, "difference", -reach, reach, 0.0)
        seen = (chance(one["p"]), chance(one["p_holm"]), number(one["detectable"]), one["groups"])
        words = {1: "better", -1: "worse", 0: "not shown"}[_verdict(one)]
        cells = (mark, gap(one["difference"]), bounds(one), *seen, words, _MARGIN[_answer(one)])
        rows.append(Row(place_of(one, modalities, several), cells))
    return Forest(
        first["reference"],
        title(metric),
        not higher_is_better(metric),
        " and ".join(dict.fromkeys(one["test"] for one in compared)),
        first["family"],
        (number(-reach), f"+{number(reach)}"),
        (verdicts.count(1), verdicts.count(-1), verdicts.count(0)),
        f"{first['margin']['margin']:g}" if first.get("margin") else "",
        sum(_answer(one) == NOT_WORSE for one in compared),
        tuple(rows),
        len(compared) - len(kept),
    )


def _answer(one: Entry) -> str:
    return one["margin"]["answer"] if one.get("margin") else ""


def _verdict(one: Entry) -> int:
    if one["p_holm"] >= _ALPHA:
        return 0
    return 1 if _signed(one["metric"], {"value": one["difference"]}) > 0 else -1


def _signed(metric: str, one: Entry | None) -> float:
    if one is None:
        return float("inf")
    return float(one["value"] if higher_is_better(metric) else -one["value"])


def _worst(items: list[Any], signed: Sequence[float], most: int) -> list[Any]:
    """All items, or the `most` worst of them in their own order."""
    kept = sorted(sorted(range(len(items)), key=lambda n: signed[n])[:most])
    return [items[n] for n in kept]


def _range(measured: Sequence[Entry]) -> tuple[float, float]:
    ends = [one[key] for one in measured for key in ("low", "high", "value") if one[key] is not None]
    return min(ends), max(ends)


def _mark(one: Entry, key: str, low: float, high: float, zero: float | None = None) -> Mark:
    def at(value: float | None) -> str | None:
        if value is None:
            return None
        share = 0.5 if high <= low else (value - low) / (high - low)
        return f"{4 + share * (_MARK - 8):.1f}"

    return Mark(str(at(one[key])), at(one["low"]), at(one["high"]), at(zero))


def _parts(rows: Sequence[Row], ranked: int, metric: str, modalities: int) -> tuple[Part, ...]:
    """One part, or one a number of modalities where there are many rows, open where it breaks or is complete."""
    if len(rows) < _GROUPED_FROM or len({row.place.size for row in rows}) < 2:
        return (Part("", metric, (), True, tuple(rows)),)
    parts = []
    for size in sorted({row.place.size for row in rows}):
        mine = tuple(row for row in rows if row.place.size == size)
        known = [(row.cells[ranked], row.place) for row in mine if row.cells[ranked]]
        known.sort(key=lambda one: float(one[0].signed))
        ends = (known[0], known[-1]) if len(known) > 1 else ()
        some = f"{size} of {modalities} modalities: {len(mine)} combination{'s' if len(mine) > 1 else ''}"
        words = some if size < modalities else "All modalities"
        parts.append(Part(words, metric, ends, size in (1, modalities), mine))
    return tuple(parts)


def _named(summary: Entry) -> tuple[str, str]:
    return summary["name"], summary["scenario"]


def series_words(summary: Entry) -> str:
    """`, audio` where a summary is of one curve among several."""
    return "" if summary["scenario"] in ("fixed", "all rates") else f", {summary['scenario']}"


def _summary(
    summaries: Sequence[Entry], name: str, scenario: str, metrics: Sequence[str]
) -> tuple[str, tuple[tuple[str, str, str], ...]]:
    """Words, and for each metric the value, its interval and, for the worst, which place that is."""
    of = {one["metric"]: one for one in summaries if _named(one) == (name, scenario)}
    over = next(iter(of.values()))["over"]
    words = SUMMARIES[name].format(over=over) if name in SUMMARIES else f"{name}, over {over}"
    words += series_words({"scenario": scenario})
    found = (of.get(metric) for metric in metrics)
    shown = ((number(one["value"]), bounds(one), one["which"] or "") if one else ("–", "", "") for one in found)
    return words, tuple(shown)
