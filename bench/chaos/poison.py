"""Damaged and hostile input of every kind: refused in a line, in time, and nothing of it is run.

Sound files of every kind, and hostile ones (tests/faults/corpus.py), are changed at random: bits, bytes, pieces
removed, doubled, moved, words that mean something in the format put in. Each is read in a child of its own by what the
commands use, within limits on memory and time. An audit hook of Python reports whatever would start a program, import
a name by pickle or open a socket; a file that hostile input would make must not be there afterwards.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.rows import Row
from mcutune.data.assemble import Roles
from mcutune.errors import UserError
from tests.faults import corpus

LIMIT = 5.0  # seconds
MEMORY = 2 << 30  # bytes over what the parent has
_AUDITED = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pty.spawn",
            "socket.connect", "pickle.find_class", "ctypes.dlopen", "webbrowser.open")  # fmt: skip
ROLES = Roles(modalities={"audio": "audio", "text": "text"}, label="label", id="id", dialogue="dialogue")


@dataclass
class Outcome:
    """Inputs by what came of them: refused, read; and traceback, hang, wrong, run, ended."""

    counts: Counter[str] = field(default_factory=Counter)
    by_kind: dict[str, Counter[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    slowest: float = 0.0
    seconds: float = 0.0


def read_space(path: Path, sound: bytes) -> str:
    """`load_space`, as `mcutune search` does; what is read must be numbers within their bounds, which it validates."""
    from mcutune.search.space_file import load_space

    space = load_space(str(path))
    json.dumps(space.canonical(), allow_nan=False)
    return "read"


def read_protocol(path: Path, sound: bytes) -> str:
    from mcutune.robustness.protocol import load_protocol

    load_protocol(str(path))
    return "read"


def read_npy(path: Path, sound: bytes) -> str:
    """Against numpy: what we accept, it reads, and reads the same."""
    from mcutune.data.npy import read_npy as read

    ours, theirs = read(path), np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    same = ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()
    return "read" if same else "wrong"


def read_npz(path: Path, sound: bytes) -> str:
    from mcutune.data.audit import audit
    from mcutune.data.importers import read_npz as read

    found = read(path, ROLES).columns
    audit(found)
    return "read" if all(values.dtype == np.float32 for values in found.features.values()) else "wrong"


def read_parquet(path: Path, sound: bytes) -> str:
    """What runs in the reader's own process: read in this child, with the same limits."""
    from mcutune.data.parquet import _answer

    wanted = ["audio", "text.*", "label", "id"]
    answer = _answer({"path": str(path), "wanted": wanted, "to": str(path.with_suffix(".out"))})
    with np.load(path.with_suffix(".out.npz"), allow_pickle=False) as arrays:
        plain = all(arrays[name].dtype.kind in "biufU" for name in arrays.files)
    return "read" if plain and set(answer) == {"columns", "read"} else "wrong"


def read_pickle(path: Path, sound: bytes) -> str:
    """What runs in the reader's own process: read in this child, with the same limits."""
    from mcutune.data.label_pickle import _answer

    json.dumps(_answer({"path": str(path)}), allow_nan=False)
    return "read"


def read_safetensors(path: Path, sound: bytes) -> str:
    """Only what its SHA-256 vouches for is used; but parsing comes to no harm either."""
    from mcutune.model.checkpoint import parse_tensors

    for tensor in parse_tensors(path.read_bytes(), path).values():
        tensor.sum()
    return "read"


def read_checkpoint(path: Path, sound: bytes) -> str:
    from mcutune.model.checkpoint import read

    _, facts = read(path.parent)
    return "read" if _same_json(path.read_bytes(), sound) else "wrong"


def read_sealed(path: Path, sound: bytes) -> str:
    from mcutune.files import read_sealed as read

    read(path)
    return "read" if _same_json(path.read_bytes(), sound) else "wrong"


def read_table_manifest(path: Path, sound: bytes) -> str:
    from mcutune.data.table import read_manifest

    read_manifest(path.parent)
    return "read" if _same_json(path.read_bytes(), sound) else "wrong"


def read_evidence_manifest(path: Path, sound: bytes) -> str:
    from mcutune.robustness.evidence import read_manifest

    read_manifest(path.parent)
    return "read" if _same_json(path.read_bytes(), sound) else "wrong"


def read_ledger(path: Path, sound: bytes) -> str:
    """Commits that are read are those that were written: the chain says so."""
    from mcutune.search.canonical import canonical_lines
    from mcutune.search.ledger import read_ledger as read

    records, last = read(path.parent, keep=True)
    expected = corpus.LEDGER_LINES[: 1 + max(last.number - 1, 0)] if last.number else []
    return "read" if list(canonical_lines(records)) == expected else "wrong"


def read_head(path: Path, sound: bytes) -> str:
    from mcutune.search.head import read_head as read

    return "read" if read(path.parent) in corpus.HEADS else "wrong"


def _same_json(content: bytes, sound: bytes) -> bool:
    """Equal but for the hash, as values. Where its name was changed, what stands there may have been, too."""
    now, before = json.loads(content), json.loads(sound)
    same = all(now.get(key) == before[key] for key in before if key != "hash")
    more = [value for key, value in now.items() if key not in before]
    renamed = "hash" in before and "hash" not in now and len(more) == 1 and isinstance(more[0], str)
    return same and (not more or renamed)


READERS: dict[str, Callable[[Path, bytes], str]] = {
    "space": read_space, "protocol": read_protocol, "npy": read_npy, "npz": read_npz, "parquet": read_parquet,
    "pickle": read_pickle, "safetensors": read_safetensors, "checkpoint": read_checkpoint, "sealed": read_sealed,
    "table": read_table_manifest, "evidence": read_evidence_manifest, "ledger": read_ledger, "head": read_head,
}  # fmt: skip


