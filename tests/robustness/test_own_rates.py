"""Rates of other modalities than MissBench's: the way there is told, and the README's file works; what does not fit and
was not asked for by name is left out with a note."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mcutune.cli import app as cli
from mcutune.errors import BadInput
from mcutune.files import read_json
from mcutune.robustness import protocol as protocols
from mcutune.robustness.job import prepare
from mcutune.robustness.run import certify
from mcutune.shipped import shipped_folder
from tests.robustness import worlds
from tests.robustness.worlds import load_fake, make_run, make_table

SENSORS = ("cardiac", "electrodermal", "motion", "muscle", "respiration", "temperature")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on six sensors, which the command measures with fake models."""
    for name in SENSORS:
        monkeypatch.setitem(worlds.DIMS, name, 3)
        monkeypatch.setitem(worlds.STRENGTH, name, 0.4)
    make_run(tmp_path, make_table(tmp_path, rows=120, modalities=SENSORS), seeds=1)
    for name in ("searched", "refuse_untrusted"):  # there is no ledger here
        monkeypatch.setattr(f"mcutune.cli.searched.{name}", lambda *given: None)
    monkeypatch.setitem(certify.__kwdefaults__, "load", load_fake)
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path))
    return tmp_path


def robustness(*given: str) -> int:
    return cli.run(["robustness", "--ckpt", "run", *(f"--protocol={one}" for one in given)])


def report(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(home / "runs" / "run" / "robustness" / "report.json")
    return found


def test_other_modalities_are_told_the_way_in_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert robustness("imbalanced") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and not (home / "runs" / "run" / "robustness").exists()
    copy = shipped_folder("eval_protocols") / "imbalanced.yaml"
    sensors = ", ".join(SENSORS)
    assert f"has rates for audio, text, video; toy has {sensors} (copy {copy}, give each of {sensors} a rate" in said
    assert copy.is_file()


def test_the_file_of_the_readme_is_measured(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (shipped_folder("eval_protocols") / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(id: .*?)```", page, re.DOTALL)
    (tmp_path / "mine.yaml").write_text(text)
    assert robustness(str(tmp_path / "mine.yaml")) == 0
    capsys.readouterr()
    found = report(home)
    (told,) = found["protocols"]
    assert (told["id"], told["kind"]) == ("loose_straps", "imbalanced")
    first, second = told["fingerprint"]["datasets"][0]["scenarios"]
    assert first["missing"] == pytest.approx(
        {"cardiac": 0.1, "electrodermal": 0.5, "motion": 0.05, "muscle": 0.6, "respiration": 0.3, "temperature": 0.2},
        abs=0.03,
    )
    assert second["missing"] == pytest.approx(dict.fromkeys(SENSORS, 0.3), abs=0.03)
    assert {one["scenario"] for one in found["measurements"]} == {first["scenario"], second["scenario"]}


def test_an_own_file_stands_in_for_the_shipped_one(home: Path, tmp_path: Path) -> None:
    text = (shipped_folder("eval_protocols") / "imbalanced.yaml").read_text(encoding="utf-8")
    rates = ", ".join(f"{name}: 0.2" for name in SENSORS)
    text = re.sub(r"settings:.*?(?=masks:)", f"settings: [{{{rates}}}]\n", text, flags=re.DOTALL)
    (tmp_path / "imbalanced.yaml").write_text(text)
    job = prepare("run", ("all", str(tmp_path / "imbalanced.yaml")), home, None, None)
    assert [one.id for one in job.protocols].count("imbalanced") == 1
    assert "imbalanced" not in [name for name, *_ in job.skipped] and "random_batch" in [n for n, *_ in job.skipped]


def test_of_all_what_does_not_fit_is_left_out_with_a_note(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert robustness("all") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "protocol imbalanced is left out: a setting has rates for audio, text, video; toy has cardiac" in out
    assert "protocol random_batch is left out: " in out and "(use random, which is defined for any number)" in out
    warned = [one for one in report(home)["warnings"] if "imbalanced was not measured: a setting has rates for" in one]
    assert len(warned) == 1 and str(shipped_folder("eval_protocols")) not in warned[0]
    assert robustness("all", "imbalanced") == 2  # it was asked for by name


def test_what_nobody_asked_for_by_name_may_not_fit(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `fixed` with more than ten modalities; where nothing is left, that is an error."""
    monkeypatch.setattr(protocols, "_MOST_COMBINATIONS", 7)
    job = prepare("run", (), home, None, None)
    assert [one.id for one in job.protocols] == ["random"] and [name for name, *_ in job.skipped] == ["fixed"]
    with pytest.raises(BadInput, match="name those to measure"):
        prepare("run", ("fixed",), home, None, None)
    monkeypatch.setattr(
        "mcutune.robustness.job.plan", lambda *given: (_ for _ in ()).throw(BadInput("it fits nowhere"))
    )
    with pytest.raises(BadInput, match="it fits nowhere"):
        prepare("run", (), home, None, None)


def test_a_target_that_cannot_be_read_is_refused_though_it_is_asked_for_by_default(home: Path) -> None:
    make_table(home, "other", rows=120, modalities=("audio",), seed=5)
    with pytest.raises(BadInput, match="no modality in common"):
        prepare("run", (), home, "other", None)
