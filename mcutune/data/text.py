"""Values of any plain type as text, the form in which names of rows, dialogues, groups and folds are kept."""

from __future__ import annotations

import numpy as np

from mcutune.data.columns import Array
from mcutune.errors import BadInput


def as_text(values: Array) -> Array:
    """[N] of any plain type as str: whole numbers without a point, NaN as empty. Raises BadInput."""
    if values.ndim != 1:
        raise BadInput(f"is {values.shape}, not one value a row")
    if values.dtype.kind == "U":
        return np.char.strip(values)
    if values.dtype.kind == "S":
        try:
            return np.char.strip(np.char.decode(values, "utf-8"))
        except UnicodeDecodeError:
            raise BadInput("holds text that is not UTF-8") from None
    if values.dtype.kind == "f":
        return np.array([_number(value) for value in values.tolist()], dtype=np.str_)
    return values.astype(np.str_)


def _number(value: float) -> str:
    if value != value:
        return ""
    return str(int(value)) if value.is_integer() else repr(value)
