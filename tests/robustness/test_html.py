"""report.html: one inert file that shows every number of a report."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import matplotlib
import pytest

from mcutune.errors import BadInput, Damaged
from mcutune.robustness import html
from mcutune.robustness.figures import Line, limits, panel
from mcutune.robustness.page import drawings, page
from mcutune.robustness.rebuild import SCHEMA
from mcutune.robustness.shades import STEPS, contrast, looks, paper_and_ink, shade
from tests.robustness.made_reports import HOSTILE, Entry, hostile, made_report, sample

VOID = {"meta", "col", "wbr", "br", "path", "circle", "use"}
OPTIONAL_VALUES = {"aria-label"}


class Parsed(HTMLParser):
    """Elements with their attributes, the text of each, and whether every element is closed by its own name."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self.stack: list[str] = []
        self.faults: list[str] = []
        self.comments: list[str] = []
        self._numbers = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(set(names)) != len(names):
            self.faults.append(f"{tag} has an attribute twice")
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self._numbers = dict(attrs).get("class") == "marks"
        if tag == "tr" and self._numbers:
            self.rows.append([])
        if tag in ("td", "th") and self._numbers:
            self.rows[-1].append("")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack[-1] != tag:
            self.faults.append(f"</{tag}> inside {self.stack[-3:]}")
        elif tag not in VOID:
            self.stack.pop()
        self._numbers = self._numbers and tag != "table"

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.text.append(data)
        if self._numbers and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    @property
    def shape(self) -> list[Any]:
        """All but the text: elements, attributes and their values, those apart that speak of names."""
        return [
            (tag, [(name, None if name in OPTIONAL_VALUES else value) for name, value in attrs.items()])
            for tag, attrs in self.elements
        ]


def short(report: Entry) -> Entry:
    """The report with few figures, which no name enters and which take the time."""
    made = copy.deepcopy(report)
    made["dpft"] = [{**made["dpft"][0], **{k: made["dpft"][0][k][:3] for k in ("probabilities", "divergences")}}]
    made["degradation"] = made["degradation"][:1]
    return made


@pytest.fixture(scope="module")
def rendered() -> str:
    return html.render(sample())


@pytest.fixture(scope="module")
def parsed(rendered: str) -> Parsed:
    return Parsed(rendered)


@pytest.fixture(scope="module")
def harmless() -> Parsed:
    return Parsed(html.render(hostile(short(sample()), "x")))


@pytest.fixture(scope="module")
def schema() -> Any:
    return json.loads(resources.files("mcutune.robustness").joinpath("report.schema.json").read_text())


def test_made_up_reports_fit_the_schema(schema: Any) -> None:
    jsonschema.validate(sample(), schema)
    for made in (made_report(3, folds=2, epochs=3), made_report(2, folds=1, seeds=1, values=True, groups=5)):
        jsonschema.validate(made, schema)


def test_the_schema_says_its_version_and_names_no_address(schema: Any) -> None:
    """It is a file beside the package: read offline, with no address that a validator would ask for."""
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"] == {"const": SCHEMA}
    assert schema["title"].endswith(f"schema {SCHEMA}")
    text = json.dumps({key: value for key, value in schema.items() if key != "$schema"})
    assert '"$id"' not in text and "http" not in re.sub(r"#/\$defs", "", text)


def test_a_page_is_whole_html(rendered: str, parsed: Parsed) -> None:
    assert rendered.lstrip().startswith("<!DOCTYPE html>")
    assert parsed.faults == [] and parsed.stack == [] and parsed.comments == []
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [attrs["href"] for _, attrs in parsed.elements if "href" in attrs]
    assert targets and all(str(target).startswith("#") and str(target)[1:] in ids for target in targets)


def test_nothing_runs_and_nothing_is_loaded(rendered: str, parsed: Parsed) -> None:
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"script", "iframe", "object", "embed", "link", "base", "form", "img", "image", "foreignobject"}
    names = {name for _, attrs in parsed.elements for name in attrs}
    assert not [name for name in names if name.startswith("on")]
    assert not names & {"style", "src", "srcset", "action", "formaction", "xlink:href", "ping", "data"}
    assert "http://" not in rendered and "https://" not in rendered and "javascript:" not in rendered


