"""Lines of a robustness report in the terminal on what was trained beside the winners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType

from mcutune.cli.screen import plain
from mcutune.robustness.gap_page import in_words


def compared_lines(report: dict[str, Any]) -> Iterator[RenderableType]:
    """Questions with their answers, and the selection gap; nothing where nothing was trained beside the winners."""
    for one in report.get("answers", ()):
        if one["key"] != "default" or len(report["answers"]) > 1:
            yield plain(one["question"], "bold")
            yield plain(f"  {one['answer']}")
    gap = in_words(report)
    if gap:
        yield plain(gap, "yellow")
