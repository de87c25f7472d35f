"""May two reports be compared? Only where both measured the same rows under the same missing patterns."""

from __future__ import annotations

from typing import Any

from mcutune.errors import BadInput

Report = dict[str, Any]


def comparable(a: Report, b: Report) -> tuple[str, ...]:
    """Ids of the protocols that both reports have, in the order of the first.

    Raises BadInput where they are of other tables, other measured rows or other classes, have no protocol in common,
    or have one under the same id with another fingerprint.
    """
    for what, one, other in (
        ("tables", a["data"]["hash"], b["data"]["hash"]),
        ("tasks", a["data"]["task"], b["data"]["task"]),
        ("measured rows", _rows(a), _rows(b)),
    ):
        if one != other:
            raise BadInput(
                f"the reports are of different {what}: {a['data']['table']} and {b['data']['table']}",
                hint="only reports on the same rows can be compared; measure both models on one table and its folds",
            )
    theirs = {protocol["id"]: protocol for protocol in b["protocols"]}
    shared = [protocol for protocol in a["protocols"] if protocol["id"] in theirs]
    if not shared:
        mine = ", ".join(protocol["id"] for protocol in a["protocols"])
        raise BadInput(
            f"the reports have no protocol in common: {mine}; {', '.join(theirs)}",
            hint="measure both under one protocol",
        )
    for protocol in shared:
        one, other = (of["fingerprint"]["hash"] for of in (protocol, theirs[protocol["id"]]))
        if one != other:
            raise BadInput(
                f"protocol {protocol['id']}: fingerprints differ ({one[:12]}, {other[:12]}): other values were missing",
                hint="measure both again with this version of the protocol",
            )
    return tuple(protocol["id"] for protocol in shared)


def _rows(report: Report) -> tuple[Any, ...]:
    """What must agree for the rows to be the same: how many, of which classes, in how many groups, of which folds."""
    data = report["data"]
    folds = tuple(winner["fold"] for winner in report["models"][0]["winners"])
    classes = tuple((one["name"], one["rows"]) for one in data["classes"])
    return data["measured"], data["groups"], classes, folds
