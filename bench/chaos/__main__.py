"""Campaigns of faults: `python -m bench.chaos [CAMPAIGN ...] [--seed S] [--count N] [--quick]`.

A campaign is a module of this package with `rows(folder, seed, count, quick) -> list[Row]`; the rows go to
bench/results/chaos.jsonl, where they replace those of the same campaign only. `stack` kills real searches on Ray, half
a minute each, and runs only where it is named.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from bench.rows import RESULTS, Row, surroundings, table

CAMPAIGNS = ("engine", "crashes", "flips", "poison", "mutants", "durability", "stack")
COSTS = {
    "engine": "3 min", "crashes": "15 min", "flips": "1 min", "poison": "5 min", "mutants": "2 min",
    "durability": "10 s", "stack": "about 1 min a kill",
}  # fmt: skip


def keep(folder: Path, campaign: str, rows: list[Row], seed: int) -> None:
    """Put a campaign's rows into chaos.jsonl, in the place of those it had."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "chaos.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if not json.loads(line)["name"].startswith(f"{campaign}: ")]
    around = {**surroundings(), "seed": seed}
    kept += [json.dumps({**asdict(row), **around}, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in kept))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("campaigns", nargs="*", choices=[*CAMPAIGNS, []], help="all but stack unless named")
    parser.add_argument("--seed", type=int, default=None, help="else drawn, and printed")
    parser.add_argument("--count", type=int, default=None, help="kills, flips or inputs; else the campaign's own")
    parser.add_argument("--quick", action="store_true", help="small counts; results are not kept")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(3))
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="mcutune-chaos-"))
    wrong = 0
    for campaign in options.campaigns or CAMPAIGNS[:-1]:
        print(f"\n{campaign} (a full one takes {COSTS[campaign]})", flush=True)
        begun = time.monotonic()
        os.environ["MCUTUNE_HOME"] = str(folder / campaign / "home")
        rows = importlib.import_module(f"bench.chaos.{campaign}").rows(
            folder / campaign, seed, options.count, options.quick
        )
        print(table(rows), f"\n{time.monotonic() - begun:.0f} s", flush=True)
        wrong += sum(row.met is False for row in rows)
        if not options.quick:
            keep(RESULTS, campaign, rows, seed)
    print(f"\nseed {seed}: {'all as promised' if wrong == 0 else f'{wrong} rows not as promised'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
