"""A dataset on disk: Arrow IPC files, uncompressed and memory-mapped, every file hashed, labels in a file of their own.

datasets/NAME/
  manifest.json              names, dimensions, hashes
  rows.arrow                 id, dialogue, order, group, labelled, presence.MODALITY, fold?, split?
  labels.arrow               label
  features.MODALITY.arrow    features: fixed-size list of float32, [N, D] without a copy
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcutune.data.columns import Array, Columns, NormalisationMode, natural_order
from mcutune.data.hints import did_you_mean, listed, shown
from mcutune.domain.combination import Modalities
from mcutune.domain.task import Task
from mcutune.errors import BadInput, Damaged
from mcutune.files import (
    canonical_json,
    checked_name,
    exchange_folders,
    read_json,
    sha256,
    sha256_file,
    sync_folder,
    unusable,
    write_json,
)
from mcutune.files import home as default_home

MANIFEST = "manifest.json"
_ROWS, _LABELS = "rows.arrow", "labels.arrow"
_AGAIN = "remove the folder, and import or make the dataset again"


def _features_file(modality: str) -> str:
    return f"features.{modality}.arrow"


class TableManifest(BaseModel):
    """What is known of a table. `hash` covers every other field, and through `files` the content of every file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: Literal[1] = 1
    rows: int = Field(ge=1)
    modalities: dict[str, int]
    task: Task
    label_names: list[str] | None
    group: str
    has: list[str]
    folds: list[str]
    splits: list[str]
    normalisation: NormalisationMode
    unlabelled: int = Field(ge=0)
    files: dict[str, str]
    extra: dict[str, Any]
    hash: str

    def content_hash(self) -> str:
        """SHA-256 over all fields but the hash itself."""
        return sha256(canonical_json(self.model_dump(mode="json", exclude={"hash"})))

    def schema_of(self, file: str) -> pa.Schema:
        """The one schema that the file may have: nothing else, extension types included, is read."""
        if file == _LABELS:
            return pa.schema([("label", pa.int64() if self.task is Task.CLASSIFICATION else pa.float32())])
        if file == _ROWS:
            text = [("id", pa.string()), ("dialogue", pa.string()), ("group", pa.string())]
            optional = [(name, pa.string()) for name in self.has]
            present = [(f"presence.{name}", pa.bool_()) for name in self.modalities]
            return pa.schema([*text, ("order", pa.int64()), ("labelled", pa.bool_()), *present, *optional])
        dims = {_features_file(name): dim for name, dim in self.modalities.items()}
        return pa.schema([("features", pa.list_(pa.float32(), dims[file]))])

    def expected_files(self) -> list[str]:
        return [_ROWS, _LABELS, *map(_features_file, self.modalities)]


