"""The three sentences of a report, made from its numbers: how it fares, where it breaks, what not to use it for."""

from __future__ import annotations

from typing import Any

from mcutune.domain.task import METRICS
from mcutune.robustness.equivalence import in_words

Entry = dict[str, Any]

_TITLES = {"wa": "WA", "ua": "UA", "f1": "F1", "acc2": "ACC2", "f1_nonzero": "F1", "mae": "MAE", "pearson": "r"}
_MEANINGS = {
    "wa": "WA is the share of rows that are right",
    "ua": "UA is the mean of the classes' recalls",
    "f1": "F1 is weighted by the classes' rows",
    "mae": "MAE is the mean absolute error, lower is better",
    "pearson": "r is Pearson's correlation",
}
_LARGE_LOSS = 0.10  # of a fraction: a combination that loses more than this is named
_NAMED = 4  # combinations


def sentences(report: Entry) -> list[str]:
    """How it fares, where it breaks, what not to use it for."""
    model = report["models"][0]["name"]
    mine = [one for one in report["measurements"] if one["model"] == model]
    metric = _chosen(mine)
    mine = [one for one in mine if one["metric"] == metric]
    return [_fares(report, mine, model), _breaks(report, mine), _avoid(report, mine)]


def _chosen(measured: list[Entry]) -> str:
    names = [one["metric"] for one in measured]
    return next((name for name in ("ua", "mae") if name in names), names[0])


def value_text(one: Entry) -> str:
    """`UA 0.761 [0.728, 0.790]`, the bounds where there are any."""
    bounds = "" if one["low"] is None else f" [{one['low']:.3f}, {one['high']:.3f}]"
    return f"{_TITLES[one['metric']]} {one['value']:.3f}{bounds}"


def _of(measured: list[Entry], report: Entry, kind: str) -> list[Entry]:
    ids = {protocol["id"] for protocol in report["protocols"] if protocol["kind"] == kind}
    return [one for one in measured if one["protocol"] in ids]


def complete_label(report: Entry) -> str:
    return "+".join(modality["name"] for modality in report["data"]["modalities"])


def _fares(report: Entry, mine: list[Entry], model: str) -> str:
    top, where = _headline(report, mine)
    kind = report["data"]["group"] if top["dataset"] == report["data"]["table"] else report["targets"][0]["group"]
    groups = f"{top['groups']:,} {kind}{'' if top['groups'] == 1 else 's'}"
    rows = "test rows" if top["split"] == "test" else "rows"
    text = f"{where} {model} reaches {value_text(top)} on {top['n']:,} {rows} of {groups}"
    text += _against(report, top)
    mean = next((s for s in report["summaries"] if s["name"] == "mean_all" and _same(s, top)), None)
    if mean:
        text += f"; on average over the {mean['over']} combinations it reaches {value_text(mean)}"
    return f"{text}.{_explained(report, top)}"


def _explained(report: Entry, one: Entry) -> str:
    """What the metric is, and what the brackets hold, for who reads this first."""
    parts = [_MEANINGS[one["metric"]]] if one["metric"] in _MEANINGS else []
    if one["low"] is not None:
        confidence = report["provenance"]["statistics"]["confidence"]
        parts.append(f"brackets hold the {confidence:.0%} interval")
    return f" ({'; '.join(parts)}.)" if parts else ""


def _headline(report: Entry, mine: list[Entry]) -> tuple[Entry, str]:
    """The measurement that is named first, and in words where it was made."""
    fixed, rates, cross = (_of(mine, report, kind) for kind in ("fixed", "random", "cross_dataset"))
    full = next((one for one in fixed if one["combination"] == complete_label(report)), None)
    full = full or next((one for one in rates if one["scenario"] == "rate=0"), None)
    if full:
        return full, "With every modality present"
    if fixed:
        best = _best(fixed)
        return best, f"With {best['combination']}"
    if rates or not cross:
        first = (rates or mine)[0]
        return first, f"At {first['scenario']}"
    best = _best(cross)
    return best, f"On {best['dataset']}, another corpus, with {best['combination']}"


def _same(one: Entry, other: Entry) -> bool:
    return all(one[key] == other[key] for key in ("protocol", "dataset", "metric", "model"))


