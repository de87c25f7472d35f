"""The strict loader: the traps of YAML 1.1, the bombs, and lines in every message."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from mcutune import strict_yaml
from mcutune.errors import BadInput, Problems


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1.0e-3", 0.001), ("1E5", 100000.0), ("-2", -2), ("+3", 3), (".5", 0.5), ("0", 0),
        ("2.", 2.0),
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("off", "off"), ("1:30", "1:30"), ("017", "017"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"), ("2026-01-01", "2026-01-01"), ("true", True), ("null", None), ("~", None), ("", None),
        ("'1'", "1"), ('"null"', "null"), ("1e", "1e"), ("e3", "e3"), (".", "."), ("-", [None]),
    ],
)  # fmt: skip
def test_scalars_mean_what_yaml_1_2_says(text: str, value: Any) -> None:
    found = strict_yaml.load(text).value
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", ["f.yaml:3", "'a'", "line 1"]),
        ("x:\n  a: 1\n  a: 3", ["f.yaml:3", "'a'", "line 2"]),
        ("a: &x 1\nb: *x", ["f.yaml:1", "anchor &x"]),
        ("a: *x", ["f.yaml:1", "alias *x"]),
        ("a: {<<: {b: 1}}", ["merge key"]),
        ("a: !!python/object/apply:os.system [ls]", ["tag"]),
        ("a: !!str 1", ["tag"]),
        ("a: .nan", ["not finite"]),
        ("a: -.inf", ["not finite"]),
        ("a: 1e400", ["not finite"]),
        ("a: " + "9" * 5000, ["too large"]),
        ("1: a", ["not text; quote it"]),
        ("? [a]\n: b", ["a key must be text"]),
        ("a: 1\n---\nb: 2", ["second document"]),
        ("a: [1, 2", ["f.yaml:"]),
        ("a: 'x", ["f.yaml:"]),
        ("a: \x00", ["f.yaml"]),
        ("[" * 3000, ["nested deeper than 20"]),
        ("a: '" + "x" * 300_000 + "'", ["larger than 256 KiB"]),
    ],
)
def test_what_is_refused_names_file_and_line(text: str, words: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        strict_yaml.load(text, "f.yaml")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_alias_bomb_is_refused_at_once() -> None:
    bomb = "a: &a [x,x]\n" + "".join(
        f"{b}: &{b} [*{a},*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    start = time.monotonic()
    with pytest.raises(BadInput):
        strict_yaml.load(bomb)
    assert time.monotonic() - start < 0.1


def test_lines_of_keys_and_items() -> None:
    document = strict_yaml.load("a:\n  b: 1\n  c:\n  - 5\n  - x: 2\n", "f.yaml")
    assert document.lines == {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", 0): 4,
        ("a", "c", 1): 5,
        ("a", "c", 1, "x"): 5,
    }
    assert document.at(("a", "c", 1, "x", "deeper")) == "f.yaml:5: a.c.1.x.deeper"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    (tmp_path / "large.yaml").write_bytes(b"#" * 300_000)
    for name, words in (
        ("absent", "No such file"),
        ("latin.yaml", "UTF-8"),
        ("large.yaml", "256 KiB"),
        ("", "directory"),
    ):
        with pytest.raises(BadInput, match=words):
            strict_yaml.load(tmp_path / name)


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    rank: int


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    inner: dict[str, Inner]
    trials: int


def test_a_model_reports_every_error_with_its_line() -> None:
    document = strict_yaml.load("inner:\n  x: {rnak: 2, rank: no}\ntirals: 3\n", "f.yaml")
    with pytest.raises(Problems) as caught:
        strict_yaml.validated(document, Outer)
    text = str(caught.value)
    assert "f.yaml:2: inner.x.rnak: unknown key, did you mean 'rank'? (valid: rank)" in text
    assert "f.yaml:2: inner.x.rank" in text and "'no'" in text
    assert "f.yaml:3: tirals: unknown key, did you mean 'trials'? (valid: inner, trials)" in text
    assert "trials: Field required" in text


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Zl", "Zp")), max_size=8)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**16), 10**16)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(plain)
@settings(deadline=None)
def test_json_is_read_as_json(value: Any) -> None:
    assert strict_yaml.load(json.dumps(value, ensure_ascii=False)).value == value


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_text_gives_a_value_or_one_line(text: str) -> None:
    try:
        strict_yaml.load(text)
    except BadInput as error:
        assert "\n" not in str(error)
