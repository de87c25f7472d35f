"""Options that several commands share, and how facts are printed as JSON."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def print_json(facts: Any) -> None:
    """Facts on stdout as one JSON document; control characters are escaped by JSON itself."""
    print(json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=True))
