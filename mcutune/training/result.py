"""The checkpoint that a finished lane hands over: its best epoch, at its true rank, with all it needs to predict."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import numpy as np
import torch

import mcutune
from mcutune.model.checkpoint import pack_files
from mcutune.training.encoder_stage import encoder_weights
from mcutune.training.lane import Lane
from mcutune.training.pack import Pack


def lane_files(
    lane: Lane, pack: Pack, encoders: Sequence[dict[str, bytes]], *, scored: bool = True
) -> dict[str, bytes]:
    """The files of a lane's checkpoint; encoders: a stage-1 cache entry a modality, if any.

    scored: whether the validation scores say anything.
    """
    assert lane.best is not None, "a lane that finished has measured an epoch"
    rank = lane.configuration.rank
    layout = pack.program_of(rank).layout
    tensors = layout.unpadded(lane.best.cpu(), rank)
    tensors |= {f"encoder.{name}": tensor for name, tensor in encoder_weights(encoders).items()}
    data, resident = pack.resident.data, pack.resident
    labels = [pack.labels[c] for c in pack.start.combinations]
    scores = dict(zip(labels, lane.best_scores, strict=True)) if scored else {}
    facts = {
        "configuration": lane.configuration.model_dump(mode="json"),
        "modalities": list(data.modalities),
        "dims": list(resident.dims),
        "task": data.task.value,
        "label_names": list(data.label_names),
        "normalisation": resident.normalisation.to_json(),
        "data": {
            "table": data.table,
            "table_hash": data.table_hash,
            "fold": data.fold,
            "split_hash": data.split_hash,
        },
        "lane": {"fold": lane.order.lane.fold, "trial": lane.order.lane.trial, "seed": lane.seed},
        "search_seed": pack.start.search_seed,
        "best_epoch": lane.best_epoch,
        "metric": pack.metric.name,
        "scores": scores,
        "dpft": {"probabilities": lane.probabilities, "divergences": lane.divergences},
        "versions": {
            "mcutune": mcutune.__version__, "torch": torch.__version__, "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }  # fmt: skip
    return pack_files(tensors, facts, [layout.unpadded(one, rank) for one in lane.every])
