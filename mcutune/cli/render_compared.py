"""Lines of a robustness report in the terminal on what was trained beside the winners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType

from mcutune.cli.screen import plain
from mcutune.robustness.equivalence import NOT_WORSE, WORSE
from mcutune.robustness.gap_page import in_words
from mcutune.robustness.overall_view import learning_in_words
from mcutune.robustness.tables import main_metric, title

_SAME = ("protocol", "metric", "reference")


def compared_lines(report: dict[str, Any]) -> Iterator[RenderableType]:
    """Questions with their answers, gradients and selection gap; nothing where nothing was trained beside winners."""
    for one in report.get("answers", ()):
        if one["key"] != "default" or len(report["answers"]) > 1:
            yield plain(one["question"], "bold")
            yield plain(f"  {one['answer']}")
    yield from _margins(report)
    learned = learning_in_words(report)
    if learned:
        yield plain(learned, "dim")
    gap = in_words(report)
    if gap:
        yield plain(gap, "yellow")


def _margins(report: dict[str, Any]) -> Iterator[RenderableType]:
    """A line a model that no answer speaks of: where the subject is shown not to be worse than it by the margin."""
    told = {one["model"] for one in report.get("answers", ())} if len(report.get("answers", ())) > 1 else set()
    asked = [one for one in report["comparisons"] if one.get("margin") and one["reference"] not in told]
    metric = main_metric(one["metric"] for one in report["measurements"])
    for reference in dict.fromkeys(one["reference"] for one in asked):
        mine = [one for one in asked if (one["reference"], one["metric"]) == (reference, metric)]
        mine = [one for one in mine if one["protocol"] == mine[0]["protocol"]]
        found = [one["margin"]["answer"] for one in mine]
        counts = f"shown in {found.count(NOT_WORSE)} of {len(found)}, refuted in {found.count(WORSE)}"
        same = (mine[0]["protocol"], metric, reference)
        means = (one for one in report["mean_differences"] if same == tuple(one[key] for key in _SAME))
        mean = "".join(f"; on average {one['margin']['answer']}" for one in means)
        margin = f"{mine[0]['margin']['margin']:g}"
        yield plain(
            f"not worse than {reference} by {margin} or more, {title(metric)} ({mine[0]['protocol']}): {counts}{mean}"
        )
