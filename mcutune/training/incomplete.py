"""Training rows that are incomplete themselves: part of what they have is hidden, before anything is fitted on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mcutune.data.views import FoldData
from mcutune.model.noise import Place, stream


def incomplete(data: FoldData, rate: float) -> FoldData:
    """The fold with a share `rate` of what its training rows have hidden; validation rows as they are.

    Every row keeps one of its modalities, drawn evenly; of the others exactly as many are hidden as the rate asks for
    (or all of them, where it asks for more). A function of the rows and the rate alone, the same for every lane; what
    is hidden at a rate is hidden at every higher one.
    """
    if not rate:
        return data
    uniform = stream(0, 0, Place.HIDDEN).random((2, *data.presence.shape))
    training = data.presence & ~data.validation[:, None]
    spare = training.copy()
    rows = np.flatnonzero(training.any(axis=1))
    spare[rows, np.where(training, uniform[0], np.inf)[rows].argmin(axis=1)] = False
    row, modality = np.nonzero(spare)
    first = np.argsort(uniform[1][row, modality], kind="stable")[: round(rate * training.sum())]
    presence = data.presence.copy()
    presence[row[first], modality[first]] = False
    features = {name: np.where(presence[:, [m]], data.features[name], np.float32(0)) for m, name in
                enumerate(data.modalities)}  # fmt: skip
    return replace(data, presence=presence, features=features)
