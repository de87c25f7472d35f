"""The folder layout of GCNet, MoMKE and MCULoRA: a label pickle, and a folder of utterance features per modality.

LABELS.pkl
FEATURES/UTTERANCE.npy      [D], or [T, D], which is averaged over T
FEATURES/UTTERANCE/*.npy    several, averaged; of an IEMOCAP utterance only its speaker's (F or M in the name)
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mcutune.data.assemble import Collector, Reading, finish
from mcutune.data.audit import Finding
from mcutune.data.columns import Array, Columns, NormalisationMode
from mcutune.data.hints import listed, shown
from mcutune.data.label_pickle import LabelFile, read_label_pickle
from mcutune.data.labels import read_labels
from mcutune.data.npy import read_npy
from mcutune.domain.combination import Modalities
from mcutune.domain.task import Task
from mcutune.errors import BadInput

_SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.,:+ -]{0,199}")  # an utterance's name becomes part of a path
_SESSION = re.compile(r"Ses0*(\d+)[FM]_.+")  # an IEMOCAP dialogue: Ses01F_impro01
_IEMOCAP_NAMES = {4: ["happy", "sad", "neutral", "angry"]}
_IEMOCAP_NAMES[6] = [*_IEMOCAP_NAMES[4], "excited", "frustrated"]


@dataclass(frozen=True)
class _Row:
    """One utterance. `speaker` is F or M for IEMOCAP, mostly empty elsewhere."""

    id: str
    dialogue: str
    order: int
    speaker: str
    label: float | None


def read_layout(
    labels: Path,
    features: dict[str, Path],
    *,
    normalisation: NormalisationMode = "train",
    drop_unlabelled: bool = False,
    absent_where_nonfinite: bool = False,
) -> Reading:
    """Columns of the layout, not yet audited. `features`: modality to its folder, in the dataset's order.

    IEMOCAP (a label file of six): classes, folds by session, groups by speaker. CMU-MOSI and CMU-MOSEI (of seven):
    regression, the file's split, groups by video. An utterance without features of a modality lacks that modality.
    Raises Problems with everything that does not fit.
    """
    Modalities(tuple(features))
    collector = Collector()
    for name, folder in features.items():
        if not folder.is_dir():
            collector.problems.append(f"modality {name}: {shown(folder, 200)} is not a folder")
    collector.refuse(labels)
    content = read_label_pickle(labels)
    rows = [
        _Row(utterance, dialogue.name, order, speaker, label)
        for dialogue in content.dialogues
        for order, (utterance, speaker, label) in enumerate(
            zip(dialogue.utterances, dialogue.speakers, dialogue.labels, strict=True)
        )
    ]
    by_session = "validation" not in content.parts
    collector.problems += _name_problems(content, rows, by_session)
    collector.refuse(labels)
    read = {name: _read_modality(folder, name, rows, by_session, collector) for name, folder in features.items()}
    with collector.at("label"):
        parts = _session_columns(rows) if by_session else _split_columns(content, rows)
    collector.refuse(labels)
    columns = Columns(
        features={name: values for name, (values, _) in read.items()},
        ids=np.array([row.id for row in rows]),
        dialogue=np.array([row.dialogue for row in rows]),
        order=np.array([row.order for row in rows], dtype=np.int64),
        presence=np.stack([present for _, present in read.values()], axis=1),
        normalisation=normalisation,
        **parts,
    )
    notes = tuple(_missing(name, columns.ids[~present]) for name, (_, present) in read.items() if not present.all())
    return finish(columns, notes, absent_where_nonfinite, drop_unlabelled)


def _name_problems(content: LabelFile, rows: list[_Row], by_session: bool) -> list[str]:
    """What is wrong with names and parts, each kind of problem once."""
    known = {dialogue.name for dialogue in content.dialogues}
    times = Counter(name for names in content.parts.values() for name in names)
    found = {
        "utterance names that cannot be file names": [row.id for row in rows if not _SAFE_NAME.fullmatch(row.id)],
        "dialogues without an utterance": [d.name for d in content.dialogues if not d.utterances],
        "dialogues of a part that have no utterances": [name for name in times if name not in known],
    }
    if by_session:
        found["dialogues without a session, such as Ses01F_impro01"] = [n for n in known if not _SESSION.fullmatch(n)]
        found["utterances whose speaker is not F or M"] = [row.id for row in rows if row.speaker not in ("F", "M")]
    else:
        found["dialogues in no part"] = [name for name in known if not times[name]]
        found["dialogues in two parts"] = [name for name in known if times[name] > 1]
    return [f"{len(names):,} {what}: {listed(sorted(names))}" for what, names in found.items() if names]


def _session_columns(rows: list[_Row]) -> dict[str, Any]:
    """IEMOCAP's own columns: classes, the session as fold, the speaker as group."""
    raw = np.array([-1 if row.label is None else row.label for row in rows])
    names = _IEMOCAP_NAMES[4 if raw.max(initial=0) < 4 else 6]
    labels = read_labels(raw, np.array(names), Task.CLASSIFICATION)
    sessions = [str(match[1]) for row in rows if (match := _SESSION.fullmatch(row.dialogue))]
    return {
        "labels": labels.values,
        "label_names": labels.names,
        "task": labels.task,
        "fold": np.array(sessions),
        "group": np.array([f"Ses{session}_{row.speaker}" for session, row in zip(sessions, rows, strict=True)]),
        "group_kind": "speaker",
    }


