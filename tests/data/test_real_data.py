"""The published sets, where the folder that MCUTUNE_REAL_DATA names is there: counts known from the literature."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mcutune.data.assemble import Roles
from mcutune.data.catalog import check
from mcutune.data.importers import Imported, import_npz
from mcutune.data.splits import folds_of, split_of
from mcutune.data.views import fold_data

FOLDER = Path(os.environ.get("MCUTUNE_REAL_DATA") or "/nonexistent")
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="MCUTUNE_REAL_DATA does not name a folder of real data"),
]


def _import(file: str, modalities: tuple[str, ...], home: Path, **roles: str) -> Imported:
    given = Roles(modalities={name: name for name in modalities}, **roles)  # type: ignore[arg-type]
    return import_npz(FOLDER / file, file.removesuffix(".npz"), given, home=home)


def test_iemocap_has_the_sessions_of_the_literature(tmp_path: Path) -> None:
    keys = {"label": "label4", "label_names": "label4_names", "id": "ids", "dialogue": "dialogue", "order": "turn"}
    table = _import(
        "iemocap.npz", ("audio", "text", "context"), tmp_path, **keys, speaker="speaker", fold="session"
    ).table
    assert table.fold is not None and table.manifest.unlabelled == 10_039 - 5_531
    labelled = [int((table.labelled & (table.fold == fold)).sum()) for fold in folds_of(table)]
    assert labelled == [1085, 1023, 1151, 1031, 1241]
    assert len(table.group_names) == 10 and len(table.dialogue_names) == 151
    split = split_of(table, "5")
    assert set(table.fold[split.validation]) == {"1"} and set(table.fold[split.train]) == {"2", "3", "4"}
    assert not [finding for finding in check(table) if finding.level == "error"]


def test_wesad_labels_are_recoded_and_split_by_subject(tmp_path: Path) -> None:
    names = ("motion", "cardiac", "electrodermal", "respiration", "muscle", "temperature")
    keys = {"label": "label", "label_names": "label_names", "fold": "subject", "group": "subject"}
    imported = _import("wesad6.npz", names, tmp_path, **keys, normalisation="group")
    manifest = imported.table.manifest
    assert manifest.label_names == ["baseline", "stress", "amusement"] and len(manifest.folds) == 14
    assert manifest.folds[0] == "2" and manifest.folds[-1] == "17" and manifest.normalisation == "group"
    assert "recoded" in {finding.kind for finding in imported.findings}
    share = np.bincount(imported.table.labels(np.arange(len(imported.table)))).max() / len(imported.table)
    assert round(share, 3) == 0.532


def test_msp_improv_and_mosi(tmp_path: Path) -> None:
    keys = {"label": "label4", "label_names": "label4_names", "id": "ids", "speaker": "speaker", "fold": "session"}
    msp = _import("msp_improv.npz", ("audio", "text"), tmp_path, **keys).table
    assert len(msp) - msp.manifest.unlabelled == 7798 and len(msp.group_names) == 12
    keys = {"label": "sentiment", "id": "ids", "dialogue": "video_id", "group": "video_id", "split": "split_poria"}
    mosi = _import("mosi.npz", ("text_minilm", "audio", "video"), tmp_path, **keys).table
    data = fold_data(mosi, "given")
    assert data.classes == 1 and data.labels.dtype == np.float32 and mosi.split is not None
    assert len(data.labels) == (mosi.split == "train").sum() and 0.15 < data.validation.mean() < 0.25
