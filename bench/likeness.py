"""Planted data of IEMOCAP's shape: 151 dialogues of 40 to 80 utterances in five sessions, four classes.

Dims are those of the published features (512, 1024, 1024) and sessions have the real ones' numbers of dialogues; every
utterance has a label. The first session is test, the second validation, as for the first of five folds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bench.baselines.published import Dialogues
from mcutune.data.columns import Columns
from mcutune.data.dialogues import grouped
from mcutune.data.planted import columns, options
from mcutune.data.views import FoldData
from mcutune.training.resident import Resident

SESSIONS = (28, 30, 32, 30, 31)
"""Dialogues of each session."""
LENGTH = 60
"""Mean utterances of a dialogue."""
DIMS = (512, 1024, 1024)
TEST_ROWS = 1085
"""Labelled utterances of the first session."""


@dataclass(frozen=True, eq=False)
class Likeness:
    """fold: training and validation rows, as a search sees them. features, dialogue, order: of the test rows alone."""

    fold: FoldData
    features: dict[str, np.ndarray]
    dialogue: np.ndarray
    order: np.ndarray


def likeness(*, quick: bool = False, steps_only: bool = False) -> Likeness:
    """The data; far smaller where `quick`. steps_only: with one dialogue of validation, to time steps."""
    sessions = tuple(max(2, count // 12) for count in SESSIONS) if quick else SESSIONS
    length = LENGTH // 4 if quick else LENGTH
    rows = (sum(sessions) + 2) * length * 4 // 3  # enough for as many dialogues, however long they come out
    made = columns(
        options(
            rows=rows,
            modalities=len(DIMS),
            dims=tuple(dim // 16 for dim in DIMS) if quick else DIMS,
            dialogue_rows=length,
        )
    )
    number = _numbered(made)
    session = np.repeat(np.arange(len(sessions)), sessions)
    test = np.flatnonzero(number < sessions[0])[: TEST_ROWS // 16 if quick else TEST_ROWS]
    last = sessions[0] + (1 if steps_only else sessions[1])  # validation dialogues end before it
    training = (number >= sessions[0] + sessions[1]) & (number < len(session))
    kept = np.flatnonzero(training | (number >= sessions[0]) & (number < last))
    return Likeness(
        fold_of(made, kept, session[number[kept]] == 1),
        {name: x[test] for name, x in made.features.items()},
        number[test],
        made.order[test],
    )


def _numbered(made: Columns) -> np.ndarray:
    return np.unique(made.dialogue, return_inverse=True)[1].astype(np.int64)


def fold_of(made: Columns, rows: np.ndarray, validation: np.ndarray) -> FoldData:
    """Some rows as a search sees them; validation: bool, of these rows."""
    number = _numbered(made)
    return FoldData(
        modalities=tuple(made.features),
        features={name: x[rows] for name, x in made.features.items()},
        presence=made.presence[rows],
        labels=made.labels[rows],
        dialogue=number[rows],
        order=made.order[rows],
        group=number[rows],
        validation=validation,
        task=made.task,
        label_names=made.label_names,
        table_hash="likeness",
        split_hash=f"{len(rows)} rows",
        fold="1",
        normalisation="train",
        table="likeness",
    )


def as_dialogues(resident: Resident, rows: np.ndarray) -> Dialogues:
    """Some whole dialogues of a resident fold, normalised as it is, for the published form."""
    held = np.unique(resident.dialogue_of[rows])
    members = [block[block >= 0] for block in resident.dialogues[held]]
    return Dialogues([x.cpu() for x in resident.inputs], resident.target.cpu(), members)


def test_dialogues(data: Likeness) -> Dialogues:
    """The test rows as dialogues, as they are; targets are not used there."""
    blocks = grouped(data.dialogue, data.order)[0]
    members = [block[block >= 0] for block in blocks]
    features = [torch.from_numpy(x) for x in data.features.values()]
    return Dialogues(features, torch.zeros(len(data.dialogue), dtype=torch.int64), members)