def _against(report: Entry, full: Entry) -> str:
    """How the subject compares with the first reference there."""
    keys = ("protocol", "combination", "scenario", "metric")
    found = next((one for one in report["comparisons"] if all(one[k] == full[k] for k in keys)), None)
    if found is None:
        return ""
    gap = METRICS[found["metric"]].signed(found["difference"])
    shown = f"{abs(gap):.3f} {'better' if gap >= 0 else 'worse'} than {_called(found['reference'])}"
    kept = f", {in_words(found['margin'])}" if found.get("margin") else ""
    if found["p_holm"] < 0.05:
        return f", {shown} (adjusted p = {found['p_holm']:.3f}){kept}"
    least = f"; {found['detectable']:.3f} would have been found" if found["detectable"] else ""
    return f", {shown}, not more than chance explains (adjusted p = {found['p_holm']:.2f}{least}){kept}"


def _called(reference: str) -> str:
    return f"{reference} (the paper's default)" if reference.endswith(":0") else reference


def _signed(one: Entry) -> float:
    return METRICS[one["metric"]].signed(one["value"])


def _best(measured: list[Entry]) -> Entry:
    return max(measured, key=_signed)


def _breaks(report: Entry, mine: list[Entry]) -> str:
    fixed, rates = _of(mine, report, "fixed"), _of(mine, report, "random")
    if len(fixed) > 1:
        worst = min(fixed, key=_signed)
        top = next((one for one in fixed if one["combination"] == complete_label(report)), _best(fixed))
        side = "below" if METRICS[worst["metric"]].higher_is_better else "above"
        lost = f"{abs(top['value'] - worst['value']):.3f} {side} {top['combination']}"
        chance = _chance(report, worst)
        return f"It is weakest with {_only(worst['combination'])}: {value_text(worst)}, {lost}{chance}."
    if len(rates) > 1:
        first, last = rates[0], rates[-1]
        return f"From {first['scenario']} to {last['scenario']} it goes from {value_text(first)} to {value_text(last)}."
    if len(mine) > 1 and not fixed and mine[0]["combination"] is None:
        worst = min(mine, key=_signed)
        return (
            f"It is weakest at {worst['scenario']} of {worst['protocol']}: {value_text(worst)}{_chance(report, worst)}."
        )
    return "Where it breaks was not measured: there is one combination only."


def _only(label: str | None) -> str:
    return f"only {label}" if label and "+" not in label else str(label)


def _chance(report: Entry, one: Entry) -> str:
    """Said where a UA is not shown to be above that of guessing, 1 / K."""
    classes = len(report["data"]["classes"])
    low = one["low"] if one["low"] is not None else one["value"]
    if one["metric"] == "ua" and classes and low <= 1 / classes:
        return f"; not shown to be better than guessing ({1 / classes:.3f})"
    return ""


def _avoid(report: Entry, mine: list[Entry]) -> str:
    fixed = {one["combination"]: one for one in _of(mine, report, "fixed")}
    full = fixed.get(complete_label(report))
    parts = []
    if full and full["metric"] != "mae":
        weak = [one for one in fixed.values() if full["value"] - one["value"] > _LARGE_LOSS]
        named = _widest([one["combination"] for one in sorted(weak, key=_signed)])
        if named:
            more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
            parts.append(
                f"where no more is left than {' or '.join(named[:_NAMED])}{more} (over {_LARGE_LOSS:.2f} lost)"
            )
    cross = [one for one in report["cross_dataset"] if (one["metric"], one["model"]) == _which(mine)]
    if cross:
        best = _best(cross)
        within = f", from {best['within']:.3f} at home" if best["within"] is not None else ""
        parts.append(
            f"on another corpus without training on it (on {best['target']} it reaches {value_text(best)} at best, "
            f"with {best['combination']} and {best['normalisation']} normalisation{within})"
        )
    if parts:
        return f"Do not rely on it {', nor '.join(parts)}."
    beyond = "" if cross else f" Nothing was measured on another corpus than {report['data']['table']}."
    start = f"No combination loses more than {_LARGE_LOSS:.2f}." if fixed else "Only what is listed was measured."
    return start + beyond


def _which(mine: list[Entry]) -> tuple[str, str]:
    return mine[0]["metric"], mine[0]["model"]


def _widest(labels: list[str]) -> list[str]:
    """The combinations that lie in no wider one of the list, in its order: `audio+video` stands for `audio`, too."""
    sets = {label: frozenset(label.split("+")) for label in labels}
    return [label for label in labels if not any(sets[label] < other for other in sets.values())]
