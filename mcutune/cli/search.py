"""`mcutune search`: start a search, continue it, or print the result of a finished one."""

from __future__ import annotations

from typing import Annotated

import typer

from mcutune.cli.options import Json


def search(
    space: Annotated[
        str, typer.Option(help="A space: a YAML file, or one that ships: quick, ranks, beta, dpft, sensors, full.")
    ],
    data: Annotated[str | None, typer.Option(help="A dataset; else `data:` of the space, else planted.")] = None,
    fold: Annotated[str | None, typer.Option(help="Search one fold; the first if neither is given.")] = None,
    folds: Annotated[str | None, typer.Option(help="`all`: an independent study a fold, in one run.")] = None,
    name: Annotated[str | None, typer.Option(help="The run; else SPACE-DATA. A run of that name is continued.")] = None,
    trials: Annotated[int | None, typer.Option(help="Trials a fold; else those of the space.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Lanes a trial; else those of the space.")] = None,
    budget: Annotated[str | None, typer.Option(help="When proposals stop: 30m, 2h, 1d, 2gpu-h.")] = None,
    objective: Annotated[
        str | None, typer.Option(help="mean, worst, area, cvar(0.25); else that of the space.")
    ] = None,
    normalisation: Annotated[str | None, typer.Option(help="train, group or none; else that of the data.")] = None,
    place: Annotated[
        str | None, typer.Option(help="process (no Ray), local (a Ray of its own; the default), cluster.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster: auto, or HOST:PORT of its head.")
    ] = None,
    packs: Annotated[int | None, typer.Option(help="Packs at once; else as many as fit.")] = None,
    lanes: Annotated[int | None, typer.Option(help="Lanes of a pack; else as many as run best, measured.")] = None,
    cpus_per_pack: Annotated[int, typer.Option(help="CPUs of a pack, all its workers together.")] = 1,
    workers_per_pack: Annotated[int, typer.Option(help="Data-parallel workers of a pack.")] = 1,
    gpus_per_pack: Annotated[
        float | None, typer.Option(help="GPUs of a pack, 0.5 to share one; else 1 where there are any.")
    ] = None,
    fork: Annotated[str | None, typer.Option(help="With a changed space: a new run of this name.")] = None,
    accept_change: Annotated[
        bool, typer.Option("--accept-change", help="Continue although data or versions changed; the run records it.")
    ] = False,
    json: Json = False,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live view.")] = False,
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
            normalisation=normalisation, accept_change=accept_change,
        ),
        Shape(
            place=place, address=address, packs=packs, lanes=lanes, cpus=cpus_per_pack, workers=workers_per_pack,
            gpus=gpus_per_pack,
        ),
        json=json,
        plain_lines=plain,
    )  # fmt: skip
