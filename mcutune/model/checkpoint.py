"""A checkpoint folder: model.safetensors and checkpoint.json. It moves alone: encoder, normalisation, names are in it.

epochs.safetensors, where every epoch was kept, holds what was trained (not the frozen encoder) by EPOCH.NAME.

safetensors is safe to parse but does not notice a flipped bit, so checkpoint.json carries the SHA-256 of the weights;
checkpoint.json has a hash of itself, and its own hash is kept by whoever refers to the folder (best.json, the ledger).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from mcutune.errors import BadInput, Damaged
from mcutune.files import read_bytes, read_json, sealed, sha256, whole

SCHEMA = 2  # 1: until the tensors of adapters were laid out anew
WEIGHTS, FACTS, EPOCHS = "model.safetensors", "checkpoint.json", "epochs.safetensors"
_HEADER_LIMIT, _TENSOR_LIMIT, _FILE_LIMIT = 8 << 20, 10_000, 4 << 30
_NEEDED = ("configuration", "modalities", "dims", "task", "label_names", "normalisation", "data", "lane", "sha256")


def pack_files(
    tensors: dict[str, Tensor], facts: dict[str, Any], epochs: Sequence[dict[str, Tensor]] = ()
) -> dict[str, bytes]:  # fmt: skip
    """The files of a checkpoint, name to content; deterministic for equal input. epochs: the tensors of each epoch."""
    files = {WEIGHTS: _saved(tensors)}
    if epochs:
        files[EPOCHS] = _saved({f"{n}.{name}": of for n, one in enumerate(epochs, 1) for name, of in one.items()})
    facts = sealed({"schema": SCHEMA, **facts, "sha256": {name: sha256(content) for name, content in files.items()}})
    told = json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False).encode() + b"\n"
    return {**files, FACTS: told}


def _saved(tensors: dict[str, Tensor]) -> bytes:
    return save({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)})


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a checkpoint folder.

    Raises BadInput where the folder is none, Damaged where a file is not what was written.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a checkpoint folder", hint=f"it holds {WEIGHTS} and {FACTS}")
    facts = _checked(whole(read_json(folder / FACTS), folder / FACTS), folder)
    return _tensors(folder, WEIGHTS, facts), facts


def unpacked(files: Mapping[str, bytes], name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a checkpoint's files; `name`: what to call the checkpoint. Raises as `read`."""
    try:
        parsed = json.loads(files[FACTS])
    except (ValueError, RecursionError):
        raise Damaged(f"{FACTS} of {name} is not valid JSON", hint="it was written whole; restore it") from None
    facts = _checked(whole(parsed, Path(name) / FACTS), Path(name))
    return _verified(files[WEIGHTS], Path(name) / WEIGHTS, facts), facts


def _checked(facts: Any, folder: Path) -> dict[str, Any]:
    """What checkpoint.json holds. Raises BadInput for another schema, Damaged."""
    if isinstance(facts, dict) and facts.get("schema") == 1:
        raise BadInput(
            f"{folder} is a checkpoint of schema 1, this version reads schema {SCHEMA}",
            hint="search again, or read it with the version that wrote it",
        )
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        raise Damaged(f"{folder / FACTS} is not a checkpoint of schema {SCHEMA}")
    lacking = [key for key in _NEEDED if key not in facts]
    if lacking:
        raise Damaged(f"{folder / FACTS} lacks {', '.join(lacking)}")
    return facts


def read_epochs(folder: Path, facts: dict[str, Any]) -> list[dict[str, Tensor]]:
    """What was trained after each epoch, first to last; facts: as `read` gave them.

    Raises BadInput where only the best epoch was kept, Damaged where the file is not what was written.
    """
    if EPOCHS not in facts["sha256"]:
        raise BadInput(f"{folder} holds its best epoch only", hint="mcutune compare NAME --with epochs keeps all")
    epochs: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _tensors(folder, EPOCHS, facts).items():
        number, _, rest = name.partition(".")
        epochs.setdefault(int(number) if number.isdecimal() else 0, {})[rest] = tensor
    if sorted(epochs) != list(range(1, len(epochs) + 1)):
        raise Damaged(f"{folder / EPOCHS} does not hold epochs 1 to {len(epochs)}")
    return [epochs[number] for number in sorted(epochs)]


def _tensors(folder: Path, name: str, facts: dict[str, Any]) -> dict[str, Tensor]:
    return _verified(read_bytes(folder / name, limit=_FILE_LIMIT), folder / name, facts)


def _verified(content: bytes, path: Path, facts: dict[str, Any]) -> dict[str, Tensor]:
    if sha256(content) != facts["sha256"].get(path.name):
        raise Damaged(f"{path} is not the file that {FACTS} names", hint="its SHA-256 differs")
    return parse_tensors(content, path)


def parse_tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, with limits on its header. Raises Damaged."""
    length = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else _HEADER_LIMIT + 1
    if length > min(_HEADER_LIMIT, len(content) - 8):
        raise Damaged(f"{path} is not a safetensors file: its header is cut off or larger than {_HEADER_LIMIT:,} bytes")
    if content.count(b'"dtype"', 8, 8 + length) > _TENSOR_LIMIT:
        raise Damaged(f"{path} names more than {_TENSOR_LIMIT:,} tensors")
    try:
        tensors = load(content)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise Damaged(f"{path} is not a valid safetensors file: {error}") from None
    wrong = [name for name, tensor in tensors.items() if tensor.dtype != torch.float32]
    if wrong:
        raise Damaged(f"{path}: tensor {wrong[0]} is {tensors[wrong[0]].dtype}, expected torch.float32")
    return tensors


def expect(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """Check names and shapes strictly. Raises Damaged naming what is expected and what was found."""
    lacking, extra = sorted(set(shapes) - set(tensors)), sorted(set(tensors) - set(shapes))
    if lacking:
        raise Damaged(f"{path} lacks tensor {lacking[0]}" + (f" and {len(lacking) - 1} more" if lacking[1:] else ""))
    if extra:
        raise Damaged(f"{path} holds an unexpected tensor {extra[0]}")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise Damaged(f"{path}: tensor {name} has shape {tuple(tensors[name].shape)}, expected {shape}")
