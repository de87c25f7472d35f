"""Two reports against each other: paired tests on the stored predictions of the same rows under the same masks.

What cannot be paired is refused by the name of what differs: table, rows, folds, groups, labels, protocol, masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mcutune.domain.task import METRICS
from mcutune.errors import BadInput
from mcutune.robustness.blocks import Block
from mcutune.robustness.equivalence import NOT_WORSE, answers
from mcutune.robustness.evidence import Array, read_manifest
from mcutune.robustness.measure import weighted_means
from mcutune.robustness.paired import (
    Difference,
    compare_values,
    number,
    per_cell,
    weighted,
)
from mcutune.robustness.rebuild import Stored, stored
from mcutune.robustness.reports import Found
from mcutune.robustness.statistics import Resampling, Statistic
from mcutune.robustness.stored import Rows

Entry = dict[str, Any]

SCHEMA = 1
_ALPHA = 0.05
_OVERALL = ("mean_all", "area")  # one test a protocol and metric beside the cells


@dataclass(frozen=True)
class _Side:
    """One of the two: the facts of its evidence, its measured rows, its protocols by id."""

    found: Found
    facts: Entry
    rows: Rows
    protocols: dict[str, Stored]

    @property
    def name(self) -> str:
        return str(self.facts["models"][0]["name"])

    @property
    def checkpoints(self) -> list[str]:
        return [c["sha256"] for winner in self.facts["models"][0]["winners"] for c in winner["checkpoints"]]


def difference(a: Found, b: Found, margin: float | None = None) -> Entry:
    """A against B in every cell that both have, as one document (`mcutune diff --json`). `margin`: also say
    where A is not worse by that much or more.

    Raises BadInput where they cannot be paired, Damaged where evidence is not what was written.
    """
    first, second = _side(a), _side(b)
    _same_data(first, second)
    if first.checkpoints == second.checkpoints:
        raise BadInput(f"{a.given} and {b.given} measure the same checkpoints: there is nothing to compare")
    common = _same_protocols(first, second)
    how = Resampling(**first.facts["resampling"])
    cells: list[Entry] = []
    overall: list[Entry] = []
    for name in common:
        for entry, is_cell in _compared(first.protocols[name], second.protocols[name], how, margin):
            (cells if is_cell else overall).append(entry)
    data = first.facts["data"]
    made: Entry = {
        "schema": SCHEMA,
        "a": _told(first),
        "b": _told(second),
        "data": {
            **{key: data[key] for key in ("table", "hash", "group")},
            "modalities": [one["name"] for one in data["modalities"]],
            "rows": len(first.rows),
            "groups": len(np.unique(first.rows.group)),
        },
        "statistics": {**first.facts["resampling"], "margin": margin},
        "protocols": [first.protocols[name].entry for name in common],
        "left_out": [*_left_out(first, second, "a"), *_left_out(second, first, "b")],
        "cells": cells,
        "overall": overall,
    }
    made["warnings"] = list(_warnings(first, second))
    made["summary"] = [_sentence(made, name) for name in common]
    return made


def _side(found: Found) -> _Side:
    if (
        found.report is not None
        and found.report["provenance"]["evidence"]["files"] != read_manifest(found.evidence)["files"]
    ):
        raise BadInput(
            f"the report of {found.given} was not made from the evidence beside it",
            hint="mcutune robustness makes both anew",
        )
    facts, data, protocols = stored(found.evidence, models=1)
    return _Side(found, facts, data.rows, {one.entry["id"]: one for one in protocols})


def _same_data(a: _Side, b: _Side) -> None:
    """Raises BadInput naming every part of the measured data that differs."""
    one, other = a.facts["data"], b.facts["data"]
    if one["hash"] != other["hash"]:
        _refuse(a, b, [f"dataset: {one['table']} {one['hash'][:12]} against {other['table']} {other['hash'][:12]}"])
    differing = []
    if a.rows.ids != b.rows.ids:
        both = len(set(a.rows.ids) & set(b.rows.ids))
        differing.append(
            f"rows: {len(a.rows):,} of folds {_folds(a)} against {len(b.rows):,} of folds {_folds(b)}, {both:,} in both"
        )
    else:
        for what, names, others in (
            ("folds", _named(a.rows.fold, a.rows.folds), _named(b.rows.fold, b.rows.folds)),
            (f"{one['group']}s", _named(a.rows.group, a.rows.groups), _named(b.rows.group, b.rows.groups)),
            ("labels", a.rows.truth, b.rows.truth),
        ):
            apart = int((names != others).sum())
            if apart:
                differing.append(f"{what} of {apart:,} rows")
    if differing:
        _refuse(a, b, differing)


def _same_protocols(a: _Side, b: _Side) -> list[str]:
    """The ids of the protocols that both have. Raises BadInput where one has another meaning or other masks."""
    common = [name for name in a.protocols if name in b.protocols]
    differing = []
    for name in common:
        one, other = a.protocols[name].entry, b.protocols[name].entry
        if one["hash"] != other["hash"]:
            differing.append(
                f"protocol {name}: version {one['version']}, hash {one['hash'][:12]} "
                f"against version {other['version']}, hash {other['hash'][:12]}"
            )
        elif one["fingerprint"]["hash"] != other["fingerprint"]["hash"]:
            prints = one["fingerprint"]["hash"][:12], other["fingerprint"]["hash"][:12]
            differing.append(f"presence under {name}: fingerprint {prints[0]} against {prints[1]}")
    if differing:
        _refuse(a, b, differing)
    if not common:
        known = f"{', '.join(a.protocols)} against {', '.join(b.protocols)}"
        _refuse(a, b, [f"protocols: {known}, none in both"])
    return common


def _refuse(a: _Side, b: _Side, differing: Sequence[str]) -> None:
    raise BadInput(
        f"{a.found.given} and {b.found.given} cannot be paired, they differ in {'; '.join(differing)}",
        hint="measure both with the same protocols, on the same table and folds",
    )


def _compared(a: Stored, b: Stored, how: Resampling, margin: float | None) -> Iterator[tuple[Entry, bool]]:
    """An entry for every cell and metric of a protocol, and one for its mean over combinations or rates."""
    one, other = a.blocks[0], b.blocks[0]
    places = [{"combination": combination, "scenario": scenario} for combination, scenario in one.places]
    for metric, each in per_cell(a.metrics, len(places)).items():
        for place, entry, n in zip(places, _family(one, other, metric, each, how, margin), one.seen, strict=True):
            yield {**place, **entry, "n": int(n)}, True
    for mean in weighted_means(one):
        if mean.name in _OVERALL:
            named = {"name": mean.name, "scenario": mean.scenario, "over": mean.over}
            for metric in a.metrics:
                (entry,) = _family(one, other, metric, weighted(metric, mean.weights), how, margin)
                yield {**named, **entry, "n": int(one.seen.max())}, False


def _family(
    one: Block, other: Block, metric: str, statistic: Statistic, how: Resampling, margin: float | None
) -> list[Entry]:
    """An entry for every quantity of a statistic: one family of tests."""
    own, theirs = statistic.function(one.total), statistic.function(other.total)
    key = metric if len(own) == len(one.places) else f"mean of {metric}"
    found = compare_values(one.sums, other.sums, one.data.task, {key: statistic}, how)[key]
    kept = answers(metric, found, len(one.sums), margin, how)
    return [
        {
            "protocol": one.protocol.id,
            "dataset": one.data.name,
            "split": one.data.split,
            "metric": metric,
            "a": number(own[c]),
            "b": number(theirs[c]),
            **difference.entry(),
            "family": len(found),
            "groups": len(one.sums),
            "verdict": _verdict(metric, difference),
            "margin": answer,
        }
        for c, (difference, answer) in enumerate(zip(found, kept, strict=True))
    ]


def _verdict(metric: str, found: Difference) -> str:
    """Of A, by the adjusted p."""
    if found.p_holm >= _ALPHA:
        return "not shown"
    return "better" if METRICS[metric].signed(found.difference) > 0 else "worse"


def _told(side: _Side) -> Entry:
    facts = side.facts
    return {
        "given": side.found.given,
        "model": side.name,
        "run": facts["run"],
        "created": facts["created"],
        "evidence": side.found.evidence.name,
        "seeds": max(len(winner["checkpoints"]) for winner in facts["models"][0]["winners"]),
        "openings": facts["openings"]["count"],
        "winners": [{"fold": one["fold"], "trial": one["trial"]} for one in facts["models"][0]["winners"]],
    }


def _left_out(side: _Side, other: _Side, which: str) -> list[Entry]:
    return [{"protocol": name, "only_in": which} for name in side.protocols if name not in other.protocols]


def _warnings(a: _Side, b: _Side) -> Iterator[str]:
    seeds = [_told(side)["seeds"] for side in (a, b)]
    if seeds[0] != seeds[1]:
        yield f"A has {seeds[0]} seeds, B has {seeds[1]}: each is the mean over its own seeds."
    for which, side in (("A", a), ("B", b)):
        failed = [check["name"] for check in (side.found.report or {"checks": []})["checks"] if not check["passed"]]
        if failed:
            yield f"A self-check of {which} failed, do not use its numbers: {', '.join(failed)}."
        count = side.facts["openings"]["count"]
        if count > 1:
            chosen = "what was chosen after the first time was chosen on test"
            yield f"The test labels had been opened {count} times for {which}: {chosen}."
    if a.facts["resampling"] != b.facts["resampling"]:
        yield "The reports were made with other confidence, resamples or seeds; those of A are used here."


def _sentence(made: Entry, protocol: str) -> str:
    """What one protocol says, by the metric that speaks for it."""
    cells = [one for one in made["cells"] if one["protocol"] == protocol]
    metric = next((name for name in ("ua", "mae") if any(one["metric"] == name for one in cells)), cells[0]["metric"])
    mine = [one for one in cells if one["metric"] == metric]
    better, worse, not_shown = (
        sum(one["verdict"] == verdict for one in mine) for verdict in ("better", "worse", "not shown")
    )
    text = f"{protocol}, {metric}: A is better than B in {better} of {len(mine)} cells, worse in {worse}, "
    text += f"not shown to differ in {not_shown}"
    mean = next((o for o in made["overall"] if (o["protocol"], o["metric"]) == (protocol, metric)), None)
    if mean is not None:
        shown = "" if mean["low"] is None else f" [{mean['low']:+.3f}, {mean['high']:+.3f}]"
        text += f"; on average {mean['difference']:+.3f}{shown}, p = {mean['p']:.3f}"
    margin = made["statistics"]["margin"]
    if margin is not None:
        kept = sum(one["margin"]["answer"] == NOT_WORSE for one in mine)
        text += f"; shown not to be worse by {margin:g} or more in {kept}"
    return f"{text}."


def _folds(side: _Side) -> str:
    return ", ".join(side.rows.folds) or "none"


def _named(codes: Array, names: Sequence[str]) -> Array:
    return np.asarray(names)[codes]
