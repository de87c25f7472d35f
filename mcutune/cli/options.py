"""Options that several commands share, and how facts are printed as JSON."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Plain = Annotated[bool, typer.Option("--plain", help="Lines instead of a live view.")]

# Where training runs, and in how many packs of which size: of `search` and `compare`.
Place = Annotated[str | None, typer.Option(help="process (no Ray), local (a Ray of its own; the default), cluster.")]
Address = Annotated[str | None, typer.Option(help="An existing Ray cluster: auto, or HOST:PORT of its head.")]
Packs = Annotated[int | None, typer.Option(min=1, help="Packs (processes that train) at once; else as many as fit.")]
Lanes = Annotated[
    int | None,
    typer.Option(min=1, help="Lanes (trial and seed) that a pack trains at once; else measured, or all of use."),
]
CpusPerPack = Annotated[int, typer.Option(min=1, help="CPUs of a pack, all its workers together.")]
WorkersPerPack = Annotated[int, typer.Option(min=1, help="Data-parallel workers of a pack.")]
GpusPerPack = Annotated[
    float | None, typer.Option(min=0, help="GPUs of a pack, 0.5 to share one; else 1 where there are any.")
]
AcceptChange = Annotated[
    bool, typer.Option("--accept-change", help="Continue although data or versions changed; the run records it.")
]


def print_json(facts: Any) -> None:
    """Facts on stdout as one JSON document; control characters are escaped by JSON itself."""
    print(json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=True))
