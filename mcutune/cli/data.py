"""`mcutune data`: what datasets there are, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcutune.cli import data_import, data_make
from mcutune.cli.options import Json, print_json
from mcutune.cli.text import count
from mcutune.inert import inert

if TYPE_CHECKING:
    from mcutune.data.catalog import Entry
    from mcutune.data.table import Table, TableManifest

app = typer.Typer(help="Import, list, check and make datasets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_import.app, name="import")
app.add_typer(data_make.app, name="make")


@app.command("list")
def list_(json: Json = False) -> None:
    """List the datasets of this home: rows, modalities, classes, folds."""
    from mcutune.data.catalog import BUILT_IN, list_tables

    entries = list_tables()
    if json:
        print_json([_entry_facts(entry) for entry in entries])
        return
    _print_entries(entries)
    absent = [name for name in BUILT_IN if name not in {entry.name for entry in entries}]
    if absent:
        print(f"built in, made when first used: {', '.join(absent)}")


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Datasets; all of this home if none is named.")] = None,
    json: Json = False,
) -> None:
    """Check datasets: hashes, missing and non-finite rows, repeated ids, groups in two splits; all findings at once.

    Ends with 2 where a finding keeps a dataset from being used.
    """
    from mcutune.data.catalog import check as findings_of
    from mcutune.data.catalog import list_tables
    from mcutune.data.table import open_table

    reports = []
    for name in names or [entry.name for entry in list_tables()]:
        table = open_table(name)
        reports.append({**table_facts(table.manifest), "findings": [f.to_json() for f in findings_of(table)]})
        if not json:
            _print_check(table, reports[-1]["findings"])
    if json:
        print_json(reports)
    elif not reports:
        print("no datasets here; `mcutune data make planted` makes one")
    if any(finding["level"] == "error" for report in reports for finding in report["findings"]):
        raise typer.Exit(2)


def table_facts(manifest: TableManifest) -> dict[str, Any]:
    """What is known of a table, for JSON."""
    facts = manifest.model_dump(mode="json", exclude={"files", "extra", "version"})
    return facts | {"classes": len(manifest.label_names) if manifest.label_names else None}


def summary_line(manifest: TableManifest) -> str:
    """`iemocap: 10,039 rows, audio 47 + text 384, 4 classes, 4,508 rows without a label`, on one line."""
    modalities = " + ".join(f"{inert(name)} {dim}" for name, dim in manifest.modalities.items())
    kind = count(len(manifest.label_names), "class", "classes") if manifest.label_names else "regression"
    bare = f", {manifest.unlabelled:,} without a label" if manifest.unlabelled else ""
    return f"{inert(manifest.name)}: {count(manifest.rows, 'row')}, {modalities}, {kind}{bare}"


def _entry_facts(entry: Entry) -> dict[str, Any]:
    if entry.manifest is None:
        return {"name": entry.name, "problem": entry.problem}
    return table_facts(entry.manifest)


def _print_entries(entries: list[Entry]) -> None:
    from mcutune.cli.screen import console, plain, table

    made = table("dataset", "rows", "modalities (dims)", "predicts", "split by", right=(1,), words=(0, 2))
    for entry in entries:
        if entry.manifest is None:
            made.add_row(plain(entry.name), "", plain(entry.problem, "red"))
            continue
        manifest = entry.manifest
        modalities = ", ".join(f"{name} {dim}" for name, dim in manifest.modalities.items())
        predicts = count(len(manifest.label_names), "class", "classes") if manifest.label_names else "a value"
        cells = plain(manifest.name), f"{manifest.rows:,}", plain(modalities), predicts, plain(_split_by(manifest))
        made.add_row(*cells)
    if entries:
        console().print(made)


def _split_by(manifest: TableManifest) -> str:
    if manifest.folds:
        return count(len(manifest.folds), "fold")
    return "given" if manifest.splits else f"{manifest.group}, carved"


def _print_check(table: Table, findings: list[dict[str, Any]]) -> None:
    from mcutune.cli.screen import console, plain, say

    out = console()
    say(out, plain(summary_line(table.manifest), "bold"))
    styles = {"error": "red", "note": "yellow"}
    for finding in findings:
        say(out, plain(f"  {finding['level']}: {finding['message']}", styles[finding["level"]]))
    if not findings:
        out.print(plain("  nothing to report", "green"))
