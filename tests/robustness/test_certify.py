"""A whole certification with a model that needs no training: numbers by a slow twin, files tampered with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import mcutune.robustness
from mcutune.data.table import open_table
from mcutune.domain.task import Task
from mcutune.errors import BadInput, Busy, Damaged
from mcutune.files import read_json, write_json
from mcutune.robustness.batches import foreign_batch
from mcutune.robustness.evidence import locked, read_manifest
from mcutune.robustness.rebuild import rebuild
from mcutune.robustness.run import certify
from mcutune.robustness.stored import Store
from tests.reference.report_twin import cross_value, fixed_spreads, fixed_value, random_value
from tests.robustness.worlds import checkpoint, load_fake, make_run, make_table

SCHEMA = json.loads((Path(mcutune.robustness.__file__).parent / "report.schema.json").read_text(encoding="utf-8"))
Report = dict[str, Any]


def certified(home: Path, selection: str = "best", *protocols: str, **given: Any) -> Report:
    report = certify(selection, protocols, home=home, load=load_fake, **given)
    jsonschema.validate(report, SCHEMA)
    return report


def evidence(home: Path, report: Report, run: str = "run") -> Path:
    return home / "runs" / run / "robustness" / str(report["provenance"]["evidence"]["folder"])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_run(home, make_table(home))
    make_table(
        home, "other", modalities=("text", "audio"), names=("happy", "sad", "neutral", "angry", "bored"),
        groups=40, seed=5, shift=0.5,
    )  # fmt: skip
    return home


@pytest.fixture(scope="module")
def own(home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A protocol for the second corpus that drops a label."""
    path = tmp_path_factory.mktemp("protocols") / "cross.yaml"
    shipped = (Path(__file__).parents[2] / "eval_protocols" / "cross_dataset.yaml").read_text(encoding="utf-8")
    path.write_text(shipped.replace("drop: []", "drop: [bored]"))
    return str(path)


@pytest.fixture(scope="module")
def report(home: Path, own: str) -> Report:
    return certified(home, "best", "fixed", "random", own, target="other")


def measured(report: Report, **where: Any) -> Report:
    found = [m for m in report["measurements"] if all(m[key] == value for key, value in where.items())]
    assert len(found) == 1
    return found[0]


def test_the_sample_report_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(read_json(Path(__file__).parent / "sample_report.json"), SCHEMA)


def test_the_report_is_what_was_written(home: Path, report: Report) -> None:
    assert read_json(home / "runs" / "run" / "robustness" / "report.json") == report
    assert [one["name"] for one in report["models"]] == ["run", "run:0"]
    assert len(report["measurements"]) == 2 * sum(one["cells"] for one in report["protocols"])
    assert all(check["passed"] for check in report["checks"])
    assert report["models"][0]["winners"][1]["checkpoints"][1]["best_epoch"] == 7
    assert len(report["dpft"]) == 8
    assert report["title"] == "run on toy and other: fixed, random, cross_dataset"


@pytest.mark.parametrize("metric", ["wa", "ua", "f1"])
def test_values_are_those_of_the_slow_twin(home: Path, report: Report, metric: str) -> None:
    folder = evidence(home, report)
    for number, model in enumerate(("run", "run:0")):
        for label in ("text", "audio+video", "audio+text+video"):
            found = measured(report, protocol="fixed", combination=label, metric=metric, model=model)
            assert found["value"] == pytest.approx(fixed_value(folder, "toy", number, label, metric), abs=1e-9)
            spreads = fixed_spreads(folder, "toy", number, label, metric)
            assert (found["seeds_sd"], found["folds_sd"]) == pytest.approx(spreads, abs=1e-9)
        scenario = "rate=0.4"
        found = measured(report, scenario=scenario, metric=metric, model=model)
        assert found["value"] == pytest.approx(random_value(folder, "toy", number, scenario, metric), abs=1e-9)
        for mode in ("normalisation=source", "normalisation=corpus"):
            found = measured(report, scenario=mode, combination="audio+text", metric=metric, model=model)
            expected = cross_value(folder, "other", number, "audio+text", mode, metric)
            assert found["value"] == pytest.approx(expected[0], abs=1e-9)
            matrix = [
                one for one in report["cross_dataset"]
                if (one["model"], one["combination"], one["metric"]) == (model, "audio+text", metric)
                and mode.endswith(one["normalisation"])
            ]  # fmt: skip
            assert matrix[0]["winners_sd"] == pytest.approx(expected[1], abs=1e-9)
            assert (matrix[0]["winners"], matrix[0]["n"]) == (8, found["n"])


