"""`mcutune export`: a model for use elsewhere, with its card."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mcutune.cli.options import Json, print_json
from mcutune.inert import inert


def export(
    name: Annotated[str, typer.Argument(help="A run, RUN:TRIAL, a checkpoint folder, or best (finished last here).")],
    fold: Annotated[str | None, typer.Option(help="Which winner, where the run has several folds.")] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Train the winners' configuration on all rows; it can't be measured then.")
    ] = False,
    to: Annotated[Path | None, typer.Option(help="A new folder; else one in exports/ of the home.")] = None,
    onnx: Annotated[
        bool | None, typer.Option("--onnx/--no-onnx", help="Write ONNX, too; else where the extra `export` is there.")
    ] = None,
    seed: Annotated[str, typer.Option(help="One seed, or all: predictions are averaged over them.")] = "all",
    json: Json = False,
) -> None:
    """Write a trained model into a folder that moves alone: weights, model card, ONNX checked against torch.

    `mcutune.load(FOLDER)` predicts from it, with any of its modalities absent (docs/using_a_model.md).
    """
    from mcutune.cli.runs import refuse_without_winner
    from mcutune.export.folder import refuse_existing
    from mcutune.export.make import chosen
    from mcutune.export.make import export as make
    from mcutune.files import home
    from mcutune.robustness.selection import select

    def step(what: str) -> None:
        print(inert(what), file=sys.stderr, flush=True)

    number = _seed(seed)
    refuse_without_winner(name)
    selection = select(name, home())
    if refit:
        from mcutune.export.refit import name_of, refitted  # with the engine; else not needed

        target = to or home() / "exports" / _folder_name(name_of(selection), number)
        refuse_existing(target)  # before minutes are spent
        model = refitted(selection, fold, number, home(), step)
    else:
        model = chosen(selection, fold, number)
        target = to or home() / "exports" / _folder_name(model.name, number)
    done = make(model, target, onnx=onnx, step=step)
    if json:
        print_json({"folder": str(done.folder), "without_onnx": done.without_onnx, "card": done.card})
        return
    print(inert(done.folder))
    if done.without_onnx is not None:
        print(f"no ONNX: {inert(done.without_onnx)}", file=sys.stderr)
    elif done.card["onnx"]["file"]:
        facts = done.card["onnx"]
        print(
            f"ONNX agrees with torch on {facts['combinations']} combinations, {facts['batches']} batches: largest "
            f"difference {facts['largest']:.1e}, allowed {facts['bound']:.0e}"
        )


def _seed(given: str) -> int | None:
    from mcutune.errors import BadInput

    if given == "all":
        return None
    if not (given.isdecimal() and given.isascii()):
        raise BadInput(f"--seed {inert(given, limit=40)!r} is not a seed", hint="a number, or all")
    return int(given)


def _folder_name(name: str, seed: int | None) -> str:
    """`ranks-iemocap-fold-3`; characters that names of folders do not have become `-`."""
    plain = "".join(c if c.isalnum() and c.isascii() or c in "._-" else "-" for c in name)
    return plain if seed is None else f"{plain}-seed-{seed}"
