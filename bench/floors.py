"""What linear models reach on a dataset, for every combination and fold: the floor that any trained model must beat.

    python bench/floors.py --data iemocap --out floors.json

Classes: logistic regression, plain and with balanced class weights. Values: ridge regression. A model is fitted on all
labelled rows outside the test part, so it sees the rows that mcutune keeps for validation too: nothing is chosen by
validation here. Features are normalised as the table says; what a row lacks is zero. Beside the JSON lie the
predictions of every test row (.npz: rows, ids, truth, fold, and one array [C, N] a model), from which each number can
be computed again. `pooled` is over the test rows of all folds together.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from mcutune.data.catalog import ensure
from mcutune.data.columns import Array
from mcutune.data.normalise import apply, fit
from mcutune.data.splits import folds_of, split_of
from mcutune.data.table import Table
from mcutune.domain.combination import combinations
from mcutune.domain.task import Task, metrics_for
from mcutune.errors import UserError
from mcutune.files import replacing, write_json

Model = Callable[[], Any]


def models_for(task: Task, c: float) -> dict[str, Model]:
    """The linear models of a task, unfitted; `c`: inverse of the penalty (scikit-learn's C, and 1 / alpha)."""
    if task is Task.REGRESSION:
        return {"constant": DummyRegressor, "ridge": lambda: Ridge(alpha=1 / c)}
    return {
        "constant": DummyClassifier,
        "logistic": lambda: LogisticRegression(C=c, max_iter=2000),
        "logistic_balanced": lambda: LogisticRegression(C=c, max_iter=2000, class_weight="balanced"),
    }


def predict_fold(table: Table, fold: str, mode: str, models: dict[str, Model]) -> dict[str, Array]:
    """Predictions of each model for the test rows of a fold, [C, n]; the rows themselves under `rows`."""
    test = split_of(table, fold).test
    test = test[table.labelled[test]]
    seen = np.setdiff1d(np.flatnonzero(table.labelled), split_of(table, fold).test)
    raw = {name: table.features(name) for name in table.modalities.names}
    normalisation = fit(raw, table.presence, seen, mode)  # type: ignore[arg-type]
    features = list(apply(normalisation, raw, table.presence, table.group).values())
    labels = table.seal(test).labels(seen)
    found: dict[str, list[Array]] = {name: [] for name in models}
    for combination in combinations(len(table.modalities)):
        x = np.hstack([features[m] for m in combination.modalities()])
        for name, model in models.items():
            found[name].append(model().fit(x[seen], labels).predict(x[test]))
    return {"rows": test, **{name: np.stack(values) for name, values in found.items()}}


def scores(table: Table, predicted: Array, truth: Array) -> dict[str, dict[str, float]]:
    """Every metric of the task for each combination, from predictions [C, n]."""
    classes = len(table.manifest.label_names or ())
    values = {metric.name: metric(predicted, truth, classes) for metric in metrics_for(table.manifest.task)}
    labels = table.modalities.labels
    return {label: {name: round(float(v[c]), 5) for name, v in values.items()} for c, label in enumerate(labels)}


def floors(table: Table, mode: str, c: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The report, and the predictions of all folds joined."""
    models = models_for(table.manifest.task, c)
    folds = {}
    for fold in folds_of(table):
        start = time.perf_counter()
        folds[fold] = predict_fold(table, fold, mode, models)
        print(f"fold {fold}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    joined: dict[str, Any] = {
        key: np.concatenate([part[key] for part in folds.values()], axis=-1) for key in ("rows", *models)
    }
    joined["ids"], joined["truth"] = table.ids[joined["rows"]], table.labels(joined["rows"])
    joined["fold"] = np.concatenate([np.full(len(part["rows"]), fold) for fold, part in folds.items()])
    results = {
        name: {
            "pooled": scores(table, joined[name], joined["truth"]),
            "folds": {
                fold: {"rows": len(part["rows"]), "scores": scores(table, part[name], table.labels(part["rows"]))}
                for fold, part in folds.items()
            },
        }
        for name in models
    }
    facts = {"table": table.manifest.name, "table_hash": table.manifest.hash, "task": table.manifest.task.value}
    settings = {"normalisation": mode, "c": c, "scikit_learn": sklearn.__version__}
    return {"schema": 1, **facts, **settings, "models": results}, joined


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, help="name of a dataset of this home")
    parser.add_argument("--out", required=True, type=Path, help="the JSON file; predictions beside it as .npz")
    parser.add_argument("--c", type=float, default=1.0, help="inverse of the penalty (default 1.0)")
    parser.add_argument("--normalisation", choices=("train", "group", "none"), help="default: the table's own")
    options = parser.parse_args()
    try:
        table = ensure(options.data)
        report, predictions = floors(table, options.normalisation or table.manifest.normalisation, options.c)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    with replacing(options.out.with_suffix(".npz")) as beside, beside.open("wb") as file:
        np.savez_compressed(file, **predictions)
    write_json(options.out, report)
    for name, result in report["models"].items():
        for label, values in result["pooled"].items():
            print(f"{name:20} {label:40} " + "  ".join(f"{metric} {value:.3f}" for metric, value in values.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
