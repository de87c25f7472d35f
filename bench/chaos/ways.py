"""Every way in which files of a home are written, as work to be interrupted, and what a reader finds afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcutune.data.table import open_table, write_table
from mcutune.domain.pack import Timing
from mcutune.domain.trial import LaneId
from mcutune.errors import BadInput, Damaged
from mcutune.files import read_json, read_sealed, sealed, sha256_file, write_json
from mcutune.robustness import openings
from mcutune.robustness.evidence import read_manifest
from mcutune.robustness.run import certify
from mcutune.search.artefacts import EncoderCache, checkpoint_folder, drop_checkpoints, write_checkpoints
from mcutune.search.canonical import canonical_lines
from mcutune.search.ledger import DATABASE, open_ledger, read_ledger
from mcutune.search.pack_sizes import Timings
from mcutune.search.rewind import rewind
from mcutune.search.run_folder import BEST, MANIFEST, agree, study_row
from mcutune.search.snapshot import Snapshots, read_snapshot
from tests.robustness.worlds import load_fake, make_columns, make_run, make_table
from tests.search.rows import STUDY, fill, trial_rows
from tests.search.simulate import plan_of

LANE = LaneId("1", 3, 0)
FILES = {"model.safetensors": b"new" * 3_000, "checkpoint.json": b"{}"}
FACTS = {"device": "cpu", "shape": [1, 2]}
TIMINGS = (Timing(lanes=1, seconds=0.1, memory=10, spent=0.1), Timing(lanes=2, seconds=0.15, memory=20, spent=0.1))


@dataclass(frozen=True)
class Way:
    """Work on a folder that `prepare` made. `state`: what readers find, in parts; each is as before, or as after.

    `derived`: what is lost without harm: a part of it may also be absent.
    """

    name: str
    prepare: Callable[[Path], object]
    work: Callable[[Path], object]
    state: Callable[[Path], tuple[Any, ...]]
    derived: bool = False


def _nothing(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _or(work: Callable[[], Any], absent: Any = None) -> Any:
    """What a reader gets: a value, `absent`, or the word damaged."""
    try:
        return work()
    except Damaged as error:
        return f"damaged: {type(error).__name__}"
    except BadInput:
        return absent


def _lines(folder: Path) -> tuple[Any, ...]:
    def read() -> Any:
        records, last = read_ledger(folder, keep=True)
        return (last.number, b"".join(canonical_lines(records))) if last.number else None

    return (_or(read),)


def _commit(folder: Path) -> None:
    ledger, records = open_ledger(folder)
    if len(records.studies["1"].trials) == 2:
        for row in trial_rows(2):
            ledger.put(row)
    ledger.commit(2.0)


def _first_commit(folder: Path) -> None:
    ledger, records = open_ledger(folder)
    if not records.studies:
        ledger.put(STUDY)
    ledger.commit(1.0)


def _damaged(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fill(folder, 3)
    path = folder / DATABASE
    content = bytearray(path.read_bytes())
    at = content.rindex(b'"running"')
    content[at + 1] ^= 1
    path.write_bytes(content)


def _rewind(folder: Path) -> None:
    with suppress(BadInput):
        rewind(folder)


def _checkpoint(folder: Path) -> tuple[Any, ...]:
    place = checkpoint_folder(folder, LANE)
    if not place.exists():
        return (None,)
    return ({path.name: path.read_bytes() for path in place.iterdir()},)


def _old_checkpoint(folder: Path) -> None:
    _nothing(folder)
    write_checkpoints(folder, {LANE: {"model.safetensors": b"old", "checkpoint.json": b"{}"}})


def _write(folder: Path) -> None:
    write_checkpoints(folder, {LANE: FILES})


def _two_seeds(folder: Path) -> None:
    _nothing(folder)
    write_checkpoints(folder, {LANE: FILES, LaneId("1", 3, 1): FILES})


def _seeds(folder: Path) -> tuple[Any, ...]:
    return (sorted(path.name for path in folder.glob("checkpoints/1/3/[0-9]*")),)


def _agree(trials: int) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        plan = plan_of(folder / "run", trials=trials)
        plan.folder.mkdir(parents=True, exist_ok=True)
        agree(plan, [study_row(plan, plan.fold_data("1"))])

    return work


def _manifest(folder: Path) -> tuple[Any, ...]:
    found = _or(lambda: read_sealed(folder / "run" / MANIFEST))
    return (found if not isinstance(found, dict) else {key: found[key] for key in ("trials", "space", "run")},)


def _best(score: float) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        write_json(folder / BEST, sealed({"schema": 2, "best": [{"fold": "1", "trial": 3, "score": score}]}))

    return work


def _table(rows: int) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        write_table(folder / "datasets" / "toy", make_columns(rows), overwrite=True)

    return work


def _tables(folder: Path) -> tuple[Any, ...]:
    def read() -> Any:
        table = open_table(folder / "datasets" / "toy")
        return (table.manifest.hash, len(table), table.ids.tolist(), table.features("text").tobytes())

    return (_or(read),)


def _encoder(folder: Path) -> tuple[Any, ...]:
    return (EncoderCache(folder, lambda pack: True).get("abc", "pack"),)


def _timed(folder: Path) -> tuple[Any, ...]:
    return (Timings(folder).get(FACTS),)


def _snapshot(folder: Path) -> None:
    records, last = read_ledger(folder)
    snapshots = Snapshots(folder, lambda: 0.0)
    ledger, _ = open_ledger(folder)
    snapshots.keep(last.number, ledger.hash, lambda: {"trials": len(records.studies["1"].trials)})


def _with_ledger(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fill(folder, 2)


def _world(folder: Path) -> None:
    make_run(folder, make_table(folder, rows=120, folds=2, groups=6), seeds=1, zero_noise=1.0)


def _certified(folder: Path) -> None:
    os.environ["MCUTUNE_HOME"] = str(folder)
    certify("best", ("fixed",), home=folder, load=load_fake)


def _report(folder: Path) -> tuple[Any, ...]:
    """The report, whether its evidence is whole, and how often the labels were opened: none of it in between."""
    place = folder / "runs" / "run" / "robustness"
    evidence = [path for path in place.glob("evidence-*") if path.is_dir()]
    whole = [
        all(sha256_file(path / name) == digest for name, digest in read_manifest(path)["files"].items())
        for path in evidence
    ]
    report = place / "report.json"
    measured = _or(lambda: len(read_json(report)["measurements"])) if report.exists() else None
    return (measured, whole, len(_or(lambda: openings.read(place), [])))


def ways() -> tuple[Way, ...]:
    """All of them. Work done again completes what was interrupted."""
    return (
        Way("ledger, a commit", _with_ledger, _commit, _lines),
        Way("ledger, its first commit", _nothing, _first_commit, _lines),
        Way("ledger, back to the last good commit", _damaged, _rewind, _lines),
        Way("a checkpoint", _nothing, _write, _checkpoint),
        Way("a checkpoint over an older one", _old_checkpoint, _write, _checkpoint),
        Way("checkpoints removed", _two_seeds, lambda f: drop_checkpoints(f, "1", 3), _seeds),
        Way("manifest of a run", _nothing, _agree(14), _manifest),
        Way("manifest of a run with more trials", _agree(14), _agree(20), _manifest),
        Way("best.json", _best(0.5), _best(0.6), lambda f: (_or(lambda: read_sealed(f / BEST)),)),
        Way("an encoder", _nothing, lambda f: EncoderCache(f, lambda p: True).put("abc", FILES), _encoder),
        Way("timings", _nothing, lambda f: Timings(f).put(FACTS, TIMINGS), _timed),
        Way("the summary for status", _with_ledger, _snapshot, lambda f: (read_snapshot(f),), derived=True),
        Way("a dataset", _nothing, _table(60), _tables),
        Way("a dataset over another one", _table(60), _table(80), _tables),
        Way("a robustness report", _world, _certified, _report),
    )  # fmt: skip
