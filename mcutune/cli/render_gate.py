"""A gate's verdict in a terminal of 80 columns: every condition with its numbers."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mcutune.cli.screen import plain
from mcutune.cli.text import score

_STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}


def gate_view(verdict: dict[str, Any]) -> RenderableType:
    """The conditions, and the outcome, which is that of the worst of them."""
    gate = verdict["gate"]
    made = Table.grid(padding=(0, 1, 0, 0))
    for number in range(4):
        made.add_column(justify="right" if number == 2 else "left", no_wrap=number != 1, overflow="fold")
    for one in verdict["conditions"]:
        bounds = "" if one["low"] is None else f"{score(one['low'])} {score(one['high'])}"
        value = "" if one["low"] is None and not one["metric"] else score(one["value"])
        reason = Text.assemble(plain(one["condition"]), ("\n", ""), plain(one["reason"], "dim"))
        made.add_row(plain(one["outcome"], _STYLES[one["outcome"]]), reason, plain(value), plain(bounds))
    head = plain(f"gate {gate['id']}, version {gate['version']}: {gate['title']}", "bold")
    return Group(Text(), head, made, plain(f"gate: {verdict['outcome']}", _STYLES[verdict["outcome"]]))
