"""`mcutune study`: what a search knows, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mcutune.cli.options import Json, print_json
from mcutune.inert import inert

app = typer.Typer(help="Hand a search's trials to other programs.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Makes `export` a command of its own name."""


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="The run.")],
    to: Annotated[Path | None, typer.Option(help="The folder; else `export` in the run's.")] = None,
    json: Json = False,
) -> None:
    """Write an Optuna study that optuna-dashboard opens, and every trial and epoch as Parquet."""
    from mcutune.cli.runs import run_folder
    from mcutune.search.export import export_study

    folder = run_folder(name)
    files = export_study(folder, to or folder / "export")
    if json:
        print_json({"run": name, "files": [str(file) for file in files]})
        return
    for file in files:
        print(inert(file))
