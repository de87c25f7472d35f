"""A search at work in front of a person: the place is opened, packs run, the live view follows, the result is told."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mcutune.cli.advisories import refuse_vulnerable
from mcutune.cli.failures import crashes_go_to
from mcutune.cli.options import print_json
from mcutune.cli.progress import View
from mcutune.cli.render import SearchView, waiting
from mcutune.cli.screen import console, plain, say
from mcutune.cli.searching import (
    Asked,
    Shape,
    beyond_use,
    finished,
    memory_of_a_pack,
    opened,
    packs_for,
    prepared,
    slow_precision,
    started,
    what_still_fits,
)
from mcutune.cli.text import count
from mcutune.errors import NoResult
from mcutune.files import home

if TYPE_CHECKING:
    from rich.console import Console

    from mcutune.cluster.place import Place
    from mcutune.cluster.resources import Capacity
    from mcutune.search.progress import Progress, TrialView
    from mcutune.search.run_folder import Plan


def run(asked: Asked, shape: Shape, *, json: bool, plain_lines: bool) -> None:
    """Search to the end, or find that it has ended, and tell the result. Raises what search and cluster raise."""
    from mcutune.cluster.place import kind_of
    from mcutune.search.summary import status, summarise

    refuse_vulnerable()
    kind_of(shape.target())  # refused before anything is read or made
    plan = prepared(asked, shape)
    out = console(file=sys.stderr if json else None)
    if plan.space.without_effect:
        keys, encoder = ", ".join(plan.space.without_effect), plan.space.default.encoder
        say(out, plain(f"warning: no trial reads {keys}: they do nothing with encoder {encoder}", "yellow"))
    with crashes_go_to(plan.folder / "logs"):
        if finished(plan):
            out.print(plain(f"{plan.name} has finished already; this is its result"))
        else:
            _work(plan, shape, out, plain_lines)
        summary = summarise(plan.folder)
        if json:
            print_json(status(plan.folder))
        else:
            from mcutune.cli.render_summary import summary_view

            out.print(summary_view(summary))
        if not summary.winners:
            raise NoResult(
                f"no trial of {plan.name} finished", hint=f"the causes are above and in {plan.folder / 'logs'}"
            )
        out.print(plain(f"next: mcutune robustness --ckpt {plan.name}", "dim"))


def _work(plan: Plan, shape: Shape, out: Console, plain_lines: bool) -> None:
    from mcutune.search.run_folder import command_at_work

    if plan.space.question:
        out.print(plain(plan.space.question, "italic"))
    with command_at_work(plan), opened(shape, lambda: waiting("starting Ray", out)) as (place, capacity):
        work_in(place, capacity, plan, shape, out, plain_lines)


def work_in(
    place: Place, capacity: Capacity, plan: Plan, shape: Shape, out: Console, plain_lines: bool
) -> None:  # fmt: skip
    """Search to the end in an open place, with a live view."""
    from mcutune.search.coordinator import Coordinator
    from mcutune.search.run_folder import refuse_if_stopped
    from mcutune.search.runner import Job, run_in_process, run_search

    refuse_if_stopped(plan.folder)
    asked, shape = shape, what_still_fits(shape, plan, place, capacity)
    if shape != asked:
        line = f"--packs {asked.packs:,}: {count(shape.packs or 0, 'pack')}: the cluster has no room for more now"
        say(out, plain(line, "yellow"))
    packs, lanes = packs_for(plan, shape, place, capacity)
    if (less := beyond_use(shape, packs, lanes)) is not None:
        say(out, plain(less, "yellow"))
    if (slow := slow_precision(plan, packs, place)) is not None:
        say(out, plain(slow, "yellow"))
    say(out, plain(started(plan, packs, lanes, place)))
    job = Job(
        run=plan.name,
        make=partial(Coordinator, replace(plan, packs=packs.packs)),
        home=home(),
        capacity=lanes,
        logs=plan.folder / "logs",
        memory=memory_of_a_pack(packs, place),
        measure=shape.measure,
        forerun=plan.space.default.encoder == "frozen",
    )
    with SearchView(plain_lines=plain_lines, out=out) as view:
        watch = Watch(view, plan, place)
        if place.kind == "process":
            device = "cuda:0" if packs.request.gpus else "cpu"
            run_in_process(job, threads=plan.threads, device=device, watch=watch)
        else:
            run_search(job, place, packs, watch=watch)


class Watch:
    """Makes a View of each progress; remembers ended trials, of which a progress has only the latest."""

    def __init__(self, view: SearchView, plan: Plan, place: Place) -> None:
        self._view = view
        self._plan = plan
        self._place = place
        self._defaults = {fold: plan.space.of(fold).default.model_dump(mode="json") for fold in plan.folds}
        self._ended: dict[tuple[str, int], TrialView] = {}
        self._history: list[tuple[float, int]] = []

    def __call__(self, progress: Progress) -> None:
        rows = [self._row(trial) for trial in progress.trials]
        self._ended |= {(row.fold, row.number): row for row in rows if row.state != "running"}
        counts: dict[str, int] = {}
        for fold in progress.folds:
            for state, number in fold.counts.items():
                counts[state] = counts.get(state, 0) + number
        budget = self._plan.space.budget
        self._view(
            View(
                run=progress.run,
                wanted=sum(fold.planned for fold in progress.folds) if budget is None else None,
                share=progress.share,
                counts=counts,
                best=[self._row(fold.best) for fold in progress.folds if fold.best is not None],
                trials=[*self._ended.values(), *(row for row in rows if row.state == "running")],
                keys=self._keys(),
                baseline={fold: row.score for (fold, number), row in self._ended.items() if number == 0 and row.score},
                packs=progress.packs,
                lanes=progress.lanes,
                places=progress.capacity,
                epochs_per_second=self._speed(progress),
                dashboard=self._place.dashboard,
                note=progress.paused or ("stopping" if progress.stopped else ""),
            )
        )

    def _row(self, trial: TrialView) -> TrialView:
        """The trial with what it left at the default, too."""
        return replace(trial, settings={**self._defaults[trial.fold], **trial.settings})

    def _keys(self) -> list[str]:
        space = self._plan.space
        listed = sorted({key for values in space.explicit for key in values})
        return [parameter.name for parameter in space.parameters] or listed

    def _speed(self, progress: Progress) -> float | None:
        """Lane epochs a second over the last ten seconds of searching."""
        self._history = [(at, n) for at, n in self._history if progress.elapsed - at <= 10.0]
        self._history.append((progress.elapsed, progress.epochs))
        first, epochs = self._history[0]
        passed = progress.elapsed - first
        return (progress.epochs - epochs) / passed if passed > 1.0 else None
