"""Splits: disjoint by dialogue and group, the same every time, and nothing of test in a search's view."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcutune.data.columns import natural_order
from mcutune.data.splits import Split, folds_of, split_of
from mcutune.data.table import Table
from mcutune.data.views import fold_data
from mcutune.errors import BadInput
from tests.data.tables import small_columns, small_table


def _assert_parts(table: Table, split: Split, *, whole_groups: bool = True) -> None:
    parts = [split.train, split.validation, split.test]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(table)))
    for codes in [table.dialogue] + [table.group] * whole_groups:
        assert sum(len(np.unique(codes[rows])) for rows in parts) == len(np.unique(codes))
    assert all((np.diff(rows) > 0).all() and len(rows) for rows in parts)


def test_folds_take_the_next_one_for_validation(tmp_path: Path) -> None:
    table = small_table(tmp_path / "small")
    assert folds_of(table) == ("1", "2", "3", "4", "5")
    split = split_of(table, "5")
    assert table.fold is not None
    assert set(table.fold[split.test]) == {"5"} and set(table.fold[split.validation]) == {"1"}
    _assert_parts(table, split)
    with pytest.raises(BadInput, match="no fold '6'.*valid: 1, 2, 3, 4, 5"):
        split_of(table, "6")


def test_folds_are_in_natural_order() -> None:
    assert natural_order(np.array(["10", "9", "S2", "S10", "1", "9"])) == ("1", "9", "10", "S2", "S10")


def test_few_folds_carve_validation_from_training(tmp_path: Path) -> None:
    fold = np.array([f"{1 + n // 30}" for n in range(60)])
    table = small_table(tmp_path / "small", fold=fold)
    split = split_of(table, "1")
    assert set(fold[split.test]) == {"1"} and len(split.validation) == 6
    _assert_parts(table, split)


def test_a_given_validation_part_is_used_if_its_groups_are_its_own(tmp_path: Path) -> None:
    part = np.array((["train"] * 36) + (["validation"] * 12) + (["test"] * 12))
    table = small_table(tmp_path / "own", fold=None, split=part)
    assert folds_of(table) == ("given",)
    split = split_of(table, "given")
    np.testing.assert_array_equal(split.validation, np.arange(36, 48))
    shared = np.array([f"s{n % 4 if n < 48 else n}" for n in range(60)])
    single = np.array([f"d{n}" for n in range(60)])
    overlapping = small_table(tmp_path / "overlapping", fold=None, split=part, group=shared, dialogue=single)
    split = split_of(overlapping, "given")
    np.testing.assert_array_equal(split.test, np.arange(48, 60))
    _assert_parts(overlapping, split)


def test_carving_keeps_speakers_of_a_dialogue_together(tmp_path: Path) -> None:
    # Dialogue d has speakers d % 5 and 5 + d % 5, so each pair of speakers is linked by two dialogues.
    group = np.array([f"s{(n * 10 // 60) % 5 + 5 * (n % 2)}" for n in range(60)])
    table = small_table(tmp_path / "small", fold=None, group=group)
    assert folds_of(table) == ("carved",)
    _assert_parts(table, split_of(table, "carved"))


def test_one_group_cannot_be_carved(tmp_path: Path) -> None:
    table = small_table(tmp_path / "small", fold=None, group=np.array(["one"] * 60))
    with pytest.raises(BadInput, match="all rows left share one speaker"):
        split_of(table, "carved")


@settings(max_examples=20, deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=60, max_size=60),
    lengths=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
def test_carved_parts_are_disjoint_whatever_the_groups(groups: list[int], lengths: int, seed: int) -> None:
    dialogue = np.array([f"d{n // lengths}" for n in range(60)])
    with tempfile.TemporaryDirectory() as folder:
        group = np.array([f"s{g}" for g in groups])
        table = small_table(Path(folder) / "small", fold=None, dialogue=dialogue, group=group)
        try:
            split = split_of(table, "carved", seed)
        except BadInput as error:
            assert "share one" in str(error) or "no labelled" in str(error)
            return
        _assert_parts(table, split)
        assert split_of(table, "carved", seed).hash == split.hash


def test_carving_depends_on_the_seed_and_takes_about_a_fifth(tmp_path: Path) -> None:
    rows = 600
    changes = {"fold": None, "dialogue": np.arange(rows).astype(str), "group": np.arange(rows).astype(str)}
    table = small_table(tmp_path / "small", rows=rows, **changes)
    one, other = split_of(table, "carved", 0), split_of(table, "carved", 1)
    assert one.hash != other.hash
    assert len(one.test) == 120 and len(one.validation) == 96


def test_a_dialogue_in_two_parts_is_refused(tmp_path: Path) -> None:
    fold = np.array([f"{n % 5}" for n in range(60)])
    table = small_table(tmp_path / "small", fold=fold)
    with pytest.raises(BadInput, match="dialogue.*two parts"):
        split_of(table, "1")


def test_a_search_sees_nothing_of_test(tmp_path: Path) -> None:
    columns = small_columns()
    table = small_table(tmp_path / "small")
    data = pickle.loads(pickle.dumps(fold_data(table, "3")))
    split = split_of(table, "3")
    rows = np.sort(np.concatenate([split.train, split.validation]))
    assert not np.isin(rows, split.test).any() and len(data.labels) == len(rows) == 48
    np.testing.assert_array_equal(data.labels, columns.labels[rows])
    np.testing.assert_array_equal(np.flatnonzero(data.validation), np.flatnonzero(np.isin(rows, split.validation)))
    np.testing.assert_array_equal(data.features["audio"], table.features("audio")[rows])
    assert data.classes == 3 and data.normalisation == "train" and data.split_hash == split.hash
    assert fold_data(table, "3", normalisation="group").normalisation == "group"


def test_the_view_reads_labels_through_a_sealed_handle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = small_table(tmp_path / "small")
    handles = []
    plain = Table.labels

    def spy(self: Table, rows: np.ndarray) -> np.ndarray:
        handles.append(self)
        return plain(self, rows)

    monkeypatch.setattr(Table, "labels", spy)
    fold_data(table, "2")
    assert handles and all(
        handle.sealed is not None and handle.sealed[split_of(table, "2").test].all() for handle in handles
    )
