"""From one corpus to another: how the target's labels are read as the model's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mcutune.errors import BadInput, Problems
from mcutune.robustness.kinds import CrossDataset

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LabelReading:
    """How a target's classes are read: name to the model's name; names whose rows are dropped."""

    map: Mapping[str, str]
    dropped: tuple[str, ...]


def read_labels(
    protocol: CrossDataset, model: Sequence[str], target: Sequence[str], occurring: set[str]
) -> LabelReading:
    """The class of the model that each label of the target stands for.

    An equal name comes first; else the one class of the model that means the same. `occurring`: the labels that have
    rows. Raises Problems naming every label that is neither read, nor dropped, nor clear.
    """
    unknown = [name for name in protocol.drop if name not in target]
    problems = [f"drop: the target has no label {name!r} (valid: {', '.join(target)})" for name in unknown]
    read: dict[str, str] = {}
    for name in target:
        if name in protocol.drop or name not in occurring:
            continue
        same = [name] if name in model else [one for one in model if _means(protocol, one) == _means(protocol, name)]
        if len(same) == 1:
            read[name] = same[0]
        elif same:
            problems.append(f"label {name!r} may mean {' or '.join(map(repr, same))}")
        else:
            problems.append(f"label {name!r} has no class of the model (it has {', '.join(model)})")
    if problems:
        raise Problems(
            f"protocol {protocol.id}: the target's labels cannot be read; add them to label_map, or to drop",
            problems=tuple(problems),
        )
    if not read:
        raise BadInput(f"protocol {protocol.id}: every label of the target is dropped")
    return LabelReading(read, tuple(name for name in target if name in protocol.drop))


def _means(protocol: CrossDataset, name: str) -> str:
    return protocol.label_map.get(name, name)


def reading_table(reading: LabelReading, model: Sequence[str], target: Sequence[str]) -> Array:
    """Class of the model for each label index of the target, int64; −1 where its rows are dropped or do not occur."""
    names = list(model)
    return np.array([names.index(reading.map[name]) if name in reading.map else -1 for name in target], dtype=np.int64)
