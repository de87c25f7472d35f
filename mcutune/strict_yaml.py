"""YAML without surprises: what a person typed is what the program gets, or one line says why not.

Read from PyYAML's events instead of its constructors, so nothing is built before it is checked: no aliases, anchors,
merge keys, tags, repeated keys or second documents; at most 256 KiB and 20 levels. Plain scalars follow YAML 1.2
(`1e-3` is a number); the YAML 1.1 traps `no`, `on`, `017`, `1:30`, `1_000` stay text, which a typed schema refuses.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from mcutune.errors import BadInput, Problems

SIZE_LIMIT = 256 * 1024
DEPTH_LIMIT = 20

Key = str | int
Where = tuple[Key, ...]
Model = TypeVar("Model", bound=BaseModel)

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False, "True": True, "False": False}
_MOST_DIGITS = 18


@dataclass(frozen=True)
class Document:
    """A parsed file: its value (dict, list, str, int, float, bool, None) and the line of every key and item.

    options: top-level keys whose values are not the file's but were given as options of a command.
    """

    name: str
    value: Any
    lines: dict[Where, int] = field(repr=False)
    options: frozenset[Key] = frozenset()

    def at(self, where: Where) -> str:
        """`FILE:LINE: key.path`, the line of the nearest place known; `--key` for an option."""
        if where and where[0] in self.options:
            return f"--{where[0]}"
        known = where
        while known and known not in self.lines:
            known = known[:-1]
        path = ".".join(str(key) for key in where)
        return f"{self.name}:{self.lines.get(known, 1)}" + (f": {path}" if path else "")


@dataclass
class Findings:
    """Every problem of one document, collected so that all are reported at once."""

    document: Document
    problems: list[str] = field(default_factory=list)

    def add(self, where: Where, problem: str, valid: Iterable[Any] = ()) -> None:
        """Note a problem; `valid` lists what would have been right."""
        shown = ", ".join(str(value) for value in valid)
        self.problems.append(f"{self.document.at(where)}: {problem}" + (f" (valid: {shown})" if shown else ""))

    def unknown(self, where: Where, valid: Iterable[str]) -> None:
        """Note a key that does not exist, with the nearest one that does."""
        names = sorted(valid)
        self.add(where, f"unknown key{did_you_mean(str(where[-1]), names)}", names)

    def close(self) -> None:
        """Raise Problems if anything was noted."""
        if not self.problems:
            return
        if all(problem.startswith("--") for problem in self.problems):  # the file itself is not to blame
            raise BadInput("; ".join(self.problems))
        raise Problems(f"{self.document.name} is not valid", problems=tuple(self.problems))


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """`, did you mean 'rank'?`, or nothing where no valid word is near."""
    near = difflib.get_close_matches(word, list(valid), n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def load(source: Path | str, name: str | None = None) -> Document:
    """Parse a file (a Path) or a text (a str). Raises BadInput naming file and line."""
    if isinstance(source, Path):
        return _parse(_read(source), name or str(source))
    return _parse(source, name or "text")


def validated(document: Document, model: type[Model]) -> Model:
    """The document as a pydantic model. Raises Problems with file, line, key and what is valid for every error."""
    if not isinstance(document.value, dict):
        raise BadInput(f"{document.at(())}: a mapping of keys to values is expected")
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        findings = Findings(document)
        for entry in error.errors():
            where = tuple(entry["loc"])
            if entry["type"] == "extra_forbidden":
                findings.unknown(where, _keys_at(model, where[:-1]))
            else:
                findings.add(where, f"{entry['msg']} (got {_short(entry['input'])})")
        findings.close()
        raise


def _keys_at(model: type[BaseModel], where: Where) -> list[str]:
    """The keys that a model has at a place: follows fields and dict values that are models."""
    here: Any = model
    for key in where:
        fields = getattr(here, "model_fields", {})
        annotation = fields[key].annotation if key in fields else here
        here = next((part for part in _parts(annotation) if hasattr(part, "model_fields")), here)
    return list(here.model_fields)


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _parts(part)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
        if len(content) > SIZE_LIMIT:
            raise BadInput(f"{path} is larger than {SIZE_LIMIT // 1024} KiB")
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None


def _parse(text: str, name: str) -> Document:
    if len(text.encode("utf-8", "surrogatepass")) > SIZE_LIMIT:
        raise BadInput(f"{name} is larger than {SIZE_LIMIT // 1024} KiB")
    builder = _Builder(name)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.feed(event)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInput(f"{name}:{line}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{name}: not YAML: {error}") from None
    return Document(name, builder.value, builder.lines)


class _Builder:
    """Builds the value from events, with an explicit stack of the open containers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.value: Any = None
        self.lines: dict[Where, int] = {}
        self._open: list[tuple[Any, Where]] = []
        self._keys: list[str | None] = []  # of each open mapping: the key that waits for its value
        self._documents = 0

    def feed(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._refuse(line, "a second document is not allowed")
        elif isinstance(event, yaml.AliasEvent):
            self._refuse(line, f"alias *{event.anchor} is not allowed; write the value out")
        elif isinstance(event, yaml.NodeEvent):
            self._node(event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._keys.pop()

    def _node(self, event: Any, line: int) -> None:
        if event.anchor is not None:
            self._refuse(line, f"anchor &{event.anchor} is not allowed; write the value out")
        if event.tag is not None:
            self._refuse(line, f"tag {event.tag} is not allowed")
        if self._open and isinstance(self._open[-1][0], dict) and self._keys[-1] is None:
            return self._key(event, line)
        scalar = isinstance(event, yaml.ScalarEvent)
        value = self._scalar(event, line) if scalar else ({} if isinstance(event, yaml.MappingStartEvent) else [])
        where = self._place(value, line)
        if not scalar:
            if len(self._open) >= DEPTH_LIMIT:
                self._refuse(line, f"nested deeper than {DEPTH_LIMIT} levels")
            self._open.append((value, where))
            self._keys.append(None)
        return None

    def _key(self, event: Any, line: int) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(line, "a key must be text")
        key = event.value
        mapping, where = self._open[-1]
        if event.style is None and key == "<<":
            self._refuse(line, "merge key << is not allowed; write the values out")
        if event.style is None and not isinstance(self._scalar(event, line), str):
            self._refuse(line, f"key {key or 'null'} is not text; quote it")
        if key in mapping:
            self._refuse(line, f"key {key!r} is already given in line {self.lines[(*where, key)]}")
        mapping[key] = None
        self.lines[(*where, key)] = line
        self._keys[-1] = key

    def _place(self, value: Any, line: int) -> Where:
        if not self._open:
            self.value = value
            return ()
        container, where = self._open[-1]
        if isinstance(container, list):
            container.append(value)
            place = (*where, len(container) - 1)
            self.lines[place] = line
            return place
        key = self._keys[-1]
        assert key is not None
        container[key] = value
        self._keys[-1] = None
        return (*where, key)

    def _scalar(self, event: Any, line: int) -> Any:
        text = event.value
        if event.style is not None:  # quoted or block: always text
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INTEGER.fullmatch(text):
            if len(text) > _MOST_DIGITS:
                self._refuse(line, f"an integer of {len(text)} digits is too large")
            return int(text)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if math.isfinite(number):
                return number
            self._refuse(line, f"{text[:20]} is not finite")
        if _NOT_FINITE.fullmatch(text):
            self._refuse(line, f"{text} is not finite")
        return text

    def _refuse(self, line: int, problem: str) -> None:
        raise BadInput(f"{self.name}:{line}: {problem}")
