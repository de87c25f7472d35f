"""A gate: conditions on a report, in versioned YAML, decided by the interval and not by the value alone.

A floor is passed where the lower bound holds it, failed where the upper bound does not; in between, and where there is
no interval, the data cannot say. All conditions must pass, so none is adjusted for the number of the others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mcutune.domain.task import METRICS
from mcutune.files import canonical_json, read_json, sha256, whole
from mcutune.robustness.contrasts import CALIBRATED, Contrasts, Place
from mcutune.robustness.measure import Entry
from mcutune.shipped import find_shipped
from mcutune.strict_yaml import Document, Findings, load, validated

SCHEMA = 1
FILE = "gate.json"
PASS: Literal["pass"] = "pass"
FAIL: Literal["fail"] = "fail"
INCONCLUSIVE: Literal["inconclusive"] = "inconclusive"
Outcome = Literal["pass", "fail", "inconclusive"]
_FRAMING = {"title", "notes"}
_DEMANDS = ("at_least", "at_most", "drop_at_most", "not_worse_than")
_ANY_SIZE = ("mae", "pearson", "brier", "nll")  # not fractions of 0 to 1


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class NotWorse(_Strict):
    """`model`: another of the report; `margin`: the loss against it that is accepted."""

    model: str
    margin: float = Field(gt=0)


class Condition(_Strict):
    """One demand on one number of the subject."""

    metric: str
    protocol: str | None = None
    combination: str | None = None
    scenario: str | None = None
    summary: str | None = None
    index: str | None = None
    stage: Literal["before", "after"] | None = None
    at_least: float | None = None
    at_most: float | None = None
    drop_at_most: float | None = Field(default=None, gt=0)
    not_worse_than: NotWorse | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Condition:
        demands = [name for name in _DEMANDS if getattr(self, name) is not None]
        if len(demands) != 1:
            raise ValueError(f"exactly one of {', '.join(_DEMANDS)} is expected")
        places = [name for name in ("combination", "summary", "index") if getattr(self, name) is not None]
        if len(places) > 1 or not (places or self.scenario):
            raise ValueError("one of combination, scenario, summary, index is expected")
        if self.index is not None and demands[0] not in ("at_least", "at_most"):
            raise ValueError(f"an index has no {demands[0]}: use at_least or at_most")
        if self.summary == "worst" and demands[0] not in ("at_least", "at_most"):
            raise ValueError(f"the worst combination has no {demands[0]}: name the combination itself")
        if self.summary == "cvar" and demands[0] not in ("at_least", "at_most"):
            raise ValueError(f"cvar, a mean of other combinations in each model, has no {demands[0]}: use a mean")
        if self.metric in CALIBRATED and (demands[0] != "at_most" or places != ["combination"]):
            raise ValueError(f"{self.metric} takes combination and at_most: lower is better, and it has no other place")
        if self.metric in CALIBRATED and (self.protocol or self.scenario):
            raise ValueError(f"{self.metric} belongs to no protocol or scenario")
        if self.metric not in CALIBRATED and self.stage is not None:
            raise ValueError(f"a stage belongs to {', '.join(CALIBRATED)}: before the temperature, or after it")
        return self

    @property
    def place(self) -> str:
        stage = f"{self.stage} the temperature" if self.stage else None
        parts = [self.combination or self.summary or self.index, self.scenario, stage]
        return ", ".join(part for part in parts if part)

    @property
    def looked_up(self) -> Place:
        stage = (self.stage or "before") if self.metric in CALIBRATED else None
        return Place(
            self.protocol, self.metric, self.combination, self.scenario, self.summary, self.index, stage
        )  # fmt: skip

    @property
    def limits(self) -> dict[str, float]:
        """What is demanded, by the key that says it."""
        margin = {} if self.not_worse_than is None else {"not_worse_than": self.not_worse_than.margin}
        asked = {name: getattr(self, name) for name in _DEMANDS[:3]}
        return margin | {name: value for name, value in asked.items() if value is not None}


class Gate(_Strict):
    id: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    version: int = Field(ge=1)
    title: str = Field(min_length=1)
    notes: list[str] = []
    conditions: list[Condition] = Field(min_length=1, max_length=1000)

    @property
    def hash(self) -> str:
        """SHA-256 of the meaning: everything but title and notes."""
        return sha256(canonical_json(self.model_dump(mode="json", exclude=_FRAMING)))


@dataclass(frozen=True)
class Loaded:
    """A gate, and the document that it was read from, which knows the lines."""

    gate: Gate
    document: Document


@dataclass(frozen=True)
class Decided:
    """A condition with its numbers. `limit`: what the interval is held against."""

    condition: str
    protocol: str
    metric: str
    place: str
    value: float | None
    low: float | None
    high: float | None
    limit: float
    interval: str
    outcome: Outcome
    reason: str


def load_gate(given: str) -> Loaded:
    """The gate of a path, or of a name among those shipped in eval_protocols/gates/.

    Raises BadInput where there is none, Problems for everything in it that is not valid.
    """
    document = load(find_shipped(given, "eval_protocols/gates", "gate"))
    gate = validated(document, Gate)
    findings = Findings(document)
    for n, one in enumerate(gate.conditions):
        where = ("conditions", n)
        if one.metric not in (*METRICS, *CALIBRATED):
            findings.add((*where, "metric"), f"no metric is {one.metric!r}", (*METRICS, *CALIBRATED))
        elif (problem := _out_of_range(one)) is not None:
            findings.add(where, problem)
        elif one.metric in CALIBRATED:
            continue
        elif one.index is None and (one.at_least if _lower(one.metric) else one.at_most) is not None:
            word = ("at_most", "lower") if _lower(one.metric) else ("at_least", "higher")
            findings.add(where, f"{word[1]} is better for {one.metric}: use {word[0]}")
    findings.close()
    return Loaded(gate, document)


def _out_of_range(condition: Condition) -> str | None:
    """What is wrong with a limit that no value can reach, such as a score in per cent."""
    if condition.index is not None or condition.metric in _ANY_SIZE:
        return None
    for key, limit in condition.limits.items():
        if not 0 <= limit <= 1:
            meant = f", did you mean {_share(limit)}?" if 1 < limit <= 100 else ""
            return f"{key}: {condition.metric} lies between 0 and 1 (got {limit:g}{meant})"
    return None


def _share(per_cent: float) -> str:
    """70 as 0.70."""
    share = round(per_cent / 100, 6)
    return f"{share:.2f}" if round(share, 2) == share else f"{share:g}"


def decide(loaded: Loaded, report: Entry, evidence: Path, digest: str) -> Entry:
    """What gate.json holds: every condition with its numbers, and the worst outcome. `digest`: of report.json.

    Raises Problems where a condition names what the report has not measured, naming what there is; Damaged where
    the stored predictions are needed and are not what was written.
    """
    contrasts, findings = Contrasts(report, evidence), Findings(loaded.document)
    decided = [_self_checks(report)]
    for n, condition in enumerate(loaded.gate.conditions):
        one = _decided(condition, contrasts, findings, n)
        if one is not None:
            decided.append(one)
    findings.close()
    outcomes = [one.outcome for one in decided]
    gate = loaded.gate
    return {
        "schema": SCHEMA,
        "gate": {"id": gate.id, "version": gate.version, "title": gate.title, "hash": gate.hash, "notes": gate.notes},
        "report": {"sha256": digest, "model": contrasts.subject, "created": report["provenance"]["created"]},
        "outcome": next(name for name in (FAIL, INCONCLUSIVE, PASS) if name in outcomes),
        "conditions": [asdict(one) for one in decided],
    }


def read_verdict(report_json: Path) -> Entry | None:
    """The gate.json beside a report.json; None where there is none, or where it was decided on another report.

    Raises Damaged where it is not what was written.
    """
    path = report_json.with_name(FILE)
    if not path.exists():
        return None
    verdict: Entry = whole(read_json(path), path)
    digest = verdict.get("report", {}).get("sha256") if isinstance(verdict, dict) else None
    return verdict if digest == sha256(report_json.read_bytes()) else None


def sentence(verdict: Entry) -> str:
    """The outcome in a line, and the first condition that decided it."""
    of = [one for one in verdict["conditions"] if one["outcome"] == verdict["outcome"]]
    words = {PASS: "is passed", FAIL: "is failed", INCONCLUSIVE: "cannot be decided"}[verdict["outcome"]]
    text = f"gate {verdict['gate']['id']}, version {verdict['gate']['version']}, {words}"
    if verdict["outcome"] == PASS:
        return f"{text}: {len(of)} conditions hold"
    more = f" (and {len(of) - 1} more)" if len(of) > 1 else ""
    return f"{text}: {of[0]['condition']}: {of[0]['reason']}{more}"


def _lower(metric: str) -> bool:
    return not METRICS[metric].higher_is_better


def _self_checks(report: Entry) -> Decided:
    failed = [check["name"] for check in report["checks"] if not check["passed"]]
    count, passed = len(report["checks"]), len(report["checks"]) - len(failed)
    reason = f"failed: {', '.join(failed)}" if failed else "all passed"
    return Decided("self-checks", "", "", "", passed, None, None, count, "", FAIL if failed else PASS, reason)


def _decided(condition: Condition, contrasts: Contrasts, findings: Findings, n: int) -> Decided | None:
    """None where the condition names what is not there, which is then among the findings."""
    found = contrasts.find(condition.looked_up)
    if isinstance(found, tuple):
        findings.add(("conditions", n), *found)
        return None
    upper = condition.at_most is not None or condition.drop_at_most is not None
    if condition.drop_at_most is not None:
        numbers, limit = contrasts.drop(found), condition.drop_at_most
        text = f"loses at most {limit:g}"
    elif condition.not_worse_than is not None:
        limit = -condition.not_worse_than.margin
        numbers = contrasts.against(found, condition.not_worse_than.model)
        text = f"not worse than {condition.not_worse_than.model} by more than {-limit:g}"
    else:
        limit = condition.at_most if condition.at_most is not None else condition.at_least  # type: ignore[assignment]
        numbers, text = found, f"at {'most' if upper else 'least'} {limit:g}"
    if isinstance(numbers, tuple):
        findings.add(("conditions", n), *numbers)
        return None
    value, low, high = (numbers[key] for key in ("value", "low", "high"))
    outcome, reason = _judged(value, low, high, limit, upper, numbers["interval"])
    words = f"{condition.metric} {condition.place} {text}"
    protocol = str(found["protocol"])
    return Decided(
        words,
        protocol,
        condition.metric,
        condition.place,
        value,
        low,
        high,
        limit,
        numbers["interval"],
        outcome,
        reason,
    )


def _judged(
    value: float | None, low: float | None, high: float | None, limit: float, upper: bool, interval: str
) -> tuple[Outcome, str]:
    """The outcome and why. `upper`: the limit is a ceiling."""
    if value is None or low is None or high is None:
        shown = "no value" if value is None else f"{value:.3f} has no interval ({interval.removeprefix('none: ')})"
        return INCONCLUSIVE, shown
    inside, outside = (high, low) if upper else (low, high)
    ends = ("upper", "lower") if upper else ("lower", "upper")
    over, under = ("above", "not above") if upper else ("below", "not below")
    if (inside <= limit) if upper else (inside >= limit):
        return PASS, f"the {ends[0]} bound {inside:.3f} is {under} {limit:g}"
    if (outside > limit) if upper else (outside < limit):
        return FAIL, f"the {ends[1]} bound {outside:.3f} is {over} {limit:g}"
    return INCONCLUSIVE, f"{limit:g} lies inside the interval from {low:.3f} to {high:.3f}"
