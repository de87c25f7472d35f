"""Protocols: read strictly, planned whole, and nothing but the plan may be measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mcutune.domain.task import Task
from mcutune.errors import BadInput, CheckFailed, Problems
from mcutune.robustness.compared import OWN_KIND
from mcutune.robustness.job import ORDER
from mcutune.robustness.kinds import KINDS, Protocol
from mcutune.robustness.protocol import (
    Cell,
    complete,
    from_document,
    load_protocol,
    load_protocols,
    plan,
)
from mcutune.robustness.scenarios import TableFacts
from mcutune.shipped import shipped_folder, shipped_names
from mcutune.strict_yaml import load

SOURCE = TableFacts("iemocap", {"audio": 47, "text": 384, "context": 384}, Task.CLASSIFICATION)
TARGET = TableFacts("msp", {"text": 384, "audio": 47, "video": 9}, Task.CLASSIFICATION)
VALUES = TableFacts("mosi", {"audio": 5, "text": 7}, Task.REGRESSION)
MOSEI = dataclasses.replace(VALUES, name="mosei")
# What each shipped protocol measures: of 3 modalities and a target that shares 2, and of 2 modalities with values.
# Words: why it does not fit.
CELLS: dict[str, tuple[int | str, int | str]] = {
    "fixed": (7 * 3, 3 * 4),
    "random": (8 * 3, 8 * 4),
    "random_dialogue": (8 * 3, 8 * 4),
    "random_batch": (8 * 3, "of 3 modalities, and mosi has 2"),
    "imbalanced": ("video; iemocap has audio, text, context ", "video; mosi has audio, text "),
    "gaps": ((1 + 5 * 4) * 3, (1 + 5 * 3) * 4),
    "noise": ((1 + 5 * 4) * 3, (1 + 5 * 3) * 4),
    "label_dependent": (6 * 3, 6 * 4),
    "cross_dataset": (3 * 2 * 3, 3 * 2 * 4),
    "rate_shift": (8 * 3, 8 * 4),
    "incomplete_training": (7 * 3, 3 * 4),
}


def read(text: str) -> Protocol:
    return from_document(load(text))


def test_every_shipped_protocol_has_its_plan() -> None:
    assert set(shipped_names("eval_protocols")) == set(CELLS) == {*ORDER, *OWN_KIND}
    assert {load_protocol(name).kind for name in CELLS} == set(KINDS)
    for name, expected in CELLS.items():
        protocol = load_protocol(name)
        assert protocol.id == name
        for cells, table, target in zip(expected, (SOURCE, VALUES), (TARGET, MOSEI), strict=True):
            if isinstance(cells, str):
                with pytest.raises(BadInput, match=cells):
                    plan(protocol, table, target)
            else:
                planned = plan(protocol, table, target)
                assert (len(planned), len(set(planned))) == (cells, cells)


def test_the_readme_names_every_file_and_key() -> None:
    text = (shipped_folder("eval_protocols") / "README.md").read_text(encoding="utf-8")
    keys = {key for kind in KINDS.values() for key in kind.model_fields}
    assert [key for key in keys if f"`{key}`" not in text] == []
    assert [name for name in shipped_names("eval_protocols") if f"`{name}.yaml`" not in text] == []


def test_plans_name_combinations_scenarios_and_splits() -> None:
    fixed = plan(load_protocol("fixed"), SOURCE)
    assert fixed[0] == Cell("fixed", "iemocap", "test", "audio", "fixed", "wa")
    assert fixed[-1] == Cell("fixed", "iemocap", "test", "audio+text+context", "fixed", "f1")
    rates = {cell.scenario for cell in plan(load_protocol("random"), SOURCE)}
    assert rates == {"rate=0", *(f"rate=0.{i}" for i in range(1, 8))}
    cross = plan(load_protocol("cross_dataset"), SOURCE, TARGET)
    assert {(cell.dataset, cell.split) for cell in cross} == {("msp", "all")}
    assert {cell.combination for cell in cross} == {"audio", "text", "audio+text"}  # in the source's order
    assert {cell.scenario for cell in cross} == {"normalisation=source", "normalisation=corpus"}


FIXED = "id: mine\nversion: 1\nkind: fixed\ntitle: t\ncitation: c\n"
RATES, CROSS = (FIXED.replace("kind: fixed", f"kind: {kind}") for kind in ("random", "cross_dataset"))


def test_a_list_of_combinations_is_planned_in_canonical_order() -> None:
    protocol = read(FIXED + "combinations: [context+audio, text]\nmetrics: [ua]\n")
    assert [cell.combination for cell in plan(protocol, SOURCE)] == ["text", "audio+context"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FIXED.replace("fixed", "fixd"), "no kind of protocol is 'fixd'"),
        (FIXED + "rates: [0.1]\n", "unknown key"),
        (FIXED + "metrics: [ua, ua]\n", "'ua' is given 2 times"),
        (FIXED + "metrics: [uar]\n", "no metric is 'uar'"),
        (FIXED.replace("version: 1", "version: one"), "version"),
        (FIXED.replace("id: mine", "id: 'My own'"), "id"),
        (
            FIXED.replace("kind: fixed", "kind: random") + "rates: [0.1, 0.1]\nmasks: 1\nseed: 1\n",
            "0.1 is given 2 times",
        ),
        (RATES + "rates: [1.5]\nmasks: 1\nseed: 1\n", "rates"),
        (RATES + "rates: []\nmasks: 0\nseed: -1\n", "masks"),
        (CROSS + "normalisation: [none]\n", "normalisation"),
    ],
)
def test_what_is_not_valid_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(Problems) as caught:
        read(text)
    assert said in str(caught.value)


def test_plans_that_do_not_fit_the_tables_are_refused() -> None:
    with pytest.raises(BadInput, match="needs a second table"):
        plan(load_protocol("cross_dataset"), SOURCE)
    with pytest.raises(BadInput, match="no modality in common"):
        plan(load_protocol("cross_dataset"), SOURCE, TableFacts("x", {"audio": 48}, Task.CLASSIFICATION))
    with pytest.raises(BadInput, match="regression"):
        plan(load_protocol("cross_dataset"), SOURCE, VALUES)
    with pytest.raises(BadInput, match="metric wa does not fit a regression task"):
        plan(read(FIXED + "metrics: [wa]\n"), VALUES)
    with pytest.raises(BadInput, match="'video' is not a modality"):
        plan(read(FIXED + "combinations: [video]\n"), SOURCE)
    with pytest.raises(BadInput, match="twice"):
        plan(read(FIXED + "combinations: [audio+text, text+audio]\n"), SOURCE)
    many = TableFacts("many", {f"m{i}": 2 for i in range(11)}, Task.CLASSIFICATION)
    with pytest.raises(BadInput, match="2,047 combinations"):
        plan(load_protocol("fixed"), many)
    assert len(plan(read(FIXED + "combinations: [m0, m0+m10]\nmetrics: [ua]\n"), many)) == 2


def test_protocols_are_found_as_files_and_each_id_once(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(FIXED)
    assert load_protocol(str(path)).id == "mine"
    with pytest.raises(BadInput, match="asked for 2 times"):
        load_protocols([str(path), str(path)])
    with pytest.raises(BadInput, match="did you mean random"):
        load_protocol("randm")


def kind(name: str, rest: str) -> Protocol:
    return read(FIXED.replace("kind: fixed", f"kind: {name}") + rest + "masks: 1\nseed: 1\n")


STEP = "{{rate: {0}, one: {0}, two: {0}}}"


@pytest.mark.parametrize(
    ("name", "rest", "said"),
    [
        ("random", "rates: [0.1]\nper: speaker\n", "per"),
        ("random_batch", "batch: 4\nschedule: [{rate: 0.1, one: 0.2, two: 0.1}]\n", "is 0.133, not 0.100"),
        ("random_batch", "batch: 4\nschedule: [{rate: 0.6, one: 0.8, two: 0.5}]\n", "add up to 1.3"),
        (
            "random_batch",
            "batch: 4\nschedule: [{rate: 0.2, one: 0.2, two: 0.2}, {rate: 0.1, one: 0.1, two: 0.1}]\n",
            "rise",
        ),
        ("gaps", "shares: [0.1, 0.1]\nmodalities: [all]\n", "0.1 is given 2 times"),
        ("noise", "sigmas: [-1]\nmodalities: [all]\n", "sigmas"),
        ("noise", "sigmas: [1]\nmodalities: [some]\n", "modalities"),
        ("label_dependent", "overall: [0.1]\n", "need each other"),
        ("label_dependent", "quantiles: 3\n", "nothing is asked for"),
    ],
)
def test_drawn_protocols_are_read_strictly(name: str, rest: str, said: str) -> None:
    with pytest.raises(Problems) as caught:
        kind(name, rest)
    assert said in str(caught.value)


LONE = dataclasses.replace(SOURCE, longest_dialogue=1)
NAMED = dataclasses.replace(SOURCE, classes=("sad", "angry"))
ONE = TableFacts("one", {"audio": 5}, Task.CLASSIFICATION)


@pytest.mark.parametrize(
    ("protocol", "table", "said"),
    [
        (load_protocol("random_dialogue"), LONE, "a mask a dialogue is a mask a row"),
        (load_protocol("gaps"), LONE, "nothing between the first and the last"),
        (load_protocol("label_dependent"), ONE, "overall rate of 0.2 is above"),
        (kind("imbalanced", "settings: [{audio: 0.9, text: 0.9, context: 0.3}]\n"), SOURCE, "add up to 2.1"),
        (
            kind("imbalanced", "settings: [{audio: 0.9, text: 0.9}]\n"),
            SOURCE,
            "for audio, text; iemocap has",
        ),
        (
            kind("imbalanced", "settings: [{audio: 0.9, language: 0.9}]\n"),
            SOURCE,
            "for audio, language; iemocap",
        ),
        (kind("label_dependent", "settings: {x: {happy: {text: 1}}}\n"), NAMED, "no class 'happy'"),
        (kind("label_dependent", "settings: {x: {sad: {video: 1}}}\n"), NAMED, "no modality 'video'"),
        (kind("label_dependent", "settings: {x: {sad: {text: 1, audio: 1, context: 1}}}\n"), NAMED, "add up to 3"),
    ],
)
def test_drawn_protocols_that_do_not_fit_the_table_are_refused(
    protocol: Protocol, table: TableFacts, said: str
) -> None:  # fmt: skip
    with pytest.raises(BadInput) as caught:
        plan(protocol, table)
    assert said in str(caught.value)


def test_noise_on_one_modality_or_all_is_one_thing_where_there_is_one() -> None:
    assert len({cell.scenario for cell in plan(load_protocol("noise"), ONE)}) == 6


def test_the_hash_is_of_the_meaning() -> None:
    plain = read(FIXED)
    assert read("# a comment\n" + FIXED.replace("title: t", "title: other")).hash == plain.hash
    assert read(FIXED.replace("version: 1", "version: 2")).hash != plain.hash
    assert read(FIXED + "combinations: [audio]\n").hash != plain.hash


def measured_cells() -> tuple[tuple[Cell, ...], list[tuple[Cell, float]]]:
    cells = plan(load_protocol("fixed"), SOURCE)
    return cells, [(cell, 0.5) for cell in cells]


def test_a_complete_measurement_passes() -> None:
    complete(*measured_cells())


@pytest.mark.parametrize("what", ["missing", "undeclared", "doubled", "nan", "infinite"])
def test_tampered_measurements_are_refused(what: str) -> None:
    cells, found = measured_cells()
    if what == "missing":
        found.pop(3)
    elif what == "undeclared":
        found.append((dataclasses.replace(cells[0], scenario="rate=0.5"), 0.5))
    elif what == "doubled":
        found.append(found[0])
    else:
        found[2] = (cells[2], float("nan") if what == "nan" else float("inf"))
    with pytest.raises(CheckFailed):
        complete(cells, found)
