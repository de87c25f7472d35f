"""Are a run's winners above the linear floor? Every combination and metric, paired over groups, Holm over the family.

    python -m bench.floors --data iemocap --c 0.003 --out floors.json
    python -m bench.against_floors --run ranks-iemocap --floors floors.json --out bench/results/iemocap.json

For each linear model of the floors file: winner minus floor, p of a permutation test within groups, two-sided, adjusted
over the combinations of one metric. `below` counts combinations other than the complete one in which the winner is
below by an adjusted p under 5 %.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.winners import winners_of
from mcutune.domain.task import METRICS
from mcutune.errors import UserError
from mcutune.files import read_json, write_json
from mcutune.robustness.paired import compare

METRICS_COMPARED = ("wa", "ua")


def against(run: str, floors: Path) -> dict[str, Any]:
    """All differences of a run's winners from the linear models of a floors file."""
    winners, report = winners_of(run), read_json(floors)
    stored = np.load(floors.with_suffix(".npz"), allow_pickle=False)
    place = {int(row): n for n, row in enumerate(stored["rows"])}
    order = np.array([place[int(row)] for row in winners.rows])
    table, truth = winners.table, stored["truth"][order]
    classes, group = len(table.manifest.label_names or ()), table.group[winners.rows]
    result: dict[str, Any] = {
        "run": run, "table": table.manifest.name, "rows": len(winners.rows), "groups": len(np.unique(group)),
        "seeds": len(winners.predicted), "c": report["c"], "models": {},
    }  # fmt: skip
    for name in report["models"]:
        reference = stored[name][:, order][None]
        cells = {}
        for metric in METRICS_COMPARED:
            value = METRICS[metric](winners.predicted, truth, classes).mean(0)
            floor = METRICS[metric](reference, truth, classes)[0]
            found = compare(winners.predicted, reference, truth, group, table.manifest.task, metric, classes)
            for c, label in enumerate(table.modalities.labels):
                cells[f"{metric} {label}"] = {
                    "winner": round(float(value[c]), 4), "floor": round(float(floor[c]), 4),
                    "difference": round(found[c].difference, 4), "p_holm": round(found[c].p_holm, 4),
                }  # fmt: skip
        whole = table.modalities.labels[-1]
        result["models"][name] = {
            "cells": cells,
            "below": [
                k for k, v in cells.items() if v["difference"] < 0 and v["p_holm"] < 0.05 and k.split()[1] != whole
            ],
            "complete_above": all(cells[f"{metric} {whole}"]["difference"] > 0 for metric in METRICS_COMPARED),
        }
    return result


def show(result: dict[str, Any]) -> None:
    """The result as lines."""
    for name, model in result["models"].items():
        below = ", ".join(model["below"]) or "none"
        print(f"{name}: complete above in both: {model['complete_above']}; significantly below: {below}")
        for key, cell in model["cells"].items():
            values = f"{cell['winner']:.3f} {cell['floor']:.3f} {cell['difference']:+.3f}"
            print(f"  {key:60} {values} p {cell['p_holm']:.3f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", required=True)
    parser.add_argument("--floors", required=True, type=Path)
    parser.add_argument("--out", type=Path, help="where to write the JSON")
    options = parser.parse_args()
    try:
        result = against(options.run, options.floors)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.out:
        write_json(options.out, result)
    show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
