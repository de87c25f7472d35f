"""What is lost and what another model is better by: refused early exactly where a report cannot say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mcutune.cli import app as cli
from mcutune.domain.combination import Modalities
from mcutune.errors import BadInput, Problems
from mcutune.robustness.contrasts import Contrasts
from mcutune.robustness.fitting import refuse_unfit
from mcutune.robustness.gate import decide, load_gate
from mcutune.robustness.job import prepare
from mcutune.robustness.openings import FILE as OPENINGS
from mcutune.robustness.reports import find_report
from tests.robustness.test_compared import beside, report_of
from tests.robustness.test_gate import gate_file
from tests.robustness.worlds import make_run, make_table

Entry = dict[str, Any]
SOME = """id: some
version: 1
kind: fixed
title: Some
citation: None
combinations: [audio, text, audio+text]
"""
LATE = """id: late
version: 1
kind: random
title: No rate of 0
citation: None
rates: [0.2, 0.5]
masks: 2
seed: 1
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_run(home, table := make_table(home, rows=240))
    beside(home, table, noise=0.3)
    make_table(home, "other", rows=120, modalities=("text", "video"), seed=5)
    for name, text in (("some", SOME), ("late", LATE)):
        (home / f"{name}.yaml").write_text(text)
    return home


@pytest.fixture(scope="module")
def protocols(home: Path) -> tuple[str, ...]:
    return ("all", str(home / "some.yaml"), str(home / "late.yaml"))


@pytest.fixture(scope="module")
def report(home: Path, protocols: Sequence[str]) -> Entry:
    return report_of(home, *protocols, target="other")


def places(report: Entry) -> list[str]:
    """A condition's keys for every UA of the subject."""
    found = []
    for part, key in (("measurements", "combination"), ("summaries", "summary")):
        for one in report[part]:
            name = one.get("name") or one["combination"]
            if (one["model"], one["metric"]) == ("run", "ua") and name not in ("worst", "cvar"):
                named = f"{key}: '{name}', " if name else ""
                found.append(f"metric: ua, protocol: {one['protocol']}, {named}scenario: '{one['scenario']}'")
    return found


def test_what_is_refused_before_is_what_cannot_be_decided_after(
    home: Path, tmp_path: Path, report: Entry, protocols: Sequence[str]
) -> None:
    """The twin of the planning is a report: each drop and each difference of every place of every protocol."""
    job, evidence = prepare("run", protocols, home, "other", None), find_report("run", home).evidence
    demands = ["drop_at_most: 0.9"]
    demands += [f"not_worse_than: {{model: '{one['name']}', margin: 0.9}}" for one in report["models"]]
    every = [f"{place}, {demand}" for place in places(report) for demand in demands]
    assert 400 < len(every) <= 1000
    refused = []
    for asked in (lambda gate: refuse_unfit(gate, job), lambda gate: decide(gate, report, evidence, "0" * 64)):
        with pytest.raises(Problems) as caught:
            asked(load_gate(gate_file(tmp_path, *every)))
        refused.append(caught.value.problems)
    assert refused[0] == refused[1]
    told = "\n".join(refused[0])
    for protocol in ("some", "late", "imbalanced", "label_dependent"):
        assert f"drop_at_most: nothing is measured there with everything present under protocol '{protocol}'" in told
    for protocol in ("fixed", "random", "gaps", "noise", "cross_dataset"):
        assert f"measured there with everything present under protocol '{protocol}'" not in told
        assert f"it is what is measured with everything present under protocol '{protocol}'" in told
    assert "there is no other model 'run' (valid: run:0, " in told
    assert "model 'run:late_fusion' is not measured under protocol 'noise' (valid: run:0)" in told


