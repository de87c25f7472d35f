"""Predictions from a trained model: `mcutune.load(...)`, from a dictionary of arrays in which modalities may be absent.

Axes: N rows, D features of a modality, M modalities, S seeds, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mcutune.data.hints import did_you_mean, listed, shown
from mcutune.domain.combination import combination_index
from mcutune.domain.task import Task
from mcutune.errors import BadInput
from mcutune.export.folder import is_export, read_card
from mcutune.files import home
from mcutune.model.onnx_graph import averaged
from mcutune.model.predictor import Predictor, load_predictor
from mcutune.robustness.selection import Selection, Winner, select

Array = npt.NDArray[Any]
Dialogues = Sequence[Any] | Array


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of N rows.

    `labels` [N] and `probabilities` [N, K], the mean over seeds; `values` [N] instead where the task is regression.
    `logits` [S, N, K] of every seed. `combinations`: what each row was predicted with, `audio+text`.
    """

    labels: Array | None
    probabilities: Array | None
    values: Array | None
    logits: Array
    combinations: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.combinations)


class Model:
    """A trained model with its seeds. `dims`: D by modality. `card`: the model card, where it was exported.

    `labels`: class names, empty for regression. `by_dialogue`: whether it reads whole dialogues. `by_group`: whether
    features are normalised by each group's own rows.
    """

    def __init__(self, predictors: Sequence[Predictor], seeds: Sequence[int], card: dict[str, Any] | None) -> None:
        first = predictors[0]
        self._predictors = tuple(predictors)
        self._names = first.modalities
        self.seeds = tuple(seeds)
        self.card = card
        self.modalities = first.modalities.names
        self.dims = dict(zip(self.modalities, first.dims, strict=True))
        self.labels = first.label_names
        self.task = first.task.value
        self.by_dialogue = first.attends
        self.by_group = first.normalisation.mode == "group"

    def __repr__(self) -> str:
        read = ", ".join(f"{name} [{dim}]" for name, dim in self.dims.items())
        say = ", ".join(self.labels) if self.labels else "a value"
        return f"<mcutune model: {read} -> {say}; {len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}>"

    def predict(
        self, features: Mapping[str, Any], *, presence: Any = None, dialogue: Dialogues | None = None,
        group: Dialogues | None = None,
    ) -> Prediction:  # fmt: skip
        """Predict rows from raw features.

        features: modality to [N, D]. A modality may be absent: its key missing, its value None, a row all NaN, or not
        in `presence` (bool [N, M], in the order of `modalities`).
        dialogue: an id a row, where the model reads whole dialogues; rows of one are in order.
        group: an id a row (the speaker, the subject), where features are normalised by each group's own rows.
        Raises BadInput naming what does not fit.
        """
        given = self._read(features)
        rows = len(next(iter(given.values())))
        have = self._presence(given, presence, rows)
        filled = {
            name: np.where(have[:, m, None], given[name], np.float32(0)) if name in given
            else np.zeros((rows, dim), dtype=np.float32)
            for m, (name, dim) in enumerate(self.dims.items())
        }  # fmt: skip
        dialogues = self._codes(dialogue, "dialogue", rows, self.by_dialogue, "this model reads whole dialogues")
        groups = self._codes(group, "group", rows, self.by_group, "features are normalised by each group's own rows")
        place = np.arange(rows)
        logits = np.stack([one.with_presence(filled, have, dialogues, place, groups) for one in self._predictors])
        return self._prediction(logits, have)

    def _read(self, features: Mapping[str, Any]) -> dict[str, Array]:
        """float32 [N, D] of the modalities given; NaN rows are kept."""
        if not isinstance(features, Mapping):
            raise BadInput(f"features are a {type(features).__name__}", hint="a dictionary: modality to array [N, D]")
        unknown = [name for name in features if name not in self.dims]
        if unknown:
            raise BadInput(
                f"the model has no modality {shown(unknown[0])!r}", hint=did_you_mean(str(unknown[0]), self.dims)
            )
        given = {
            name: _array(name, features[name], dim) for name, dim in self.dims.items() if features.get(name) is not None
        }
        if not given:
            raise BadInput("no modality is given", hint=f"at least one of {', '.join(self.modalities)}")
        lengths = {name: len(values) for name, values in given.items()}
        if len(set(lengths.values())) > 1:
            raise BadInput(
                f"modalities differ in rows: {', '.join(f'{name} {n}' for name, n in lengths.items())}",
                hint="where a row lacks a modality, give it NaN",
            )
        if not next(iter(lengths.values())):
            raise BadInput("there are no rows", hint="at least one")
        return given

    def _presence(self, given: dict[str, Array], asked: Any, rows: int) -> Array:
        """What each row has, bool [N, M]. Raises BadInput where that is nothing, or not finite."""
        have = np.stack(
            [~np.isnan(given[name]).all(1) if name in given else np.zeros(rows, bool) for name in self.modalities], 1
        )
        if asked is not None:
            flags = _flags(asked, (rows, len(self.modalities)))
            absent = [name for m, name in enumerate(self.modalities) if name not in given and flags[:, m].any()]
            if absent:
                raise BadInput(f"presence says that {absent[0]!r} is there, which is not given")
            have &= flags
        for name, values in given.items():
            wrong = np.flatnonzero(have[:, self.modalities.index(name)] & ~np.isfinite(values).all(1))
            if len(wrong):
                raise BadInput(
                    f"row {wrong[0]} of {name!r} has a feature that is not finite",
                    hint="a row without the modality is NaN in all its features",
                )
        nothing = np.flatnonzero(~have.any(1))
        if len(nothing):
            raise BadInput(
                f"{len(nothing)} of {rows} rows have nothing present: {listed(nothing.tolist())}",
                hint="leave them out; that changes no other row",
            )
        return have

    def _codes(self, ids: Dialogues | None, what: str, rows: int, needed: bool, why: str) -> Array:
        """Ids as int codes [N]."""
        if ids is None:
            if needed:
                raise BadInput(f"{why}: {what}= is missing", hint="one id a row")
            return np.arange(rows)
        values = np.asarray(ids)
        if values.shape != (rows,):
            raise BadInput(f"{what} has shape {values.shape}, expected ({rows},)", hint="one id a row")
        if values.dtype == object:
            raise BadInput(f"{what} has mixed types", hint="all numbers, or all strings")
        _, codes = np.unique(values, return_inverse=True)
        return codes.astype(np.int64)

    def _prediction(self, logits: Array, have: Array) -> Prediction:
        combinations = np.array(self._names.labels, dtype=object)[combination_index(have)]
        task = self._predictors[0].task
        mean = averaged(logits, task)
        if task is not Task.CLASSIFICATION:
            return Prediction(None, None, mean[:, 0], logits, tuple(combinations))
        return Prediction(np.array(self.labels)[mean.argmax(1)], mean, None, logits, tuple(combinations))


