"""`mcutune compare`: train beside a run's winners what a report compares them with."""

from __future__ import annotations

from typing import Annotated

import typer

from mcutune.cli.options import (
    AcceptChange,
    Address,
    CpusPerPack,
    GpusPerPack,
    Json,
    Lanes,
    Packs,
    Place,
    Plain,
    WorkersPerPack,
)


def compare(
    name: Annotated[str, typer.Argument(help="A finished run.")],
    words: Annotated[
        str,
        typer.Option("--with", help="What to train: comparators, rate_shift, incomplete_training, epochs; by commas."),
    ] = "comparators",
    place: Place = None,
    address: Address = None,
    packs: Packs = None,
    lanes: Lanes = None,
    cpus_per_pack: CpusPerPack = 1,
    workers_per_pack: WorkersPerPack = 1,
    gpus_per_pack: GpusPerPack = None,
    accept_change: AcceptChange = False,
    json: Json = False,
    plain: Plain = False,
) -> None:
    """Train, under the same splits and seeds, what the winners of a run are to be compared with.

    Everything goes into the run's folder; `mcutune robustness` then reads it. The same command continues what was
    stopped or killed, and leaves what is trained already alone.
    """
    from mcutune.cli.compare_work import run
    from mcutune.cli.searching import Shape

    shape = Shape(
        place=place, address=address, packs=packs, lanes=lanes, cpus=cpus_per_pack, workers=workers_per_pack,
        gpus=gpus_per_pack,
    )  # fmt: skip
    run(name, words, shape, accept_change=accept_change, json=json, plain_lines=plain)