@dataclass(frozen=True, eq=False)
class Table:
    """A memory-mapped dataset of N rows and M modalities. Labels are read only through `labels`.

    `sealed`: bool [N], rows whose labels this handle refuses; None seals nothing.
    """

    manifest: TableManifest
    folder: Path
    sealed: Array | None = None

    def __len__(self) -> int:
        return self.manifest.rows

    @property
    def modalities(self) -> Modalities:
        return Modalities(tuple(self.manifest.modalities))

    @cached_property
    def _rows(self) -> pa.Table:
        return _read(self, _ROWS)

    def _text(self, column: str) -> Array:
        return np.asarray(self._rows[column].to_pylist(), dtype=np.str_)

    @cached_property
    def ids(self) -> Array:
        """Row ids, [N] str."""
        return self._text("id")

    @cached_property
    def dialogue(self) -> Array:
        """Dialogue codes, int64 [N]."""
        return np.unique(self._text("dialogue"), return_inverse=True)[1].astype(np.int64)

    @cached_property
    def dialogue_names(self) -> tuple[str, ...]:
        """Name of each dialogue code."""
        return tuple(np.unique(self._text("dialogue")).tolist())

    @cached_property
    def order(self) -> Array:
        """Position within the dialogue, int64 [N]."""
        return self._rows["order"].to_numpy()

    @cached_property
    def group(self) -> Array:
        """Codes of the inference groups, int64 [N]."""
        return np.unique(self._text("group"), return_inverse=True)[1].astype(np.int64)

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        """Name of each group code."""
        return tuple(np.unique(self._text("group")).tolist())

    @cached_property
    def fold(self) -> Array | None:
        """Fold names, [N] str, or None."""
        return self._text("fold") if "fold" in self.manifest.has else None

    @cached_property
    def split(self) -> Array | None:
        """`train`, `validation` or `test`, [N] str, or None."""
        return self._text("split") if "split" in self.manifest.has else None

    @cached_property
    def labelled(self) -> Array:
        """Which rows have a label, bool [N]; not the label itself."""
        return self._rows["labelled"].to_numpy()

    @cached_property
    def presence(self) -> Array:
        """Which modalities a row has, bool [N, M]."""
        return np.stack([self._rows[f"presence.{name}"].to_numpy() for name in self.manifest.modalities], axis=1)

    def features(self, modality: str) -> Array:
        """Raw features, float32 [N, D], read-only and not copied; rows without the modality are zero."""
        if modality not in self.manifest.modalities:
            valid = did_you_mean(modality, self.manifest.modalities)
            raise BadInput(f"{shown(modality)!r} is not a modality of {self.manifest.name}", hint=valid)
        values = _read(self, _features_file(modality))["features"].chunk(0).values
        if values.null_count:
            raise Damaged(f"features of {modality} in {self.folder} have missing values", hint=_AGAIN)
        return values.to_numpy(zero_copy_only=True).reshape(len(self), -1)

    def labels(self, rows: Array) -> Array:
        """Labels of the rows asked (numbers or a mask), int64 (−1: none) or float32 (NaN: none).

        Raises BadInput for a sealed row.
        """
        rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, dtype=np.int64)
        if self.sealed is not None and (refused := int(self.sealed[rows].sum())):
            raise BadInput(f"{refused:,} of {len(rows):,} labels asked of {self.manifest.name} are sealed")
        return _read(self, _LABELS)["label"].to_numpy()[rows]

    def seal(self, rows: Array) -> Table:
        """A handle that refuses the labels of these rows, and of those already sealed."""
        sealed = np.zeros(len(self), dtype=bool) if self.sealed is None else self.sealed.copy()
        sealed[rows] = True
        return dataclasses.replace(self, sealed=sealed)


def _read(table: Table, file: str) -> pa.Table:
    """The file's columns, memory-mapped. Raises Damaged unless they are as the manifest says."""
    path = table.folder / file
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        content, batches = reader.read_all(), reader.num_record_batches
        content.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        raise unusable(f"{path} cannot be read: {shown(error, 200)}", error, _AGAIN) from None
    if not content.schema.equals(table.manifest.schema_of(file)) or len(content) != len(table) or batches != 1:
        raise Damaged(f"{path} does not hold the columns that {MANIFEST} names", hint=_AGAIN)
    if any(column.null_count for column in content.columns):
        raise Damaged(f"{path} has missing values", hint=_AGAIN)
    return content


def datasets_folder(home: Path | None = None) -> Path:
    return (home or default_home()) / "datasets"


def table_folder(name_or_folder: str | Path, home: Path | None = None) -> Path:
    """A folder as given (a Path, or text with a separator), else home/datasets/NAME."""
    if isinstance(name_or_folder, Path) or os.sep in name_or_folder:
        return Path(name_or_folder)
    return datasets_folder(home) / checked_name(name_or_folder, "dataset")


def table_names(home: Path | None = None) -> tuple[str, ...]:
    """Names of the tables of a home, sorted."""
    return tuple(sorted(path.parent.name for path in datasets_folder(home).glob(f"[!.]*/{MANIFEST}")))


