"""Importing: a file is read by roles, audited, and written as a table; nothing is written where there is an error."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mcutune.data.assemble import Reading, Roles, assemble
from mcutune.data.audit import Finding, audit, refuse_errors
from mcutune.data.hints import shown
from mcutune.data.layout import read_layout
from mcutune.data.npy import NpzSource
from mcutune.data.parquet import ParquetSource
from mcutune.data.table import Table, datasets_folder, write_table
from mcutune.errors import BadInput
from mcutune.files import checked_name, sha256_file

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
_KINDS: dict[str, Literal["npz", "parquet", "layout"]] = {".npz": "npz", ".parquet": "parquet", ".pkl": "layout"}


@dataclass(frozen=True)
class Imported:
    """A table, and the notes that the person should see."""

    table: Table
    findings: list[Finding]


def kind_of(path: Path) -> Literal["npz", "parquet", "layout"]:
    """How a source is to be imported, by its name. Raises BadInput for archives and what is not known."""
    if path.suffix in _ARCHIVES:
        raise BadInput(f"{shown(path, 200)} is an archive", hint="archives are not accepted: unpack it yourself")
    if path.suffix not in _KINDS:
        valid = "a .npz, a .parquet, or the label .pkl of the GCNet layout"
        raise BadInput(f"{shown(path, 200)} is not a kind of file that can be imported", hint=f"valid: {valid}")
    return _KINDS[path.suffix]


def read_npz(path: Path, roles: Roles) -> Reading:
    """Columns of a .npz file, not yet audited. Raises BadInput or Problems."""
    kind_of(path)
    return assemble(NpzSource(path), roles)


def read_parquet(path: Path, roles: Roles) -> Reading:
    """Columns of a .parquet file, not yet audited. Raises BadInput or Problems."""
    kind_of(path)
    return assemble(ParquetSource(path, tuple(roles.keys().values())), roles)


def write_reading(
    reading: Reading, source: Path, name: str, *, home: Path | None = None, overwrite: bool = False
) -> Imported:
    """Audit what was read and write it as a table. Raises Problems with every error that the audit finds."""
    checked_name(name, "dataset")
    findings = audit(reading.columns)
    refuse_errors(findings, source)
    extra = {**reading.columns.extra, "source": {"file": source.name, "sha256": sha256_file(source)}}
    columns = dataclasses.replace(reading.columns, extra=extra)
    table = write_table(datasets_folder(home) / name, columns, overwrite=overwrite)
    return Imported(table, [*reading.notes, *findings])


def import_npz(path: Path, name: str, roles: Roles, *, home: Path | None = None, overwrite: bool = False) -> Imported:
    """Read, audit and write a .npz file."""
    return write_reading(read_npz(path, roles), path, name, home=home, overwrite=overwrite)


def import_parquet(
    path: Path, name: str, roles: Roles, *, home: Path | None = None, overwrite: bool = False
) -> Imported:
    """Read, audit and write a .parquet file."""
    return write_reading(read_parquet(path, roles), path, name, home=home, overwrite=overwrite)


def import_layout(
    labels: Path,
    features: dict[str, Path],
    name: str,
    *,
    home: Path | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Imported:
    """Read, audit and write the GCNet layout; `options` as for `read_layout`."""
    return write_reading(read_layout(labels, features, **options), labels, name, home=home, overwrite=overwrite)
