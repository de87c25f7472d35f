"""Folders of files that are whole or absent: checkpoints of a run, trained encoders of a home."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from mcutune.domain.trial import LaneId
from mcutune.errors import BadInput, UserError
from mcutune.files import canonical_json, checked_name, exchange_folders, keep_aside, read_bytes, read_json, sha256

_MANIFEST = "files.json"
_SYNCS = 16  # at once


def write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder beside and rename it over; durable when this returns. Raises OSError."""
    write_folders({target: files})


def write_folders(folders: Mapping[Path, Mapping[str, bytes]]) -> None:
    """Write folders beside and rename them over: synced file by file, the folders, their parents. Raises OSError.

    Whole or absent is each of them, not all together; all are durable when this returns.
    """
    changed = {target.parent for target in folders}
    for target in folders:
        changed |= _make_parents(target.parent)
    temporaries: dict[Path, Path] = {}
    try:
        for target, files in folders.items():
            temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
            temporaries[target] = temporary
            for name, content in files.items():
                (temporary / checked_name(name, "file")).write_bytes(content)
        _sync([path for target, part in temporaries.items() for path in (*(part / n for n in folders[target]), part)])
        for target, temporary in temporaries.items():
            _swap(temporary, target)
        _sync(sorted(changed))
    finally:
        for temporary in temporaries.values():
            shutil.rmtree(temporary, ignore_errors=True)


def _sync(paths: Sequence[Path]) -> None:
    """Make files and folders durable. Many at once: a file system takes those that wait into one commit of its own."""
    if len(paths) <= _SYNCS:
        for path in paths:
            _sync_one(path)
        return
    with ThreadPoolExecutor(_SYNCS) as pool:
        for done in [pool.submit(_sync_one, path) for path in paths]:
            done.result()


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(fresh: Path, target: Path) -> None:
    """Rename over; what stood there (from before a crash, never acknowledged) is removed."""
    try:
        fresh.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if exchange_folders(fresh, target):
            return  # what stood there is removed under the other name
        old = target.with_name(f".{target.name}.old.part")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def _make_parents(folder: Path) -> set[Path]:
    """Make a folder and those above it; the folders that have a new entry by that."""
    if folder.exists():
        return set()
    changed = _make_parents(folder.parent) | {folder.parent}
    folder.mkdir(exist_ok=True)
    return changed


def checkpoint_folder(run: Path, lane: LaneId) -> Path:
    """RUN/checkpoints/FOLD/TRIAL/SEED."""
    return run / "checkpoints" / checked_name(lane.fold, "fold") / str(lane.trial) / str(lane.seed)


Hashes = tuple[str | None, str | None]
"""The SHA-256 of a checkpoint's weights and of its checkpoint.json."""


def write_checkpoints(run: Path, checkpoints: Mapping[LaneId, Mapping[str, bytes]]) -> dict[LaneId, Hashes]:
    """Make the checkpoints of lanes durable; their hashes. Raises OSError."""
    write_folders({checkpoint_folder(run, lane): files for lane, files in checkpoints.items() if files})
    return {
        lane: (_hash(files, "model.safetensors"), _hash(files, "checkpoint.json"))
        for lane, files in checkpoints.items()
    }


def _hash(files: Mapping[str, bytes], name: str) -> str | None:
    return sha256(files[name]) if name in files else None


def drop_checkpoints(run: Path, fold: str, trial: int) -> None:
    """Remove all checkpoints of a trial at once: a reader finds all its seeds or none."""
    folder = checkpoint_folder(run, LaneId(fold, trial, 0)).parent
    aside = folder.with_name(f".{trial}.part")
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def sweep(run: Path) -> None:
    """Remove what a crash left half-written, or half-removed."""
    for pattern in ("checkpoints/*/*/.*.part", "checkpoints/*/.*.part"):
        for path in run.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


class EncoderCache:
    """Trained encoders by content key under HOME/encoders, and who is training which now."""

    def __init__(self, folder: Path, alive: Callable[[str], bool]) -> None:
        """`alive`: whether a pack, by name, is still believed to be at work."""
        self._folder = folder
        self._alive = alive
        self._training: dict[str, str] = {}
        self._forerunner = ""  # who trains ahead of the packs, and is none

    def get(self, key: str, pack: str) -> dict[str, bytes] | Literal["train", "wait"]:
        """The files; or `train` for the pack that is to make them; or `wait` while another one does."""
        files = self._load(key)
        if files is not None:
            self._training.pop(key, None)
            return files
        holder = self._training.get(key)
        if holder in (None, pack) or not (holder == self._forerunner or self._alive(holder)):
            self._training[key] = pack
            return "train"
        return "wait"

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Store an encoder; one that is there already stays. Raises OSError."""
        if self._load(key) is None:
            hashes = {name: sha256(content) for name, content in files.items()}
            write_folder(self._path(key), {**files, _MANIFEST: canonical_json(hashes)})
        self._training.pop(key, None)

    def led_by(self, forerunner: str) -> None:
        """One who is no pack trains encoders from now on; empty once it has ended, however it did."""
        self.release(self._forerunner)
        self._forerunner = forerunner

    def release(self, pack: str) -> None:
        """A pack that speaks of something else trains no encoder: what it was told to train is anybody's."""
        self._training = {key: holder for key, holder in self._training.items() if holder != pack}

    def is_training(self, pack: str) -> bool:
        """Whether the pack was told to train an encoder and has not brought it yet."""
        return pack in self._training.values()

    def _load(self, key: str) -> dict[str, bytes] | None:
        """The files, verified; None where there are none. Damaged ones are kept aside: an encoder is trained again."""
        folder = self._path(key)
        if not folder.is_dir():
            return None
        files = _whole(folder)
        if files is None:
            keep_aside(folder)
        return files

    def _path(self, key: str) -> Path:
        if not key.isalnum():
            raise BadInput(f"encoder key {key[:80]!r} is not valid")
        return self._folder / checked_name(key, "encoder")


def _whole(folder: Path) -> dict[str, bytes] | None:
    """The files of an encoder; None where they are not those that its manifest names."""
    with contextlib.suppress(UserError, AttributeError, TypeError):
        hashes: dict[str, str] = read_json(folder / _MANIFEST)
        files = {checked_name(name, "file"): read_bytes(folder / name) for name in hashes}
        if files and all(sha256(content) == hashes[name] for name, content in files.items()):
            return files
    return None


def damaged_encoders(cache: Path) -> Iterator[Path]:
    """The folders of encoders whose files are not those that were written."""
    for folder in sorted(cache.glob("[0-9a-zA-Z]*")):
        if folder.name.isalnum() and folder.is_dir() and _whole(folder) is None:
            yield folder
