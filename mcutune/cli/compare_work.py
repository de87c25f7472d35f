"""From the options of `mcutune compare` to searches of explicit lists, one a word, in one open place."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mcutune.cli.failures import crashes_go_to
from mcutune.cli.options import print_json
from mcutune.cli.render import waiting
from mcutune.cli.runs import refuse_without_winner, run_folder
from mcutune.cli.screen import console, plain, say
from mcutune.cli.search_work import work_in
from mcutune.cli.searching import Shape, finished, fold_of, opened
from mcutune.cli.text import count
from mcutune.errors import BadInput, Busy, NoResult
from mcutune.inert import inert

if TYPE_CHECKING:
    from rich.console import Console

    from mcutune.cluster.place import Place
    from mcutune.cluster.resources import Capacity
    from mcutune.search.compare import Origin, Trained
    from mcutune.search.run_folder import Plan

_RATES = {"rate_shift": "rates", "incomplete_training": "training_rates"}  # key of the protocol of that name


def run(name: str, words: str, shape: Shape, *, accept_change: bool, json: bool, plain_lines: bool) -> None:
    """Train what the words name and tell what there is to compare with. Raises what search and cluster raise."""
    from mcutune.cluster.place import kind_of
    from mcutune.search.compare import origin, write_models
    from mcutune.search.run_folder import command_at_work

    chosen = chosen_words(words)
    kind_of(shape.target())
    folder = run_folder(name)
    refuse_without_winner(name)
    of = origin(folder)
    _at_rest(of)
    todo = [_planned(of, word, shape, accept_change) for word in chosen]
    out = console(file=sys.stderr if json else None)
    told = []
    with crashes_go_to(folder / "logs"), ExitStack() as stack:
        where: tuple[Place, Capacity] | None = None
        for plan, trained in todo:
            if finished(plan):
                say(out, plain(f"{plan.name} has been trained already"))
            else:
                with command_at_work(plan):
                    if where is None:
                        where = stack.enter_context(opened(shape, lambda: waiting("starting Ray", out)))
                    _say_what(out, plan)
                    work_in(where[0], where[1], plan, shape, out, plain_lines)
            told.append(write_models(of, plan, trained))
    print_json({"run": name, "words": told}) if json else _tell(out, told)
    if not any(model["failed"] is None for word in told for model in word["models"]):
        raise NoResult(f"nothing that {name} could be compared with has finished", hint=f"see {folder / 'logs'}")
    say(out, plain(f"next: mcutune robustness --ckpt {name}", "dim"))


def chosen_words(words: str) -> list[str]:
    """The words of --with, each once. Raises BadInput naming those that exist."""
    from mcutune.data.hints import did_you_mean
    from mcutune.search.compare import WORDS

    given = list(dict.fromkeys(word.strip() for word in words.split(",")))
    for word in given:
        if word not in WORDS:
            near = did_you_mean(word, WORDS)
            raise BadInput(f"--with {inert(word)!r} does not exist", hint=near or f"valid: {', '.join(WORDS)}")
    return given


def _at_rest(of: Origin) -> None:
    """Raises BadInput or Busy where the run is not at its end, or its data are not here."""
    from mcutune.data.table import open_table
    from mcutune.search.summary import summarise

    state = summarise(of.folder).state
    if state == "running":
        raise Busy(f"run {of.folder.name} is being searched", hint="wait until it has finished")
    if state != "finished":
        raise BadInput(f"run {of.folder.name} has not finished", hint="the same `mcutune search` continues it")
    data = of.best["data"]
    if open_table(data["table"]).manifest.hash != data["table_hash"]:
        raise BadInput(
            f"dataset {data['table']} is not the one that {of.folder.name} was searched on",
            hint="import the same data again, or search anew",
        )


def _planned(of: Origin, word: str, shape: Shape, accept_change: bool) -> tuple[Plan, Trained]:
    from mcutune.data.table import open_table
    from mcutune.search.compare import plan_of, trained_by

    table = open_table(of.best["data"]["table"])
    trained = trained_by(word, table.modalities, of.padded_rank, _rates(word))
    plan = plan_of(
        of, word, trained, partial(fold_of, str(table.folder), of.manifest["normalisation"]),
        threads=max(shape.cpus // shape.workers, 1), driver=os.getpid(),
    )  # fmt: skip
    return replace(plan, accept_change=accept_change), trained


def _rates(word: str) -> list[float]:
    """The rates to train at, as the protocol that measures them names them."""
    from mcutune.robustness.protocol import load_protocol

    return list(getattr(load_protocol(word), _RATES[word])) if word in _RATES else []


def _say_what(out: Console, plan: Plan) -> None:
    space = plan.space
    lanes = space.trials * space.seeds * len(plan.folds)
    out.print(plain(space.question, "italic"))
    say(out, plain(f"{count(space.trials, 'configuration')} a fold, the winner among them: {lanes} lanes"))


def _tell(out: Console, told: list[dict[str, Any]]) -> None:
    for word in told:
        say(out, plain(f"{word['run']}, {word['word']}:", "bold"))
        for model in word["models"]:
            note = f"failed: {model['failed']}" if model["failed"] else ""
            if model["same_as_winner"]:
                note = f"the winner itself in fold {', '.join(dict.fromkeys(model['same_as_winner']))}"
            say(out, plain(f"  {model['key']}: {model['title']}{f' ({note})' if note else ''}"))
        if not word["same_weights"]:
            say(out, plain("  the winner, trained again, has other bits: another machine, device or version", "yellow"))
