"""Shipped files: by path, by name, with a guess for a misspelt one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcutune.errors import BadInput
from mcutune.shipped import find_shipped, shipped_folder, shipped_names


@pytest.mark.parametrize("given", ["quick", "quick.yaml", "search_spaces/quick.yaml"])
def test_a_shipped_space_is_found_from_anywhere(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_shipped(given, "search_spaces", "space") == shipped_folder("search_spaces") / "quick.yaml"


def test_a_path_comes_before_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick").write_text("mine: 1", encoding="utf-8")
    assert find_shipped("quick", "search_spaces", "space") == Path("quick")


@pytest.mark.parametrize("given", ["quikc", "../../x", "a\nb", "", "\0", "x" * 5000, "search_spaces/../../secret"])
def test_an_unknown_name_is_refused_with_the_valid_ones(given: str) -> None:
    with pytest.raises(BadInput) as refused:
        find_shipped(given, "search_spaces", "search space")
    assert ", ".join(shipped_names("search_spaces")) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(BadInput, match="did you mean quick"):
        find_shipped("quikc", "search_spaces", "search space")
