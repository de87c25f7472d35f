"""How far from the optimum is a run's winner on planted data, where the optimum is known?

    mcutune data make planted --name planted20k --rows 20000
    mcutune search --space ranks --data planted20k
    python -m bench.optimum --run ranks-planted20k --out bench/results/optimum.json

The gap is the accuracy of the Bayes-optimal predictor of the encoder's kind less the winner's (mean over seeds), on the
same test rows, with a paired 95 % bootstrap interval over dialogues.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from bench.winners import winners_of
from mcutune.data.planted import oracle_posteriors
from mcutune.domain.task import METRICS
from mcutune.errors import UserError
from mcutune.files import home, read_json, write_json
from mcutune.robustness.paired import compare


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", required=True)
    parser.add_argument("--out", type=Path, help="where to write the JSON")
    options = parser.parse_args()
    try:
        winners = winners_of(options.run)
        kind = read_json(home() / "runs" / options.run / "best.json")["best"][0]["configuration"]["encoder_kind"]
        posteriors = oracle_posteriors(winners.table)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    table, rows = winners.table, winners.rows
    truth, classes = table.labels(rows), len(table.manifest.label_names or ())
    optimal = getattr(posteriors, kind)[:, rows].argmax(-1)[None]
    found = compare(optimal, winners.predicted, truth, table.group[rows], table.manifest.task, "wa", classes)
    value = METRICS["wa"](winners.predicted, truth, classes).mean(0)
    cells = {
        label: {"winner": float(value[c]), "gap": found[c].difference, "low": found[c].low, "high": found[c].high}
        for c, label in enumerate(table.modalities.labels)
    }
    for label, cell in cells.items():
        print(
            f"{label:20} winner {cell['winner']:.4f} gap {cell['gap']:+.4f} [{cell['low']:+.4f}, {cell['high']:+.4f}]"
        )
    worst = max(cell["high"] for cell in cells.values())
    print(
        f"largest upper bound of the gap: {worst:.4f} over {len(np.unique(table.group[rows]))} dialogues, kind {kind}"
    )
    if options.out:
        write_json(options.out, {"run": options.run, "rows": len(rows), "kind": kind, "cells": cells, "worst": worst})
    return 0


if __name__ == "__main__":
    sys.exit(main())
