"""`mcutune report`: the robustness report of a run, again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcutune.cli.options import Json, print_json

if TYPE_CHECKING:
    from rich.console import Console


def report(
    name: Annotated[str, typer.Argument(help="The run.")],
    json: Json = False,
) -> None:
    """Show the robustness report of a run as it was last made, and where its files are."""
    from mcutune.cli.runs import run_folder
    from mcutune.cli.screen import console
    from mcutune.errors import BadInput
    from mcutune.files import read_json

    folder = run_folder(name) / "robustness"
    path = folder / "report.json"
    if not path.exists():
        raise BadInput(f"run {name} has no robustness report yet", hint=f"mcutune robustness --ckpt {name} makes one")
    content = read_json(path)
    if json:
        print_json(content)
    else:
        _make_page(path)
        show(content, folder, console())


def _make_page(report: Path) -> None:
    """Write report.html where it is absent or older than report.json. Raises Damaged where that is no report."""
    page = report.with_name("report.html")
    if page.exists() and page.stat().st_mtime >= report.stat().st_mtime:
        return
    from mcutune.robustness import html

    with suppress(OSError):  # somebody else's folder: what is there can be shown all the same
        html.write(report)


def show(content: Any, folder: Path, out: Console) -> None:
    """Print a report, and where its files are. Raises Damaged where the content is not a report."""
    from mcutune.cli.render_report import report_view
    from mcutune.cli.screen import plain, say
    from mcutune.errors import Damaged

    try:
        view = report_view(content)
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
        path = folder / "report.json"
        raise Damaged(f"{path} is not a report", hint="mcutune robustness makes it anew") from None
    out.print(view)
    page = folder / "report.html"
    say(out, plain(f"report: {page if page.exists() else folder / 'report.json'}"))
