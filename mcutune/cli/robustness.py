"""`mcutune robustness`: measure the best models while modalities are missing."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mcutune.cli.options import Json, print_json


def robustness(
    ckpt: Annotated[
        str, typer.Option(help="best (of the run finished last here), a run, RUN:TRIAL, or a checkpoint folder.")
    ] = "best",
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="A protocol: a YAML file, or fixed, random, cross_dataset. May be repeated; default all that fit."
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Another dataset, for cross_dataset.")] = None,
    normalisation: Annotated[
        str | None, typer.Option(help="train, group or none; else as the models were trained.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure a run's winners on the test part under protocols of missing modalities, and write the report.

    This opens the labels of the test rows; the report says how often that has happened for the run.
    """
    raise NotImplementedError((sys, print_json))
