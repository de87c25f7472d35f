"""--packs and --lanes beyond what a search has work for: taken down to that, in one line that says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcutune.cli import app as cli
from mcutune.cli.searching import Shape, beyond_use, lanes_in_flight, packs_for, what_still_fits
from mcutune.cluster.place import Place
from mcutune.cluster.resources import Capacity, Node
from mcutune.errors import NoResources
from mcutune.search.ledger import DATABASE
from tests.search.simulate import plan_of

GROWING = Capacity((Node(2),), grows=True)
CLUSTER = Place("cluster", "127.0.0.1:1")
FOLDS = ("1", "2", "3")


def shape(packs: int | None = None, lanes: int | None = None) -> Shape:
    return Shape(place="cluster", address=None, packs=packs, lanes=lanes, cpus=1, workers=1, gpus=0.0)


@pytest.mark.parametrize("asked", [1, 2, 5, 10**8])
def test_no_more_packs_or_lanes_than_have_work(tmp_path: Path, asked: int) -> None:
    plan = plan_of(tmp_path / "run", folds=FOLDS)
    most = lanes_in_flight(plan.space)
    assert 5 < most < 1000
    packs, lanes = packs_for(plan, shape(asked, asked), CLUSTER, GROWING)
    assert (packs.packs, lanes) == (min(asked, most * len(FOLDS)), min(asked, most))
    assert packs.waiting == max(0, packs.packs - 2)
    said = beyond_use(shape(asked, asked), packs, lanes)
    if asked == 10**8:
        assert said == (
            f"--packs 100,000,000: {most * 3} packs; --lanes 100,000,000: {most} lanes a pack: "
            "more would have no work at any time"
        )
    else:
        assert said is None


@pytest.mark.parametrize(
    ("given", "cpus", "places"),
    [({}, 2, 60), ({}, 1, 80), ({}, 20, 4), ({"workers": 2}, 4, 40), ({"gpus": 1.0}, 2, 40), ({"lanes": 3}, 2, 3)],
)
def test_packs_that_share_by_work_have_half_as_many_places_again(
    tmp_path: Path, given: dict[str, Any], cpus: int, places: int
) -> None:
    """Of 80 lanes. One pack, many packs, GPUs, and packs that do not measure what they can take share by number."""
    plan = plan_of(tmp_path / "run", trials=40, sampler="random")
    assert lanes_in_flight(plan.space) == 80
    assert packs_for(plan, replace(shape(), **given), CLUSTER, Capacity((Node(cpus, gpus=cpus),)))[1] == places


def test_where_nothing_is_asked_for_nothing_is_said(tmp_path: Path) -> None:
    asked = shape()
    assert beyond_use(asked, *packs_for(plan_of(tmp_path / "run"), asked, CLUSTER, GROWING)) is None


def test_a_place_that_cannot_grow_refuses_packs_as_they_were_asked_for(tmp_path: Path) -> None:
    with pytest.raises(NoResources, match="99,999,999 packs x 1 worker x 1 CPU = 99,999,999 CPUs"):
        packs_for(plan_of(tmp_path / "run"), shape(99_999_999), CLUSTER, Capacity((Node(2),)))


@pytest.mark.parametrize(
    ("asked", "cpus", "then"), [(2, 1, 1), (2, 2, 2), (2, 8, 2), (9, 4, 4), (None, 1, None), (2, 0, 2)]
)
def test_a_search_that_goes_on_takes_what_its_cluster_still_has(
    tmp_path: Path, asked: int | None, cpus: int, then: int | None
) -> None:
    plan, left = plan_of(tmp_path / "run"), Capacity((Node(cpus),))
    assert what_still_fits(shape(asked), plan, CLUSTER, left) == shape(asked), "it has not begun"
    plan.folder.mkdir()
    (plan.folder / DATABASE).touch()
    assert what_still_fits(shape(asked), plan, CLUSTER, left) == shape(then)
    assert what_still_fits(shape(asked), plan, Place("local", tmp_path), left) == shape(asked)
    assert what_still_fits(shape(asked), plan, CLUSTER, Capacity((Node(cpus),), grows=True)) == shape(asked)


def test_the_command_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path))
    command = ["search", "--space", "quick", "--place", "process", "--trials", "2", "--seeds", "1", "--plain"]
    assert cli.run([*command, "--lanes", "99999999"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "--lanes 99,999,999: 2 lanes a pack: more would have no work at any time" in out
    assert "1 pack of up to 2 lanes" in out
