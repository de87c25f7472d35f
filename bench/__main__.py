"""All measurements, or those named: `python -m bench [GROUP ...] [--quick]`. Each writes bench/results/GROUP.jsonl.

A group is a module of this package with `measure(quick: bool) -> list[Row]`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

from bench.rows import RESULTS, table, write

GROUPS: tuple[str, ...] = (
    "throughput",
    "evaluation",
    "rate",
    "modalities",
    "gpu",
    "overhead",
    "rungs",
    "whole_search",
    "scale",
    "robustness",
    "coverage",
)


def _card() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help=f"of {', '.join(GROUPS)}; all unless named")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs; results are not kept")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mcutune-bench-")) if options.quick else RESULTS
    missed = 0
    for group in options.groups or GROUPS:
        print(f"\n{group}", flush=True)
        rows = importlib.import_module(f"bench.{group}").measure(options.quick)
        write(group, rows, _card() if group == "gpu" else "cpu", folder)
        print(table(rows), flush=True)
        missed += sum(row.met is False for row in rows)
    print(f"\nwritten to {folder}; {missed} below their goal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
