"""Importing by roles: labels re-coded, context kept, problems named at once, nothing written where there is one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mcutune.data.assemble import Roles
from mcutune.data.importers import import_npz, import_parquet, kind_of, read_npz, read_parquet
from mcutune.data.labels import read_labels
from mcutune.data.text import as_text
from mcutune.domain.task import Task
from mcutune.errors import BadInput, Problems

RANDOM = np.random.default_rng(0)
N = 60
ARRAYS: dict[str, np.ndarray] = {
    "audio": RANDOM.normal(size=(N, 5)).astype(np.float32),
    "words": RANDOM.normal(size=(N, 3)).astype(np.float16),
    "y": np.where(np.arange(N) % 10 == 0, -1, 1 + np.arange(N) % 3).astype(np.int8),
    "names": np.array(["-", "calm", "glad", "sad", "unused"]),
    "utterance": np.array([f"u{n}" for n in range(N)]),
    "talk": np.array([f"d{n // 6}" for n in range(N)]),
    "turn": np.arange(N, dtype=np.int16) % 6,
    "who": np.array([f"s{n // 12}_{n % 2}" for n in range(N)]),
    "session": 1 + np.arange(N) // 12,
}
ROLES = Roles(
    modalities={"audio": "audio", "text": "words"},
    label="y",
    label_names="names",
    id="utterance",
    dialogue="talk",
    order="turn",
    speaker="who",
    fold="session",
)


def _npz(folder: Path, **changes: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **{key: value for key, value in (ARRAYS | changes).items() if value is not None})
    return path


def _kinds(findings: Any) -> set[str]:
    return {finding.kind for finding in findings}


def test_a_whole_import(tmp_path: Path) -> None:
    imported = import_npz(_npz(tmp_path), "talks", ROLES, home=tmp_path)
    table, manifest = imported.table, imported.table.manifest
    assert _kinds(imported.findings) == {"task", "recoded", "unlabelled"}
    assert manifest.modalities == {"audio": 5, "text": 3} and manifest.label_names == ["calm", "glad", "sad"]
    assert manifest.folds == ["1", "2", "3", "4", "5"] and manifest.group == "speaker" and manifest.unlabelled == 6
    expected = np.where(ARRAYS["y"] < 0, -1, ARRAYS["y"].astype(int) - 1)
    np.testing.assert_array_equal(table.labels(np.arange(N)), expected)
    np.testing.assert_array_equal(table.features("text"), ARRAYS["words"].astype(np.float32))
    assert list(table.ids[:2]) == ["u0", "u1"] and table.order.tolist() == ARRAYS["turn"].tolist()
    assert manifest.extra["source"]["file"] == "data.npz" and str(tmp_path) not in manifest.model_dump_json()


def test_the_group_is_the_one_given_else_speaker_dialogue_row(tmp_path: Path) -> None:
    path = _npz(tmp_path)
    expected = [
        ("group", "session", "session", 5),
        ("speaker", "who", "speaker", 10),
        ("dialogue", "talk", "dialogue", 10),
    ]
    given: dict[str, Any] = {"group": None, "speaker": None, "dialogue": None}
    columns = read_npz(path, dataclasses.replace(ROLES, **given)).columns
    assert columns.group_kind == "row" and len(np.unique(columns.group)) == N
    for role, key, kind, count in reversed(expected):
        given[role] = key
        columns = read_npz(path, dataclasses.replace(ROLES, **given)).columns
        assert columns.group_kind == kind and len(np.unique(columns.group)) == count


def test_every_missing_key_is_named_at_once(tmp_path: Path) -> None:
    roles = dataclasses.replace(ROLES, modalities={"audio": "audi", "video": "faces"}, fold="sesion")
    with pytest.raises(Problems) as raised:
        import_npz(_npz(tmp_path), "talks", roles, home=tmp_path)
    assert len(raised.value.problems) == 3
    text = str(raised.value)
    assert "did you mean 'audio'" in text and "did you mean 'session'" in text and "modality video" in text
    assert "data.npz" in text and "valid: audio, words, y" in text
    assert not (tmp_path / "datasets").exists()


def test_every_array_that_does_not_fit_is_named_at_once(tmp_path: Path) -> None:
    changes = {
        "audio": np.zeros((N, 4, 2)),
        "words": np.array(["x"] * N),
        "y": np.linspace(0, 1, N),
        "turn": np.linspace(0, 1, N),
        "presence": np.full((N, 2), 2),
    }
    roles = dataclasses.replace(ROLES, presence="presence", task=Task.CLASSIFICATION)
    with pytest.raises(Problems) as raised:
        read_npz(_npz(tmp_path, **changes), roles)
    found = "\n".join(raised.value.problems)
    for part in (
        "audio (audio) has shape",
        "average over time",
        "text (words) is <U1",
        "label (y) has fractions",
        "order (turn)",
        "presence (presence)",
    ):
        assert part in found, part
    with pytest.raises(BadInput, match="numbers of rows differ.*y 7"):
        read_npz(_npz(tmp_path, y=np.zeros(7, int)), ROLES)


def test_features_that_are_not_finite_are_refused_or_made_absent(tmp_path: Path) -> None:
    audio, words = ARRAYS["audio"].copy(), ARRAYS["words"].copy()
    audio[[3, 4], 1] = np.nan, np.inf
    words[7] = np.inf
    path = _npz(tmp_path, audio=audio, words=words)
    with pytest.raises(Problems) as raised:
        import_npz(path, "talks", ROLES, home=tmp_path)
    message = str(raised.value)
    assert "audio is not finite in 2 of the rows: u3, u4" in message
    assert "text is not finite in 1 of the rows: u7" in message
    assert "--absent-where-nonfinite" in message
    roles = dataclasses.replace(ROLES, absent_where_nonfinite=True)
    imported = import_npz(path, "talks", roles, home=tmp_path)
    assert (~imported.table.presence).sum(axis=0).tolist() == [2, 1]
    assert not imported.table.features("audio")[[3, 4]].any() and "not_finite_absent" in _kinds(imported.findings)


def test_float64_beyond_float32_counts_as_not_finite(tmp_path: Path) -> None:
    with pytest.raises(Problems, match="not finite"):
        import_npz(_npz(tmp_path, audio=np.full((N, 5), 1e300)), "talks", ROLES, home=tmp_path)


def test_presence_is_taken_over_and_absent_rows_may_hold_anything(tmp_path: Path) -> None:
    presence = np.ones((N, 2), np.int8)
    presence[3] = 0, 1
    audio = ARRAYS["audio"].copy()
    audio[3] = np.nan
    roles = dataclasses.replace(ROLES, presence="presence")
    imported = import_npz(_npz(tmp_path, audio=audio, presence=presence), "talks", roles, home=tmp_path)
    assert (imported.table.presence == presence).all() and not imported.table.features("audio")[3].any()


def test_rows_without_a_label_can_be_dropped(tmp_path: Path) -> None:
    roles = dataclasses.replace(ROLES, drop_unlabelled=True)
    imported = import_npz(_npz(tmp_path), "talks", roles, home=tmp_path)
    assert len(imported.table) == N - 6 and imported.table.manifest.unlabelled == 0
    assert "dropped" in _kinds(imported.findings)


def test_the_audit_refuses_leaks_and_repeated_ids_together(tmp_path: Path) -> None:
    ids, session = ARRAYS["utterance"].copy(), ARRAYS["session"].copy()
    ids[1], session[0] = "u0", 5
    with pytest.raises(Problems) as raised:
        import_npz(_npz(tmp_path, utterance=ids, session=session), "talks", ROLES, home=tmp_path)
    assert [part in str(raised.value) for part in ("u0", "d0", "s0_0")] == [True] * 3
    assert not (tmp_path / "datasets").exists()


def test_split_words_are_understood(tmp_path: Path) -> None:
    split = np.array(["Train"] * 36 + ["dev"] * 12 + ["TEST"] * 12)
    roles = dataclasses.replace(ROLES, fold=None, split="part")
    table = import_npz(_npz(tmp_path, part=split), "talks", roles, home=tmp_path).table
    assert table.manifest.splits == ["test", "train", "validation"]
    with pytest.raises(Problems, match="'?hold'?.*valid: train"):
        import_npz(_npz(tmp_path, part=np.where(split == "dev", "hold", split)), "t2", roles, home=tmp_path)


@pytest.mark.parametrize(
    ("raw", "task", "values", "names"),
    [
        ([2, -1, 5, 2], None, [0, -1, 1, 0], ("2", "5")),
        ([1.0, np.nan, 0.0, 1.0], Task.CLASSIFICATION, [1, -1, 0, 1], ("0", "1")),
        (["b", "", "a", " b "], None, [1, -1, 0, 1], ("a", "b")),
        ([True, False, True, True], None, [1, 0, 1, 1], ("0", "1")),
        ([0.5, np.nan, -2, np.inf], None, [0.5, np.nan, -2, np.nan], ()),
        ([3, -1, 2, 0], Task.REGRESSION, [3, -1, 2, 0], ()),
    ],
)
def test_labels(raw: list, task: Task | None, values: list, names: tuple[str, ...]) -> None:
    labels = read_labels(np.array(raw), None, task)
    np.testing.assert_array_equal(labels.values, values)
    assert labels.names == names and labels.values.dtype == (np.float32 if labels.task is Task.REGRESSION else np.int64)


@pytest.mark.parametrize(
    ("raw", "names", "task", "message"),
    [
        ([0, 3], ["a", "b"], None, "label 3, but there are only 2"),
        ([0, 1], ["a", "a"], None, "two labels of one name"),
        ([[0], [1]], None, None, "not one label a row"),
        (["a", "b"], None, Task.REGRESSION, "cannot be regressed"),
        (list(range(2000)), None, None, "too many for classes"),
        ([b"\xff", b"a"], None, None, "not UTF-8"),
    ],
)
def test_labels_that_do_not_fit(raw: list, names: list | None, task: Task | None, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_labels(np.array(raw), None if names is None else np.array(names), task)


def test_text_of_every_plain_type() -> None:
    assert as_text(np.array([1.0, 2.5, np.nan])).tolist() == ["1", "2.5", ""]
    assert as_text(np.array([b"a ", b"\xc3\xbc"])).tolist() == ["a", "ü"]
    assert as_text(np.int8([3, -1])).tolist() == ["3", "-1"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.7z"])
def test_archives_are_refused_by_name(name: str) -> None:
    with pytest.raises(BadInput, match="unpack it yourself"):
        kind_of(Path(name))


def test_kinds() -> None:
    assert [kind_of(Path(f"x.{end}")) for end in ("npz", "parquet", "pkl")] == ["npz", "parquet", "layout"]
    with pytest.raises(BadInput, match="valid: a .npz"):
        kind_of(Path("x.csv"))


def _parquet(folder: Path, **changes: Any) -> Path:
    path = folder / "data.parquet"
    arrays = {key: value for key, value in ARRAYS.items() if len(value) == N} | changes
    columns = {key: value if isinstance(value, pa.Array) else pa.array(value.tolist()) for key, value in arrays.items()}
    pq.write_table(pa.table(columns), path, write_page_checksum=True)
    return path


PARQUET_ROLES = dataclasses.replace(ROLES, label_names=None)


def test_parquet_gives_what_npz_gives(tmp_path: Path) -> None:
    one = import_npz(_npz(tmp_path, names=None), "a", PARQUET_ROLES, home=tmp_path).table
    other = import_parquet(_parquet(tmp_path), "b", PARQUET_ROLES, home=tmp_path).table
    for name in ("audio", "text"):
        np.testing.assert_array_equal(one.features(name), other.features(name))
    np.testing.assert_array_equal(one.labels(np.arange(N)), other.labels(np.arange(N)))
    assert one.manifest.label_names == other.manifest.label_names and (one.ids == other.ids).all()
    assert one.fold is not None and other.fold is not None and (one.fold == other.fold).all()


def test_parquet_patterns_missing_values_and_dictionaries(tmp_path: Path) -> None:
    wide = {f"f_{d}": ARRAYS["audio"][:, d] for d in range(5)}
    labels = pa.array([None if n % 10 == 0 else n % 3 for n in range(N)])
    lists = pa.array([None if n == 2 else [1.0, n] for n in range(N)], pa.list_(pa.float64(), 2))
    speakers = pa.array(ARRAYS["who"].tolist()).dictionary_encode()
    path = _parquet(tmp_path, **wide, y=labels, words=lists, who=speakers)
    roles = dataclasses.replace(
        PARQUET_ROLES,
        modalities={"audio": "f_*", "text": "words"},
        task=Task.CLASSIFICATION,
        absent_where_nonfinite=True,
    )
    columns = read_parquet(path, roles).columns
    np.testing.assert_array_equal(columns.features["audio"], ARRAYS["audio"])
    assert columns.labels[:4].tolist() == [-1, 1, 2, 0] and columns.presence[:4, 1].tolist() == [
        True,
        True,
        False,
        True,
    ]
    assert columns.group.tolist() == ARRAYS["who"].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": pa.array([[1.0] * (1 + n % 2) for n in range(N)])}, "words.*lengths"),
        ({"words": pa.array([["a"] for n in range(N)])}, "words.*do not hold numbers"),
        ({"turn": pa.array(["2020-01-01"] * N).cast(pa.date32())}, "turn is date32"),
        ({"turn": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)] * N, pa.binary(16)))}, "extension"),
    ],
)
def test_parquet_columns_that_do_not_fit(tmp_path: Path, changes: dict[str, pa.Array], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_parquet(_parquet(tmp_path, **changes), PARQUET_ROLES)


def test_parquet_names_missing_columns_and_damage(tmp_path: Path) -> None:
    with pytest.raises(Problems, match="did you mean 'audio'"):
        read_parquet(
            _parquet(tmp_path), dataclasses.replace(PARQUET_ROLES, modalities={"audio": "audi", "b": "none_*"})
        )
    path = _parquet(tmp_path)
    content = path.read_bytes()
    for place in (300, len(content) // 3, len(content) - 300):
        changed = bytearray(content)
        changed[place] ^= 8
        path.write_bytes(changed)
        try:
            columns = read_parquet(path, PARQUET_ROLES).columns
        except BadInput as error:
            assert "data.parquet" in str(error) and "\n" not in str(error)
        else:  # a bit that no page and no footer uses
            np.testing.assert_array_equal(columns.features["audio"], ARRAYS["audio"])
    for broken in (b"", content[:200]):
        path.write_bytes(broken)
        with pytest.raises(BadInput, match="not a sound Parquet"):
            read_parquet(path, PARQUET_ROLES)
