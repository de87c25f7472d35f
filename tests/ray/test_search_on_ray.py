"""A search without a model through the whole Ray stack: actor, Tune trials, Train worker groups, dashboard, metrics."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcutune.cluster.connect import capacity
from mcutune.cluster.place import Place
from mcutune.cluster.resources import Plan
from mcutune.errors import NoResources, UserError
from mcutune.search.runner import Job, run_search
from tests.cluster.fake_search import fake_snapshot
from tests.ray.conftest import eventually, fake_job, packs, patience, workers_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


@dataclass
class Search:
    progress: Any
    seen: list[Any]
    folder: Path
    metrics: str
    titles: set[str]  # of Ray's processes while the packs were at work


@pytest.fixture(scope="module")
def search(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """One search of two packs, looked at by several tests."""
    folder = tmp_path_factory.mktemp("search")
    seen: list[Any] = []
    metrics: list[str] = []
    titles: set[str] = set()

    def watch(progress: Any) -> None:
        seen.append(progress)
        if progress.finished > 20:
            metrics.append(scrape(place))
            titles.update(title_of(process) for process in psutil.Process().children(recursive=True))

    job = fake_job(folder, "fakes", lanes=60, epochs=4, marker=folder / "marker")
    progress = fake_search(job, place, packs(2), watch=watch)
    return Search(progress, seen, folder, metrics[-1], titles - {""})


def fake_search(job: Job, place: Place, plan: Plan, watch: Callable[[Any], None] | None = None) -> Any:
    return run_search(job, place, plan, watch=watch, snapshot=fake_snapshot)


def title_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def scrape(place: Place) -> str:
    with urllib.request.urlopen(place.metrics[0], timeout=patience(30)) as answer:
        return answer.read().decode()


def ask(place: Place, path: str, token: str | None) -> Any:
    request = urllib.request.Request(f"{place.dashboard}{path}")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=patience(30)) as answer:
        return json.loads(answer.read())


def test_two_packs_share_the_work(search: Search) -> None:
    assert search.progress.done and search.progress.finished == 60
    assert sorted(search.progress.packs) == ["fakes-pack0-1", "fakes-pack1-1"]
    assert any(progress.lanes_busy == 4 for progress in search.seen)  # both packs were full at the same moment
    finished = [progress.finished for progress in search.seen]
    assert finished == sorted(finished)


def test_the_coordinator_has_the_home_and_folder_of_the_search(search: Search) -> None:
    pid, folder, home = (search.folder / "marker").read_text(encoding="utf-8").split()
    assert int(pid) != os.getpid()
    assert (folder, home) == (str(Path.cwd()), str(search.folder / "home"))
    assert list((search.folder / "home").iterdir()) == []


def test_no_actor_of_the_search_is_left(search: Search) -> None:
    for title in ("CoordinatorActor", "ImplicitFunc", "RayTrainWorker"):
        eventually(lambda title=title: not workers_of(title), 15, f"the end of {title}")


def test_the_train_runs_show_in_the_dashboard(search: Search, place: Place) -> None:
    assert place.token_file is not None
    runs = ask(place, "/api/train/v2/runs/v1", place.token_file.read_text(encoding="ascii"))["train_runs"]
    by_name = {run["name"]: run["status"] for run in runs}
    assert by_name["fakes-pack0-1"] == by_name["fakes-pack1-1"] == "FINISHED"


def test_the_metrics_are_at_the_prometheus_endpoint(search: Search) -> None:
    values = dict(re.findall(r"^ray_(mcutune_[a-z_]+)\{[^}]*run=\"fakes\"[^}]*\} ([0-9.e+-]+)$", search.metrics, re.M))
    assert float(values["mcutune_trials"]) > 0
    assert float(values["mcutune_best_objective"]) == 0.5
    assert float(values["mcutune_score"]) == 0.6
    assert float(values["mcutune_dpft_probability"]) == 0.3
    assert float(values["mcutune_epochs_total"]) > 0
    assert float(values["mcutune_epochs_per_second"]) > 0
    assert {"mcutune_lanes_busy", "mcutune_packs"} <= values.keys()
    assert 'combination="audio+text"' in search.metrics and 'fold="f"' in search.metrics


def every_port_is_on_this_machine_only(place: Place) -> None:
    mine = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in mine
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    assert (place.folder.stat().st_mode & 0o777) == 0o700
    assert place.token_file is not None and (place.token_file.stat().st_mode & 0o777) == 0o600


def test_what_the_place_has(place: Place) -> None:
    has = capacity()
    assert (has.cpus, has.gpus, has.grows) == (2, 0, False)


def whatever_process_of_a_pack_dies_the_pack_goes_on(place: Place, tmp_path: Path) -> None:
    """The worker, the process of the Tune trial, where the controller runs, and a worker, killed one after another."""
    victims = ["RayTrainWorker", "ImplicitFunc", "RayTrainWorker"]
    killed: list[int] = []

    def watch(progress: Any) -> None:
        started = len(progress.packs)
        if started == len(killed) + 1 and len(killed) < len(victims) and progress.finished > 3 * len(killed):
            found = [one for one in workers_of(victims[len(killed)]) if one.pid not in killed]
            if len(found) == 1:  # else one from before is still to go
                killed.append(found[0].pid)
                found[0].kill()

    # As many lanes as a starved driver, which looks late, needs to find the pack at work for the third time.
    progress = fake_search(fake_job(tmp_path, "kills", lanes=60, epochs=3), place, packs(1), watch=watch)
    assert len(killed) == 3
    assert progress.finished == 60
    assert sorted(progress.packs) == [f"kills-pack0-{attempt}" for attempt in (1, 2, 3, 4)]
    assert progress.lost == tuple(f"kills-pack0-{attempt}" for attempt in (1, 2, 3))


def broken_loop(config: dict[str, Any]) -> None:
    from mcutune.training.worker import train_pack

    def fails(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("the loop is broken")

    train_pack(config, run=fails)


def test_a_broken_loop_is_given_up_with_its_reason(place: Place, tmp_path: Path) -> None:
    from dataclasses import replace

    job = replace(fake_job(tmp_path, "broken", loop=broken_loop), brief_lives=1)
    with pytest.raises(NoResources, match="ZeroDivisionError: the loop is broken"):
        fake_search(job, place, packs(1))


def test_an_error_of_the_ledger_ends_the_search(place: Place, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="disk is full"):
        fake_search(fake_job(tmp_path, "full", fail_after=2), place, packs(1))


def test_no_process_runs_that_a_search_does_not_need(search: Search, place: Place) -> None:
    lines = [title_of(process) for process in psutil.Process().children(recursive=True)]
    assert any("/raylet" in line for line in lines)
    assert not [line for line in lines if line.endswith("monitor.py") or "monitor.py " in line]
    assert search.titles and not [title for title in search.titles if "SynchronizationActor" in title]
