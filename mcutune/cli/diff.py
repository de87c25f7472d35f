"""`mcutune diff`: two reports against each other, paired on the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mcutune.cli.options import Json, print_json


def diff(
    a: Annotated[
        str, typer.Argument(help="A run, RUN:TRIAL, a folder with a report or its evidence, or a report.json.")
    ],
    b: Annotated[str, typer.Argument(help="Another, measured on the same rows by the same protocols.")],
    margin: Annotated[
        float | None, typer.Option(help="Also say where A is not worse than B by this much or more.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page into this file, too.")] = None,
    json: Json = False,
) -> None:
    """Compare two reports by paired tests on their stored predictions. No model runs and no label is read anew.

    Reports that differ in table, rows, folds, protocol or missing patterns are refused by the name of what differs.
    """
    from mcutune.cli.outputs import checked, write
    from mcutune.cli.render_difference import difference_view
    from mcutune.cli.runs import or_why_not
    from mcutune.cli.screen import console
    from mcutune.files import home
    from mcutune.robustness.difference_page import render_difference
    from mcutune.robustness.differences import difference
    from mcutune.robustness.equivalence import checked_margin
    from mcutune.robustness.reports import find_report

    checked("--html", html)
    checked_margin(margin)
    with or_why_not(a, b):
        reports = find_report(a, home()), find_report(b, home())
    found = difference(*reports, margin)
    if html is not None:
        write("--html", html, render_difference(found))
    if json:
        print_json(found)
    else:
        console().print(difference_view(found))
