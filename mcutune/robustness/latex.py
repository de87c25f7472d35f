"""A report as tables for a paper, in LaTeX (booktabs). Names in it are printed and never obeyed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mcutune.inert import inert
from mcutune.robustness.compared import COMPARATORS, INCOMPLETE, RATE_SHIFT, word_of
from mcutune.robustness.overall_view import WORDS
from mcutune.robustness.tables import SUMMARIES, chance, main_first, series_words, title

Entry = dict[str, Any]

PREAMBLE = "% In the preamble: \\usepackage{booktabs}\n"
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "–": "--", "−": "$-$", "…": r"\dots{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # after the end of a row, \\[ and \\* are other commands
}  # fmt: skip
_OTHERS = {  # what the references of a family are, by word
    COMPARATORS: "other models",
    RATE_SHIFT: "models trained at one rate each",
    INCOMPLETE: "models trained on incomplete rows",
}
_DETECTABLE = "detectable: the smallest true difference found with probability .8"


def latex(report: Entry) -> str:
    """All tables of a report, one after the other."""
    return f"% {_escaped(report['title'])}\n{PREAMBLE}" + "".join(f"\n{text}" for text in tables(report).values())


def tables(report: Entry) -> dict[str, str]:
    """By name, a protocol and metric each: values; differences of the means, a table a family and a row a reference;
    differences place by place, a table a reference."""
    found = {}
    for protocol in report["protocols"]:
        name = protocol["id"]
        for metric in main_first(one["metric"] for one in report["measurements"] if one["protocol"] == name):
            of = _Of(report, protocol, metric)
            found[f"{name}-{metric}"] = of.values()
            for word, means in of.families().items():
                found[f"{name}-{metric}-means{'' if word == COMPARATORS else f'-{word}'}"] = of.means(means, word)
            for reference in dict.fromkeys(one["reference"] for one in of.mine("comparisons")):
                found[f"{name}-{metric}-against-{reference}"] = of.against(reference)
    return found


class _Of:
    """The tables of one protocol and metric."""

    def __init__(self, report: Entry, protocol: Entry, metric: str) -> None:
        self.report, self.protocol, self.metric = report, protocol, metric
        self.confidence = f"{report['provenance']['statistics']['confidence']:.0%}"
        self.where = f"{protocol['title']} ({protocol['id']}, version {protocol['version']})"

    def mine(self, part: str) -> list[Entry]:
        of = (self.protocol["id"], self.metric)
        return [one for one in self.report.get(part, []) if (one["protocol"], one["metric"]) == of]

    def values(self) -> str:
        """A row a combination or rate, then summaries, then indices; a column a model."""
        measured = self.mine("measurements")
        models = list(dict.fromkeys(one["model"] for one in measured))
        parts = [
            list(_by_model(measured, models, _place)),
            list(_by_model(self.mine("summaries"), models, _summary)),
            list(_by_model(self.mine("indices"), models, lambda one: WORDS.get(one["name"], one["name"])))
            + list(_by_model(self.mine("contributions"), models, lambda one: f"contribution of {one['modality']}")),
        ]
        caption = f"{title(self.metric)}. {self.where}. {self.confidence} intervals over groups in brackets."
        return _table(caption, ["", *models], parts)

    def families(self) -> dict[str, list[Entry]]:
        """Differences of the means by word: each word's are adjusted over its own references alone."""
        words = {one["name"]: word_of(one) for one in self.report["models"]}
        found: dict[str, list[Entry]] = {}
        for one in self.mine("mean_differences"):
            found.setdefault(words.get(one["reference"], COMPARATORS), []).append(one)
        return found

    def means(self, compared: Sequence[Entry], word: str) -> str:
        """A row a reference of one family."""
        one = compared[0]
        over = SUMMARIES[one["name"]].format(over=one["over"])
        what = f"{one['model']} less {_OTHERS[word]}, {title(self.metric)}, {over}. {self.where}"
        rows = [_compared(_called(self.report, one["reference"]), one) for one in compared]
        return self._differences(f"{what}. {self._tests(compared, 'models')}", "less", rows, compared)

    def against(self, reference: str) -> str:
        """A row a combination or rate."""
        compared = [one for one in self.mine("comparisons") if one["reference"] == reference]
        what = f"{compared[0]['model']} less {_called(self.report, reference)}, {title(self.metric)}. {self.where}"
        rows = [_compared(_place(one), one) for one in compared]
        return self._differences(f"{what}. {self._tests(compared, 'places')}", "", rows, compared)

    def _tests(self, compared: Sequence[Entry], over: str) -> str:
        family = compared[0]["family"]
        tests = " and ".join(dict.fromkeys(one["test"] for one in compared))
        return (
            f"Paired on the same rows; {self.confidence} intervals over groups in brackets; {tests}, adjusted by Holm "
            f"over {family} {over if family > 1 else over[:-1]}; {_DETECTABLE}."
        )

    def _differences(self, caption: str, first: str, rows: list[list[str]], compared: Sequence[Entry]) -> str:
        heads = [first, "difference", "p", "adjusted p", "detectable"]
        margin = next((one["margin"] for one in compared if one.get("margin")), None)
        if margin is not None:
            heads.append(f"worse by {margin['margin']:g}?")
            words = [one["margin"]["answer"] if one.get("margin") else "" for one in compared]
            rows = [[*row, _escaped(word)] for row, word in zip(rows, words, strict=True)]
        return _table(caption, heads, [rows])