def test_the_policy_allows_the_one_style_only(rendered: str, parsed: Parsed) -> None:
    policies = [attrs for tag, attrs in parsed.elements if attrs.get("http-equiv") == "Content-Security-Policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", rendered, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [str(attrs["content"]) for attrs in policies]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in style and "@import" not in style and "\r" not in style


@pytest.mark.parametrize("bad", HOSTILE, ids=range(len(HOSTILE)))
def test_names_are_shown_and_never_obeyed(bad: str, harmless: Parsed) -> None:
    spoiled = html.render(hostile(short(sample()), bad))
    assert Parsed(spoiled).shape == harmless.shape
    assert Parsed(spoiled).faults == []
    assert all(c.isprintable() or c == "\n" for c in spoiled)
    spoiled.encode()
    if bad.isprintable() and len(bad) < 100:
        assert bad in "".join(Parsed(spoiled).text)


def test_unprintable_characters_are_written_out() -> None:
    assert html.inert("a\u202eb\x00\ud800") == "a\\u202eb\\x00\\ud800"
    assert html._finalize(" é 漢字 ") == "é 漢字"
    assert len(html.inert("z" * 9999)) == 2000


def test_every_number_of_every_measurement_is_there(parsed: Parsed) -> None:
    check_numbers(sample(), parsed)


@pytest.mark.parametrize("options", [{"values": True, "modalities": 4}, {"groups": 5, "modalities": 2, "seeds": 1}])
def test_every_number_of_other_tasks_is_there(options: dict[str, Any]) -> None:
    report = made_report(folds=1, epochs=3, **options)
    check_numbers(report, Parsed(html.render(report)))


def check_numbers(report: Entry, parsed: Parsed) -> None:
    """Each measurement, comparison, summary and point as text; measurements and comparisons as a table's row."""
    seen = set(re.findall(r"[+-]?\d+\.\d{3}(?!\d)", " ".join(parsed.text)))
    entries = [*report["measurements"], *report["summaries"]]
    entries += [point for curve in report["degradation"] for point in curve["points"]] + report["cross_dataset"]
    wanted = {f"{one[key]:.3f}" for one in entries for key in ("value", "low", "high") if one[key] is not None}
    assert wanted - seen == set()
    whole = [row for row in parsed.rows if len(row) == 8 and row[0] not in ("combination", "missing rate")]
    assert len(whole) == len(report["measurements"])
    shown = sorted((row[2], row[3], row[4], row[5]) for row in whole)
    assert shown == sorted(
        (f"{m['value']:.3f}", bounds(m), f"{m['n']:,}", str(m["groups"])) for m in report["measurements"]
    )
    compared = [row for row in parsed.rows if len(row) == 9 and row[0] not in ("combination", "missing rate")]
    assert sorted(row[3] for row in compared) == sorted(map(bounds, report["comparisons"]))


def bounds(one: Entry) -> str:
    if one["low"] is None:
        return "–"
    return f"{one['low']:.3f} to {one['high']:.3f}".replace("-0.000", "0.000")


def test_the_first_screen_is_the_three_sentences(rendered: str) -> None:
    text = " ".join(Parsed(rendered).text)
    places = [text.index(sentence) for sentence in sample()["summary"]]
    assert places == sorted(places)
    assert places[-1] < text.index("self-checks passed") < text.index("The same modalities missing in every row")


def test_the_same_report_gives_the_same_page_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(short(sample())))
    code = f"from mcutune.robustness.html import write; from pathlib import Path; write(Path({str(path)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONHASHSEED": "1"})
    assert (tmp_path / "report.html").read_bytes() == html.render(short(sample())).encode()


def test_a_page_of_sixty_three_combinations_is_cut_by_number_of_modalities() -> None:
    report = made_report(6, folds=2, seeds=1, epochs=5)
    made = html.render(report)
    text = "".join(Parsed(made).text)
    assert len(made.encode()) < html.LIMIT
    for size, count in ((1, 6), (2, 15), (3, 20), (4, 15), (5, 6)):
        assert f"{size} of 6 modalities: {count} combinations" in text
    assert "All modalities" in text
    assert len({label for label in re.findall(r"[a-z]+(?:\+[a-z]+)*", text)} & labels(report)) == 63


def labels(report: Entry) -> set[str]:
    return {str(one["combination"]) for one in report["measurements"] if one["combination"]}


def test_a_page_stays_under_two_megabytes_by_leaving_rows_out() -> None:
    report = made_report(9, folds=1, seeds=1, epochs=2)
    made = html.render(report)
    assert len(made.encode()) < html.LIMIT
    assert "more are in report.json" in made and Parsed(made).faults == []


def test_what_is_left_out_is_what_is_best() -> None:
    report = short(sample())
    heat = page(report, drawings(report), 3).measured[0].heats[0]
    found = sorted((m["value"], m["combination"]) for m in report["measurements"] if fixed_ua(m))
    assert {"+".join(row.place.parts) for row in heat.parts[0].rows} == {label for _, label in found[:3]}
    assert heat.left_out == 4