def test_another_corpus_is_normalised_as_the_scenario_says(home: Path, report: Report) -> None:
    import pandas as pd

    stored = pd.read_parquet(evidence(home, report) / "predictions-0-other.parquet")
    stored = stored.astype({"id": str, "fold": str, "scenario": str, "combination": str})
    first = stored[(stored.fold == "1") & (stored.seed == 1) & (stored.combination == "audio+text")]
    table = open_table("other", home=home)
    model = load_fake(home / "runs" / "run" / "checkpoints" / "1" / "3" / "1")
    batch = foreign_batch(table, model, ("audio", "text"), table.labelled)
    assert set(batch.features) == {"audio", "text", "video"}
    assert not batch.presence[:, 2].any()
    for scenario, mode in (("normalisation=source", None), ("normalisation=corpus", "group")):
        mine = first[first.scenario == scenario]
        read = batch.as_one_group() if mode else batch
        expected = read.every(model, mode)[3][table.labelled]  # type: ignore[arg-type]
        assert mine.id.tolist() == table.ids[table.labelled].tolist()
        assert (mine.filter(like="logit_").to_numpy() == expected).all()


def test_rows_groups_and_means_are_stated(report: Report) -> None:
    full = measured(report, protocol="fixed", combination="audio+text+video", metric="ua", model="run")
    data = report["data"]
    assert (full["n"], full["groups"], full["seeds"], full["folds"]) == (data["measured"], 12, 2, 4)
    assert data["measured"] + data["unlabelled"] == data["rows"] == 400
    assert sum(one["rows"] for one in data["classes"]) == data["measured"]
    mine = [m for m in report["measurements"] if (m["protocol"], m["metric"], m["model"]) == ("fixed", "ua", "run")]
    means = {s["name"]: s for s in report["summaries"] if s["metric"] == "ua" and s["model"] == "run"}
    assert means["mean_all"]["value"] == pytest.approx(np.mean([m["value"] for m in mine]))
    assert means["mean_incomplete"]["value"] == pytest.approx(np.mean([m["value"] for m in mine[:-1]]))
    assert means["worst"]["value"] == min(m["value"] for m in mine)
    points = next(c for c in report["degradation"] if c["metric"] == "ua" and c["model"] == "run")["points"]
    area = np.trapezoid([p["value"] for p in points], [p["realised"] for p in points]) / points[-1]["realised"]
    assert means["area"]["value"] == pytest.approx(area)
    assert [p["capped"] for p in points] == [False] * 7 + [True]


def test_random_without_missing_is_fixed_complete_and_fewer_modalities_are_worse(report: Report) -> None:
    for metric in ("wa", "ua", "f1"):
        full = measured(report, protocol="fixed", combination="audio+text+video", metric=metric, model="run")
        assert measured(report, scenario="rate=0", metric=metric, model="run")["value"] == pytest.approx(full["value"])
        assert measured(report, scenario="rate=0.7", metric=metric, model="run")["value"] < full["value"]


