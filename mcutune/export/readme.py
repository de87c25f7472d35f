"""README.md of an exported model: the card in words and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcutune.domain.task import METRICS, Task
from mcutune.export.folder import CARD, ONNX, SUMS
from mcutune.inert import inert

Entry = dict[str, Any]


def readme(card: Entry) -> str:
    """Markdown."""
    parts = [
        f"# {_text(card['name'])}",
        "\n".join(f"- {_text(line)}" for line in card["intended_use"]),
        "**Not for**",
        "\n".join(f"- {_text(line)}" for line in card["not_for"]),
        "## Use",
        _use(card),
        "## What it reads and says",
        _reads(card),
        "## How good it is",
        *_measured(card),
        "## What it was trained on",
        _trained(card),
        "## Files",
        _files(card),
    ]
    return "\n\n".join(parts) + "\n"


def _text(value: Any) -> str:
    """Names from a table shown as they are: no markup, no break of a cell."""
    shown = inert(value)
    for mark in "\\`*_<>|[]":
        shown = shown.replace(mark, f"\\{mark}")
    return shown


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _use(card: Entry) -> str:
    first = card["modalities"][0]
    extra = _keywords(card)
    lines = [
        "```python",
        "import mcutune, numpy as np",
        'model = mcutune.load("this folder")',
        f'said = model.predict({{"{first["name"]}": np.zeros((2, {first["dim"]}))}}{extra})  # others may be absent',
        "said.labels, said.probabilities, said.combinations" if card["label_names"] else "said.values",
        "```",
    ]
    return "\n".join(lines)


def _keywords(card: Entry) -> str:
    by_dialogue, by_group = reads_dialogues(card["configuration"]), card["normalisation"]["mode"] == "group"
    return (", dialogue=[0, 0]" if by_dialogue else "") + (", group=[0, 0]" if by_group else "")


def reads_dialogues(configuration: Entry) -> bool:
    """Whether a row's prediction depends on others of its dialogue."""
    return configuration["encoder"] == "trained" or configuration["encoder_kind"] == "dialogue"


def _reads(card: Entry) -> str:
    table = _table(["modality", "raw features a row"], [(m["name"], m["dim"]) for m in card["modalities"]])
    how = {
        "train": "Features go in raw; they are normalised inside by the training rows' mean and deviation.",
        "group": "Features go in raw; they are normalised inside by each group's own rows, those of one call in ONNX.",
        "none": "Features go in raw and are not normalised.",
    }[card["normalisation"]["mode"]]
    classes = f"Classes: {', '.join(_text(name) for name in card['label_names'])}." if card["label_names"] else ""
    whole = "It reads whole dialogues." if reads_dialogues(card["configuration"]) else "Each row stands alone."
    return f"{table}\n\n{' '.join(part for part in (how, whole, classes) if part)}"


def _measured(card: Entry) -> list[str]:
    if card["refit"] is not None:
        return ["Not known: no row was left to measure it on (see below)."]
    found = []
    if card["robustness"] is not None:
        found += _robustness(card["robustness"])
    else:
        found.append("No robustness report has measured it: `mcutune robustness` makes one.")
    if card["validation"] is not None:
        metric = METRICS[card["validation"]["metric"]]
        rows = [(label, f"{value:.3f}") for label, value in card["validation"]["scores"].items()]
        found.append(f"On the validation rows that it was chosen by, so that these flatter: {metric.title}.")
        found.append(_table(["present", metric.name], rows))
    return found


def _robustness(measured: Entry) -> list[str]:
    fixed = [one for one in measured["measurements"] if one["scenario"] == "fixed"]
    metrics = list(dict.fromkeys(one["metric"] for one in fixed))
    cells = {(one["combination"], one["metric"]): _cell(one) for one in fixed}
    labels = {one["combination"]: f"{one['n']:,}" for one in fixed}
    rows = [(label, *(cells[label, metric] for metric in metrics), n) for label, n in labels.items()]
    lines = [f"Test rows, by {_text(measured['title'])}; intervals of 95 %. All protocols are in `{CARD}`."]
    if rows:
        lines.append(_table(["present", *metrics, "rows"], rows))
    lines += ["\n".join(f"- {_text(line)}" for line in measured["warnings"])] if measured["warnings"] else []
    return lines


def _cell(one: Entry) -> str:
    bounds = "" if one["low"] is None else f" ({one['low']:.3f} to {one['high']:.3f})"
    return f"{one['value']:.3f}{bounds}"


def _trained(card: Entry) -> str:
    data, seeds = card["trained_on"], [one["seed"] for one in card["seeds"]]
    run = f"Run {_text(card['run'])}, trial {card['trial']}" if card["run"] else f"Trial {card['trial']}"
    lines = [
        f"{run}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}.",
        f"Table {_text(data['table'])} (SHA-256 {data['table_hash'][:16]}…), fold {_text(data['fold'])}.",
    ]
    if card["refit"] is not None:
        refit = card["refit"]
        lines.append(
            f"Trained anew on all {refit['rows']:,} rows for {refit['epochs']} epochs, the mean best epoch of the "
            f"winners of fold {', '.join(_text(fold) for fold in refit['folds'])}. **It was never measured.**"
        )
    settings = _table(
        ["setting", "value"],
        [(key, "none" if value is None else value) for key, value in card["configuration"].items()],
    )
    return " ".join(lines) + "\n\n" + settings


def _files(card: Entry) -> str:
    what = "probabilities" if card["task"] == Task.CLASSIFICATION.value else "value"
    onnx = card["onnx"]
    if onnx["file"]:
        shape = "[B, T, D] (a padded utterance has nothing present)" if onnx["by_dialogue"] else "[N, D]"
        graph = (
            f"all combinations and seeds in one graph, opset {onnx['opset']}; inputs {shape} by modality and boolean "
            f"`presence`, outputs `logits` by seed and `{what}`; NaN for a row with nothing present. Compared with "
            f"torch on {onnx['batches']} batches, every combination: largest difference {onnx['largest']:.1e}."
        )
        line = f"- `{ONNX}`: {graph}"
    else:
        line = f"- no ONNX: {_text(onnx['reason'])}"
    folders = ", ".join(f"`{one['folder']}/`" for one in card["seeds"])
    return f"- {folders}: weights (safetensors) and checkpoint.json\n{line}\n- `{CARD}`: this card\n- `{SUMS}`: hashes"
