"""Features to zero mean and unit variance, by training rows or by each group's own rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from mcutune.data.columns import Array, NormalisationMode
from mcutune.errors import BadInput

_LEAST = 2  # rows of a group that have the modality; with fewer, the training rows' statistics are used


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Mean and standard deviation of the training rows, modality to float32 [D].

    Mode `train`: used for every row. `group`: each group by the statistics of its own rows, labelled or not; these
    only where a group has too few rows or is unknown. `none`: mean 0 and deviation 1.
    """

    mode: NormalisationMode
    mean: dict[str, Array]
    std: dict[str, Array]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form; `from_json` gives back the same bits."""
        mean = {name: values.tolist() for name, values in self.mean.items()}
        return {"mode": self.mode, "mean": mean, "std": {name: values.tolist() for name, values in self.std.items()}}

    @staticmethod
    def from_json(value: Any) -> Normalisation:
        """Raises BadInput where it is not what `to_json` gives."""
        try:
            mode, mean, std = value["mode"], _arrays(value["mean"]), _arrays(value["std"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise BadInput("normalisation is not valid: mode, mean and std are needed") from None
        if mode not in get_args(NormalisationMode):
            raise BadInput(f"normalisation mode {mode!r} is not valid", hint="valid: train, group, none")
        if {name: v.shape for name, v in mean.items()} != {name: v.shape for name, v in std.items()}:
            raise BadInput("normalisation is not valid: mean and std differ in modalities or dimensions")
        if not all(np.isfinite(v).all() for v in mean.values()):
            raise BadInput("normalisation is not valid: a mean is not finite")
        if not all((np.isfinite(v) & (v > 0)).all() for v in std.values()):
            raise BadInput("normalisation is not valid: a standard deviation is not positive and finite")
        return Normalisation(mode, mean, std)


def _arrays(value: Any) -> dict[str, Array]:
    arrays = {name: np.asarray(values, dtype=np.float32) for name, values in value.items()}
    if any(array.ndim != 1 for array in arrays.values()):
        raise ValueError("one value a feature")
    return arrays


def fit(features: dict[str, Array], presence: Array, rows: Array, mode: NormalisationMode) -> Normalisation:
    """Statistics of the training rows.

    `features`: modality to [N, D]; `presence`: bool [N, M] in the same order; `rows`: training row numbers.
    Rows without a modality do not count for it. Raises BadInput for an unknown mode.
    """
    if mode not in get_args(NormalisationMode):
        raise BadInput(f"normalisation mode {mode!r} is not valid", hint="valid: train, group, none")
    mean, std = {}, {}
    for m, (name, values) in enumerate(features.items()):
        present = np.asarray(rows)[presence[rows, m]]
        if mode == "none" or not len(present):
            mean[name], std[name] = np.zeros(values.shape[1], np.float32), np.ones(values.shape[1], np.float32)
        else:
            mean[name], std[name] = _statistics(values[present])
    return Normalisation(mode, mean, std)


def _statistics(values: Array) -> tuple[Array, Array]:
    """Mean and deviation [D] of [n, D], summed in float64; a constant feature has deviation 1."""
    mean = values.mean(axis=0, dtype=np.float64)
    std = values.std(axis=0, dtype=np.float64).astype(np.float32)
    # A constant column may show a deviation of rounding size: dividing by it would blow noise up.
    constant = (std <= 1e-7 * np.abs(mean)) | (std == 0)
    return mean.astype(np.float32), np.where(constant, np.float32(1), std)


def apply(
    normalisation: Normalisation, features: dict[str, Array], presence: Array, group: Array | None
) -> dict[str, Array]:
    """Normalised features, modality to new float32 [N, D]; rows without the modality are zero.

    `group`: codes [N], or None where groups are unknown. Raises BadInput where modalities or dimensions differ.
    """
    expected = {name: len(mean) for name, mean in normalisation.mean.items()}
    found = {name: values.shape[1] for name, values in features.items()}
    if list(expected.items()) != list(found.items()):
        raise BadInput(f"features are {found}, the normalisation is for {expected}")
    result = {}
    for m, (name, values) in enumerate(features.items()):
        present = presence[:, m]
        scaled = _scale(values, normalisation.mean[name], normalisation.std[name])
        if normalisation.mode == "group" and group is not None:
            for rows in _groups(group, present):
                if len(rows) >= _LEAST:
                    scaled[rows] = _scale(values[rows], *_statistics(values[rows]))
        scaled[~present] = 0
        result[name] = scaled
    return result


def _scale(values: Array, mean: Array, std: Array) -> Array:
    return ((values - mean) / std).astype(np.float32)


def _groups(group: Array, present: Array) -> Iterator[Array]:
    """Row numbers of each group, of those rows that are present."""
    rows = np.flatnonzero(present)
    rows = rows[np.argsort(group[rows], kind="stable")]
    yield from np.split(rows, np.flatnonzero(np.diff(group[rows])) + 1)
