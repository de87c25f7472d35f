"""`mcutune search`: start a search, continue it, or print the result of a finished one."""

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


def search(
    space: Annotated[
        str, typer.Option(help="A space: a YAML file, or one that ships: quick, ranks, beta, dpft, sensors, full.")
    ],
    data: Annotated[str | None, typer.Option(help="A dataset; else `data:` of the space, else planted.")] = None,
    fold: Annotated[str | None, typer.Option(help="Search one fold; the first if not even --folds is given.")] = None,
    folds: Annotated[str | None, typer.Option(help="`all`: every fold searched by itself, in one run.")] = None,
    name: Annotated[str | None, typer.Option(help="The run; else SPACE-DATA. A run of that name is continued.")] = None,
    trials: Annotated[int | None, typer.Option(help="Trials a fold; else those of the space.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds to train each trial with; else those of the space.")] = None,
    budget: Annotated[str | None, typer.Option(help="When to stop proposing trials: 30m, 2h, 1d, 2gpu-h.")] = None,
    objective: Annotated[
        str | None,
        typer.Option(help="What is maximised: mean, worst, area, cvar(0.25); else that of the space."),
    ] = None,
    normalisation: Annotated[
        str | None, typer.Option(help="Scaling of features: train, group, none; else that of the data.")
    ] = None,
    place: Place = None,
    address: Address = None,
    packs: Packs = None,
    lanes: Lanes = None,
    cpus_per_pack: CpusPerPack = 1,
    workers_per_pack: WorkersPerPack = 1,
    gpus_per_pack: GpusPerPack = None,
    fork: Annotated[str | None, typer.Option(help="With a changed space: a new run of this name.")] = None,
    accept_change: AcceptChange = False,
    keep_checkpoints: Annotated[
        str, typer.Option(help="Which trials' checkpoints stay, a fold: best, the N best, or all; trial 0's always do.")
    ] = "10",
    json: Json = False,
    plain: Plain = False,
) -> None:
    """Search for the configuration that keeps working when modalities are missing.

    The same command continues a run that was stopped or killed, and prints the result of a finished one.
    """
    from mcutune.cli.search_work import run
    from mcutune.cli.searching import Asked, Shape

    run(
        Asked(
            space=space, data=data, fold=fold, folds=folds, name=name, fork=fork,
            changes={"trials": trials, "seeds": seeds, "budget": budget, "objective": objective},
            normalisation=normalisation, accept_change=accept_change, keep=keep_checkpoints,
        ),
        Shape(
            place=place, address=address, packs=packs, lanes=lanes, cpus=cpus_per_pack, workers=workers_per_pack,
            gpus=gpus_per_pack,
        ),
        json=json,
        plain_lines=plain,
    )  # fmt: skip
