"""The published JSON Schemas, and documents held against them."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema

REPORT = "mcutune.robustness", "report.schema.json"
GATE = "mcutune.robustness", "gate.schema.json"
DIFFERENCE = "mcutune.robustness", "difference.schema.json"
CARD = "mcutune.export", "card.schema.json"
STATUS = "mcutune.search", "status.schema.json"


def schema(of: tuple[str, str]) -> dict[str, Any]:
    """As the package ships it."""
    found: dict[str, Any] = json.loads(resources.files(of[0]).joinpath(of[1]).read_text(encoding="utf-8"))
    return found


def hold(document: Any, of: tuple[str, str]) -> None:
    """Raises ValidationError unless the document, written and read again, is what the schema says and no more."""
    jsonschema.validate(json.loads(json.dumps(document, allow_nan=False)), schema(of))


def objects(part: Any) -> list[dict[str, Any]]:
    """Every schema of an object with named properties inside a schema."""
    if isinstance(part, list):
        return [one for each in part for one in objects(each)]
    if not isinstance(part, dict):
        return []
    own = [part] if isinstance(part.get("properties"), dict) else []
    return own + [one for each in part.values() for one in objects(each)]