def read_manifest(folder: Path) -> TableManifest:
    """The manifest of a table's folder. Raises Damaged where it is not what was written."""
    path = folder / MANIFEST
    try:
        manifest = TableManifest.model_validate(read_json(path))
    except ValidationError as error:
        where = listed(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise Damaged(f"{path} is not a table's manifest: {where}", hint=_AGAIN) from None
    if manifest.content_hash() != manifest.hash or set(manifest.files) != set(manifest.expected_files()):
        raise Damaged(f"{path} was changed after it was written", hint=_AGAIN)
    return manifest


def open_table(name_or_folder: str | Path, *, home: Path | None = None, verify: bool = True) -> Table:
    """The table of that name, or in that folder.

    Raises BadInput if there is none; Damaged if the manifest, or with `verify` any file, is not what was written.
    """
    folder = table_folder(name_or_folder, home)
    if not folder.is_dir():
        hint = did_you_mean(folder.name, table_names(home))
        raise BadInput(f"there is no dataset {shown(name_or_folder)!r} in {folder.parent}", hint=hint)
    table = Table(read_manifest(folder), folder)
    for file, digest in table.manifest.files.items():
        path = folder / file
        if path.is_symlink() or not path.is_file():
            raise Damaged(f"{path} is missing or not a regular file", hint=_AGAIN)
        if verify and sha256_file(path) != digest:
            raise Damaged(f"{path} is not what was written: its SHA-256 differs", hint=_AGAIN)
    return table


def write_table(folder: Path, columns: Columns, *, overwrite: bool = False) -> Table:
    """Write a table beside its place and rename it there, whole or not at all.

    Features of absent modalities are stored as zero. Raises BadInput if the folder exists and `overwrite` is not set.
    """
    checked_name(folder.name, "dataset")
    if folder.exists() and not overwrite:
        raise BadInput(f"{folder} exists already", hint="choose another name, or overwrite it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        manifest = _write_files(beside, folder.name, columns)
        write_json(beside / MANIFEST, manifest.model_dump(mode="json"))
        _rename_into_place(beside, folder, overwrite)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return open_table(folder, verify=False)


def _rename_into_place(beside: Path, folder: Path, overwrite: bool) -> None:
    old = beside.with_suffix(".old")
    if overwrite and folder.exists():
        if exchange_folders(beside, folder):
            sync_folder(folder.parent)
            return  # what stood there is removed with the folder beside
        folder.rename(old)
    try:
        beside.rename(folder)
    except OSError:
        raise BadInput(f"{folder} was made by another process meanwhile", hint="use it, or overwrite it") from None
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _write_files(folder: Path, name: str, columns: Columns) -> TableManifest:
    has = [column for column in ("fold", "split") if getattr(columns, column) is not None]
    named = columns.named()
    contents = {
        _ROWS: {column: named[column] for column in ("id", "dialogue", "group", "order")}
        | {"labelled": columns.labelled}
        | {f"presence.{modality}": columns.presence[:, m] for m, modality in enumerate(columns.features)}
        | {column: named[column] for column in has},
        _LABELS: {"label": columns.labels},
    }
    for m, (modality, values) in enumerate(columns.features.items()):
        present = np.where(columns.presence[:, m, None], values, np.float32(0))
        contents[_features_file(modality)] = {"features": present}
    draft = TableManifest(
        name=name,
        rows=len(columns.ids),
        modalities={modality: values.shape[1] for modality, values in columns.features.items()},
        task=columns.task,
        label_names=list(columns.label_names) or None,
        group=columns.group_kind,
        has=has,
        folds=[] if columns.fold is None else list(natural_order(columns.fold)),
        splits=[] if columns.split is None else sorted(set(columns.split.tolist())),
        normalisation=columns.normalisation,
        unlabelled=int((~columns.labelled).sum()),
        files={},
        extra=columns.extra,
        hash="",
    )
    hashes = {file: _write_arrow(folder / file, draft.schema_of(file), content) for file, content in contents.items()}
    manifest = draft.model_copy(update={"files": hashes})
    return manifest.model_copy(update={"hash": manifest.content_hash()})


def _write_arrow(path: Path, schema: pa.Schema, content: dict[str, Array]) -> str:
    """Write one record batch and sync it; the file's SHA-256."""
    arrays = [_to_arrow(content[field.name], field.type) for field in schema]
    with path.open("wb") as file:
        with pa.ipc.new_file(file, schema) as writer:
            writer.write_batch(pa.record_batch(arrays, schema=schema))
        file.flush()
        os.fsync(file.fileno())
    return sha256_file(path)


def _to_arrow(values: Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), type=kind)
    if pa.types.is_string(kind):
        return pa.array(values.tolist(), kind)
    return pa.array(np.ascontiguousarray(values), kind)
