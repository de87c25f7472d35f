"""Is the method better than the simple thing here? A question and its answer in words, from a report's differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcutune.domain.task import METRICS
from mcutune.robustness.equivalence import NOT_WORSE
from mcutune.robustness.equivalence import in_words as kept_in_words
from mcutune.robustness.statistics import ALL_PATTERNS
from mcutune.robustness.tables import bounds, chance, main_metric, number, title

Entry = dict[str, Any]

_ALPHA = 0.05
DEFAULT = "the paper's default (trial 0)"
_QUESTIONS = {
    "default": "Did the search find anything better than the paper's default?",
    "shared_only": "Is the method better than shared adapters trained with modalities dropped at random?",
    "complete_only": "Does it pay to train with modalities missing?",
    "late_fusion": "Is it better than late fusion of unimodal models?",
    "specialists": "Is one model better than a specialist for every combination?",
    "without_dpft": "Does DPFT help?",
    "without_orthogonality": "Does the orthogonality loss help?",
    "without_weight": "Does the adaptive weight help?",
    "smallest_rank": "Does the rank matter: is the rank that was chosen better than rank 1?",
    "largest_rank": "Does the rank matter: is it better than the largest?",
}
_OVER = {"mean_all": "on average over the {over} combinations", "area": "on average over the {over} missing rates"}


def in_words(report: Entry) -> list[Entry]:
    """An entry a reference that a question is known of, by the metric and protocol that speak for the report."""
    metric = main_metric(one["metric"] for one in report["measurements"])
    found = []
    for model in report["models"]:
        comparator = model["comparator"] or _default(model)
        if comparator is None or comparator["key"] not in _QUESTIONS:
            continue
        mine = [
            one for one in report["mean_differences"] if (one["reference"], one["metric"]) == (model["name"], metric)
        ]
        if mine:
            cells = [one for one in report["comparisons"] if _same(one, mine[0])]
            answer = _answer(mine[0], cells, comparator["same_as_winner"], len(model["winners"]))
            facts = {"model": model["name"], "key": comparator["key"], "title": comparator["title"]}
            found.append({**facts, "question": _QUESTIONS[comparator["key"]], "answer": answer})
    return [*found, *_of_rates(report, metric)]


def _of_rates(report: Entry, metric: str) -> list[Entry]:
    """Whether one model for all missing rates is as good as one trained at each, where each is met."""
    trained = {one["name"]: one["comparator"]["rate"] for one in report["models"] if _is_rate(one)}
    cells = [
        one
        for one in report["comparisons"]
        if one["metric"] == metric and one["reference"] in trained
        and one["scenario"] == f"rate={trained[one['reference']]:g}" and one["combination"] is None
    ]  # fmt: skip
    if not cells:
        return []
    gains = [METRICS[metric].signed(one["difference"]) for one in cells]
    shown = [gain for one, gain in zip(cells, gains, strict=True) if one["p_holm"] < _ALPHA]
    better, worse = sum(gain > 0 for gain in shown), sum(gain < 0 for gain in shown)
    mean = sum(gains) / len(gains)
    text = (
        f"Where each is met, the winner is shown to be better in {better} and worse in {worse} of {len(cells)} rates; "
        f"on average it is {title(metric)} {number(abs(mean))} {'better' if mean >= 0 else 'worse'}."
    )
    if cells[0].get("margin"):
        kept = sum(one["margin"]["answer"] == NOT_WORSE for one in cells)
        text += f" It is shown not to be worse by {cells[0]['margin']['margin']:g} or more in {kept}."
    question = "Is one model for all missing rates as good as one trained at each?"
    return [{"model": cells[0]["reference"], "key": "rate_shift", "title": "one model a rate", "question": question,
             "answer": text}]  # fmt: skip


def _is_rate(model: Entry) -> bool:
    return bool(model["comparator"] and model["comparator"]["word"] == "rate_shift")


def _default(model: Entry) -> Entry | None:
    """Trial 0, described as a comparator is."""
    is_default = model["role"] == "reference" and all(one["trial"] == 0 for one in model["winners"])
    return {"key": "default", "title": DEFAULT, "same_as_winner": []} if is_default else None


def _same(one: Entry, other: Entry) -> bool:
    return all(one[key] == other[key] for key in ("protocol", "dataset", "metric", "model", "reference"))


def _answer(one: Entry, cells: Sequence[Entry], same: Sequence[str], folds: int) -> str:
    if len(set(same)) == folds:
        return "The winners have that already, in every fold."
    gain = METRICS[one["metric"]].signed(one["difference"])
    within = f"interval {bounds(one)}, " if bounds(one) else ""
    size = f"{title(one['metric'])} {number(abs(gain))} {'better' if gain >= 0 else 'worse'}"
    said = f"{size} {_OVER[one['name']].format(over=one['over'])} ({within}adjusted p {_p(one['p_holm'])})"
    if one["p_holm"] < _ALPHA:
        text = f"{'Yes' if gain > 0 else 'No, it is worse'}: {said}."
    elif cannot_be_shown(one):
        text = f"Cannot be shown with {one['groups']} groups, whatever the difference: {said}."
    else:
        least = f"; {number(one['detectable'])} would have been found" if one["detectable"] else ""
        text = f"Not shown: {said}{least}."
    found = [METRICS[cell["metric"]].signed(cell["difference"]) for cell in cells if cell["p_holm"] < _ALPHA]
    better, worse = sum(gain > 0 for gain in found), sum(gain < 0 for gain in found)
    text += f" Single combinations: better in {better}, worse in {worse} of {len(cells)}." if cells else ""
    text += f" On average it is {kept_in_words(one['margin'])}." if one.get("margin") else ""
    names = ", ".join(dict.fromkeys(same))
    return text + (f" In fold {names} the winner has that already." if names else "")


def _p(p: float) -> str:
    return chance(p) if p < 0.001 else f"= {chance(p)}"


def cannot_be_shown(one: Entry) -> bool:
    """Whether the smallest p that so few groups allow, adjusted over the family, is not small enough.

    An entry says how many groups there are, not in how many of them the models differ, which is what allows a p: where
    the winner has what is asked about in some folds, this may be False though nothing could be shown.
    """
    return bool(one["test"] == ALL_PATTERNS and 2.0 ** (1 - one["groups"]) * one["family"] >= _ALPHA)
