"""`mcutune report`: the robustness report of a run, again."""

from __future__ import annotations

from typing import Annotated

import typer

from mcutune.cli.options import Json, print_json


def report(
    name: Annotated[str, typer.Argument(help="The run.")],
    json: Json = False,
) -> None:
    """Show the robustness report of a run as it was last made, and where its files are."""
    from mcutune.cli.screen import console, plain
    from mcutune.errors import BadInput, Damaged
    from mcutune.files import checked_name, home, read_json

    folder = home() / "runs" / checked_name(name, "run") / "robustness"
    path = folder / "report.json"
    if not path.exists():
        raise BadInput(f"run {name} has no robustness report yet", hint=f"mcutune robustness --ckpt {name} makes one")
    content = read_json(path)
    if json:
        print_json(content)
        return
    from mcutune.cli.render_report import report_view

    try:
        view = report_view(content)
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
        raise Damaged(f"{path} is not a report", hint=f"mcutune robustness --ckpt {name} makes it anew") from None
    out = console()
    out.print(view)
    out.print(plain(f"report: {folder / 'report.html'}"), soft_wrap=True)
