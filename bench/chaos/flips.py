"""Single flipped bits in every kind of file that is read back: seen before anything is used.

A small search and its certification are made once, as a person makes them. Then one bit of one file is flipped and what
reads that file reads it. It must refuse the file, or do without it where it can be made again; or what was read is what
it was before the flip, because the bit has no meaning (unallocated bytes of a database; the older slot of its head).
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.rows import Row
from mcutune.cli import app as cli
from mcutune.data.table import open_table
from mcutune.errors import UserError
from mcutune.export.folder import read_card
from mcutune.files import hash_beside, read_json, read_sealed, sha256_file
from mcutune.model import checkpoint
from mcutune.robustness import openings
from mcutune.robustness.compared import COMPARATORS, compared, notes
from mcutune.robustness.evidence import read_columns, read_manifest
from mcutune.robustness.gate import read_verdict
from mcutune.robustness.reports import read_report
from mcutune.robustness.selection import select
from mcutune.search.artefacts import EncoderCache
from mcutune.search.canonical import canonical_lines
from mcutune.search.ledger import open_ledger, read_ledger
from mcutune.search.pack_sizes import Timings
from mcutune.search.snapshot import Snapshots, read_snapshot

SPACE = """
parameters:
  rank: {role: scientific, values: [1, 2, 4]}
fixed: {epochs: 2, encoder_epochs: 1, encoder_width: 16}
trials: 3
seeds: 1
"""


JUDGED = (7, 8)  # exit codes of a gate that is decided, though not passed


@dataclass(frozen=True)
class Kind:
    """Files of a kind. `read`: what a reader gets of them; None, () and `train` say that it does without."""

    name: str
    paths: tuple[Path, ...]
    read: Callable[[Path], Any]


@dataclass
class Outcome:
    """Flips by what came of them: refused, done without, without meaning, wrong; and what was wrong, in words."""

    counts: Counter[str] = field(default_factory=Counter)
    by_kind: dict[str, Counter[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def made(home: Path) -> None:
    """A home with a table, a finished run, its encoders and timings, models beside it, a judged report, an export."""
    home.mkdir(parents=True)
    os.environ["MCUTUNE_HOME"] = str(home)
    (home / "tiny.yaml").write_text(SPACE)
    commands = (
        ["data", "make", "planted", "--name", "small", "--rows", "300", "--seed", "3"],
        ["search", "--space", str(home / "tiny.yaml"), "--data", "small", "--place", "process", "--plain"],
        ["compare", "tiny-small", "--place", "process", "--plain"],
        ["robustness", "--ckpt", "best"],
        ["report", "tiny-small", "--gate", "example"],
        ["export", "tiny-small", "--to", str(home / "exported"), "--no-onnx"],
    )
    for command in commands:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.run(command)
        if code not in (0, *JUDGED * ("--gate" in command)):
            raise RuntimeError(f"mcutune {' '.join(command)} ended with {code}: {said.getvalue()[-500:]}")
    run = home / "runs" / "tiny-small"
    ledger, _ = open_ledger(run)
    Snapshots(run, time.monotonic).keep(ledger.last.number, ledger.hash, lambda: {"trained": 12, "score": 0.5})
    ledger.close()


def kinds(home: Path) -> list[Kind]:
    """All kinds of files that something reads back."""
    run, table = home / "runs" / "tiny-small", home / "datasets" / "small"
    evidence = next((run / "robustness").glob("evidence-*"))
    encoders = sorted((home / "encoders").glob("[!.]*"))
    lanes = sorted(path.parent for path in run.glob("checkpoints/*/*/*/checkpoint.json"))
    timings = sorted((home / "timings").glob("*.json"))
    report = run / "robustness" / "report.json"
    found = [
        Kind("ledger.db", (run / "ledger.db",), lambda path: _ledger(run)),
        Kind("ledger.head", (run / "ledger.head",), lambda path: _ledger(run)),
        Kind("run manifest", (run / "manifest.json",), lambda path: _known(path, known)),
        Kind("best.json", (run / "best.json",), lambda path: repr(select("tiny-small", home).winners)),
        Kind("summary for status", (run / "summary.json",), lambda path: read_snapshot(run)),
        Kind("checkpoint.json", tuple(p / "checkpoint.json" for p in lanes), lambda path: _checkpoint(path.parent)),
        Kind("weights", tuple(p / "model.safetensors" for p in lanes), lambda path: _checkpoint(path.parent)),
        Kind("dataset manifest", (table / "manifest.json",), lambda path: _table(table)),
        Kind("dataset table", tuple(sorted(table.glob("*.arrow"))), lambda path: _table(table)),
        Kind("encoders", tuple(p for folder in encoders for p in sorted(folder.iterdir())), _encoder),
        Kind("timings", tuple(timings), lambda path: _timings(path, facts[path])),
        Kind("evidence", tuple(sorted(evidence.glob("*.parquet"))), lambda path: _evidence(path)),
        Kind("evidence manifest", (evidence / "manifest.json",), lambda path: read_manifest(evidence)),
        Kind("models.json", (run / "compare" / COMPARATORS / "models.json",), lambda path: _beside(home)),
        Kind("report", (report, hash_beside(report)), lambda path: read_report(report)),
        Kind("gate.json", (report.with_name("gate.json"),), lambda path: _judged(report)),
        Kind("exported model", tuple(p for p in sorted((home / "exported").rglob("*")) if p.is_file()), _exported),
        Kind("log of test openings", (run / "robustness" / openings.FILE,), lambda path: openings.read(path.parent)),
    ]  # fmt: skip
    facts = {path: read_json(path)["facts"] for path in timings}
    known = set(read_sealed(run / "manifest.json"))
    return [kind for kind in found if kind.paths]


def _ledger(run: Path) -> Any:
    for suffix in ("-wal", "-shm"):
        (run / f"ledger.db{suffix}").unlink(missing_ok=True)
    records, last = read_ledger(run, keep=True)
    lanes = [repr(trial) for study in records.studies.values() for trial in study.trials]
    return last, b"".join(canonical_lines(records)), lanes, records.events


def _known(path: Path, keys: set[str]) -> Any:
    """What is looked for in a manifest: a bit of its hash's own name adds a key that nobody asks for."""
    return {key: value for key, value in read_sealed(path).items() if key in keys}


