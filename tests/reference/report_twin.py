"""A report's values by loops over the stored predictions: pandas rows, scikit-learn metrics, no sums and no caches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics


def metric_of(name: str, truth: np.ndarray, predicted: np.ndarray) -> float:
    if name == "wa":
        return float(metrics.accuracy_score(truth, predicted))
    if name == "ua":
        return float(metrics.recall_score(truth, predicted, average="macro", labels=np.unique(truth)))
    if name == "f1":
        return float(metrics.f1_score(truth, predicted, average="weighted", zero_division=0))
    if name == "mae":
        return float(np.abs(truth.astype(float) - predicted).mean())
    if name == "pearson":
        return float(np.corrcoef(truth, predicted)[0, 1])
    kept = truth != 0
    signs = truth[kept] > 0, predicted[kept] > 0
    return float(metrics.accuracy_score(*signs) if name == "acc2" else metrics.f1_score(*signs, average="weighted"))


def _predictions(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    stored = pd.read_parquet(path).astype({"id": str, "fold": str, "scenario": str})
    logits = stored[[column for column in stored if column.startswith("logit_")]].to_numpy()
    stored["predicted"] = logits.argmax(axis=1) if logits.shape[1] > 1 else logits[:, 0].astype(float)
    return stored.merge(rows[["id", "label"]], on="id")


def fixed_value(folder: Path, table: str, model: int, combination: str, metric: str) -> float:
    """Pooled over folds, mean over seeds."""
    rows = pd.read_parquet(folder / f"rows-{table}.parquet").astype({"id": str})
    stored = _predictions(folder / f"predictions-{model}-{table}.parquet", rows)
    mine = stored[stored.combination == combination]
    return float(
        np.mean([metric_of(metric, one.label.to_numpy(), one.predicted.to_numpy()) for _, one in mine.groupby("seed")])
    )


def fixed_spreads(folder: Path, table: str, model: int, combination: str, metric: str) -> tuple[float, float]:
    """Standard deviations: between seeds pooled over folds, between folds averaged over seeds."""
    rows = pd.read_parquet(folder / f"rows-{table}.parquet").astype({"id": str})
    stored = _predictions(folder / f"predictions-{model}-{table}.parquet", rows)
    mine = stored[stored.combination == combination]

    def of(part: pd.DataFrame) -> float:
        return metric_of(metric, part.label.to_numpy(), part.predicted.to_numpy())

    seeds = [of(part) for _, part in mine.groupby("seed")]
    folds = [np.mean([of(part) for _, part in fold.groupby("seed")]) for _, fold in mine.groupby("fold")]
    return float(np.std(seeds, ddof=1)), float(np.std(folds, ddof=1))


def cross_value(
    folder: Path, table: str, model: int, combination: str, scenario: str, metric: str
) -> tuple[float, float]:
    """Mean and standard deviation over winners, each on all rows."""
    rows = pd.read_parquet(folder / f"rows-{table}.parquet").astype({"id": str})
    stored = _predictions(folder / f"predictions-{model}-{table}.parquet", rows)
    mine = stored[(stored.combination == combination) & (stored.scenario == scenario)]
    found = [metric_of(metric, w.label.to_numpy(), w.predicted.to_numpy()) for _, w in mine.groupby(["fold", "seed"])]
    return float(np.mean(found)), float(np.std(found, ddof=1))


def random_value(
    folder: Path, table: str, model: int, scenario: str, metric: str, protocol: str = "random"
) -> float:  # fmt: skip
    """Each row looked up by the combination of its mask, one by one; mean over seeds and masks. A row of which all was
    taken away gets the answer to nothing of its fold."""
    rows = pd.read_parquet(folder / f"rows-{table}.parquet").astype({"id": str})
    names = [column.removeprefix("has.") for column in rows if column.startswith("has.")]
    truth = dict(zip(rows.id, rows.label, strict=True))
    has = {row["id"]: [row[f"has.{name}"] for name in names] for row in rows.to_dict("records")}
    stored = _predictions(folder / f"predictions-{model}-{table}.parquet", rows)
    lookup: dict[Any, Any] = {(r.id, r.seed, r.combination): r.predicted for r in stored.itertuples()}
    nothing = (
        pd.read_parquet(folder / f"nothing-{model}-{table}.parquet").astype({"fold": str}).set_index(["fold", "seed"])
    )
    fold_of = dict(zip(rows.id, rows.fold.astype(str), strict=True))
    masks = pd.read_parquet(folder / f"presence-{protocol}-{table}.parquet").astype({"id": str, "scenario": str})
    values = []
    for _, mask in masks[masks.scenario == scenario].groupby("mask"):
        for seed in sorted(stored.seed.unique()):
            pairs = []
            for row in mask.to_dict("records"):
                if row["id"] in truth and not any(row[n] for n in names):
                    logits = nothing.loc[(fold_of[row["id"]], seed)].to_numpy()
                    answer = logits.argmax() if len(logits) > 1 else float(logits[0])
                    pairs.append((truth[row["id"]], answer))
                elif row["id"] in truth and any(row[n] and h for n, h in zip(names, has[row["id"]], strict=True)):
                    label = "+".join(n for n, h in zip(names, has[row["id"]], strict=True) if row[n])
                    pairs.append((truth[row["id"]], lookup[row["id"], seed, label]))
            values.append(metric_of(metric, *(np.array(column) for column in zip(*pairs, strict=True))))
    return float(np.mean(values))