def _split_columns(content: LabelFile, rows: list[_Row]) -> dict[str, Any]:
    """CMU-MOSI's and CMU-MOSEI's own columns: sentiment, the split of the file, the video as group."""
    raw = np.array([np.nan if row.label is None else row.label for row in rows], dtype=np.float32)
    part = {name: part for part, names in content.parts.items() for name in names}
    return {
        "labels": read_labels(raw, None, Task.REGRESSION).values,
        "task": Task.REGRESSION,
        "split": np.array([part[row.dialogue] for row in rows]),
        "group": np.array([row.dialogue for row in rows]),
        "group_kind": "video",
    }


def _missing(name: str, ids: Array) -> Finding:
    return Finding("note", "missing_utterance", f"{name}: {len(ids):,} utterances have no features: {listed(ids, 20)}")


def _read_modality(
    folder: Path, name: str, rows: list[_Row], own_speaker: bool, collector: Collector
) -> tuple[Array, Array]:
    """Features [N, D] and which rows have them, bool [N]; problems go to the collector."""
    vectors: list[Array | None] = []
    for row in rows:
        vectors.append(None)
        with collector.at(f"modality {name}, utterance {shown(row.id)}:"):
            vectors[-1] = _read_utterance(folder, row, own_speaker)
    widths = Counter(len(vector) for vector in vectors if vector is not None)
    if not widths:
        collector.problems.append(f"modality {name}: no utterance has features in {shown(folder, 200)}")
        return np.zeros((len(rows), 1), np.float32), np.zeros(len(rows), bool)
    width = widths.most_common(1)[0][0]
    wrong = [row.id for row, vector in zip(rows, vectors, strict=True) if vector is not None and len(vector) != width]
    if wrong:
        collector.problems.append(f"modality {name}: {len(wrong):,} are not {width} wide like most: {listed(wrong)}")
        return np.zeros((len(rows), 1), np.float32), np.zeros(len(rows), bool)
    empty = np.zeros(width, dtype=np.float32)
    values = np.stack([empty if vector is None else vector for vector in vectors])
    return values, np.array([vector is not None for vector in vectors])


def _read_utterance(folder: Path, row: _Row, own_speaker: bool) -> Array | None:
    """The mean feature vector [D] of an utterance, or None where it has none."""
    path = folder / f"{row.id}.npy"
    if path.is_file():
        return _mean([path])
    paths = sorted((folder / row.id).glob("*.npy"))
    if own_speaker:
        paths = [path for path in paths if ("F" if "F" in path.stem else "M") == row.speaker]
    return _mean(paths) if paths else None


def _mean(paths: list[Path]) -> Array | None:
    """Mean over files of their mean over time, float32 [D]; None where no file has a time step."""
    means = []
    for path in paths:
        values = read_npy(path)
        if values.dtype.kind not in "biuf" or values.ndim == 0:
            raise BadInput(f"{shown(path.name)} is {values.dtype} {values.shape}, not numbers [D] or [T, D]")
        if values.size:
            means.append(values.reshape(-1, values.shape[-1]).mean(axis=0, dtype=np.float64))
    if len({len(mean) for mean in means}) > 1:
        raise BadInput("its files differ in width")
    return np.mean(means, axis=0).astype(np.float32) if means else None