def _checkpoint(folder: Path) -> Any:
    tensors, facts = checkpoint.read(folder)
    wanted = {key: facts[key] for key in (*checkpoint._NEEDED, "best_epoch", "scores", "dpft") if key in facts}
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, wanted


def _table(folder: Path) -> Any:
    table = open_table(folder)
    return [table.manifest, *(sha256_file(folder / name) for name in table.manifest.files)]


def _encoder(path: Path) -> Any:
    """The cache removes what is damaged: it reads a copy."""
    copy = path.parent.parent.with_name("encoders-copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path.parent, copy / path.parent.name)
    return EncoderCache(copy, lambda pack: True).get(path.parent.name, "pack")


def _timings(path: Path, facts: Any) -> Any:
    return Timings(path.parent).get(facts)


def _beside(home: Path) -> Any:
    """What a report takes from models.json: the hash of everything else in it is not asked for by name."""
    return repr(compared("tiny-small", home, COMPARATORS)), notes("tiny-small", home)


def _judged(report: Path) -> Any:
    verdict = read_verdict(report)
    return verdict and [verdict[key] for key in ("schema", "gate", "report", "outcome", "conditions")]


def _exported(path: Path) -> Any:
    folder = next(parent for parent in path.parents if parent.name == "exported")
    return read_card(folder)


def _evidence(path: Path) -> Any:
    digest = read_manifest(path.parent)["files"][path.name]
    return read_columns(path, digest).to_pydict()


def campaign(folder: Path, seed: int, flips: int, only: str = "") -> Outcome:
    """So many flips, spread evenly over the kinds (or of one), at random places."""
    home = folder / "home"
    made(home)
    rng, found, begun = random.Random(seed), Outcome(), time.monotonic()
    listed = [kind for kind in kinds(home) if only in ("", kind.name)]
    good = {path: kind.read(path) for kind in listed for path in kind.paths}
    for number in range(flips):
        kind = listed[number % len(listed)]
        path = rng.choice(kind.paths)
        with _flipped(path, rng) as bit:
            came = _read(kind, path, good[path])
        found.counts[came.split(":")[0]] += 1
        found.by_kind.setdefault(kind.name, Counter())[came.split(":")[0]] += 1
        if came.startswith("wrong"):
            found.problems.append(f"{kind.name}, {path.name} bit {bit}: {came}")
    found.seconds = time.monotonic() - begun
    return found


def _read(kind: Kind, path: Path, good: Any) -> str:
    try:
        value = kind.read(path)
    except UserError:
        return "refused"
    except Exception as error:
        return f"wrong: {type(error).__name__} {error}"[:200]
    if _same(value, good):
        return "without meaning"
    return "done without" if value in (None, (), "train") else "wrong: read as something else"


def _same(one: Any, other: Any) -> bool:
    return bool(one == other)


@contextlib.contextmanager
def _flipped(path: Path, rng: random.Random) -> Iterator[int]:
    """The file with one bit flipped, and as it was afterwards."""
    good = path.read_bytes()
    bit = rng.randrange(8 * len(good))
    content = bytearray(good)
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    try:
        yield bit
    finally:
        path.write_bytes(good)


def rows(folder: Path, seed: int, count: int | None, quick: bool) -> list[Row]:
    """The campaign's figures."""
    wanted = count or (140 if quick else 1_400)
    found = campaign(folder, seed, wanted)
    counts = found.counts
    without = ", ".join(f"{n} of {kind}" for kind, c in found.by_kind.items() if (n := c["without meaning"]))
    meant = wanted - counts["without meaning"]
    note = (
        f"{meant:,} of {wanted:,} flips had a meaning: {counts['refused']:,} refused, {counts['done without']:,} files "
        f"made anew; without meaning: {without or 'none'}; {len(found.by_kind)} kinds of files; {found.seconds:.0f} s"
    )
    return [
        Row("chaos", f"flips: bits read wrong, of {meant:,}", counts["wrong"], "", goal="0", met=counts["wrong"] == 0,
            note="; ".join([note, *found.problems[:5]])),
    ]  # fmt: skip
