"""CPM-Net's and GCNet's generator of missing views, as published: one view kept, others at a corrected ratio, again and
again until the rate fits. Slow and approximate on purpose; only its distribution is compared."""

from __future__ import annotations

import numpy as np


def published_masks(rows: int, views: int, rate: float, random: np.random.Generator) -> np.ndarray:
    """Presence [rows, views] at a missing rate, within 0.005 of it."""
    one_rate = 1 - rate
    if one_rate <= 1 / views + 1e-9:
        return np.eye(views, dtype=bool)[random.integers(views, size=rows)]
    if one_rate == 1:
        return np.ones((rows, views), dtype=bool)
    while True:
        kept = np.eye(views, dtype=int)[random.integers(views, size=rows)]
        wanted = views * rows * one_rate - rows
        first = (random.random((rows, views)) < wanted / (views * rows)).astype(int)
        lost = int(((first + kept) > 1).sum())
        corrected = wanted / (1 - lost / wanted)
        more = (random.random((rows, views)) < corrected / (views * rows)).astype(int)
        mask = (more + kept) > 0
        if abs(one_rate - mask.mean()) < 0.005:
            return mask
