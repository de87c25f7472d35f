"""What a search found, in words."""

from __future__ import annotations

from collections.abc import Sequence

from mcutune.search.summary import Boundary, Comparison, RungView, Summary


def sentences(summary: Summary) -> list[str]:
    """The summary in words, a line each, most important first."""
    found = []
    for winner in summary.winners:
        place = f"fold {winner.fold}: " if len(summary.winners) > 1 else ""
        noise = (
            f" ± {winner.deviation:.4f} over {len(winner.seeds)} seeds"
            if winner.deviation is not None
            else " (one seed)"
        )
        found.append(f"{place}trial {winner.trial} is the best, objective {winner.score:.4f}{noise} on validation.")
        if winner.default is not None:
            found.append(place + _against(winner.default))
        found.extend(place + _beyond(boundary) for boundary in winner.boundaries)
    if not summary.winners:
        found.append("No trial finished: there is no best.")
    for cause, count, example in summary.failures:
        found.append(f"{count} failed ({cause}); for example {example}.")
    if summary.agreement is not None:
        found.append(f"Over configurations that folds share, their ranks correlate with {summary.agreement:.2f}.")
    elif len(summary.winners) > 1:
        found.append("The folds share too few configurations to compare their ranks.")
    for epoch in sorted({view.epoch for view in summary.rungs}):
        found.append(_rung([view for view in summary.rungs if view.epoch == epoch]))
    if summary.rungs and summary.full:
        found.append(f"{summary.trained / summary.full:.0%} of the epochs of full budgets were trained.")
    if summary.not_reproducible:
        found.append(f"{summary.not_reproducible} lanes gave other numbers when trained again; the first were kept.")
    return found


def _rung(views: Sequence[RungView]) -> str:
    """A rung over all folds that have it."""
    ended, reached = sum(view.pruned for view in views), sum(view.reached for view in views)
    head = f"Rung at epoch {views[0].epoch}: {ended} of {reached} trials ended there"
    known = [view for view in views if view.correlation is not None]
    if not known:
        return f"{head}; how well it foretells the end is not measured (no scouts at their end)."
    values = ", ".join(f"{view.correlation:.2f}" for view in known)
    scouts = min(view.scouts for view in known)
    head = f"{head}; its ranks correlate with those of the end by {values} ({scouts} scouts)"
    folds = [view.fold for view in known if view.widened]
    if not folds:
        return f"{head}."
    place = f" in fold {', '.join(folds)}" if len(known) > 1 else ""
    return f"{head}: too little to end so many, more go on{place}."


def _against(comparison: Comparison) -> str:
    if comparison.verdict == "same":
        return "the paper's default (trial 0) was not beaten."
    head = f"against the paper's default (trial 0): {comparison.difference:+.4f}"
    if comparison.deviation is None:
        return f"{head}, one seed each: cannot tell from noise."
    interval = (
        f"{head}, 95 % interval {comparison.low:+.4f} to {comparison.high:+.4f} over {comparison.seeds} paired seeds"
    )
    if comparison.verdict == "better":
        return f"{interval}: more than noise between seeds, though flattered by having been chosen."
    return f"{interval}: cannot tell from noise between seeds."


def _beyond(boundary: Boundary) -> str:
    value = f"{boundary.value:g}" if isinstance(boundary.value, float) else str(boundary.value)
    where = f"{boundary.parameter} = {value} lies on the {boundary.end} end of its range"
    if boundary.role == "scientific":
        return f"{where}: the answer may lie beyond; widen it."
    return f"{where}: it was not tuned freely, so comparisons may be unfair; widen it."
