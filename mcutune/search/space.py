"""What is searched: parameters, fixed settings and the rules of the search, frozen and hashed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from mcutune.domain.objective import Objective
from mcutune.files import canonical_json, sha256
from mcutune.training.config import SHAPE_KEYS, Configuration, configuration

Sampler = Literal["tpe", "gp", "cmaes", "qmc", "grid", "random"]
Role = Literal["scientific", "nuisance"]

_OF_ENCODER = {  # settings that only one architecture reads
    "frozen": {name for name in Configuration.model_fields if name.startswith("encoder_")} | {"draw"},
    "trained": {"width", "depth", "heads"},
}


@dataclass(frozen=True)
class Parameter:
    """A searched setting: either listed `values`, or a range `low` to `high`, both ends included.

    `integer` follows from the setting's type. `step` counts from `low`. `ordinal`: the values are numbers, ascending.
    """

    name: str
    role: Role
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    integer: bool = False

    @property
    def ordinal(self) -> bool:
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values)
        return bool(self.values) and numbers and list(self.values) == sorted(self.values)

    @property
    def size(self) -> int | None:
        """How many values there are; None for a continuous range."""
        if self.values:
            return len(self.values)
        step = self.step or (1 if self.integer else None)
        return None if step is None else math.floor((self.high - self.low) / step + 1e-9) + 1

    def at(self, u: float) -> Any:
        """The value at u in [0, 1): log and steps are followed, every value of a finite parameter is equally likely."""
        if self.size is not None and not self.log:
            return self.nth(min(int(u * self.size), self.size - 1))
        if not self.log:
            return min(self.low + u * (self.high - self.low), self.high)
        half = 0.5 if self.integer else 0.0
        low, high = math.log(self.low - half), math.log(self.high + half)
        value = math.exp(low + u * (high - low))
        value = min(max(value, self.low), self.high)
        return round(value) if self.integer else value

    def place(self, value: Any) -> float:
        """The u in [0, 1) that `at` maps to the value (the middle of its cell where finite)."""
        if self.size is not None and not self.log:
            index = self.values.index(value) if self.values else round((value - self.low) / (self.step or 1))
            return (index + 0.5) / self.size
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        half = 0.5 if self.integer else 0.0
        low, high = math.log(self.low - half), math.log(self.high + half)
        return (math.log(value) - low) / (high - low)

    def nth(self, index: int) -> Any:
        """The value with this number (from 0) of a finite parameter."""
        if self.values:
            return self.values[index]
        value = self.low + index * (self.step or 1)
        return round(value) if self.integer else min(value, self.high)

    def contains(self, value: Any) -> bool:
        """Whether the value is one that a proposal could have."""
        if self.values:
            return value in self.values
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return not self.step or abs((value - self.low) / self.step - round((value - self.low) / self.step)) < 1e-9

    def boundary(self, value: Any) -> Literal["low", "high"] | None:
        """Which end of an ordered parameter the value lies on (within 1 % of a range), if any."""
        if not (self.ordinal or not self.values):
            return None
        if self.values:
            ends: tuple[Any, Any] = (self.values[0], self.values[-1])
            return "low" if value == ends[0] else "high" if value == ends[1] else None
        scale = math.log if self.log else float
        share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return "low" if share <= 0.01 else "high" if share >= 0.99 else None

    def to_json(self) -> dict[str, Any]:
        if self.values:
            return {"role": self.role, "values": [list(v) if isinstance(v, tuple) else v for v in self.values]}
        return {"role": self.role, "low": self.low, "high": self.high, "log": self.log, "step": self.step}

    @classmethod
    def from_json(cls, name: str, facts: dict[str, Any]) -> Parameter:
        """What `to_json` wrote; `integer` is not kept, and not needed to place a value."""
        if "values" in facts:
            return cls(name, facts["role"], tuple(tuple(v) if isinstance(v, list) else v for v in facts["values"]))
        return cls(name, facts["role"], (), facts["low"], facts["high"], facts["log"], facts["step"])


@dataclass(frozen=True)
class Rungs:
    """Budgets in epochs at which trials are compared: first, first·eta, first·eta², …; the best 1/eta go on.

    scouts: so many first trials go on in any case, to measure how far the rungs can be trusted (search/rungs.py).
    """

    first: int
    eta: int = 3
    scouts: int = 0

    def below(self, epochs: int) -> tuple[int, ...]:
        """The rungs of a lane that trains for so many epochs in all."""
        found = []
        rung = self.first
        while rung < epochs:
            found.append(rung)
            rung *= self.eta
        return tuple(found)

    def to_json(self) -> dict[str, int]:
        """Without scouts as before there were any: such a space is still the same search."""
        return {"first": self.first, "eta": self.eta} | ({"scouts": self.scouts} if self.scouts else {})


@dataclass(frozen=True)
class Budget:
    """How long proposals go on: seconds of the search, or of its GPUs."""

    seconds: float
    gpu: bool = False


@dataclass(frozen=True)
class Space:
    """A search, whole. `parameters` ascend by name; `explicit` lists configurations to try instead of proposals.

    `own`: settings of single folds, over `fixed`. `padded_rank`: counts as a trial's rank for `max_rank`.
    """

    name: str
    question: str
    cost: str
    parameters: tuple[Parameter, ...]
    explicit: tuple[dict[str, Any], ...]
    fixed: dict[str, Any]
    trials: int
    seeds: int
    lag: int
    sampler: Sampler
    objective: Objective
    metric: str | None
    combinations: tuple[str, ...]
    rungs: Rungs | None
    budget: Budget | None
    data: str | None
    search_seed: int
    text: str
    own: dict[str, dict[str, Any]] = field(default_factory=dict)
    padded_rank: int = 0

    def of(self, fold: str) -> Space:
        """The search of one fold."""
        return replace(self, fixed={**self.fixed, **self.own[fold]}, own={}) if fold in self.own else self

    def configuration(self, values: dict[str, Any]) -> Configuration:
        """The configuration of a trial: defaults, then fixed settings, then these values."""
        return configuration({**self.fixed, **values})

    @cached_property
    def default(self) -> Configuration:
        """Trial 0: the paper's default under the fixed settings."""
        return self.configuration({})

    @property
    def size(self) -> int | None:
        """How many configurations there are; None where a parameter is continuous."""
        sizes = [parameter.size for parameter in self.parameters]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    @property
    def shapes_differ(self) -> bool:
        """Whether not all trials can lie in one pack."""
        names = {name for values in (*self.explicit, *self.own.values()) for name in values}
        names |= {parameter.name for parameter in self.parameters}
        return not names.isdisjoint(SHAPE_KEYS)

    def choices(self, key: str) -> set[Any]:
        """The values that a trial may have of a key that is not a range."""
        listed = {values[key] for values in (*self.explicit, *self.own.values()) if key in values}
        searched = next((p.values for p in self.parameters if p.name == key), ())
        return {getattr(self.default, key), *searched, *listed}

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Settings that are fixed or searched although no trial has the architecture that reads them."""
        read = set().union(*(_OF_ENCODER[encoder] for encoder in self.choices("encoder")))
        named = {*self.fixed, *(p.name for p in self.parameters), *(name for one in self.explicit for name in one)}
        return tuple(sorted(named & set().union(*_OF_ENCODER.values()) - read))

    @property
    def max_rank(self) -> int:
        """The largest rank any trial can have."""
        ranks = [self.padded_rank, self.default.rank, *(values.get("rank", 0) for values in self.explicit)]
        for parameter in self.parameters:
            if parameter.name == "rank":
                ranks.extend(parameter.values or (int(parameter.high),))
        return max(ranks)

    def canonical(self) -> dict[str, Any]:
        """Everything that decides what trial k is and how it is judged; neither texts nor where the search stops."""
        return {
            "parameters": {parameter.name: parameter.to_json() for parameter in self.parameters},
            "configurations": [dict(sorted(values.items())) for values in self.explicit],
            "default": self.default.canonical(),
            "seeds": self.seeds,
            "lag": self.lag,
            "sampler": self.sampler,
            "objective": self.objective.to_json(),
            "metric": self.metric,
            "combinations": sorted(self.combinations),
            "rungs": self.rungs.to_json() if self.rungs else None,
            "search_seed": self.search_seed,
            **({"own": self.own, "padded_rank": self.padded_rank} if self.own else {}),
        }

    @cached_property
    def hash(self) -> str:
        """SHA-256 of `canonical`: the order of keys in the file does not matter."""
        return sha256(canonical_json(self.canonical()))


def difference(before: Any, after: Any, path: str = "") -> list[str]:
    """What changed between two canonical forms, a line each: `parameters.rank.high: 16 -> 32`."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        inner = (difference(before.get(k), after.get(k), f"{path}.{k}" if path else str(k)) for k in keys)
        return [line for lines in inner for line in lines]
    return [] if before == after else [f"{path}: {_shown(before)} -> {_shown(after)}"]


def _shown(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
