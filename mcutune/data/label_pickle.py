"""The label pickles of the GCNet layout: the only pickles ever read, by an allow-list, in a child with limits.

A label file is a tuple of six (IEMOCAP: ids, labels, speakers, sentences, train, test) or seven (CMU-MOSI, CMU-MOSEI:
ids, labels, speakers, sentences, train, validation, test). The first four map a dialogue to the values of its
utterances; the others name dialogues. IEMOCAP's needs no global name at all; the others need four of numpy. Even
these are not numpy's own: stand-ins decode the few bytes that numbers and text take.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mcutune.data import child
from mcutune.data.hints import listed, shown
from mcutune.errors import BadInput

_FILE_LIMIT = 64 << 20  # bytes; the largest known, CMU-MOSEI's, has a tenth
_OPCODE_LIMIT = 3_000_000
_UTTERANCE_LIMIT = 1_000_000
_MEMORY, _SECONDS = 1 << 30, 10
_PLAIN_TYPE = re.compile(r"[biuf][1248]|[SU][1-9][0-9]{0,3}")
_PARTS = {6: ("train", "test"), 7: ("train", "validation", "test")}


@dataclass(frozen=True)
class Dialogue:
    """Utterances of a dialogue in order; a label is None where there is none."""

    name: str
    utterances: tuple[str, ...]
    labels: tuple[float | None, ...]
    speakers: tuple[str, ...]


@dataclass(frozen=True)
class LabelFile:
    """Dialogues, and the names of those in each part; `validation` is there in the form of seven only."""

    dialogues: tuple[Dialogue, ...]
    parts: dict[str, tuple[str, ...]]


def read_label_pickle(path: Path) -> LabelFile:
    """The content of a label file, read in a child process. Raises BadInput; nothing that a pickle names is run."""
    if not path.is_file():
        raise BadInput(f"{shown(path, 200)} does not exist or is not a file")
    if path.stat().st_size > _FILE_LIMIT:
        raise BadInput(f"{shown(path, 200)} has more than the {_FILE_LIMIT >> 20} MiB that a label file may have")
    answer = child.run("mcutune.data.label_pickle", {"path": str(path)}, path, memory=_MEMORY, seconds=_SECONDS)
    dialogues = (
        Dialogue(name, tuple(ids), tuple(labels), tuple(who)) for name, ids, labels, who in answer["dialogues"]
    )
    return LabelFile(tuple(dialogues), {part: tuple(names) for part, names in answer["parts"].items()})


class _Dtype:
    """Stand-in for numpy.dtype: the type string, and the byte order that the pickle sets after it."""

    def __init__(self, kind: object, *_: object) -> None:
        if not isinstance(kind, str) or not _PLAIN_TYPE.fullmatch(kind):
            raise BadInput(f"holds a numpy type that is not a plain number or text: {shown(kind)}")
        self.kind, self.order = kind, "<"

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise BadInput("holds a numpy type that is not valid")
        self.order = state[1]

    def decode(self, content: object) -> list[Any]:
        """The numbers or texts of these bytes; text in their place is how Python 2 wrote bytes."""
        data = content.encode("latin1") if isinstance(content, str) else content
        dtype = np.dtype(self.order.replace("|", "=") + self.kind)
        if not isinstance(data, bytes) or len(data) % dtype.itemsize:
            raise BadInput("holds numbers whose bytes are not valid")
        values = np.frombuffer(data, dtype)
        if dtype.kind in "SU":
            return [value.decode("latin1") if isinstance(value, bytes) else value for value in values.tolist()]
        return [float(value) for value in values]


def _scalar(dtype: object, content: object = None) -> Any:
    """Stand-in for numpy's `scalar`: the number or text."""
    values = dtype.decode(content) if isinstance(dtype, _Dtype) else []
    if len(values) != 1:
        raise BadInput("holds a number that is not valid")
    return values[0]


class _Array:
    """Stand-in for numpy.ndarray: only its values count, in the order of memory."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Dtype):
            raise BadInput("holds an array that is not valid")
        self.values = state[2].decode(state[4])


def _reconstruct(*_: object) -> _Array:
    return _Array()


_ALLOWED: dict[tuple[str, str], object] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise BadInput(f"is refused: it names {shown(module)}.{shown(name)}, which a label file does not need")
        return _ALLOWED[module, name]


def _load(content: bytes) -> Any:
    """The object of a pickle, by the allow-list. Raises BadInput."""
    try:
        for count, (opcode, _, _) in enumerate(pickletools.genops(content)):
            if count > _OPCODE_LIMIT:
                raise BadInput(f"is refused: it has more than {_OPCODE_LIMIT:,} instructions")
            if opcode.name.startswith(("EXT", "PERSID", "BINPERSID")):
                raise BadInput(f"is refused: a label file does not need {opcode.name}")
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except (BadInput, MemoryError):
        raise
    except Exception as error:  # a broken pickle may raise anything; nothing of it is run
        raise BadInput(f"is not a sound pickle: {type(error).__name__}") from None


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """In the child: dialogues and parts as plain JSON."""
    loaded = _load(Path(request["path"]).read_bytes())
    if not isinstance(loaded, tuple | list) or len(loaded) not in _PARTS:
        raise BadInput("is not a label file: a tuple of 6 (IEMOCAP) or 7 (CMU-MOSI, CMU-MOSEI) is expected")
    ids, labels, speakers = (_by_dialogue(value) for value in loaded[:3])
    problems = [name for name in ids if not len(ids[name]) == len(labels.get(name, ())) == len(speakers.get(name, ()))]
    if problems:
        raise BadInput(f"has unequal numbers of ids, labels and speakers in: {listed(problems)}")
    dialogues = [
        [name, _texts(ids[name]), [_number(label) for label in labels[name]], _texts(speakers[name])] for name in ids
    ]
    parts = {part: sorted(_texts(value)) for part, value in zip(_PARTS[len(loaded)], loaded[4:], strict=True)}
    return {"dialogues": dialogues, "parts": parts}


def _by_dialogue(value: Any) -> dict[str, list[Any]]:
    """Dialogue to its utterances' values, in order of name."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise BadInput("is not a label file: ids, labels and speakers are not by the name of a dialogue")
    # Dialogues may share one list: a small file would become a reply of gigabytes.
    if sum(len(values) for values in value.values() if isinstance(values, list | tuple)) > _UTTERANCE_LIMIT:
        raise BadInput(f"is refused: it has more than {_UTTERANCE_LIMIT:,} utterances")
    return {name: _values(value[name]) for name in sorted(value)}


def _values(value: Any) -> list[Any]:
    if isinstance(value, _Array):
        return list(value.values)
    if isinstance(value, list | tuple):
        return [item.values[0] if isinstance(item, _Array) and len(item.values) == 1 else item for item in value]
    raise BadInput(f"is not a label file: {type(value).__name__} in the place of a dialogue's utterances")


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list | tuple | set | frozenset | dict | _Array):
        raise BadInput(f"is not a label file: {type(values).__name__} in the place of names")
    texts = list(values.values if isinstance(values, _Array) else values)
    if not all(isinstance(text, str) for text in texts):
        raise BadInput("is not a label file: a name is not text")
    return texts


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"is not a label file: {type(value).__name__} in the place of a label")
    return float(value) if math.isfinite(value) else None


if __name__ == "__main__":
    child.serve(_answer)
