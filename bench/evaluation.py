"""All seven combinations of a test split, against one complete forward pass and against the published form's seven.

Ours is `Predictor.all_combinations`, what `mcutune robustness` calls: raw features in, normalisation and encoders
included. The complete pass (bench/baselines/complete.py) reads the same raw rows in the same precision; the published
form gets normalised ones, in float32. One thread a core, in turns.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from bench.baselines.complete import complete_pass
from bench.baselines.published import Published, evaluate
from bench.engine import checkpoint
from bench.likeness import Likeness, likeness, test_dialogues
from bench.rows import Row, alternating_seconds
from mcutune.model.predictor import load_predictor

GROUP = "evaluation"
KINDS = (("frozen", "float32"), ("trained", "float32"), ("trained", "bfloat16"))
MOST = {"frozen": 1.5, "trained": 3.0}  # times the complete pass
LEAST = {"frozen": 15.0, "trained": 8.0}  # times as fast as the published form


def times(overrides: dict[str, Any], data: Likeness, quick: bool) -> dict[str, float]:
    """Median seconds of ours, one complete pass, and the published form."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint(data.fold, overrides, folder)
        predictor, complete = load_predictor(folder), complete_pass(folder)
    published, dialogues = Published(predictor.dims, predictor.classes), test_dialogues(data)
    torch.set_num_threads(os.cpu_count() or 1)
    rows = data.features, data.dialogue, data.order, data.dialogue
    works = {
        "all": lambda: predictor.all_combinations(*rows),
        "complete": lambda: complete(*rows),
        "published": lambda: evaluate(published, dialogues),
    }
    return alternating_seconds(works, repeats=2 if quick else 5)


def rows_of(encoder: str, precision: str, data: Likeness, quick: bool) -> list[Row]:
    """The two rows of an architecture in a precision."""
    spent = times({"encoder": encoder, "precision": precision}, data, quick)
    ours = 1e3 * spent["all"]
    slower, faster = spent["all"] / spent["complete"], spent["published"] / spent["all"]
    note = f"{len(data.dialogue)} rows; {slower:.2f} times the time of the complete pass"
    return [
        Row(
            GROUP, f"{encoder}, {precision}: beside one pass", ours, "ms", 1 / slower, "one complete pass",
            1e3 * spent["complete"], f"≤ {MOST[encoder]:g} × time", slower <= MOST[encoder], note,
        ),
        Row(
            GROUP, f"{encoder}, {precision}: 7 combinations", ours, "ms", faster, "published form, seven passes",
            1e3 * spent["published"], f"≥ {LEAST[encoder]:g} ×", faster >= LEAST[encoder],
        ),
    ]  # fmt: skip


def measure(quick: bool) -> list[Row]:
    """The group's rows."""
    data = likeness(quick=quick)
    return [row for kind in KINDS for row in rows_of(*kind, data, quick)]
