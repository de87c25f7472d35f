"""Tables: what is written is what is read, what was changed is refused, sealed labels stay sealed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mcutune.data.table import open_table, write_table
from mcutune.domain.task import Task
from mcutune.errors import BadInput, Damaged
from tests.data.tables import small_columns, small_table


def test_round_trip(tmp_path: Path) -> None:
    columns = small_columns()
    write_table(tmp_path / "datasets" / "small", columns)
    table = open_table("small", home=tmp_path)
    assert table.modalities.names == ("audio", "text") and len(table) == 60
    for m, (name, values) in enumerate(columns.features.items()):
        stored = table.features(name)
        np.testing.assert_array_equal(stored, values * columns.presence[:, [m]])
        assert stored.dtype == np.float32
    np.testing.assert_array_equal(table.presence, columns.presence)
    np.testing.assert_array_equal(table.labels(np.arange(60)), columns.labels)
    np.testing.assert_array_equal(table.labelled, columns.labels >= 0)
    np.testing.assert_array_equal(table.ids, columns.ids)
    np.testing.assert_array_equal(np.array(table.dialogue_names)[table.dialogue], columns.dialogue)
    np.testing.assert_array_equal(np.array(table.group_names)[table.group], columns.group)
    np.testing.assert_array_equal(table.order, columns.order)
    assert table.fold is not None and (table.fold == columns.fold).all() and table.split is None
    manifest = table.manifest
    assert (manifest.group, manifest.folds, manifest.splits, manifest.unlabelled) == ("speaker", list("12345"), [], 5)
    assert manifest.label_names == ["calm", "glad", "sad"]


def test_features_are_not_copied(tmp_path: Path) -> None:
    table = small_table(tmp_path / "small")
    before = pa.total_allocated_bytes()
    values = table.features("audio")
    assert pa.total_allocated_bytes() == before
    assert not values.flags.owndata and not values.flags.writeable


def test_regression_labels(tmp_path: Path) -> None:
    labels = np.linspace(-3, 3, 60, dtype=np.float32)
    labels[3] = np.nan
    table = small_table(tmp_path / "small", labels=labels, task=Task.REGRESSION, label_names=())
    np.testing.assert_array_equal(table.labels(np.arange(60)), labels)
    assert table.manifest.unlabelled == 1 and not table.labelled[3] and table.manifest.label_names is None


def test_sealed_rows_are_refused(tmp_path: Path) -> None:
    table = small_table(tmp_path / "small")
    sealed = table.seal(np.array([4, 7])).seal(np.array([9]))
    assert sealed.labels(np.array([3, 5])).shape == (2,)
    for rows in ([4], [3, 9], [-56], np.arange(60) == 7):
        with pytest.raises(BadInput, match="sealed"):
            sealed.labels(np.array(rows))
    assert table.labels(np.array([4])).shape == (1,)  # the first handle is not changed


def test_sealing_needs_only_the_labels_file(tmp_path: Path) -> None:
    small_table(tmp_path / "small")
    (tmp_path / "small" / "labels.arrow").write_bytes(b"")
    table = open_table(tmp_path / "small", verify=False)
    assert table.features("text").shape == (60, 3) and table.labelled.sum() == 55 and len(table.ids) == 60
    with pytest.raises(Damaged, match=r"labels\.arrow"):
        table.labels(np.array([0]))


FILES = ["manifest.json", "rows.arrow", "labels.arrow", "features.audio.arrow", "features.text.arrow"]


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_bit_is_found(tmp_path: Path, file: str) -> None:
    small_table(tmp_path / "small")
    path = tmp_path / "small" / file
    content = path.read_bytes()
    for place in np.linspace(0, len(content) - 1, 23).astype(int):
        changed = bytearray(content)
        changed[place] ^= 1 << int(place % 7)
        path.write_bytes(changed)
        if file == "manifest.json" and _same_json(content, bytes(changed)):
            continue
        with pytest.raises(Damaged):
            open_table(tmp_path / "small")
    path.write_bytes(content)
    open_table(tmp_path / "small")


def _same_json(first: bytes, second: bytes) -> bool:
    try:
        return bool(json.loads(first) == json.loads(second))
    except ValueError:
        return False


@pytest.mark.parametrize("file", FILES)
def test_truncated_missing_or_linked_files_are_refused(tmp_path: Path, file: str) -> None:
    small_table(tmp_path / "small")
    path = tmp_path / "small" / file
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(Damaged):
        open_table(tmp_path / "small")
    path.unlink()
    with pytest.raises((Damaged, BadInput)):
        open_table(tmp_path / "small")
    (tmp_path / "elsewhere").write_bytes(content)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Damaged):
        open_table(tmp_path / "small")


def test_swapped_files_are_refused_without_hashing_too(tmp_path: Path) -> None:
    small_table(tmp_path / "small")
    folder = tmp_path / "small"
    (folder / "features.audio.arrow").write_bytes((folder / "features.text.arrow").read_bytes())
    with pytest.raises(Damaged):
        open_table(folder)
    with pytest.raises(Damaged, match="does not hold the columns"):
        open_table(folder, verify=False).features("audio")


def test_unknown_names_are_answered_with_the_valid_ones(tmp_path: Path) -> None:
    small_table(tmp_path / "datasets" / "small")
    with pytest.raises(BadInput, match="did you mean 'small'"):
        open_table("smal", home=tmp_path)
    with pytest.raises(BadInput, match="name"):
        open_table("..", home=tmp_path)
    with pytest.raises(BadInput, match="did you mean 'audio'"):
        open_table("small", home=tmp_path).features("adio")


def test_an_existing_table_is_kept_unless_overwritten(tmp_path: Path) -> None:
    first = small_table(tmp_path / "small")
    with pytest.raises(BadInput, match="exists already"):
        small_table(tmp_path / "small", rows=30)
    assert open_table(tmp_path / "small").manifest.hash == first.manifest.hash
    write_table(tmp_path / "small", small_columns(30), overwrite=True)
    assert len(open_table(tmp_path / "small")) == 30
    assert [path.name for path in tmp_path.iterdir()] == ["small"]  # nothing left beside


def test_nothing_is_left_of_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("mcutune.data.table.write_json", full)
    with pytest.raises(OSError, match="no space left"):
        small_table(tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


def test_columns_that_do_not_fit_are_refused() -> None:
    for changes, message in [
        ({"ids": np.array(["a"])}, "presence"),
        ({"order": np.arange(3)}, "lengths differ.*order 3"),
        ({"labels": np.zeros(60, np.float32)}, "labels are float32"),
        ({"labels": np.full(60, 3)}, "label 3 has no name"),
        ({"features": {"audio": np.zeros((60, 4))}}, "float64"),
        ({"group": np.array(["\ud800"] * 60)}, "group holds text"),  # a lone surrogate
    ]:
        with pytest.raises(BadInput, match=message):
            small_columns(**changes)
