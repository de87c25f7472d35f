"""Gates: decided by intervals, against slow recomputation; refusals that name what there is; exit codes 0, 7, 8, 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcutune.cli import app as cli
from mcutune.errors import BadInput, Damaged, Problems
from mcutune.files import sealed, sha256_file, write_json
from mcutune.robustness import html
from mcutune.robustness.gate import decide, load_gate, read_verdict
from mcutune.robustness.rebuild import rebuild, stored
from mcutune.robustness.reports import find_report
from mcutune.robustness.run import certify
from mcutune.shipped import shipped_folder
from tests.reference.report_twin import fixed_value
from tests.robustness.made_reports import HOSTILE
from tests.robustness.test_html import Parsed
from tests.robustness.worlds import load_fake, make_run, make_table
from tests.schemas import GATE, hold

Entry = dict[str, Any]
FULL = "audio+text+video"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_run(home, make_table(home))
    certify("run", ("fixed", "random"), home=home, load=load_fake)
    make_run(home, make_table(home, "few", groups=6, folds=2), "few")
    certify("few", ("fixed",), home=home, load=load_fake)
    return home


def gate_file(tmp_path: Path, *conditions: str) -> str:
    path = tmp_path / "floor.yaml"
    lines = "".join(f"  - {{{one}}}\n" for one in conditions)
    path.write_text(f"id: floor\nversion: 1\ntitle: A floor\nconditions:\n{lines}")
    return str(path)


def decided(home: Path, tmp_path: Path, *conditions: str, run: str = "run") -> Entry:
    found = find_report(run, home)
    assert found.report is not None
    verdict = decide(load_gate(gate_file(tmp_path, *conditions)), found.report, found.evidence, "0" * 64)
    hold(sealed(verdict), GATE)
    return verdict


def measurement(home: Path, **where: Any) -> Entry:
    report = find_report("run", home).report
    assert report is not None
    (one,) = [
        m for m in report["measurements"] if all(m[key] == value for key, value in {"model": "run", **where}.items())
    ]
    return one


@pytest.mark.parametrize(
    ("shift", "outcome"), [(-0.001, "pass"), (0.0, "pass"), (0.001, "inconclusive")]
)  # fmt: skip
def test_a_floor_is_passed_where_the_lower_bound_holds_it(
    home: Path, tmp_path: Path, shift: float, outcome: str
) -> None:
    low = measurement(home, protocol="fixed", combination="audio", metric="ua")["low"]
    verdict = decided(home, tmp_path, f"metric: ua, combination: audio, at_least: {low + shift!r}")
    assert verdict["outcome"] == verdict["conditions"][1]["outcome"] == outcome


@pytest.mark.parametrize(("shift", "outcome"), [(0.0, "inconclusive"), (0.001, "fail")])
def test_a_floor_is_failed_where_the_upper_bound_misses_it(
    home: Path, tmp_path: Path, shift: float, outcome: str
) -> None:
    high = measurement(home, protocol="fixed", combination="audio", metric="ua")["high"]
    verdict = decided(home, tmp_path, f"metric: ua, combination: audio, at_least: {high + shift!r}")
    assert verdict["outcome"] == outcome
    assert verdict["conditions"][1]["high"] == high


def test_the_worst_decides(home: Path, tmp_path: Path) -> None:
    middle = measurement(home, protocol="fixed", combination="audio", metric="ua")["value"]
    good, unsure, bad = (f"metric: ua, combination: audio, at_least: {x!r}" for x in (0.01, middle, 0.99))
    assert decided(home, tmp_path, good)["outcome"] == "pass"
    assert decided(home, tmp_path, good, unsure)["outcome"] == "inconclusive"
    verdict = decided(home, tmp_path, good, unsure, bad)
    assert verdict["outcome"] == "fail"
    assert [one["outcome"] for one in verdict["conditions"]] == ["pass", "pass", "inconclusive", "fail"]


def test_names_of_modalities_may_stand_in_any_order(home: Path, tmp_path: Path) -> None:
    one = decided(home, tmp_path, "metric: ua, combination: video+audio, at_least: 0.1")["conditions"][1]
    assert one["value"] == measurement(home, combination="audio+video", metric="ua")["value"]


def test_a_drop_is_what_the_twin_says_and_has_its_own_interval(home: Path, tmp_path: Path) -> None:
    verdict = decided(
        home, tmp_path, "metric: ua, combination: audio, drop_at_most: 0.9",
        "metric: ua, summary: mean_incomplete, drop_at_most: 0.9", "metric: ua, scenario: rate=0.6, drop_at_most: 0.9",
    )  # fmt: skip
    folder = find_report("run", home).evidence
    full, audio = (fixed_value(folder, "toy", 0, label, "ua") for label in (FULL, "audio"))
    one, mean, curve = verdict["conditions"][1:]
    assert one["value"] == pytest.approx(full - audio, abs=1e-9)
    assert one["low"] < one["value"] < one["high"]
    a, b = (measurement(home, protocol="fixed", combination=label, metric="ua") for label in (FULL, "audio"))
    assert one["high"] - one["low"] < a["high"] - a["low"] + b["high"] - b["low"]
    incomplete = [fixed_value(folder, "toy", 0, x, "ua") for x in stored(folder)[1].names.labels if x != FULL]
    assert mean["value"] == pytest.approx(full - np.mean(incomplete), abs=1e-9)
    rates = [measurement(home, scenario=f"rate={rate}", metric="ua")["value"] for rate in ("0", "0.6")]
    assert curve["value"] == pytest.approx(rates[0] - rates[1], abs=1e-9)


def test_a_model_is_held_against_another(home: Path, tmp_path: Path) -> None:
    report = find_report("run", home).report
    assert report is not None
    (theirs,) = [
        one for one in report["comparisons"]
        if (one["protocol"], one["combination"], one["metric"]) == ("fixed", "audio", "ua")
    ]  # fmt: skip
    verdict = decided(
        home, tmp_path, "metric: ua, combination: audio, not_worse_than: {model: 'run:0', margin: 0.9}",
        "metric: ua, summary: mean_all, not_worse_than: {model: 'run:0', margin: 0.9}",
    )  # fmt: skip
    one, mean = verdict["conditions"][1:]
    assert (one["value"], one["low"], one["high"]) == (theirs["difference"], theirs["low"], theirs["high"])
    assert (one["outcome"], mean["outcome"], mean["limit"]) == ("pass", "pass", -0.9)


def test_without_an_interval_nothing_is_decided(home: Path, tmp_path: Path) -> None:
    verdict = decided(home, tmp_path, "metric: ua, combination: audio, at_least: 0.01", run="few")
    assert verdict["outcome"] == "inconclusive"
    assert "fewer than 8 groups" in verdict["conditions"][1]["reason"]


def test_a_failed_self_check_fails_every_gate(home: Path, tmp_path: Path) -> None:
    found = find_report("run", home)
    assert found.report is not None
    report = {**found.report, "checks": [{"name": "finite", "passed": False, "detail": "no"}]}
    loaded = load_gate(gate_file(tmp_path, "metric: ua, combination: audio, at_least: 0.01"))
    assert decide(loaded, report, found.evidence, "0" * 64)["outcome"] == "fail"


@pytest.mark.parametrize(
    ("condition", "word"),
    [
        ("metric: ua, combination: smell, at_least: 0.5", "audio+text"),
        ("metric: ua, scenario: rate=0.55, at_least: 0.5", "rate=0.5"),
        ("metric: ua, summary: median, at_least: 0.5", "mean_all"),
        ("metric: mae, combination: audio, at_most: 0.5", "wa, ua, f1"),
        ("metric: ua, protocol: gaps, combination: audio, at_least: 0.5", "fixed, random"),
        ("metric: ua, combination: audio, not_worse_than: {model: x, margin: 0.1}", "run:0"),
        ("metric: ua, index: nothing, at_least: 0.5", ""),
    ],
)
def test_what_was_not_measured_is_refused_with_what_there_is(
    home: Path, tmp_path: Path, condition: str, word: str
) -> None:
    with pytest.raises(Problems) as caught:
        decided(home, tmp_path, "metric: ua, combination: audio, at_least: 0.1", condition)
    assert "floor.yaml:6: conditions.1" in str(caught.value)
    assert word in str(caught.value)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("index: relative", "2 measurements are meant: name protocol (valid: protocol: fixed, protocol: mine)"),
        (
            "summary: mean_all",
            "2 measurements are meant: name protocol or scenario "
            "(valid: protocol: fixed, scenario: fixed, protocol: mine, scenario: fixed)",
        ),
    ],
)
def test_under_two_protocols_one_must_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], condition: str, words: str
) -> None:
    mine = tmp_path / "mine.yaml"
    shipped = (shipped_folder("eval_protocols") / "fixed.yaml").read_text(encoding="utf-8")
    mine.write_text(shipped.replace("id: fixed", "id: mine"), encoding="utf-8")
    make_run(tmp_path, make_table(tmp_path, rows=300))
    certify("run", ("fixed", str(mine)), home=tmp_path, load=load_fake)
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path))
    gate = gate_file(tmp_path, f"metric: ua, {condition}, at_least: .1")
    assert cli.run(["report", "run", "--gate", gate]) == 2
    assert words in capsys.readouterr().err
    gate = gate_file(tmp_path, f"metric: ua, {condition}, protocol: mine, at_least: .1")
    assert cli.run(["report", "run", "--gate", gate]) == 0


@pytest.mark.parametrize(
    "condition",
    [
        "metric: ua, combination: audio",
        "metric: ua, at_least: 0.5",
        "metric: ua, combination: audio, at_least: 0.5, at_most: 0.6",
        "metric: ua, combination: audio, summary: worst, at_least: 0.5",
        "metric: ua, combination: audio, at_most: 0.5",
        "metric: mae, combination: audio, at_least: 0.5",
        "metric: sharpness, combination: audio, at_least: 0.5",
        "metric: ua, combination: audio, at_leest: 0.5",
        "metric: ua, combination: audio, at_least: high",
        "metric: ua, combination: audio, not_worse_than: {model: x, margin: 0}",
        "metric: ua, combination: audio, drop_at_most: -1",
        "metric: ua, summary: worst, drop_at_most: 0.1",
        "metric: ua, index: relative, drop_at_most: 0.1",
        "metric: ua, combination: audio, at_least: .nan",
        "metric: ece, combination: audio, at_least: 0.1",
        "metric: ece, combination: audio, drop_at_most: 0.1",
        "metric: ece, summary: worst, at_most: 0.1",
        "metric: ece, combination: audio, protocol: fixed, at_most: 0.1",
        "metric: ua, combination: audio, stage: after, at_least: 0.1",
    ],
)
def test_a_gate_that_says_nothing_is_refused(tmp_path: Path, condition: str) -> None:
    with pytest.raises(BadInput, match=r"floor\.yaml"):
        load_gate(gate_file(tmp_path, condition))


def test_the_shipped_gate_is_valid_and_its_hash_is_of_its_meaning(tmp_path: Path) -> None:
    loaded = load_gate("example")
    text = (shipped_folder("eval_protocols") / "gates" / "example.yaml").read_text()
    path = tmp_path / "again.yaml"
    path.write_text(text.replace("title: ", "title: Other words for "))
    assert load_gate(str(path)).gate.hash == loaded.gate.hash
    path.write_text(text.replace("0.4", "0.41"))
    assert load_gate(str(path)).gate.hash != loaded.gate.hash


@pytest.mark.parametrize(
    ("floor", "code", "word"), [("0.01", 0, ""), ("0.99", 7, "is failed"), ("mid", 8, "cannot be")]
)
def test_the_exit_code_is_the_outcome(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], floor: str,
    code: int, word: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("MCUTUNE_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "80")
    middle = measurement(home, protocol="fixed", combination="audio", metric="ua")["value"]
    gate = gate_file(tmp_path, f"metric: ua, combination: audio, at_least: {middle if floor == 'mid' else floor}")
    assert cli.run(["report", "run", "--gate", gate]) == code
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines()[:-1])) <= 80
    assert "ua audio at least" in out and word in err and err.count("\n") == (code != 0)
    path = home / "runs" / "run" / "robustness" / "report.json"
    verdict = read_verdict(path)
    hold(verdict, GATE)
    assert verdict is not None and verdict["report"]["sha256"] == sha256_file(path)
    assert "Gate <bdi>floor</bdi>, version 1" in (path.with_name("report.html")).read_text()
    assert rebuild(find_report("run", home).evidence) == json.loads(path.read_text())
    assert cli.run(["report", "run", "--gate", gate, "--json"]) == code
    assert json.loads(capsys.readouterr().out) == verdict
    assert cli.run(["report", "run", "--gate", gate_file(tmp_path, "metric: ua, combination: x, at_least: 1")]) == 2


def test_the_verdict_on_another_report_is_not_shown(home: Path, tmp_path: Path) -> None:
    source = home / "runs" / "run" / "robustness" / "report.json"
    report = json.loads(source.read_text())
    write_json(tmp_path / "report.json", report)
    loaded = load_gate(gate_file(tmp_path, "metric: ua, combination: audio, at_least: 0.01"))
    evidence = find_report("run", home).evidence
    verdict = decide(loaded, report, evidence, sha256_file(tmp_path / "report.json"))
    write_json(tmp_path / "gate.json", {**sealed(verdict), "outcome": "another"})
    with pytest.raises(Damaged, match="its own hash differs"):
        read_verdict(tmp_path / "report.json")
    write_json(tmp_path / "gate.json", verdict)
    assert "Gate <bdi>floor" in html.write(tmp_path / "report.json").read_text()
    write_json(tmp_path / "report.json", {**report, "title": "another"})
    assert "Gate <bdi>floor" not in html.write(tmp_path / "report.json").read_text()


@pytest.mark.parametrize("bad", HOSTILE[:4] + HOSTILE[9:12])
def test_words_of_a_gate_are_never_obeyed(home: Path, tmp_path: Path, bad: str) -> None:
    verdict = decided(home, tmp_path, "metric: ua, combination: audio, at_least: 0.01")
    report = find_report("run", home).report
    assert report is not None
    plain = Parsed(html.render(report, verdict)).shape
    verdict["gate"] |= {"id": bad, "title": bad}
    verdict["conditions"][1] |= {"condition": bad, "reason": bad}
    assert Parsed(html.render(report, verdict)).shape == plain
