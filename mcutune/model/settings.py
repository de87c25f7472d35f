"""The configuration as the model layer reads it back from a checkpoint: plain values with attribute access."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


def settings(configuration: dict[str, Any]) -> SimpleNamespace:
    """Values with the adapter scale: alpha / r, or alpha / sqrt(r)."""
    rank = configuration["rank"]
    scale = configuration["alpha"] / (rank if configuration["rank_scaling"] == "alpha/r" else rank**0.5)
    return SimpleNamespace(**configuration, scale=scale)
