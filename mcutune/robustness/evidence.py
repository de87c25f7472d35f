"""The stored files that every number of a report is computed from: rows, predictions, masks, and a manifest of hashes.

Parquet with page checksums, read back only where the SHA-256 of the file and the checksum of every page agree.

EVIDENCE/
  manifest.json                          facts that are not computed, and the SHA-256 of every file
  rows-TABLE.parquet                     id, fold, group, label, has.MODALITY: the measured rows
  predictions-K-TABLE.parquet            id, fold, seed, scenario, combination, logit_0 …: model K, per combination
  predictions-K-TABLE-PROTOCOL.parquet   id, fold, seed, scenario, mask, logit_0 …: model K, where it attends over
                                         dialogues, so that a row's own combination does not decide its prediction
  presence-PROTOCOL-TABLE.parquet        id, scenario, mask, MODALITY …: the masks
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mcutune.errors import BadInput, Busy, Damaged
from mcutune.files import (
    NO_LOCKS,
    append_to,
    canonical_json,
    exchange_folders,
    read_json,
    refuse_links,
    sha256,
    sha256_file,
    sync_folder,
    unusable,
    write_json,
)

Array = npt.NDArray[Any]
Coded = tuple[Array, Sequence[str]]  # a text column: codes, and the names that they stand for

MANIFEST = "manifest.json"
SCHEMA = 2


class ParquetFile:
    """A Parquet file being written, one row group a call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()

    def append(self, columns: Mapping[str, Array | Coded]) -> None:
        """Add rows: numbers, or text as codes and names."""
        table = pa.table({name: _to_arrow(values) for name, values in columns.items()})
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, write_page_checksum=True, compression="zstd")
        self._writer.write_table(table)


def _to_arrow(values: Array | Coded) -> pa.Array:
    if isinstance(values, tuple):
        return pa.DictionaryArray.from_arrays(pa.array(values[0].astype(np.int32)), pa.array(values[1], pa.string()))
    return pa.array(values)


def read_columns(path: Path, digest: str) -> pa.Table:
    """The columns of a file. Raises Damaged unless the file and every page are as written."""
    if path.is_symlink() or not path.is_file():
        raise Damaged(f"{path} is missing or not a regular file", hint="run robustness again")
    if sha256_file(path) != digest:
        raise Damaged(f"{path} is not what was written: its SHA-256 differs", hint="run robustness again")
    try:
        table = pq.read_table(path, page_checksum_verification=True, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise unusable(f"{path} cannot be read: {str(error)[:200]}", error, "run robustness again") from None
    if any(column.null_count for column in table.columns):
        raise Damaged(f"{path} has missing values", hint="run robustness again")
    return table.unify_dictionaries().combine_chunks()


def codes(table: pa.Table, column: str) -> tuple[Array, list[str]]:
    """A text column as codes [n] and the names that they stand for."""
    values = table[column].chunk(0)
    return values.indices.to_numpy().astype(np.int64), values.dictionary.to_pylist()


def positions(table: pa.Table, column: str, names: dict[str, int], path: str) -> Array:
    """A text column as the numbers that `names` gives its values, [n]. Raises Damaged for an unknown value."""
    index, found = codes(table, column)
    unknown = [name for name in found if name not in names]
    if unknown:
        raise Damaged(f"{path}: {column} {unknown[0][:60]!r} is not expected")
    return np.array([names[name] for name in found], dtype=np.int64)[index]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone, and clear what a killed one left in it. Raises Busy."""
    refuse_links(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with append_to(folder / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another process is measuring into {folder}", hint="wait for it, or end it") from None
        except OSError as error:
            raise BadInput(f"the file system of {folder} cannot lock: {error.strerror}", hint=NO_LOCKS) from None
        for left in [*folder.rglob(".evidence-*"), *folder.rglob(".*.part")]:
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        yield


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """A folder beside `folder`, renamed to it on success (an older one is replaced) and removed on failure."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        yield beside
        sync_folder(beside)
        if folder.exists() and exchange_folders(beside, folder):
            pass  # what stood there is removed below
        elif folder.exists():
            old = beside.with_suffix(".old")
            folder.rename(old)
            beside.rename(folder)
            shutil.rmtree(old)
        else:
            beside.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_manifest(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Seal a folder: the facts, the hash of every other file, and the manifest's own hash."""
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.name] = sha256_file(path)
    manifest = {"schema": SCHEMA, "facts": facts, "files": files}
    sealed = {**manifest, "hash": sha256(canonical_json(manifest))}
    write_json(folder / MANIFEST, sealed)
    return sealed


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a sealed folder. Raises BadInput where there is none, Damaged where it was changed."""
    path = folder / MANIFEST
    if not path.exists():
        raise BadInput(f"{folder} holds no evidence", hint="mcutune robustness makes it")
    manifest = read_json(path)
    rest = {key: value for key, value in manifest.items() if key != "hash"} if isinstance(manifest, dict) else {}
    if set(rest) != {"schema", "facts", "files"} or rest["schema"] != SCHEMA:
        raise Damaged(f"{path} is not a manifest of schema {SCHEMA}")
    if manifest.get("hash") != sha256(canonical_json(rest)):
        raise Damaged(f"{path} was changed after it was written", hint="run robustness again")
    return manifest
