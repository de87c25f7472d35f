"""The folder of an exported model: written whole or not at all, and read only as it was written.

README.md        the model card for people
card.json        the same facts for programs
seed-S/          a checkpoint a seed: model.safetensors, checkpoint.json
model.onnx       all seeds in one graph, where it was asked for
SHA256SUMS       of every other file; `sha256sum --check SHA256SUMS` reads it
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcutune.errors import BadInput, Damaged
from mcutune.files import read_bytes, read_json, sha256, sha256_file, sync_folder

CARD, README, ONNX, SUMS = "card.json", "README.md", "model.onnx", "SHA256SUMS"
SCHEMA = 1
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)?)")


def seed_folder(seed: int) -> str:
    """Where a seed's checkpoint lies in the folder."""
    return f"seed-{seed}"


def refuse_existing(target: Path) -> None:
    """Raises BadInput where something stands at the target: an export never writes over anything."""
    if target.exists() or target.is_symlink():
        raise BadInput(f"{target} exists", hint="choose another folder with --to, or remove it")


def write(target: Path, files: Mapping[str, bytes]) -> None:
    """Write files (NAME or FOLDER/NAME) and their sums into a new folder, beside it first. Raises BadInput, OSError."""
    refuse_existing(target)
    sums = "".join(f"{sha256(files[name])}  {name}\n" for name in sorted(files))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        for name, content in {**files, SUMS: sums.encode()}.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            with (temporary / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for folder in {(temporary / name).parent for name in files} | {temporary}:
            folder.chmod(0o755)
            sync_folder(folder)
        refuse_existing(target)  # a folder with files in it would also refuse the rename
        temporary.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_export(folder: Path) -> bool:
    """Whether a folder looks like an exported model."""
    return (folder / CARD).is_file() and (folder / SUMS).is_file()


def read_card(folder: Path) -> dict[str, Any]:
    """The card, every file of the folder having been checked.

    Raises BadInput where it is no exported model, Damaged where a file is not the one that was written.
    """
    if not is_export(folder):
        raise BadInput(
            f"{folder} is not an exported model", hint=f"it holds {CARD} and {SUMS}; mcutune export makes it"
        )
    sums = _sums(folder)
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file() or path.is_symlink():
            raise Damaged(f"{path} is missing or not a regular file", hint="copy the whole folder again")
        if sha256_file(path) != expected:
            raise Damaged(f"{path} is not the file that was exported", hint="its SHA-256 differs; export again")
    card = read_json(folder / CARD)
    if not isinstance(card, dict) or card.get("schema") != SCHEMA:
        raise Damaged(f"{folder / CARD} is not a model card of schema {SCHEMA}")
    needed = {CARD, *(f"{one['folder']}/{file}" for one in card["seeds"] for file in one["files"])}
    if lacking := sorted(needed - set(sums)):
        raise Damaged(f"{folder / SUMS} does not name {lacking[0]}", hint="export again")
    return card


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 by file."""
    lines = read_bytes(folder / SUMS, limit=1 << 20).decode("utf-8", errors="replace").splitlines()
    found = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or ".." in match[2]:
            raise Damaged(f"{folder / SUMS} is not what was written", hint="copy the whole folder again")
        found[match[2]] = match[1]
    return found
