"""mcutune: search and certify multimodal models that must keep working when sensors fail.

Importing this package does nothing; see ARCHITECTURE.md for the house.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mcutune.export.use import Model

__version__ = "0.1.0"


def load(model: str | Path, *, fold: str | None = None, seed: int | None = None) -> Model:
    """A trained model to predict with (docs/using_a_model.md).

    model: an exported folder; or a run of this home, RUN:TRIAL, or a checkpoint folder. fold: which winner, where a run
    has several. seed: one only; else predictions are averaged over all. Raises BadInput, Damaged (mcutune.errors).
    """
    from mcutune.export.use import load as load_model

    return load_model(model, fold=fold, seed=seed)
