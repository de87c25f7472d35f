"""A narrower report replaces a wider one only after saying so, and the wider one's evidence stays."""

from __future__ import annotations

from pathlib import Path

from mcutune.files import read_json, write_json
from mcutune.robustness.rebuild import rebuild
from mcutune.robustness.run import certify
from tests.robustness.worlds import load_fake, make_run, make_table


def said_by(home: Path, *protocols: str, **options: object) -> list[str]:
    said: list[str] = []
    certify("run", protocols, home=home, load=load_fake, tell=said.append, **options)  # type: ignore[arg-type]
    return said


def test_what_is_lost_is_said_and_its_evidence_stays(tmp_path: Path) -> None:
    make_run(tmp_path, table := make_table(tmp_path, rows=120))
    make_table(tmp_path, "other", rows=60, modalities=("text", "video"), seed=5)
    assert said_by(tmp_path, "fixed", "gaps", "noise", "cross_dataset", target="other") == []
    place = tmp_path / "runs" / "run" / "robustness"
    wide = read_json(place / "report.json")
    folder = wide["provenance"]["evidence"]["folder"]
    assert said_by(tmp_path, "fixed", against=[]) == [
        "this replaces a report that also has protocols gaps, noise, cross_dataset; model run:0; target other; "
        f"its evidence stays in {folder}"
    ]
    assert rebuild(place / folder) == wide
    assert said_by(tmp_path, "fixed", "random") == []  # wider than what stands there
    assert said_by(tmp_path, "random") != []
    report = read_json(place / "report.json")
    write_json(place / "report.json", {**report, "protocols": 3})
    assert said_by(tmp_path, "fixed") == []  # no report that can be read
    make_run(tmp_path, table, noise=0.4)
    assert said_by(tmp_path, "gaps") == []  # of other checkpoints