def _array(name: str, values: Any, dim: int) -> Array:
    """float32 [N, D]. Raises BadInput."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of unequal lengths
        raise BadInput(f"{name!r} is not a rectangular array", hint=f"[N, {dim}]") from None
    if array.dtype.kind not in "fiu":
        raise BadInput(f"{name!r} has dtype {array.dtype}, expected numbers", hint=f"a float array [N, {dim}]")
    if array.ndim != 2 or array.shape[1] != dim:
        row = "; a single row is array[None]" if array.shape == (dim,) else ""
        raise BadInput(f"{name!r} has shape {array.shape}, the model reads [N, {dim}]{row}")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused as such
        return array.astype(np.float32)


def _flags(asked: Any, shape: tuple[int, int]) -> Array:
    flags = np.asarray(asked)
    if flags.shape != shape:
        raise BadInput(f"presence has shape {flags.shape}, expected {shape}", hint="a row each, a column a modality")
    if flags.dtype != bool and not (flags.dtype.kind in "iu" and np.isin(flags, (0, 1)).all()):
        raise BadInput(f"presence has dtype {flags.dtype}", hint="booleans, or 0 and 1")
    return flags.astype(bool)


def load(model: str | Path, *, fold: str | None = None, seed: int | None = None) -> Model:
    """A model to predict with: an exported folder, or (in this home) a run, RUN:TRIAL or a checkpoint folder.

    fold: which winner, where a run has several. seed: one of them only; else predictions are averaged over all.
    Raises BadInput where there is none of that name, Damaged where a file is not what was written.
    """
    if not isinstance(model, str | Path):
        raise BadInput(f"a model is a folder or a name, not {type(model).__name__}")
    folder = Path(model)
    if is_export(folder):
        card = read_card(folder)
        if fold is not None and fold != card["trained_on"]["fold"]:
            raise BadInput(f"{folder} is of fold {card['trained_on']['fold']}, not {shown(fold)}")
        places = {one["seed"]: folder / one["folder"] for one in card["seeds"]}
    else:
        winner = chosen_fold(select(str(model), home()), fold)
        places, card = {one.seed: one.folder for one in winner.seeds}, None
    kept = chosen_seeds(places, seed)
    return Model([load_predictor(places[one]) for one in kept], kept, card)


def chosen_fold(selection: Selection, fold: str | None) -> Winner:
    """The winner of a fold, or of the only one. Raises BadInput naming the folds there are."""
    by_fold = {winner.fold: winner for winner in selection.winners}
    if fold is None:
        if len(by_fold) > 1:
            raise BadInput(f"{selection.name} has a winner in each of {len(by_fold)} folds", hint=_folds(by_fold))
        return selection.winners[0]
    if fold not in by_fold:
        raise BadInput(f"{selection.name} has no winner in fold {shown(fold)!r}", hint=did_you_mean(fold, by_fold))
    return by_fold[fold]


def _folds(by_fold: Mapping[str, Winner]) -> str:
    return f"name one fold: {listed(by_fold, 30)}"


def chosen_seeds(seeds: Mapping[int, Path], seed: int | None) -> list[int]:
    """All seeds, ascending, or the one. Raises BadInput naming those there are."""
    if seed is not None and seed not in seeds:
        raise BadInput(f"seed {seed} was not trained", hint=f"there are {', '.join(map(str, sorted(seeds)))}")
    return sorted(seeds) if seed is None else [seed]
