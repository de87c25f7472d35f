"""Small trained models for the tests of exports: predictors over a fold in memory, and runs in a home."""

from __future__ import annotations

import dataclasses
from typing import Any

from mcutune.data.columns import NormalisationMode
from mcutune.model.predictor import Predictor, predictor_of
from mcutune.training.result import lane_files
from tests.training.fold import fold, order, pack_of, trained

KINDS: dict[str, dict[str, Any]] = {
    "utterance": {"encoder": "frozen", "encoder_kind": "utterance"},
    "dialogue": {"encoder": "frozen", "encoder_kind": "dialogue"},
    "trained": {"encoder": "trained"},
}


def predictors(
    kind: str, dims: tuple[int, ...], *, regression: bool = False, normalisation: NormalisationMode = "train",
    seeds: int = 2, **settings: Any,
) -> list[Predictor]:  # fmt: skip
    """Seeds of one model, trained for two epochs on rows with gaps."""
    data = dataclasses.replace(fold(gaps=True, dims=dims, regression=regression), normalisation=normalisation)
    shape = {**KINDS[kind], **settings}
    pack = pack_of(data, shape)
    lanes, _ = trained(pack, [order(0, seed, rank=3, **shape) for seed in range(seeds)])
    found = []
    for seed, lane in enumerate(lanes):
        files = lane_files(lane, pack, [] if kind == "trained" else pack.encoder_files(seed))
        found.append(predictor_of(files, f"seed {seed}"))
    return found
