"""The YAML of a search space: found, read, checked whole, made a Space."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mcutune.domain.objective import Objective
from mcutune.errors import BadInput, Problems
from mcutune.files import canonical_json
from mcutune.search.rungs import FEWEST_SCOUTS
from mcutune.search.space import Budget, Parameter, Role, Rungs, Sampler, Space
from mcutune.shipped import find_shipped
from mcutune.strict_yaml import Document, Findings, Where, did_you_mean, load, validated
from mcutune.training.config import Configuration, configuration

Number = int | float
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)


class RawParameter(BaseModel):
    model_config = _STRICT
    role: Role
    values: list[Any] | None = None
    low: Number | None = None
    high: Number | None = None
    log: bool = False
    step: Number | None = None


class RawRungs(BaseModel):
    model_config = _STRICT
    first: int = Field(ge=1)
    eta: int = Field(default=3, ge=2, le=16)
    scouts: int | None = Field(default=None, ge=FEWEST_SCOUTS, le=1000)


class RawSpace(BaseModel):
    """The keys of a space file; search_spaces/README.md explains them."""

    model_config = _STRICT
    question: str = ""
    cost: str = ""
    parameters: dict[str, RawParameter] = {}
    configurations: str | None = None
    fixed: dict[str, Any] = {}
    trials: int | None = Field(default=None, ge=1, le=1_000_000)
    seeds: int = Field(default=1, ge=1, le=100)
    lag: int | None = Field(default=None, ge=0, le=10_000)
    sampler: Sampler = "tpe"
    objective: str | dict[str, Any] = "mean"
    metric: str | None = None
    combinations: list[str] = []
    rungs: RawRungs | None = None
    budget: str | None = None
    data: str | None = None
    search_seed: int = Field(default=0, ge=0, le=2**31)

    @field_validator("rungs", mode="before")
    @classmethod
    def _no_rungs(cls, value: Any) -> Any:
        """`none` says it outright; as a union of types, an error inside would name the types."""
        return None if value == "none" else value


def load_space(name: str, **given: Any) -> Space:
    """The space of a path, or of a name among those shipped, with top-level keys `given` over the file's.

    Raises BadInput if there is no such file, Problems naming every error with file, line and key.
    """
    path = find_shipped(name, "search_spaces", "search space")
    document = load(path)
    if not isinstance(document.value, dict):
        raise BadInput(f"{path}: a mapping of keys to values is expected")
    text = path.read_text(encoding="utf-8")
    changed = {key: value for key, value in given.items() if value is not None}
    document = Document(document.name, {**document.value, **changed}, document.lines, frozenset(changed))
    return _build(document, validated(document, RawSpace), path, text)


def _build(document: Document, raw: RawSpace, path: Path, text: str) -> Space:
    findings = Findings(document)
    fixed = _fixed(findings, raw.fixed)
    parameters = tuple(
        parameter
        for name in sorted(raw.parameters)
        if (parameter := _parameter(findings, name, raw.parameters[name], fixed)) is not None
    )
    explicit = _explicit(findings, raw, path, fixed)
    _sampler(findings, raw.sampler, parameters)
    objective = _caught(findings, ("objective",), Objective.parse, raw.objective) or Objective()
    budget = _caught(findings, ("budget",), parse_budget, raw.budget) if raw.budget else None
    rungs = Rungs(raw.rungs.first, raw.rungs.eta, raw.rungs.scouts or 0) if raw.rungs else None
    trials = raw.trials or (len(explicit) + 1 if explicit else 0)
    if not trials:
        findings.add(("trials",), "missing: how many trials to run")
    elif rungs is not None and rungs.scouts >= trials:
        if "trials" in document.options:
            findings.add(("trials",), f"must be above the {rungs.scouts} scouts of the space")
        else:
            findings.add(("rungs", "scouts"), f"must be below trials ({trials}): all would be trained in full")
    if len(set(raw.combinations)) != len(raw.combinations):
        findings.add(("combinations",), "a label is listed twice")
    findings.close()
    return Space(
        name=path.stem, question=raw.question.strip(), cost=raw.cost.strip(), parameters=parameters, explicit=explicit,
        fixed=fixed, trials=trials, seeds=raw.seeds, lag=min(16, -(-trials // 4)) if raw.lag is None else raw.lag,
        sampler=raw.sampler, objective=objective, metric=raw.metric, combinations=tuple(raw.combinations), rungs=rungs,
        budget=budget, data=raw.data, search_seed=raw.search_seed, text=text,
    )  # fmt: skip


def parse_budget(text: str) -> Budget:
    """`90s`, `30m`, `2h`, `1d`, or of the search's GPUs: `2gpu-h`. Raises BadInput."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(gpu-)?(s|min|m|h|d)\s*", text)
    if not found or float(found[1]) <= 0:
        raise BadInput(f"budget {text!r} is not a time", hint="for example 90s, 30m, 2h, 1d, 2gpu-h")
    return Budget(float(found[1]) * _UNITS[found[3]], found[2] is not None)


def _caught(findings: Findings, where: Where, parse: Any, value: Any) -> Any:
    try:
        return parse(value)
    except BadInput as error:
        findings.add(where, str(error))
        return None