def test_the_complete_place_is_looked_for_once_a_scenario(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,023 places of 10 modalities, all but one of which have a drop: not 1,023 searches through all of them."""
    labels = Modalities(tuple("abcdefghij")).labels
    every = [{"model": "m", "protocol": "fixed", "combination": label, "scenario": "fixed", "dataset": "t"}
             for label in labels]  # fmt: skip
    data = {"table": "t", "modalities": [{"name": name} for name in "abcdefghij"]}
    contrasts = Contrasts({"models": [{"name": "m"}], "measurements": every, "degradation": [], "data": data}, Path())
    asked: list[str] = []
    of = Contrasts._of
    monkeypatch.setattr(Contrasts, "_of", lambda self, part, found: asked.append(part) or of(self, part, found))
    whole = max(every, key=lambda one: str(one["combination"]).count("+"))
    for _ in range(3):
        told = contrasts.no_drop(whole)
        assert told is not None and "it is what is measured" in told[0] and len(told[1]) == len(labels) - 1
    assert contrasts.no_drop(every[0]) is None
    assert len(asked) <= 4


def test_what_was_looked_for_once_is_right_for_every_place(report: Entry) -> None:
    contrasts = Contrasts(report, Path())
    every = [one for part in ("measurements", "summaries") for one in report[part] if one["model"] == "run"]
    assert len({(one["protocol"], one["scenario"]) for one in every}) > 20
    for one in every:
        assert contrasts._complete(one) == Contrasts(report, Path())._complete(one), one


def test_a_mean_and_a_combination_of_one_scenario_are_looked_for_apart() -> None:
    whole = {"model": "m", "protocol": "p", "combination": "a+b", "scenario": "s", "dataset": "t"}
    data = {"table": "t", "modalities": [{"name": name} for name in "ab"]}
    contrasts = Contrasts({"models": [{"name": "m"}], "measurements": [whole], "degradation": [], "data": data}, Path())
    assert contrasts._complete(whole) == ("a+b", "s")
    assert contrasts._complete({**whole, "combination": None}) is None


UNANSWERABLE = [
    ("metric: ua, scenario: rate=0.5, drop_at_most: 0.1", ("late",), "use at_least"),
    ("metric: ua, combination: audio, drop_at_most: 0.1", ("some",), "under protocol 'some'"),
    ("metric: ua, scenario: 'sigma=1, all', not_worse_than: {model: 'run:specialists', margin: 0.1}", ("noise",),
     "model 'run:specialists' is not measured under protocol 'noise' (valid: run:0)"),
    ("metric: ua, index: effective, at_least: 0", ("fixed",), "needs 3 measured models, 2 here"),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "protocols", "word"), UNANSWERABLE)
def test_it_is_refused_before_a_label_is_read(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], condition: str,
    protocols: tuple[str, ...], word: str,
) -> None:  # fmt: skip
    for name in ("searched", "refuse_untrusted"):  # there is no ledger here
        monkeypatch.setattr(f"mcutune.cli.searched.{name}", lambda *given: None)
    monkeypatch.setenv("MCUTUNE_HOME", str(home))
    gate = gate_file(tmp_path, condition)
    files = [home / f"{one}.yaml" for one in protocols]
    asked = [f"--protocol={file if file.exists() else file.stem}" for file in files]
    asked += ["--against", "run:0"] if "effective" in condition else []
    log = home / "runs" / "run" / "robustness" / OPENINGS
    before = log.read_bytes() if log.exists() else None
    assert cli.run(["robustness", "--ckpt", "run", "--gate", gate, *asked]) == 2
    out, err = capsys.readouterr()
    assert "floor.yaml:5: conditions.0" in err and word in err and len(err.splitlines()) == 2, err
    assert (log.read_bytes() if log.exists() else None) == before


@pytest.mark.parametrize("demand", ["drop_at_most: 0.1", "not_worse_than: {model: x, margin: 0.1}"])
def test_the_tail_has_neither(tmp_path: Path, demand: str) -> None:
    with pytest.raises(BadInput, match="cvar"):
        load_gate(gate_file(tmp_path, f"metric: ua, summary: cvar, {demand}"))
