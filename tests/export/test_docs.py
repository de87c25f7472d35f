"""The examples of docs/using_a_model.md, run as they stand."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from mcutune.export.make import chosen, export
from mcutune.robustness.selection import select
from tests.export.models import KINDS
from tests.robustness.test_real_models import train_run
from tests.robustness.worlds import make_table

PAGE = Path(__file__).parents[2] / "docs" / "using_a_model.md"


def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_run(tmp_path, make_table(tmp_path, rows=200), KINDS["utterance"], folds=("1",))
    export(chosen(select("run", tmp_path), None, None), tmp_path / "my-model", onnx=False)
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=options)
    assert found.attempted > 8
    assert found.failed == 0
