"""The model card: what a model is, what it was trained on, what was measured of it, and what not to use it for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcutune.domain.task import Task
from mcutune.export.folder import SCHEMA, seed_folder
from mcutune.files import sha256
from mcutune.model.checkpoint import FACTS, WEIGHTS

Entry = dict[str, Any]
_CELL = (
    "protocol", "dataset", "split", "combination", "scenario", "metric", "value", "low", "high", "interval", "n",
    "groups", "seeds", "folds",
)  # fmt: skip


def card(name: str, run: str | None, checkpoints: dict[int, Entry], hashes: dict[int, str], **parts: Any) -> Entry:
    """card.json. checkpoints: checkpoint.json by seed; hashes: of these files.

    parts: `made` (time), `validation`, `robustness`, `refit`, `onnx`, `versions`.
    """
    first = next(iter(checkpoints.values()))
    lane, data = first["lane"], first["data"]
    fold = data["fold"]
    robustness, refit = parts["robustness"], parts["refit"]
    wanted, unwanted = uses(first, robustness, refit, len(checkpoints))
    return {
        "schema": SCHEMA,
        "name": name,
        "run": run,
        "trial": lane["trial"],
        "made": parts["made"],
        "intended_use": wanted,
        "not_for": unwanted,
        "task": first["task"],
        "label_names": first["label_names"],
        "modalities": [{"name": n, "dim": d} for n, d in zip(first["modalities"], first["dims"], strict=True)],
        "trained_on": {**data, "fold": fold},
        "seeds": [
            {
                "seed": seed,
                "folder": seed_folder(seed),
                "files": [WEIGHTS, FACTS],
                "best_epoch": facts["best_epoch"],
                "checkpoint_sha256": hashes[seed],
            }
            for seed, facts in checkpoints.items()
        ],
        "validation": parts["validation"],
        "robustness": robustness,
        "refit": refit,
        "onnx": parts["onnx"],
        "configuration": first["configuration"],
        "normalisation": first["normalisation"],
        "versions": {"trained": first["versions"], "exported": parts["versions"]},
    }


def validation(checkpoints: dict[int, Entry]) -> Entry | None:
    """The search's metric by combination, mean over seeds; None where nothing was held out."""
    scores = [facts["scores"] for facts in checkpoints.values()]
    if not all(scores):
        return None
    labels = [label for label in scores[0] if all(label in one for one in scores)]
    means = {label: sum(one[label] for one in scores) / len(scores) for label in labels}
    return {"metric": next(iter(checkpoints.values())).get("metric"), "scores": means, "seeds": len(scores)}


def robustness(report: Entry, content: bytes, fold: str, hashes: Sequence[str]) -> Entry | None:
    """What a report says of these checkpoints; None where it measured others."""
    subject = report["models"][0]
    winner = next((one for one in subject["winners"] if one["fold"] == fold), None)
    measured = {one["sha256"] for one in winner["checkpoints"]} if winner else set()
    if not set(hashes) <= measured:
        return None
    return {
        "report_sha256": sha256(content),
        "title": report["title"],
        "created": report["provenance"]["created"],
        "folds": [one["fold"] for one in subject["winners"]],
        "seeds": len(measured),
        "openings": report["openings"]["count"],
        "sentences": report["summary"],
        "warnings": report["warnings"],
        "measurements": [
            {key: one.get(key) for key in _CELL} for one in report["measurements"] if one["model"] == subject["name"]
        ],
    }


def uses(facts: Entry, robustness: Entry | None, refit: Entry | None, seeds: int) -> tuple[list[str], list[str]]:
    """Sentences: what the model is for, and what it is not for."""
    names, table = " and ".join(facts["modalities"]), facts["data"]["table"]
    says = "one of " + ", ".join(facts["label_names"]) if facts["task"] == Task.CLASSIFICATION.value else "a value"
    wanted = [f"Says {says} for a row of {names}, of which any may be missing as long as one is present."]
    unwanted = [f"Features that were made in another way than those of {table}: it has seen no others."]
    if refit is not None:
        unwanted.append("Any use that needs to know how good it is: it was trained on all rows and never measured.")
    elif robustness is None:
        unwanted.append("Any use that needs to know how good it is on rows it was not chosen by: no report was made.")
    else:
        fares, breaks, *avoid = robustness["sentences"]
        wanted += [fares, breaks]
        unwanted += avoid
        if len(robustness["folds"]) > 1:
            wanted.append(
                f"These numbers are of {len(robustness['folds'])} models, one a fold; this one is that of fold "
                f"{facts['data']['fold']}, trained by the same procedure on other rows."
            )
        if seeds > 1:
            wanted.append(f"They are means over seeds; the average of the {seeds} models here was not measured itself.")
    return wanted, unwanted