def _by_model(entries: Sequence[Entry], models: Sequence[str], words: Any) -> Iterator[list[str]]:
    """A row a name, a cell a model; what no model has a value of is left out."""
    cells = {(words(one), one["model"]): one for one in entries}
    for name in dict.fromkeys(words(one) for one in entries if one["value"] is not None):
        yield [_escaped(name), *(_cell(cells.get((name, model))) for model in models)]


def _place(one: Entry) -> str:
    parts = (one["combination"], None if one["scenario"] == "fixed" else one["scenario"])
    return ", ".join(part for part in parts if part)


def _summary(one: Entry) -> str:
    words = SUMMARIES[one["name"]].format(over=one["over"]) if one["name"] in SUMMARIES else one["name"]
    return words + series_words(one)


def _called(report: Entry, name: str) -> str:
    """A model's title where it was trained beside the winners, else its name."""
    model = next((one for one in report["models"] if one["name"] == name), None)
    return model["comparator"]["title"] if model and model["comparator"] else name


def _compared(name: str, one: Entry) -> list[str]:
    least = "--" if one["detectable"] is None else f"{one['detectable']:.3f}"
    found = _signed(one["difference"]) + _bounds(one, _signed)
    return [_escaped(name), found, _math(chance(one["p"])), _math(chance(one["p_holm"])), least]


def _table(caption: str, heads: Sequence[str], parts: Sequence[Sequence[Sequence[str]]]) -> str:
    """`heads` and the caption are escaped here, cells are as they are printed; empty parts are left out."""
    body: list[str] = []
    for rows in parts:
        body += [r"\midrule", *map(_line, rows)] if rows else []
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(caption, 2000)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"\toprule",
        _line([_escaped(head) for head in heads]),
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(one: Entry | None) -> str:
    return "--" if one is None or one["value"] is None else _decimal(one["value"]) + _bounds(one, _decimal)


def _bounds(one: Entry, shown: Any) -> str:
    return "" if one["low"] is None or one["high"] is None else f" [{shown(one['low'])}, {shown(one['high'])}]"


def _decimal(value: float) -> str:
    shown = f"{value:.3f}"
    return f"${shown}$" if value < 0 else shown


def _signed(value: float) -> str:
    """A difference, with its sign; one that rounds to nothing has none."""
    shown = f"{value:+.3f}"
    return "0.000" if float(shown) == 0 else f"${shown}$"


def _math(shown: str) -> str:
    """`< 0.001` as LaTeX has it."""
    return f"$<$ {shown.removeprefix('< ')}" if shown.startswith("<") else shown


def _escaped(text: object, limit: int = 300) -> str:
    """Text that LaTeX prints and does not obey; what is not printable is written out first."""
    return "".join(_SPECIAL.get(c, c) for c in inert(text, limit=limit))
