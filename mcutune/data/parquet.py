"""Columns of a Parquet file as plain arrays, read in a child with limits; page checksums are verified if present.

A modality is one column of lists, or several numeric columns named by a pattern such as `audio_*`.
"""

from __future__ import annotations

import fnmatch
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mcutune.data import child
from mcutune.data.columns import Array, natural_order
from mcutune.data.hints import shown
from mcutune.data.npy import NpzSource
from mcutune.errors import BadInput

_LEAST_MEMORY, _MEMORY_FACTOR, _SECONDS = 4 << 30, 8, 300


class ParquetSource:
    """The wanted columns of a Parquet file by key; a pattern with `*` is a key too. Raises BadInput."""

    def __init__(self, path: Path, wanted: tuple[str, ...]) -> None:
        self.path = path
        if not path.is_file():
            raise BadInput(f"{shown(path, 200)} does not exist or is not a file")
        with tempfile.TemporaryDirectory() as folder:
            beside = str(Path(folder) / "columns.npz")
            request = {"path": str(path), "wanted": wanted, "to": beside}
            memory = max(_LEAST_MEMORY, _MEMORY_FACTOR * path.stat().st_size)
            answer = child.run("mcutune.data.parquet", request, path, memory=memory, seconds=_SECONDS)
            arrays = NpzSource(Path(beside))
            self._arrays = {key: arrays.read(str(number)) for key, number in answer["read"].items()}
        self.keys = (*answer["columns"], *(key for key in self._arrays if key not in answer["columns"]))

    def read(self, key: str) -> Array:
        return self._arrays[key]


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """In the child: the wanted columns that exist, written as arrays 0, 1, … of a .npz."""
    pa.set_memory_pool(pa.system_memory_pool())
    arrays: dict[str, Any] = {}
    read: dict[str, int] = {}
    try:
        with pq.ParquetFile(request["path"], page_checksum_verification=True, memory_map=False) as file:
            names, rows = file.schema_arrow.names, _rows(file.metadata)
            for key in request["wanted"]:
                members = list(natural_order(np.array(fnmatch.filter(names, key)))) if "*" in key else [key]
                if members and set(members) <= set(names):
                    read[key] = len(arrays)
                    arrays[str(len(arrays))] = _array(file.read(members, use_threads=False), key, rows)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise BadInput(f"is not a sound Parquet file: {shown(error, 120)}") from None
    np.savez(request["to"], **arrays)
    return {"columns": names, "read": read}


def _rows(metadata: pq.FileMetaData) -> int:
    """The number of rows, said in several places that no checksum covers. Raises BadInput where they disagree."""
    if metadata.num_rows != sum(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)):
        raise BadInput("is not a sound Parquet file: its numbers of rows differ")
    return metadata.num_rows


def _array(table: pa.Table, key: str, rows: int) -> Array:
    """One column [N] or [N, D], or several numeric columns as [N, D]."""
    table.validate(full=True)
    if len(table) != rows:
        raise BadInput(f"is not a sound Parquet file: {shown(key)} has {len(table)} rows of {rows}")
    columns = [_column(column.combine_chunks(), key) for column in table.columns]
    if "*" not in key:
        return columns[0]
    if any(column.ndim != 1 or column.dtype.kind not in "biuf" for column in columns):
        raise BadInput(f"{shown(key)}: a column of the pattern is not one number a row")
    return np.stack([column.astype(np.float32) for column in columns], axis=1)


def _column(column: pa.Array, key: str) -> Array:
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        raise BadInput(f"{shown(key)} is of an extension type, which is not accepted")
    if pa.types.is_dictionary(kind):
        return _column(column.dictionary_decode(), key)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.fill_null("").to_pylist(), dtype=np.str_)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column.to_numpy(zero_copy_only=False) if not column.null_count else _with_nan(column)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _lists(column, key)
    raise BadInput(f"{shown(key)} is {kind}, not numbers, text, or lists of numbers")


def _with_nan(column: pa.Array) -> Array:
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _lists(column: pa.Array, key: str) -> Array:
    """[N, D] of lists; a missing list is a row of NaN."""
    lengths = pc.list_value_length(column)
    widths = pc.unique(lengths.drop_null()).to_pylist()
    if len(widths) != 1 or not widths[0]:
        raise BadInput(f"{shown(key)}: its lists have lengths {sorted(widths)[:5]}, not all one")
    values = _column(column.drop_null().flatten(), key)
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise BadInput(f"{shown(key)}: its lists do not hold numbers")
    present = column.is_valid().to_numpy(zero_copy_only=False)
    if present.all():
        return values.reshape(len(column), widths[0])
    rows = np.full((len(column), widths[0]), np.nan)
    rows[present] = values.reshape(-1, widths[0])
    return rows


if __name__ == "__main__":
    child.serve(_answer)
