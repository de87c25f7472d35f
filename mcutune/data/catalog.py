"""The datasets of a home: listed, checked, and the built-in ones made when first asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcutune.data import digits, planted
from mcutune.data.audit import Finding, audit
from mcutune.data.columns import Columns
from mcutune.data.table import Table, TableManifest, open_table, read_manifest, table_folder, table_names
from mcutune.errors import BadInput, UserError

BUILT_IN: dict[str, Callable[[Path | None], Table]] = {
    "planted": lambda home: planted.make("planted", home),
    "digits": digits.make,
}


@dataclass(frozen=True)
class Entry:
    """A dataset of a home; `problem` says why its manifest cannot be read."""

    name: str
    manifest: TableManifest | None
    problem: str | None = None


def list_tables(home: Path | None = None) -> list[Entry]:
    """Every dataset of a home, sorted by name; a damaged one is listed with its problem. Files are not hashed."""
    entries = []
    for name in table_names(home):
        try:
            entries.append(Entry(name, read_manifest(table_folder(name, home))))
        except UserError as error:
            entries.append(Entry(name, None, str(error)))
    return entries


def columns_of(table: Table) -> Columns:
    """The columns that a table was written from. Raises BadInput on a handle with sealed rows."""
    manifest = table.manifest
    return Columns(
        features={name: table.features(name) for name in table.modalities.names},
        ids=table.ids,
        labels=table.labels(np.arange(len(table))),
        dialogue=np.array(table.dialogue_names)[table.dialogue],
        order=table.order,
        group=np.array(table.group_names)[table.group],
        presence=table.presence,
        task=manifest.task,
        label_names=tuple(manifest.label_names or ()),
        fold=table.fold,
        split=table.split,
        group_kind=manifest.group,
        normalisation=manifest.normalisation,
        extra=manifest.extra,
    )


def check(target: Table | Columns) -> list[Finding]:
    """All findings about a table, or about columns before they are written; errors first."""
    return audit(target if isinstance(target, Columns) else columns_of(target))


def ensure(name: str, home: Path | None = None) -> Table:
    """The table of that name; `planted` and `digits` are made if absent. Raises BadInput for an unknown name."""
    if name in BUILT_IN and not table_folder(name, home).exists():
        # Another process may make it meanwhile: then that one is opened.
        with contextlib.suppress(BadInput):
            return BUILT_IN[name](home)
    return open_table(name, home=home)
