"""`mcutune export`: choose the models, write the card and ONNX, check it, and put all into a folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import mcutune
from mcutune.data.hints import listed
from mcutune.errors import BadInput, Damaged
from mcutune.export import card as cards
from mcutune.export.folder import CARD, ONNX, README, refuse_existing, seed_folder, write
from mcutune.export.readme import readme
from mcutune.export.use import chosen_fold, chosen_seeds
from mcutune.files import read_bytes, sha256
from mcutune.model.checkpoint import FACTS, WEIGHTS
from mcutune.model.onnx_graph import OPSET, check, obstacle, onnx_file
from mcutune.model.predictor import Predictor, predictor_of
from mcutune.robustness.selection import Selection

Files = dict[int, dict[str, bytes]]
"""The two files of a checkpoint, by seed."""
_REPORT = "report.json"
_LIBRARIES = ("torch", "numpy", "safetensors")
_ONNX_LIBRARIES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Chosen:
    """What is exported. `refit`: how it was trained on all rows, else None. `report`: where its report would lie."""

    name: str
    run: str | None
    files: Files
    report: Path | None = None
    refit: dict[str, Any] | None = None


@dataclass(frozen=True)
class Exported:
    """What was written. `without_onnx`: why there is no ONNX file, if so."""

    folder: Path
    card: dict[str, Any]
    without_onnx: str | None


def chosen(selection: Selection, fold: str | None, seed: int | None) -> Chosen:
    """The winner of a fold with its seeds. Raises BadInput naming the folds or seeds, Damaged."""
    if fold is None and len(selection.winners) > 1:
        folds = [winner.fold for winner in selection.winners]
        raise BadInput(
            f"{selection.name} has a winner in each of {len(folds)} folds",
            hint=f"choose one with --fold {listed(folds, 30)}, or train one on all rows with --refit",
        )
    winner = chosen_fold(selection, fold)
    by_seed = {one.seed: one for one in winner.seeds}
    files: Files = {}
    for number in chosen_seeds({one: by_seed[one].folder for one in by_seed}, seed):
        files[number] = {name: read_bytes(by_seed[number].folder / name) for name in (WEIGHTS, FACTS)}
        if sha256(files[number][FACTS]) != by_seed[number].sha256:
            raise Damaged(f"{by_seed[number].folder / FACTS} changed while it was read")
    name = f"{selection.name} fold {winner.fold}"
    return Chosen(name, selection.run, files, selection.folder / _REPORT)


def export(
    model: Chosen, target: Path, *, onnx: bool | None, step: Callable[[str], None] = lambda what: None
) -> Exported:
    """Write a model into a new folder.

    onnx: None writes it where it can be. Raises BadInput where the folder exists or ONNX was asked for and cannot be,
    CheckFailed where ONNX and torch differ; then nothing is written.
    """
    refuse_existing(target)
    predictors = [predictor_of(files, f"seed {seed}") for seed, files in model.files.items()]
    reason = "it was not asked for" if onnx is False else None
    if onnx is not False and (hindrance := obstacle(predictors)) is not None:
        if onnx:
            raise hindrance
        reason = str(hindrance)
    facts: dict[str, Any] = {"file": None, "reason": reason}
    files: dict[str, bytes] = {}
    if reason is None:
        files[ONNX], facts = _onnx(predictors, model, step)
    made = _card(model, facts)
    files |= {f"{seed_folder(seed)}/{name}": one for seed, both in model.files.items() for name, one in both.items()}
    files[CARD] = json.dumps(made, indent=1, allow_nan=False, ensure_ascii=False).encode() + b"\n"
    files[README] = readme(made).encode()
    write(target, files)
    return Exported(target, made, reason if onnx is not False else None)


def _onnx(predictors: list[Predictor], model: Chosen, step: Callable[[str], None]) -> tuple[bytes, dict[str, Any]]:
    """The checked ONNX file, and what the card says of it."""
    first = predictors[0]
    step("writing ONNX")
    labels = {
        "modalities": list(first.modalities.names), "label_names": list(first.label_names),
        "seeds": list(model.files), "table": first.info["data"]["table"], "fold": first.info["data"]["fold"],
    }  # fmt: skip
    content = onnx_file(predictors, {key: json.dumps(value, ensure_ascii=False) for key, value in labels.items()})
    step("comparing ONNX with torch on every combination")
    found = check(content, predictors)
    facts = {
        "file": ONNX, "opset": OPSET, "by_dialogue": first.attends, "batches": found.batches,
        "combinations": found.combinations, "largest": found.largest, "bound": found.bound,
        "versions": {name: metadata.version(name) for name in _ONNX_LIBRARIES},
    }  # fmt: skip
    return content, facts


def _card(model: Chosen, onnx: dict[str, Any]) -> dict[str, Any]:
    checkpoints = {seed: json.loads(files[FACTS]) for seed, files in model.files.items()}
    hashes = {seed: sha256(files[FACTS]) for seed, files in model.files.items()}
    versions = {"mcutune": mcutune.__version__, "python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in _LIBRARIES}
    return cards.card(
        model.name, model.run, checkpoints, hashes,
        made=datetime.now(UTC).isoformat(timespec="seconds"), validation=cards.validation(checkpoints),
        robustness=_robustness(model, checkpoints, list(hashes.values())), refit=model.refit, onnx=onnx,
        versions=versions,
    )  # fmt: skip


def _robustness(model: Chosen, checkpoints: dict[int, Any], hashes: list[str]) -> dict[str, Any] | None:
    if model.report is None or not model.report.is_file():
        return None
    content = read_bytes(model.report)
    try:
        return cards.robustness(json.loads(content), content, next(iter(checkpoints.values()))["data"]["fold"], hashes)
    except (ValueError, KeyError, TypeError, IndexError):
        raise Damaged(f"{model.report} is not a report", hint="make it anew: mcutune robustness") from None