def mutated(content: bytes, words: tuple[bytes, ...], rng: random.Random) -> bytes:
    """The content changed in one to four ways."""
    made = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(made) + 1)
        end = min(len(made), at + rng.choice([1, 2, 8, 64, 512]))
        match rng.randrange(7):
            case 0 if made:
                made[at % len(made)] ^= 1 << rng.randrange(8)
            case 1:
                made[at:end] = rng.randbytes(end - at)
            case 2:
                del made[at:end]
            case 3:
                made[at:at] = made[at:end] * rng.choice([1, 2, 50])
            case 4 if words:
                made[at : rng.choice([at, end])] = rng.choice(words)
            case 5:
                del made[at:]
            case _:
                other = rng.randrange(len(made) + 1)
                made[other:other] = made[at:end]
    return bytes(made[: 1 << 20])


def campaign(folder: Path, seed: int, inputs: int) -> Outcome:
    """So many inputs, spread evenly over the kinds; hostile ones as they are come first."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[corpus.CANARY] = str(folder / "canary")
    rng, found, begun = random.Random(seed), Outcome(), time.monotonic()
    listed = corpus.files()
    _warm()
    queue = [(sample, sample.content) for sample in listed]
    kinds = sorted(READERS)
    by_kind = {kind: [sample for sample in listed if sample.kind == kind] for kind in kinds}
    for number in range(inputs):
        if number < len(queue):
            sample, content = queue[number]
        else:
            sample = rng.choice(by_kind[kinds[number % len(kinds)]])
            content = mutated(sample.content, sample.words, rng)
        came, seconds = judged(folder, sample, content)
        found.slowest = max(found.slowest, seconds)
        word = came.split(":")[0]
        found.counts[word] += 1
        found.by_kind.setdefault(sample.kind, Counter())[word] += 1
        if word not in ("refused", "read"):
            kept = folder / f"problem-{number}-{sample.name}"
            kept.write_bytes(content)
            found.problems.append(f"{sample.kind} {kept.name}: {came}")
        if (folder / "canary").exists():
            found.counts["run"] += 1
            found.problems.append(f"{sample.kind} {sample.name}: its code was run")
            (folder / "canary").unlink()
    found.seconds = time.monotonic() - begun
    return found


def _warm() -> None:
    """Children need not import what this has imported."""
    import mcutune.cli.failures
    import mcutune.data.importers
    import mcutune.data.label_pickle
    import mcutune.data.parquet
    import mcutune.model.checkpoint
    import mcutune.robustness.evidence
    import mcutune.robustness.protocol
    import mcutune.search.space_file  # noqa: F401


def judged(folder: Path, sample: corpus.Sample, content: bytes) -> tuple[str, float]:
    """What comes of reading this as a file of the sample's kind, and the seconds it took."""
    place = folder / "input"
    place.mkdir(exist_ok=True)
    for left in place.iterdir():
        left.unlink()
    for name, beside in sample.beside.items():
        (place / name).write_bytes(beside)
    path = place / sample.name
    path.write_bytes(content)
    begun = time.monotonic()
    heard, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(heard)
        _answer_in_child(sample, path, tell)
    os.close(tell)
    ready, _, _ = select.select([heard], [], [], LIMIT * max(1.0, os.getloadavg()[0]))
    said = os.read(heard, 1_000).decode(errors="replace") if ready else ""
    os.close(heard)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    seconds = time.monotonic() - begun
    if not ready:
        return "hang: it did not end", seconds
    return said or f"ended: {os.waitstatus_to_exitcode(status)}", seconds


def _answer_in_child(sample: corpus.Sample, path: Path, tell: int) -> None:
    """Read it and say what came of it; never returns."""
    from mcutune.cli.failures import error_text, foreseen

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    ran: list[str] = []

    def heard(event: str, arguments: Any) -> None:
        if event.startswith(_AUDITED):
            ran.append(event)

    sys.addaudithook(heard)
    processor = time.process_time()
    try:
        came = READERS[sample.kind](path, sample.content)
    except UserError as error:
        line = error_text(error).splitlines()[0]
        came = "refused" if line.isprintable() else f"traceback: not one line: {line!r}"
    except BaseException as error:
        known = foreseen(error)
        came = "refused" if known is not None else f"traceback: {type(error).__name__}: {str(error)[:200]}"
    if ran:
        came = f"run: {', '.join(sorted(set(ran)))}"
    elif time.process_time() - processor > LIMIT:
        came = "hang: more than 5 s"
    os.write(tell, came.encode(errors="replace")[:1_000])
    os._exit(0)


def rows(folder: Path, seed: int, count: int | None, quick: bool) -> list[Row]:
    """The campaign's figures."""
    wanted = count or (400 if quick else 10_000)
    found = campaign(folder, seed, wanted)
    counts = found.counts
    bad = wanted - counts["refused"] - counts["read"] + counts["run"]
    note = (
        f"{counts['traceback']} tracebacks, {counts['hang']} hangs, {counts['wrong']} read wrong, {counts['run']} run, "
        f"{counts['ended']} readers ended; {counts['refused']:,} refused, {counts['read']:,} read; "
        f"{len(READERS)} kinds; slowest {found.slowest:.1f} s; {found.seconds:.0f} s"
    )
    return [
        Row("chaos", f"poison: problems of {wanted:,} inputs", bad, "", goal="0", met=bad == 0,
            note="; ".join([note, *found.problems[:8]])),
    ]  # fmt: skip
