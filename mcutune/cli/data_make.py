"""`mcutune data make`: the built-in datasets, generated here or shipped by a dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcutune.cli.options import Json, print_json
from mcutune.cli.text import score
from mcutune.errors import BadInput

if TYPE_CHECKING:
    from mcutune.data.table import Table

app = typer.Typer(help="Make a built-in dataset; nothing is downloaded.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def planted(
    name: Annotated[str, typer.Option(help="Its name.")] = "planted",
    rows: Annotated[int, typer.Option(help="Utterances.")] = 4000,
    modalities: Annotated[int, typer.Option(help="Modalities, M.")] = 3,
    classes: Annotated[int, typer.Option(help="Classes, K.")] = 4,
    difficulty: Annotated[float, typer.Option(help="Above 1: classes lie closer together.")] = 1.0,
    informativeness: Annotated[
        str | None, typer.Option(help="One number a modality, comma-separated: 0.9,0.7,0.45.")
    ] = None,
    dims: Annotated[str | None, typer.Option(help="Features a modality, comma-separated: 24,32,20.")] = None,
    dialogue_rows: Annotated[int, typer.Option(help="Mean utterances of a dialogue.")] = 15,
    stay: Annotated[float, typer.Option(help="Probability that an utterance keeps the class of the last.")] = 0.6,
    seed: Annotated[int, typer.Option(help="Another seed is another world.")] = 0,
    json: Json = False,
) -> None:
    """Dialogues whose best possible accuracy is known for every combination of modalities."""
    from mcutune.data import planted as generator

    table = generator.make(
        name,
        rows=rows,
        modalities=modalities,
        classes=classes,
        difficulty=difficulty,
        informativeness=_numbers(informativeness, "--informativeness", float),
        dims=_numbers(dims, "--dims", int),
        dialogue_rows=dialogue_rows,
        stay=stay,
        seed=seed,
    )
    _print_made(table, json)


@app.command()
def digits(
    name: Annotated[str, typer.Option(help="Its name.")] = "digits",
    json: Json = False,
) -> None:
    """scikit-learn's real handwritten digits as three views."""
    from mcutune.data import digits as generator
    from mcutune.files import checked_name

    _print_made(generator.make(name=checked_name(name, "dataset")), json)


def _numbers(text: str | None, option: str, kind: Any) -> tuple[Any, ...] | None:
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise BadInput(f"{option} {text!r} is not a list of numbers", hint="for example 0.9,0.7,0.45") from None


def _print_made(table: Table, json: bool) -> None:
    from mcutune.cli.data import summary_line, table_facts

    manifest = table.manifest
    if json:
        print_json({**table_facts(manifest), "extra": manifest.extra})
        return
    print(summary_line(manifest))
    best = manifest.extra.get("planted", {}).get("bayes", {}).get("accuracy", {})
    if best:
        values = ", ".join(f"{label} {score(kinds['utterance'])}" for label, kinds in best.items())
        print(f"best possible accuracy of an utterance alone: {values}")
