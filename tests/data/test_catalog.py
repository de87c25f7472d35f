"""The catalog, the audit and the digits: everything is listed at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mcutune.data.audit import refuse_errors
from mcutune.data.catalog import check, columns_of, ensure, list_tables
from mcutune.errors import BadInput, Problems
from tests.data.tables import small_columns, small_table


def test_digits_are_three_disjoint_views_of_real_images(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    table = ensure("digits", tmp_path)
    joined = np.hstack([table.features(name) for name in ("top", "middle", "bottom")])
    np.testing.assert_allclose(joined * 16, load_digits().data)
    assert len(table) == 1797 and table.manifest.group == "row" and len(table.manifest.folds) == 5
    assert table.fold is not None
    counts = np.stack([np.bincount(table.labels(table.fold == fold), minlength=10) for fold in table.manifest.folds])
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()


def test_listing_shows_damaged_tables_too(tmp_path: Path) -> None:
    assert list_tables(tmp_path) == []
    small_table(tmp_path / "datasets" / "a")
    small_table(tmp_path / "datasets" / "b")
    (tmp_path / "datasets" / "b" / "manifest.json").write_text("{")
    first, second = list_tables(tmp_path)
    assert first.name == "a" and first.manifest is not None and first.manifest.rows == 60 and first.problem is None
    assert second.name == "b" and second.manifest is None and "manifest.json" in (second.problem or "")


def test_ensure_makes_only_what_is_built_in(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no dataset 'digit'"):
        ensure("digit", tmp_path)


def test_a_table_gives_back_its_columns(tmp_path: Path) -> None:
    columns = small_columns()
    again = columns_of(small_table(tmp_path / "small"))
    for name, values in columns.named().items():
        np.testing.assert_array_equal(again.named()[name], values)
    assert again.label_names == columns.label_names and again.group_kind == columns.group_kind


def test_every_finding_is_reported_at_once() -> None:
    plain = small_columns()
    audio = plain.features["audio"].copy()
    audio[2, 1] = np.nan
    presence = np.ones((60, 2), bool)
    presence[5] = False
    ids = plain.ids.copy()
    ids[1] = ids[0]
    fold = plain.fold.copy()
    fold[3] = "2"
    columns = small_columns(
        features={"audio": audio, "text": np.zeros((60, 3), np.float32)}, presence=presence, ids=ids, fold=fold,
        order=np.zeros(60, np.int64), split=np.array(["train"] * 50 + ["dev"] * 10),
        labels=np.where(np.arange(60) < 48, 0, -1), label_names=("one",),
    )  # fmt: skip
    findings = check(columns)
    assert {finding.kind for finding in findings if finding.level == "error"} == {
        "duplicate_id", "fold_leak", "not_finite", "unlabelled_fold", "unknown_split", "unlabelled_split", "one_class",
    }  # fmt: skip
    notes = {finding.kind for finding in findings if finding.level == "note"}
    assert notes == {"repeated_order", "all_zero", "absent", "nothing_present", "unlabelled", "split_unused"}
    assert [finding.level for finding in findings] == sorted(finding.level for finding in findings)  # errors first
    assert json.loads(json.dumps([finding.to_json() for finding in findings]))
    with pytest.raises(Problems) as raised:
        refuse_errors(findings, "source")
    assert "u000" in str(raised.value) and "d0" in str(raised.value) and "u002" in str(raised.value)


def test_a_group_in_train_and_test_is_an_error_in_train_and_validation_it_is_not() -> None:
    split = np.array(["train"] * 30 + ["validation"] * 18 + ["test"] * 12)
    group = np.array([f"g{n % 6}" if n < 48 else f"t{n}" for n in range(60)])
    assert not [f for f in check(small_columns(fold=None, split=split, group=group)) if f.level == "error"]
    group[59] = "g0"
    found = [f for f in check(small_columns(fold=None, split=split, group=group)) if f.level == "error"]
    assert [f.kind for f in found] == ["split_leak"] and "g0" in found[0].message


def test_text_from_files_is_escaped_in_findings() -> None:
    ids = np.array(["a\x1b[31m\u202e"] * 60)
    (finding, *_) = check(small_columns(ids=ids))
    assert "\x1b" not in finding.message and "\u202e" not in finding.message and r"\x1b" in finding.message


def test_few_groups_are_noted() -> None:
    columns = small_columns(group=np.array([f"s{n // 12}" for n in range(60)]))
    assert "few_groups" in {finding.kind for finding in check(columns)}


def test_a_class_that_only_one_fold_has_is_noted() -> None:
    plain = small_columns()
    labels = np.where(plain.labels == 2, 1, plain.labels)
    labels[0] = 2
    found = [finding for finding in check(small_columns(labels=labels)) if finding.kind == "unseen_class"]
    assert [finding.message for finding in found] == ["no labelled row outside fold 1 for: sad"]
    split = np.where(plain.fold == "1", "test", "train")
    found = [f for f in check(small_columns(labels=labels, fold=None, split=split)) if f.kind == "unseen_class"]
    assert [finding.message for finding in found] == ["no labelled row outside test for: sad"]
