"""best.json: who won in every fold of a run that has finished, and which run of its home finished last.

The latter by a number, one more than any other run has: a clock may have been put back meanwhile.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mcutune.errors import BadInput, UserError
from mcutune.files import keep_aside, read_sealed, sealed, write_json
from mcutune.search.records import Records
from mcutune.search.run_folder import BEST, Plan
from mcutune.search.summary import best_of


def write_best(plan: Plan, records: Records) -> None:
    """Write the winners and where their checkpoints lie, unless that was done before. Raises OSError."""
    path, best = plan.folder / BEST, best_of(records, plan.folder)
    trials = sum(len(study.trials) for study in records.studies.values())
    if not best or _written(path, trials) == (best, trials):
        return
    facts = {
        "schema": 2,
        "run": plan.name,
        "data": {"table": plan.data, "table_hash": next(iter(records.studies.values())).row.table_hash},
        "order": 1 + max(map(_order, plan.folder.parent.glob(f"[!.]*/{BEST}")), default=0),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "trials": trials,
        "best": best,
    }
    write_json(path, sealed(facts))


def _written(path: Path, trials: int) -> Any:
    """The winners that best.json names, and of how many trials (of `trials`, where an earlier version did not say).

    None where there is no such file, or it is not whole: it is made anew.
    """
    try:
        found = read_sealed(path)
        return found["best"], found.get("trials", trials)
    except BadInput:
        return None
    except (UserError, KeyError, TypeError):
        keep_aside(path)
        return None


def _order(path: Path) -> int:
    """The number of a run in the order of finishing; 0 where an earlier version wrote it, or it cannot be read."""
    with suppress(UserError, KeyError, TypeError, ValueError):
        return int(read_sealed(path)["order"])
    return 0
