"""What `mcutune doctor` looks at inside a home: runs, encoders, who may read them, and what Ray listens to."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from mcutune.cli.findings import Finding

_RAY = ("raylet", "gcs_server", "ray::", "ray/dashboard/")
_LOOPBACK = {"tcp": ("0100007F",), "tcp6": ("0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F")}
_LISTENS = "0A"  # a socket's state in /proc/net/tcp


def of_run(name: str, folder: Path) -> Iterator[Finding]:
    """The ledger from its first commit, its manifest, its lock, every checkpoint that was kept."""
    from mcutune.errors import UserError
    from mcutune.files import read_sealed
    from mcutune.search.ledger import read_ledger
    from mcutune.search.lock import holder_of
    from mcutune.search.run_folder import MANIFEST
    from mcutune.search.verify import wrong_checkpoints

    subject = f"run {name}"
    holder = holder_of(folder)
    if holder is not None:
        text = f"at work in process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
        yield Finding("good", subject, text)
    try:
        read_sealed(folder / MANIFEST)
        records, last = read_ledger(folder)
        wrong = list(wrong_checkpoints(folder))
    except UserError as error:
        ledger = error.exit_code == 4 and "ledger" in error.message
        remedy = f"`mcutune doctor {name} --repair` goes back to its last good commit" if ledger else error.hint or ""
        if error.message.startswith(str(folder / MANIFEST)):
            first = "remove it, and " if (folder / MANIFEST).exists() else ""
            remedy = f"{first}the same search command makes it anew"
        yield Finding("bad", subject, f"{error.message}; {remedy}".rstrip("; "), error.exit_code)
        return
    trials = sum(len(study.trials) for study in records.studies.values())
    yield Finding("good", subject, f"{trials:,} trials in {last.number:,} commits, chain whole")
    for problem in wrong:
        yield Finding("bad", subject, f"{problem}; `mcutune doctor --mend` keeps it aside", 4)


def of_encoders(home: Path) -> Iterator[Finding]:
    """Trained encoders whose files are not those that were written: they are trained again when needed."""
    from mcutune.search.artefacts import damaged_encoders

    for folder in damaged_encoders(home / "encoders"):
        yield Finding(
            "note", f"encoder {folder.name[:12]}", "is damaged; it is kept aside and trained again when needed"
        )


def of_rights(home: Path) -> Iterator[Finding]:
    """What others on this machine may read or write below the home."""
    open_ones = list(readable_by_others(home))
    if open_ones:
        text = f"others may read {open_ones[0]}" + (f" and {len(open_ones) - 1} more" if open_ones[1:] else "")
        yield Finding("note", "home", f"{text}; `mcutune doctor --mend` closes them")


def readable_by_others(home: Path) -> Iterator[Path]:
    """The outermost folders and files of ours that are open to group or others; links are not followed."""
    for place in ("datasets", "encoders", "runs", "timings", "logs"):
        for path in sorted((home / place).glob("*")) if not (home / place).is_symlink() else ():
            status = path.lstat()
            if not stat.S_ISLNK(status.st_mode) and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                yield path


def mend(home: Path, runs: dict[str, Path]) -> Iterator[str]:
    """Do what loses nothing: close what others may read, keep what is damaged aside; a line each."""
    from mcutune.errors import UserError
    from mcutune.files import keep_aside
    from mcutune.search.artefacts import damaged_encoders
    from mcutune.search.verify import wrong_checkpoints

    for path in readable_by_others(home):
        path.chmod(path.stat().st_mode & ~(stat.S_IRWXG | stat.S_IRWXO))
        yield f"only you may read {path} now"
    for folder in list(damaged_encoders(home / "encoders")):
        yield f"a damaged encoder lies in {keep_aside(folder)}; it is trained again when needed"
    for folder in runs.values():
        try:
            damaged = {Path(problem.split(" is ")[0]).parent for problem in wrong_checkpoints(folder)}
        except UserError:
            continue  # its ledger is --repair's
        for place in sorted(damaged):
            yield f"a damaged checkpoint lies in {keep_aside(place)}"


def of_ports() -> Iterator[Finding]:
    """Ports of this user's Ray processes that are open to other machines: a search's own listen on 127.0.0.1 only."""
    listening = dict(_outward_sockets())
    for entry in Path("/proc").glob("[0-9]*") if listening else ():
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if not any(word in command for word in _RAY):
                continue
            links = {str(link.readlink()) for link in (entry / "fd").iterdir()}
        except OSError:
            continue  # it ended, or is another user's
        for inode in links & set(listening):
            what = f"process {entry.name} of Ray answers other machines at {listening[inode]}"
            yield Finding("note", "ports", f"{what}; a cluster needs that, a local Ray does not")


def _outward_sockets() -> Iterator[tuple[str, str]]:
    """`socket:[inode]` and port of what listens on more than the loopback."""
    for table, inside in _LOOPBACK.items():
        try:
            lines = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in (line.split() for line in lines):
            address, port = fields[1].split(":")
            if fields[3] == _LISTENS and address not in inside:
                yield f"socket:[{fields[9]}]", f"port {int(port, 16)}"
