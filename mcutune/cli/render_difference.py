"""Two reports against each other in a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from mcutune.cli.screen import plain, table
from mcutune.cli.text import count, score
from mcutune.robustness.tables import series_words

Entry = dict[str, Any]

_MOST_ROWS = 31  # combinations of five modalities; above that the largest differences are shown
_LARGEST = 10
_STYLES = {"better": "green", "worse": "red", "not shown": ""}
_SHORT = {"better": "better", "worse": "worse", "not shown": "–"}  # 80 columns have no room for more
_ANSWERS = {"not worse": "✓", "worse": "✗", "undecided": "?"}
_MEANS = {"mean_all": "mean of {over}", "area": "mean over the curve"}


def difference_view(found: Entry) -> RenderableType:
    """The metric that speaks for each protocol in full, the others in a line each."""
    data, a, b = found["data"], found["a"], found["b"]
    head = f"{count(data['rows'], 'row')} of {data['table']}, {count(data['groups'], data['group'])}"
    parts: list[RenderableType] = [
        plain(f"A {a['given']}: {a['model']}, {count(a['seeds'], 'seed')}", "bold"),
        plain(f"B {b['given']}: {b['model']}, {count(b['seeds'], 'seed')}", "bold"),
        plain(f"{head}. Ranges: {found['statistics']['confidence']:.0%}, {found['cells'][0]['interval']}.", "dim"),
    ]
    for protocol in found["protocols"]:
        parts += [Text(), plain(f"{protocol['id']}: {protocol['title']}", "bold"), *_protocol(found, protocol["id"])]
    parts += [Text()]
    parts += [
        plain(f"left out: {one['protocol']}, only {one['only_in'].upper()} has it", "yellow")
        for one in found["left_out"]
    ]
    parts += [plain(f"warning: {warning}", "yellow") for warning in found["warnings"]]
    return Group(*parts, *(plain(sentence) for sentence in found["summary"]))


def _protocol(found: Entry, name: str) -> Iterator[RenderableType]:
    cells = [one for one in found["cells"] if one["protocol"] == name]
    metrics = list(dict.fromkeys(one["metric"] for one in cells))
    main = next((metric for metric in ("ua", "mae") if metric in metrics), metrics[0])
    mine = [one for one in cells if one["metric"] == main]
    shown = mine
    if len(mine) > _MOST_ROWS:
        ranked = sorted(range(len(mine)), key=lambda n: -abs(mine[n]["difference"]))
        shown = [mine[n] for n in sorted(ranked[:_LARGEST])]
        yield plain(f"the {_LARGEST} largest differences of {len(mine)}", "dim")
    margin = found["statistics"]["margin"]
    last = () if margin is None else ("≥",)
    made = table(main, "A", "B", "A − B", "range", "p", "seen", "A is", *last, right=range(1, 7))
    for one in shown:
        made.add_row(*_row(_place(one), one, margin is not None))
    overall = [one for one in found["overall"] if (one["protocol"], one["metric"]) == (name, main)]
    if overall:
        made.add_section()
    for one in overall:
        words = _MEANS[one["name"]].format(over=one["over"]) + series_words(one)
        made.add_row(*_row(plain(words, "italic"), one, margin is not None))
    yield made
    for metric in metrics:
        if metric != main:
            yield plain(_counted(metric, [one for one in cells if one["metric"] == metric]), "dim")
    yield plain(_notes(mine[0], margin), "dim")


def _notes(one: Entry, margin: float | None) -> str:
    adjusted = f"p: {one['test']}, adjusted by Holm over {one['family']} cells"
    kept = "" if margin is None else f"; ≥: shown not to be worse by {margin:g} or more (✓), to be (✗)"
    return f"{adjusted}; seen: the smallest true difference that would be found with probability .8{kept}"


def _row(place: Text, one: Entry, margin: bool) -> list[Text]:
    bounds = "–" if one["low"] is None else f"{_signed(one['low'])} {_signed(one['high'])}"
    made = [place, plain(score(one["a"])), plain(score(one["b"])), plain(_signed(one["difference"])), plain(bounds)]
    p = "<.001" if one["p_holm"] < 0.001 else score(one["p_holm"])
    made += [plain(p), plain(score(one["detectable"])), plain(_SHORT[one["verdict"]], _STYLES[one["verdict"]])]
    return [*made, plain(_ANSWERS[one["margin"]["answer"]])] if margin else made


def _place(one: Entry) -> Text:
    parts = [one["combination"]] if one["combination"] else []
    if not parts or one["scenario"].startswith("normalisation="):
        parts.append(one["scenario"].removeprefix("normalisation="))
    return plain(", ".join(parts), limit=120)


def _signed(value: float) -> str:
    """`+.012`, `-.003`."""
    return f"{'-' if value < 0 else '+'}{score(abs(value))}"


def _counted(metric: str, cells: list[Entry]) -> str:
    words = [f"{sum(one['verdict'] == verdict for one in cells)} {verdict}" for verdict in _STYLES]
    return f"{metric}: {', '.join(words)} to differ"