def fixed_ua(one: Entry) -> bool:
    return (one["protocol"], one["metric"], one["model"]) == ("fixed", "ua", "ranks-iemocap")


def test_lower_is_better_for_errors() -> None:
    report = made_report(2, folds=1, seeds=1, epochs=2, values=True)
    for one in report["comparisons"]:
        one |= {"difference": 0.02, "low": 0.01, "high": 0.03, "p": 0.001, "p_holm": 0.01}
    shown = page(report, drawings(report), 99).measured[0]
    verdicts = {forest.metric: forest.verdicts for forest in shown.forests}
    assert verdicts["MAE"] == (0, 3, 0) and verdicts["ACC2"] == (3, 0, 0)
    heat = shown.heats[0]
    assert heat.titles[0] == "MAE" and heat.scales[0][2] == "lower is better"
    worst, best = (max(part.rows, key=lambda row: row.cells[0].value) for part in heat.parts), heat.parts[0].rows
    assert next(worst).cells[0].shade == 0 and max(row.cells[0].shade for row in best) == STEPS - 1


def test_a_failed_check_stands_above_everything() -> None:
    report = short(sample())
    report["checks"][0]["passed"] = False
    text = "".join(Parsed(html.render(report)).text)
    assert text.index("A check of the evaluator failed") < text.index(report["summary"][0])
    assert "4 of 5 self-checks passed" in text


def test_parts_of_a_report_that_may_be_absent() -> None:
    report = short(sample()) | {"search": None, "dpft": [], "published": [], "comparisons": [], "degradation": []}
    report["models"] = report["models"][:1]
    report["calibration"] = {"reason": "no fixed protocol was measured", "bins": 15, "risk": 0.2}
    report["calibration"] |= {"temperatures": [], "measures": [], "reliability": []}
    made = Parsed(html.render(report))
    text = "".join(made.text)
    assert made.faults == []
    assert "what was searched is not known" in text and "Published numbers" not in text and "DPFT" not in text
    assert "Calibration" in text and "Not measured: no fixed protocol" in text


def test_settings_are_set_against_trial_zero() -> None:
    report = short(sample())
    shown = {one.key: one for one in page(report, drawings(report), 99).settings}
    assert shown["rank"].zero == "4" and ("8", True) in shown["rank"].values
    assert "learning_rate" not in shown


def test_write_puts_the_page_beside_the_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(short(sample())))
    assert html.write(path) == tmp_path / "report.html"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["report.html", "report.json"]


@pytest.mark.parametrize("content", ["{}", "[]", "3", '{"models": 3}', '{"data": {"modalities": []}}', "{"])
def test_what_is_no_report_is_damaged(tmp_path: Path, content: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(Damaged):
        html.write(path)
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(BadInput):
        html.write(tmp_path / "absent.json")


def test_text_can_be_read_on_every_shade() -> None:
    steps = [paper_and_ink(step) for step in range(STEPS)]
    assert min(contrast(paper, ink) for paper, ink in steps) >= 4.5
    assert all(contrast(look.colour, "#ffffff") >= 2.2 for look in looks(15))
    assert len({(look.dash, look.marker, look.colour) for look in looks(15)}) == 15


def test_shades_run_from_worst_to_best_and_do_not_blow_up_noise() -> None:
    assert shade(0.2, 0.2, 0.8) == 0 and shade(0.8, 0.2, 0.8) == STEPS - 1
    assert shade(1.2, 1.2, 0.6) == 0 and shade(0.6, 1.2, 0.6) == STEPS - 1
    assert abs(shade(0.700, 0.700, 0.701) - shade(0.701, 0.700, 0.701)) <= 1


def test_a_figure_does_not_depend_on_the_users_settings() -> None:
    line = Line([0, 1, 2], [0.5, 0.4, 0.3], looks(1)[0], "1", [0.4, 0.3, 0.2], [0.6, 0.5, 0.4])

    def drawn() -> str:
        return panel([line], name="f", about="a < b", x_title="rate", y_limits=limits(line.y))

    before = drawn()
    with matplotlib.rc_context({"font.size": 40, "svg.fonttype": "path", "xtick.major.size": 20}):
        assert drawn() == before
    assert 'aria-label="a &lt; b"' in before and "style" not in before and "<text" in before
    assert set(re.findall(r'id="([^"]+)"', before)) == set(re.findall(r'#(f-[^")]+)', before))
