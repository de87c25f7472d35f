"""The GCNet layout: label pickle and utterance files, what is missing is listed, what does not fit is named at once."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcutune.data.importers import import_layout
from mcutune.data.layout import read_layout
from mcutune.domain.task import Task
from mcutune.errors import BadInput, Problems

RANDOM = np.random.default_rng(0)


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def iemocap(folder: Path) -> tuple[Path, dict[str, Path]]:
    """Five sessions of two dialogues of six utterances; text in time steps, video in faces of both speakers."""
    names = [f"Ses0{session}{who}_impro01" for session in range(1, 6) for who in "FM"]
    ids = {name: [f"{name}_{'FM'[turn % 2]}00{turn}" for turn in range(6)] for name in names}
    labels = {name: [turn % 4 for turn in range(6)] for name in names}
    speakers = {name: ["FM"[turn % 2] for turn in range(6)] for name in names}
    content = (ids, labels, speakers, speakers, set(names[:8]), set(names[8:]))
    (folder / "labels.pkl").write_bytes(pickle.dumps(content, protocol=4))
    for number, utterance in enumerate(u for dialogue in ids.values() for u in dialogue):
        _save(folder / "wav" / f"{utterance}.npy", np.full((1, 3), number, np.float32))
        _save(folder / "bert" / f"{utterance}.npy", np.array([[number], [number + 2]], np.float64))
        for face in range(2):
            _save(folder / "faces" / utterance / f"F_{face}.npy", np.full(2, face, np.float32))
            _save(folder / "faces" / utterance / f"M_{face}.npy", np.full(2, 10 + face, np.float32))
    return folder / "labels.pkl", {name: folder / name for name in ("wav", "bert", "faces")}


def mosi(folder: Path, **parts: Any) -> tuple[Path, dict[str, Path]]:
    """Ten videos of four utterances, labels as numpy numbers."""
    names = [f"video{number}" for number in range(10)]
    ids = {name: [f"{name}_{u}" for u in range(4)] for name in names}
    labels = {name: [np.float64(u - 1.5) for u in range(4)] for name in names}
    empty = {name: [""] * 4 for name in names}
    given = {"train": names[:6], "validation": names[6:8], "test": names[8:]} | parts
    (folder / "labels.pkl").write_bytes(pickle.dumps((ids, labels, empty, empty, *given.values()), protocol=4))
    for dialogue in ids.values():
        for utterance in dialogue:
            _save(folder / "wav" / f"{utterance}.npy", RANDOM.normal(size=4).astype(np.float32))
    return folder / "labels.pkl", {"audio": folder / "wav"}


def test_iemocap(tmp_path: Path) -> None:
    labels, features = iemocap(tmp_path)
    modalities = {"audio": features["wav"], "text": features["bert"], "video": features["faces"]}
    table = import_layout(labels, modalities, "iemocap", home=tmp_path).table
    manifest = table.manifest
    assert manifest.modalities == {"audio": 3, "text": 1, "video": 2} and len(table) == 60
    assert manifest.label_names == ["happy", "sad", "neutral", "angry"] and manifest.folds == list("12345")
    assert (
        manifest.group == "speaker" and table.group_names[:2] == ("Ses1_F", "Ses1_M") and len(table.group_names) == 10
    )
    assert table.fold is not None and all(name[4] == fold for name, fold in zip(table.ids, table.fold, strict=True))
    number = table.features("audio")[:, 0]
    np.testing.assert_array_equal(table.features("text")[:, 0], number + 1)  # the mean of two time steps
    own = np.where([name[-4] == "F" for name in table.ids], 0.5, 10.5)
    np.testing.assert_array_equal(table.features("video")[:, 1], own)  # the mean of the speaker's own faces
    np.testing.assert_array_equal(table.labels(np.arange(60)), table.order % 4)


def test_mosi(tmp_path: Path) -> None:
    table = import_layout(*mosi(tmp_path), "mosi", home=tmp_path).table
    assert table.manifest.task is Task.REGRESSION and table.manifest.group == "video" and len(table) == 40
    assert table.split is not None
    assert [int((table.split == part).sum()) for part in ("train", "validation", "test")] == [24, 8, 8]
    np.testing.assert_allclose(table.labels(np.arange(4)), [-1.5, -0.5, 0.5, 1.5])


def test_missing_utterances_are_absent_and_listed(tmp_path: Path) -> None:
    labels, features = iemocap(tmp_path)
    gone = sorted(features["wav"].glob("*.npy"))[:3]
    for path in gone:
        path.unlink()
    for face in (features["faces"] / gone[0].stem).glob("*.npy"):
        face.unlink()
    reading = read_layout(labels, {"audio": features["wav"], "video": features["faces"]})
    assert (~reading.columns.presence).sum(axis=0).tolist() == [3, 1]
    assert [note.kind for note in reading.notes] == ["missing_utterance"] * 2
    assert all(path.stem in reading.notes[0].message for path in gone)


def test_everything_wrong_with_the_features_is_named_at_once(tmp_path: Path) -> None:
    labels, features = iemocap(tmp_path)
    wav = sorted(features["wav"].glob("*.npy"))
    np.save(wav[0], np.array([{}], dtype=object), allow_pickle=True)
    np.save(wav[1], np.zeros(7))
    wav[2].write_bytes(wav[3].read_bytes()[:-4])
    np.save(wav[4], np.array(["text"]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(Problems) as raised:
        read_layout(labels, {"audio": features["wav"], "video": tmp_path / "empty"})
    text = str(raised.value)
    assert len(raised.value.problems) == 5 and all(wav[n].stem in text for n in (0, 1, 2, 4))
    assert "pickles" in text and "not 3 wide" in text and "no utterance has features" in text
    with pytest.raises(Problems, match="modality audio.*is not a folder"):
        read_layout(labels, {"audio": tmp_path / "none"})


def test_features_that_are_not_finite_follow_the_option(tmp_path: Path) -> None:
    labels, features = mosi(tmp_path)
    np.save(features["audio"] / "video3_1.npy", np.full(4, np.nan))
    with pytest.raises(Problems, match="video3_1"):
        import_layout(labels, features, "mosi", home=tmp_path)
    table = import_layout(labels, features, "mosi", home=tmp_path, absent_where_nonfinite=True).table
    assert (~table.presence).sum() == 1


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"test": ["video8"]}, "1 dialogues in no part: video9"),
        ({"test": ["video8", "video9", "video0"]}, "1 dialogues in two parts: video0"),
        ({"test": ["video8", "video9", "videoX"]}, "no utterances: videoX"),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(Problems, match=message):
        read_layout(*mosi(tmp_path, **parts))


def test_a_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    _save(tmp_path / "secret.npy", np.ones(3))
    (tmp_path / "wav").mkdir()
    for name in ("../secret", "/etc/passwd", "a\0b", ".", ""):
        content = ({"Ses01F_a": [name]}, {"Ses01F_a": [0]}, {"Ses01F_a": ["F"]}, {}, ["Ses01F_a"], [])
        (tmp_path / "labels.pkl").write_bytes(pickle.dumps(content, protocol=4))
        with pytest.raises(Problems, match="cannot be file names"):
            read_layout(tmp_path / "labels.pkl", {"audio": tmp_path / "wav"})


def test_sessions_and_speakers_are_checked(tmp_path: Path) -> None:
    (tmp_path / "wav").mkdir()
    content = ({"talk": ["u"]}, {"talk": [0]}, {"talk": ["X"]}, {}, ["talk"], [])
    (tmp_path / "labels.pkl").write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(Problems) as raised:
        read_layout(tmp_path / "labels.pkl", {"audio": tmp_path / "wav"})
    assert len(raised.value.problems) == 2 and "session" in str(raised.value) and "not F or M" in str(raised.value)


def test_a_folder_given_as_label_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a file"):
        read_layout(tmp_path, {"audio": tmp_path})
