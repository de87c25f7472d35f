"""What a search maximises: one number from the metric of every measured combination.

Lanes choose their best epoch by it, the search its best trial; both call `scalar`, so both choose alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mcutune.domain.combination import Modalities, combinations
from mcutune.domain.task import METRICS
from mcutune.errors import BadInput

KINDS = ("mean", "worst", "cvar", "area", "mix")
MISSING_RATES = tuple(rate / 10 for rate in range(8))  # 0 to .7, as the random protocols of the literature use


@dataclass(frozen=True)
class Objective:
    """A way to make one number of C scores.

    mean: over combinations. worst: the lowest. cvar: the mean of the lowest share `alpha` of the combinations.
    area: the mean over missing rates 0 to .7, every modality missing independently and at least one present.
    mix: weights a deployment names, label to weight.
    """

    kind: str = "mean"
    alpha: float | None = None
    weights: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, value: Any) -> Objective:
        """From `mean`, `worst`, `area`, `{cvar: 0.25}`, `cvar(0.25)` or `{mix: {label: weight}}`; else BadInput."""
        if isinstance(value, str) and value.startswith("cvar(") and value.endswith(")"):
            value = {"cvar": _number(value[5:-1])}
        if value in ("mean", "worst", "area"):
            return cls(value)
        if isinstance(value, dict) and list(value) == ["cvar"]:
            alpha = value["cvar"]
            if _is_number(alpha) and 0 < alpha <= 1:
                return cls("cvar", alpha=float(alpha))
            raise BadInput(f"cvar needs a share above 0 and at most 1, not {alpha!r}")
        if isinstance(value, dict) and list(value) == ["mix"]:
            weights = value["mix"]
            positive = isinstance(weights, dict) and all(_is_number(w) and w >= 0 for w in weights.values())
            if positive and sum(weights.values()) > 0:
                return cls("mix", weights=tuple(sorted((label, float(w)) for label, w in weights.items())))
            raise BadInput("mix needs labels with weights of at least 0, not all 0")
        raise BadInput(
            f"objective {value!r} does not exist",
            hint="valid: mean, worst, area, {cvar: 0.25}, {mix: {audio+text: 0.5}}",
        )

    def to_json(self) -> Any:
        """What `parse` reads."""
        if self.kind == "cvar":
            return {"cvar": self.alpha}
        return {"mix": dict(self.weights)} if self.kind == "mix" else self.kind


def scalar(
    scores: Sequence[float] | npt.NDArray[Any],
    measured: Sequence[int],
    modalities: Sequence[str],
    objective: Mapping[str, Any] | str,
    metric: str,
) -> float:
    """The objective of scores [C] (the metric, unsigned); higher is better.

    `measured`: the canonical index of the combination of each score, C of them. `objective`: as in `Objective.parse`.
    Raises BadInput for a label that is unknown or not measured.
    """
    parsed = Objective.parse(objective)
    sign = 1.0 if METRICS[metric].higher_is_better else -1.0
    signed = sign * np.asarray(scores, dtype=np.float64)
    if parsed.kind == "worst":
        return float(signed.min())
    if parsed.kind == "cvar":
        assert parsed.alpha is not None
        share = np.clip(parsed.alpha * len(signed) - np.arange(len(signed)), 0.0, 1.0)
        return float(np.sort(signed) @ share / share.sum())
    return float(signed @ weights(parsed, tuple(measured), tuple(modalities)))


@lru_cache(maxsize=64)
def weights(objective: Objective, measured: tuple[int, ...], modalities: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """The weight [C] of each measured combination under mean, area or mix; they sum to 1."""
    every = combinations(len(modalities))
    raw = np.ones(len(measured))
    if objective.kind == "area":
        count = len(modalities)
        sizes = np.array([every[index].size for index in measured])
        rates = np.array(MISSING_RATES)[:, None]
        chance = (1 - rates) ** sizes * rates ** (count - sizes)  # [rates, C]
        raw = (chance / np.maximum(chance.sum(axis=1, keepdims=True), np.finfo(float).tiny)).mean(axis=0)
    elif objective.kind == "mix":
        names = Modalities(modalities)
        places = {every[index]: place for place, index in enumerate(measured)}
        raw = np.zeros(len(measured))
        for label, weight in objective.weights:
            combination = names.parse(label)
            if combination not in places:
                raise BadInput(f"the mix names {label!r}, which is not measured")
            raw[places[combination]] += weight
    result: npt.NDArray[np.float64] = raw / raw.sum()
    result.setflags(write=False)
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
