"""`mcutune report`: the robustness report of a run, again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcutune.cli.gates import HELP
from mcutune.cli.options import Json, print_json

if TYPE_CHECKING:
    from rich.console import Console


_EACH = ", or one file a table into this folder"
_HELD = "every measurement, summary, index, contribution and comparison"


def report(
    name: Annotated[str, typer.Argument(help="The run, or RUN:TRIAL where a trial was measured by itself.")],
    gate: Annotated[str | None, typer.Option(help=HELP)] = None,
    latex: Annotated[
        str | None, typer.Option(metavar="PATH", help=f"Write LaTeX tables (booktabs) into this file{_EACH}.")
    ] = None,
    csv: Annotated[
        str | None, typer.Option(metavar="PATH", help=f"Write {_HELD}, one a line, into this file{_EACH}.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the robustness report of a run as it was last made, and where its files are.

    With --gate the verdict is also written beside the report as gate.json, and --json prints it instead of the report.
    """
    from mcutune.cli.gates import decide_and_write, end_with
    from mcutune.cli.outputs import apart, file_or_folder
    from mcutune.cli.runs import or_why_not
    from mcutune.cli.screen import console
    from mcutune.files import home
    from mcutune.robustness.gate import load_gate
    from mcutune.robustness.reports import find_run_report, read_report

    tex, table = file_or_folder("--latex", latex), file_or_folder("--csv", csv)
    apart("--latex", tex, "--csv", table)
    loaded = load_gate(gate) if gate is not None else None
    with or_why_not(name):
        path = find_run_report(name, home())
    content = read_report(path)
    verdict = decide_and_write(loaded, path) if loaded is not None else None
    _write_tables(content, tex, table)
    if json:
        print_json(content if verdict is None else verdict)
    else:
        _make_page(path)
        show(content, path.parent, console(), verdict)
    if verdict is not None:
        end_with(verdict)


def _write_tables(content: dict[str, Any], latex: Path | None, csv: Path | None) -> None:
    from mcutune.cli.outputs import write, write_each
    from mcutune.robustness import latex as in_latex
    from mcutune.robustness import written

    if latex is not None and latex.is_dir():
        each = {name: in_latex.PREAMBLE + text for name, text in in_latex.tables(content).items()}
        write_each("--latex", latex, each, ".tex")
    elif latex is not None:
        write("--latex", latex, in_latex.latex(content))
    if csv is not None and csv.is_dir():
        write_each("--csv", csv, written.csv_tables(content), ".csv")
    elif csv is not None:
        write("--csv", csv, written.csv(content))


def _make_page(report: Path) -> None:
    """Write report.html where it is absent or older than report.json or its gate. Raises Damaged for no report."""
    page = report.with_name("report.html")
    newest = max(path.stat().st_mtime for path in (report, report.with_name("gate.json")) if path.exists())
    if page.exists() and page.stat().st_mtime >= newest:
        return
    from mcutune.robustness import html

    with suppress(OSError):  # somebody else's folder: what is there can be shown all the same
        html.write(report)


def show(content: Any, folder: Path, out: Console, verdict: dict[str, Any] | None = None) -> None:
    """Print a report, and where its files are. Raises Damaged where the content is not a report."""
    from mcutune.cli.render_gate import gate_view
    from mcutune.cli.render_report import report_view
    from mcutune.cli.screen import plain, say
    from mcutune.errors import Damaged

    try:
        view = report_view(content)
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
        path = folder / "report.json"
        raise Damaged(f"{path} is not a report", hint="mcutune robustness makes it anew") from None
    out.print(view)
    if verdict is not None:
        out.print(gate_view(verdict))
    page = folder / "report.html"
    say(out, plain(f"report: {page if page.exists() else folder / 'report.json'}"))