def test_dropped_and_renamed_labels_are_counted(report: Report) -> None:
    target = report["targets"][0]
    assert target["labels"]["map"]["happy"] == "happy(+excited)"
    assert set(target["labels"]["dropped"]) == {"bored"}
    assert target["measured"] == target["rows"] - target["unlabelled"] - target["labels"]["dropped"]["bored"]
    assert target["labels"]["coverage"] == pytest.approx(target["measured"] / (target["rows"] - target["unlabelled"]))
    assert (target["groups"], target["test_features_normalise"]) == (40, True)


def test_rebuilding_from_files_gives_the_same_bytes(home: Path, report: Report) -> None:
    again = rebuild(evidence(home, report))
    assert json.dumps(again) == json.dumps(report)


@pytest.mark.parametrize("file", ["predictions-0-toy", "predictions-1-other", "presence-random-toy", "rows-toy"])
@pytest.mark.parametrize("where", [0.2, 0.5, 0.9])
def test_a_flipped_bit_is_noticed(home: Path, report: Report, tmp_path: Path, file: str, where: float) -> None:
    folder = _copy(evidence(home, report), tmp_path)
    path = folder / f"{file}.parquet"
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(Damaged, match="SHA-256 differs"):
        rebuild(folder)


def test_a_flipped_bit_is_noticed_by_the_page_even_where_the_manifest_was_made_to_fit(
    home: Path, report: Report, tmp_path: Path
) -> None:  # fmt: skip
    folder = _copy(evidence(home, report), tmp_path)
    path = folder / "predictions-0-toy.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)
    _reseal(folder)
    with pytest.raises(Damaged, match="cannot be read"):
        rebuild(folder)


@pytest.mark.parametrize("how", ["removed", "manifest", "link", "unnamed"])
def test_changed_evidence_is_refused(home: Path, report: Report, tmp_path: Path, how: str) -> None:
    folder = _copy(evidence(home, report), tmp_path)
    path = folder / "predictions-0-toy.parquet"
    manifest = read_json(folder / "manifest.json")
    if how == "removed":
        path.unlink()
    elif how == "manifest":
        manifest["facts"]["created"] = "2020-01-01T00:00:00Z"
    elif how == "link":
        path.rename(tmp_path / "moved")
        path.symlink_to(tmp_path / "moved")
    else:
        del manifest["files"]["predictions-0-toy.parquet"]
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(Damaged):
        rebuild(folder)


