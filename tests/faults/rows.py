"""The matrix of faults: 71 rows, each with a test in this folder that bears its number (`test_07_...` is row 7).

`note` says where mcutune deliberately does something else than is usual, or what a test leaves to a campaign.
"""

from __future__ import annotations

from dataclasses import dataclass

SECTIONS = {
    "A": "processes and nodes",
    "B": "storage",
    "C": "numbers",
    "D": "configuration",
    "E": "data",
    "F": "checkpoints",
    "G": "concurrency and load",
    "H": "security",
}


@dataclass(frozen=True)
class Row:
    """A row: `fault`, injected by its test, and what must come of it (`expected`)."""

    section: str
    fault: str
    expected: str
    note: str = ""


ROWS: dict[int, Row] = {
    1: Row("A", "SIGKILL of driver and children at a random instant", "resumed; nothing lost or twice; same ledger"),
    2: Row(
        "A",
        "SIGKILL at every call of the way to the disk",
        "the state before or after, never between",
        "CI takes every call of one commit, and one of each kind of everything else; `make chaos` takes every call",
    ),
    3: Row("A", "SIGKILL of a pack's worker", "same trial, configuration and seed again, as attempt + 1"),
    4: Row("A", "SIGKILL of raylet, head or coordinator", "ends with 6 within 30 s, resumable"),
    5: Row("A", "SIGSTOP of a pack beyond its lease, then SIGCONT", "handed on; the late result is refused"),
    6: Row("A", "a pack and its worker both want the last CPU", "packs take no CPU themselves; too many are refused"),
    7: Row("A", "SIGINT, SIGTERM once and twice", "6 within 10 s and resumable; twice: at once"),
    8: Row("A", "the terminal is closed (SIGHUP)", "no process and no open port is left after 15 s"),
    9: Row("A", "out of memory in a trial", "the pack is halved once, then the trial fails"),
    10: Row(
        "A",
        "a GPU is asked for where there is none",
        "5 before the first trial",
        "without --gpus-per-pack a machine without a GPU is used as it is, and the first line says so",
    ),
    11: Row(
        "A",
        "one of two data-parallel workers dies or hangs",
        "noticed within a minute; the lanes start again",
    ),
    12: Row(
        "A",
        "calls inside Ray are slow or lost",
        "slower; the same ledger",
        "Ray itself ends at once where every call may be lost or late: it is those calls that it repeats",
    ),
    13: Row("B", "disk full in a commit", "paused, said with the bytes needed; goes on when there is room"),
    14: Row("B", "disk full in a checkpoint", "paused; the old one stays, nothing half-written is left"),
    15: Row(
        "B",
        "EIO on fsync",
        "ends with 4; nothing more is written",
        "two syncs are SQLite's own, which tells nobody: of the folder, done again by us, and of its copy in closing",
    ),
    16: Row("B", "torn tail of the ledger", "seen by chain and head; doctor goes back to the last good commit"),
    17: Row("B", "torn or empty file of a run", "derived ones are made anew; else 4 and nothing is written"),
    18: Row(
        "B",
        "SIGKILL while a report is written",
        "whole or absent; the same command makes it",
        "the same command predicts everything again, not only what is missing: a report is of one pass",
    ),
    19: Row("B", "a flipped bit in any file that is read back", "noticed before use, the file named, 4"),
    20: Row("B", "read-only folder, no permission", "2 before any work"),
    21: Row("B", "the run's folder is moved or deleted", "noticed by the next commit, 4; nothing written elsewhere"),
    22: Row("B", "the clock jumps or stands still", "the same ledger; order by number, leases by monotonic time"),
    23: Row("B", "links planted in the run's folder", "refused; nothing is followed or overwritten"),
    24: Row("B", "a file system without locks", "refused with the reason"),
    25: Row("B", "no more file descriptors or inodes", "5, resumable"),
    26: Row("C", "NaN loss", "the trial fails at once, is not tried again, never wins"),
    27: Row("C", "an infinite metric", "the trial fails; -inf never wins"),
    28: Row("C", "gradients that explode", "the lane fails and says so; its neighbours are unharmed"),
    29: Row("C", "NaN for one combination only", "no mean over the others passes for the whole"),
    30: Row("C", "every trial fails", "1 with the causes, no best, no division by zero"),
    31: Row("C", "ties", "the lowest trial wins, every time"),
    32: Row("C", "a metric that is missing or no number", "the trial fails; the search goes on"),
    33: Row("C", "another order of completion", "the same ledger"),
    34: Row("C", "another number of threads", "named on resuming"),
    35: Row("D", "lr: 1e-3", "a number"),
    36: Row("D", "no, on, 1:30, 017", "refused where a number is needed"),
    37: Row("D", "a key twice", "refused with both lines"),
    38: Row("D", "a misspelt key", "refused with the nearest name"),
    39: Row("D", "bounds, steps and choices that cannot be", "each refused with file, line and key"),
    40: Row("D", "alias bomb", "refused within 100 ms"),
    41: Row("D", "too deep, too long, too large", "refused before it is built"),
    42: Row("D", "!!python tags", "refused; nothing runs"),
    43: Row("D", "names that leave the folder", "refused; nothing is made"),
    44: Row("D", "another space under the same name", "refused with the difference and --fork"),
    45: Row("D", "code, data or a library changed", "named; goes on only with --accept-change, which is recorded"),
    46: Row("E", "label pickle with a gadget", "refused by name; nothing runs"),
    47: Row(
        "E",
        "the label pickles of the literature",
        "load, with four numpy names at most",
        "the published files may not be shipped: files of the same opcodes and globals are read",
    ),
    48: Row("E", "pickle bombs", "end within limits"),
    49: Row("E", "hostile .npy", "refused in one line before memory is taken"),
    50: Row("E", "flipped, cut and hostile Parquet", "never wrong rows; extension types refused"),
    51: Row("E", "data that does not fit together", "every finding at once; leakage is 2"),
    52: Row("E", "archives as data", "not accepted; the message says unpack"),
    53: Row("E", "control bytes, right-to-left marks, formulas in text", "inert wherever they are shown"),
    54: Row("F", "--ckpt is a hostile .pt", "refused; nothing runs"),
    55: Row("F", "checkpoints that are cut, foreign or half", "named with expected and found; never half loaded"),
    56: Row("F", "header bombs", "refused within a second"),
    57: Row("F", "two valid checkpoints swapped", "refused by hash"),
    58: Row(
        "F",
        "a checkpoint goes while it is read",
        "pinned by its reader; one whole checkpoint answers",
        "pinned by best.json, until a search is opened again after another trial has won: its reader ends with a line",
    ),
    59: Row("G", "two searches of one name in the same second", "exactly one runs; the other is told who (3)"),
    60: Row("G", "a lock left by a killed process; its pid used again", "no wait, no manual step"),
    61: Row("G", "more trials than configurations", "each is trained once; 0"),
    62: Row(
        "G",
        "readers poll while a search writes",
        "no lock error, quick answers, memory flat",
        "500 trials, seconds of a processor, objects; by `python -m bench scale` 10,000, seconds on the wall, bytes",
    ),
    63: Row("G", "late, double, unknown and disordered words", "refused by attempt; ends never change"),
    64: Row(
        "H",
        "no token, a wrong one, foreign Origin, Host and agent",
        "401 or 403 everywhere",
        "there is no --insecure: a local Ray asks for its token whatever the environment says",
    ),
    65: Row("H", "sockets on other interfaces", "loopback only"),
    66: Row("H", "another user reads token, sockets, files", "nothing can be read"),
    67: Row("H", "hostile pickles in the run's folder", "never opened"),
    68: Row("H", "tokens in logs, reports, ps", "none"),
    69: Row("H", "hostile names in page and terminal", "shown, never obeyed"),
    70: Row(
        "H",
        "no network",
        "search and report work",
        "every command that needs no Ray, and a search on Ray; not the whole suite",
    ),
    71: Row("H", "a vulnerable dependency", "refused below its floor"),
}

UNTESTED: dict[int, str] = {}
"""Rows that cannot be tested, with the reason and what was done instead."""