def _fixed(findings: Findings, values: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for name, value in values.items():
        if _known(findings, ("fixed", name)) and _valid(findings, ("fixed", name), name, value):
            kept[name] = value
    return dict(sorted(kept.items()))


def _known(findings: Findings, where: Where) -> bool:
    settings = Configuration.model_fields
    if where[-1] in settings:
        return True
    near = did_you_mean(str(where[-1]), settings)
    findings.add(where, f"not a training setting{near}", () if near else sorted(settings))
    return False


def _valid(findings: Findings, where: Where, name: str, value: Any) -> bool:
    """Whether the setting takes the value: asked of the configuration itself."""
    try:
        configuration({name: value})
    except Problems as error:
        for problem in error.problems:
            findings.add(where, problem.partition(": ")[2])
        return False
    return True


def _parameter(findings: Findings, name: str, raw: RawParameter, fixed: dict[str, Any]) -> Parameter | None:
    where: Where = ("parameters", name)
    if not _known(findings, where):
        return None
    before = len(findings.problems)
    if name in fixed:
        findings.add(where, "is also in `fixed`; keep one")
    parameter: Parameter | None
    if raw.values is not None:
        parameter = _listed(findings, where, raw)
    elif raw.low is None or raw.high is None:
        findings.add(where, "needs either `values`, or `low` and `high`")
        return None
    else:
        parameter = _ranged(findings, where, raw)
    return parameter if len(findings.problems) == before else None


def _listed(findings: Findings, where: Where, raw: RawParameter) -> Parameter:
    assert raw.values is not None
    extra = [key for key in ("low", "high", "step") if getattr(raw, key) is not None] + ["log"] * raw.log
    for key in extra:
        findings.add((*where, key), "does not go with `values`")
    if not raw.values:
        findings.add((*where, "values"), "is empty; list at least one value")
    keys = [canonical_json(value) for value in raw.values]
    for index, value in enumerate(raw.values):
        place = (*where, "values", index)
        if keys.index(keys[index]) < index:
            findings.add(place, f"{value!r} is listed twice")
        _valid(findings, place, str(where[-1]), value)
    return Parameter(str(where[-1]), raw.role, tuple(tuple(v) if isinstance(v, list) else v for v in raw.values))


def _ranged(findings: Findings, where: Where, raw: RawParameter) -> Parameter | None:
    assert raw.low is not None and raw.high is not None
    name = str(where[-1])
    kinds = {Configuration.model_fields[name].annotation, *get_args(Configuration.model_fields[name].annotation)}
    if not kinds & {int, float}:
        findings.add(where, "is not a number; list its `values`")
        return None
    integer = int in kinds
    for key in ("low", "high"):
        _valid(findings, (*where, key), name, getattr(raw, key))
    if raw.low >= raw.high:
        findings.add((*where, "low"), f"must be below high ({raw.low} >= {raw.high})")
    if raw.log and raw.low <= 0:
        findings.add((*where, "low"), f"must be above 0 with log (is {raw.low})")
    if raw.step is not None:
        _step(findings, where, raw, integer)
    cast = int if integer else float
    step = None if raw.step is None else cast(raw.step)
    return Parameter(name, raw.role, (), cast(raw.low), cast(raw.high), raw.log, step, integer)


def _step(findings: Findings, where: Where, raw: RawParameter, integer: bool) -> None:
    assert raw.low is not None and raw.high is not None and raw.step is not None
    place = (*where, "step")
    if raw.log:
        findings.add(place, "does not go with log")
    elif raw.step <= 0 or (integer and not isinstance(raw.step, int)):
        findings.add(place, f"must be {'a whole number ' if integer else ''}above 0 (is {raw.step})")
    elif raw.low < raw.high:
        steps = (raw.high - raw.low) / raw.step
        if abs(steps - round(steps)) > 1e-9:
            last = raw.low + math.floor(steps) * raw.step
            findings.add(place, f"does not lead from low to high; the last value would be {last:g}")


def _explicit(findings: Findings, raw: RawSpace, path: Path, fixed: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    if raw.configurations is None:
        if not raw.parameters:
            findings.add(("parameters",), "missing: name at least one, or give `configurations`")
        return ()
    if raw.parameters:
        findings.add(("configurations",), "does not go with `parameters`; keep one")
    listed = load(path.parent / raw.configurations)
    if not isinstance(listed.value, list) or not all(isinstance(entry, dict) for entry in listed.value):
        raise BadInput(f"{listed.at(())}: a list of configurations (mappings) is expected")
    inner = Findings(listed)
    for index, entry in enumerate(listed.value):
        for name, value in entry.items():
            if _known(inner, (index, name)):
                _valid(inner, (index, name), name, value)
            if name in fixed:
                inner.add((index, name), "is also in `fixed` of the space; keep one")
    if not listed.value:
        inner.add((), "lists no configuration")
    findings.problems.extend(inner.problems)
    return tuple(dict(sorted(entry.items())) for entry in listed.value)


def _sampler(findings: Findings, sampler: str, parameters: tuple[Parameter, ...]) -> None:
    if sampler == "grid":
        for parameter in parameters:
            if parameter.size is None:
                findings.add(("parameters", parameter.name), "the grid needs `values`, or a `step`")
    ordered = sum(bool(parameter.ordinal or not parameter.values) for parameter in parameters)
    if sampler == "cmaes" and parameters and ordered < 2:
        findings.add(("sampler",), "cmaes needs at least two parameters with numbers", ("tpe", "gp", "qmc", "random"))