@pytest.mark.parametrize("how", ["fewer", "twice", "stranger"])
def test_predictions_that_were_not_asked_for_are_refused(home: Path, report: Report, tmp_path: Path, how: str) -> None:
    """Also with page checksums and hashes that fit: the files must hold exactly what the plan needs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = _copy(evidence(home, report), tmp_path)
    path = folder / "predictions-0-toy.parquet"
    table = pq.read_table(path)
    if how == "fewer":
        table = table.slice(1)
    elif how == "twice":
        table = pa.concat_tables([table, table.slice(0, 1)])
    else:
        seed = table["seed"].to_numpy().copy()
        seed[5] = 9
        table = table.set_column(table.column_names.index("seed"), "seed", pa.array(seed))
    pq.write_table(table, path)
    _reseal(folder)
    with pytest.raises(Damaged):
        rebuild(folder)


def _copy(folder: Path, tmp_path: Path) -> Path:
    copy = tmp_path / folder.name
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def _reseal(folder: Path) -> None:
    from mcutune.robustness.evidence import write_manifest

    write_manifest(folder, read_json(folder / "manifest.json")["facts"])
    assert Store(folder, read_manifest(folder)).files


def test_openings_are_counted_and_told(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path))
    first = certified(tmp_path, "best", "fixed")
    assert (first["openings"]["count"], first["warnings"][0][:12]) == (1, "toy has 12 s")
    second = certified(tmp_path, "run:0", "fixed")
    assert [one["selection"] for one in second["openings"]["log"]] == ["best", "run:0"]
    assert "opened 2 times" in second["warnings"][0]
    assert any("not the winner" in warning for warning in second["warnings"])
    assert (tmp_path / "runs" / "run" / "robustness" / "trial-0" / "report.json").exists()


def test_a_new_report_has_no_verdict_and_no_fewer_openings(tmp_path: Path) -> None:
    run = make_run(tmp_path, make_table(tmp_path))
    certified(tmp_path, "best", "fixed")
    (run / "robustness" / "gate.json").write_text("{}")
    certified(tmp_path, "best", "fixed")
    assert not (run / "robustness" / "gate.json").exists()
    (run / "robustness" / "openings.jsonl").write_text("")
    with pytest.raises(Damaged, match="0 openings, the report beside it tells of 2"):
        certified(tmp_path, "best", "fixed")


def test_nothing_is_opened_where_something_is_wrong_before(tmp_path: Path, own: str) -> None:
    table = make_table(tmp_path)
    run = make_run(tmp_path, table)
    make_table(tmp_path, "values", task=Task.REGRESSION)
    for given in ({"target": "toy"}, {"target": "values"}, {"target": "nowhere"}):
        with pytest.raises(BadInput):
            certify("best", [own], home=tmp_path, load=load_fake, **given)
    make_table(tmp_path, "strange", names=("happy", "sad", "neutral", "furious"))
    with pytest.raises(BadInput, match="labels cannot be read"):
        certify("best", (), home=tmp_path, load=load_fake, target="strange")
    with pytest.raises(BadInput, match="cross_dataset only"):
        certify("best", ["fixed"], home=tmp_path, load=load_fake, target="values")
    path = run / "checkpoints" / "2" / "3" / "1" / "checkpoint.json"
    broken = {**read_json(path), "data": {**read_json(path)["data"], "split_hash": "0" * 64}}
    write_json(path, broken)
    best = read_json(run / "best.json")
    with pytest.raises(Damaged, match="not the one that"):
        certify("best", ["fixed"], home=tmp_path, load=load_fake)
    from mcutune.files import sha256_file

    best["best"][2]["checkpoints"][1]["sha256"] = sha256_file(path)
    write_json(run / "best.json", best)
    with pytest.raises(Damaged, match="other rows than fold 2"):
        certify("best", ["fixed"], home=tmp_path, load=load_fake)
    assert not (run / "robustness" / "openings.jsonl").exists()
    assert [path.name for path in (run / "robustness").iterdir()] == [".lock"]


def test_a_run_is_measured_by_one_process_at_a_time_and_garbage_goes(tmp_path: Path) -> None:
    run = make_run(tmp_path, make_table(tmp_path, rows=200), seeds=1)
    left = run / "robustness" / ".evidence-1234.abc.part"
    left.mkdir(parents=True)
    (left / "rows.parquet").write_text("half")
    with locked(run / "robustness"), pytest.raises(Busy, match="another process"):
        certify("best", ["fixed"], home=tmp_path, load=load_fake)
    certified(tmp_path, "best", "fixed")
    assert not left.exists()


def test_another_table_of_the_same_name_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path))
    from mcutune.data.table import write_table
    from tests.robustness.worlds import make_columns

    write_table(tmp_path / "datasets" / "toy", make_columns(seed=1), overwrite=True)
    with pytest.raises(BadInput, match="not the one that run was trained on"):
        certify("best", ["fixed"], home=tmp_path, load=load_fake)


def test_a_checkpoint_folder_alone(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    folder = tmp_path / "moved"
    write_json(folder / "checkpoint.json", checkpoint(table, "2", 0, 1, {"noise": 0.3}))
    report = certified(tmp_path, str(folder), "fixed")
    assert report["provenance"]["run"] is None
    assert report["data"]["measured"] < 110
    assert report["measurements"][0]["groups"] == 3
    assert report["measurements"][0]["low"] is None
    assert any("too few for an interval" in warning for warning in report["warnings"])
    assert any("One seed" in warning for warning in report["warnings"])
    assert [one["fold"] for one in report["models"][0]["winners"]] == ["2"]
