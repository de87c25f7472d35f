"""The fingerprint of a protocol on a table: what was really missing, in numbers, and a hash of every mask.

Axes: N rows, M modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import entropy

from mcutune.domain.combination import Modalities, combination_index
from mcutune.files import canonical_json, sha256
from mcutune.robustness.kinds import CrossDataset, Fixed, Protocol
from mcutune.robustness.scenarios import Pattern

Array = npt.NDArray[Any]


def bits_of(presence: Array) -> Array:
    """Presence [.., M] as bit masks [..], int32: bit m is modality m."""
    return (presence.astype(np.int32) << np.arange(presence.shape[-1], dtype=np.int32)).sum(axis=-1, dtype=np.int32)


@dataclass(frozen=True, eq=False)
class Classes:
    """What labels were cut into, where missing depends on them: names, and codes [N] of the rows."""

    names: tuple[str, ...]
    of_row: Array


def fingerprint(
    protocol: Protocol, dataset: str, table_hash: str, names: Modalities, patterns: Sequence[Pattern],
    classes: Classes | None = None, noise: Sequence[str] = (),
) -> Any:  # fmt: skip
    """The `fingerprint` of a report's protocol: seed, realised rates, histograms over combinations, and their hash.

    `noise`: a hash of each draw of the noise that was added.
    """
    scenarios = [_realised(pattern, names, classes) for pattern in patterns]
    digests = [[one.scenario.name, sha256(bits_of(one.presence).astype("<i4").tobytes())] for one in patterns]
    rows = patterns[0].presence.shape[1]
    entry = {"dataset": dataset, "table_hash": table_hash, "rows": rows, "scenarios": scenarios}
    seed, masks = (None, 1) if isinstance(protocol, Fixed | CrossDataset) else (protocol.seed, protocol.masks)
    meaning = [protocol.hash, names.names, entry, digests, list(noise)]
    return {"hash": sha256(canonical_json(meaning)), "seed": seed, "masks": masks, "datasets": [entry]}


def _realised(pattern: Pattern, names: Modalities, classes: Classes | None) -> dict[str, Any]:
    index = combination_index(pattern.presence)
    counts = np.bincount(index[index >= 0].ravel(), minlength=len(names.labels))
    missing = 1 - pattern.presence.mean(axis=(0, 1))
    made = {
        "scenario": pattern.scenario.name,
        "rate": pattern.scenario.level,
        "realised": round(float(1 - pattern.presence.mean()), 6),
        "capped": pattern.scenario.capped,
        "histogram": {label: int(n) for label, n in zip(names.labels, counts, strict=True) if n},
        "nothing": int((index < 0).sum()),
        "missing": {name: round(float(rate), 6) for name, rate in zip(names.names, missing, strict=True)},
    }
    return made if classes is None else made | _of_classes(pattern, index, classes)


def _of_classes(pattern: Pattern, index: Array, classes: Classes) -> dict[str, Any]:
    """Realised rate of each class, and the mutual information, in nats, of class and what is left."""
    lost = {}
    for k, name in enumerate(classes.names):
        rows = classes.of_row == k
        if rows.any():
            lost[name] = round(float(1 - pattern.presence[:, rows].mean()), 6)
    joint = np.zeros((len(classes.names), int(index.max()) + 2))
    np.add.at(joint, (np.broadcast_to(classes.of_row, index.shape), index + 1), 1)
    information = entropy(joint.sum(axis=1)) + entropy(joint.sum(axis=0)) - entropy(joint, axis=None)
    return {"classes": lost, "information": round(max(float(information), 0.0), 6)}
