"""Section H without Ray: rights, hostile names, no network, versions."""

from __future__ import annotations

import ast
import json
import os
import pickle
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from mcutune.cli import advisories, failures
from mcutune.cli.advisories import FLOORS, below
from mcutune.cluster.private import new_token, private_folder
from mcutune.domain.trial import Failure
from mcutune.robustness import html
from mcutune.search.ledger import DATABASE
from tests import test_architecture
from tests.cli import test_render, test_render_report
from tests.faults.conftest import NAME, ROOT, SEARCH, World
from tests.robustness.made_reports import HOSTILE, hostile, sample
from tests.robustness.test_html import Parsed, short

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def open_to_others(folder: Path) -> list[str]:
    """What group or others may read, write or enter."""
    found = []
    for path in (folder, *folder.rglob("*")):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and mode & 0o077:
            found.append(f"{path} {stat.filemode(mode)}")
    return found


def test_66_what_a_search_makes_is_its_users_alone(fresh: World) -> None:
    before = os.umask(0o022)
    try:
        fresh.good(*SEARCH)
        fresh.good("robustness", "--ckpt", NAME, "--protocol", "fixed")
        fresh.good("study", "export", NAME, "--to", "runs/exported")
    finally:
        os.umask(before)
    assert open_to_others(fresh.home / "runs") == []
    assert open_to_others(fresh.home / "encoders") == []


def test_66_folder_and_token_of_a_local_ray() -> None:
    with private_folder() as folder:
        token = new_token(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and stat.S_IMODE(token.stat().st_mode) == 0o600
        if os.geteuid() == 0:
            for path in (token, folder):
                assert subprocess.run([*NOBODY, "cat", str(path)], capture_output=True, check=False).returncode != 0


def test_66_doctor_names_and_closes_what_is_open(world: World) -> None:
    world.run.chmod(0o755)
    (world.run / DATABASE).chmod(0o644)
    out = world.good("doctor")
    assert f"others may read {world.home}" in out.replace("\n", " ")
    world.good("doctor", "--mend")
    assert not world.run.stat().st_mode & 0o077


class _Gadget:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._marker}",)


def test_67_hostile_pickles_in_a_run(world: World) -> None:
    marker = world.home / "owned"
    gadget = pickle.dumps(_Gadget(marker))
    names = ("tuner.pkl", "trainable.pkl", "searcher-state-1.pkl", "search_gen_state.pkl", "params.pkl", "data.pickle")
    for folder in (world.run, world.run / "logs", world.run / "checkpoints" / "1" / "0" / "0", world.home / "encoders"):
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_bytes(gadget)
    world.good(*SEARCH, "--trials", "6")
    world.good("robustness", "--ckpt", NAME, "--protocol", "fixed")
    world.good("doctor", NAME)
    world.good("study", "export", NAME, "--to", "out")
    assert not marker.exists()


@pytest.mark.parametrize("path", test_architecture.MODULES, ids=test_architecture.relative)
def test_67_no_pickle_on_any_path(path: Path) -> None:
    """The syntax tree of every module: no import and no call that could read one, the one importer apart."""
    name, tree = test_architecture.relative(path), test_architecture.tree(path)
    assert test_architecture.forbidden_calls(name, tree) == []
    assert test_architecture.wrong_imports(name, tree) == []
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not names & {"restore", "can_restore", "from_checkpoint"}, "Tuner.restore runs the pickles that it finds"


def test_68_secrets_in_messages_and_crash_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "s3cret" * 6
    monkeypatch.setenv("RAY_AUTH_TOKEN", secret)
    monkeypatch.setenv("HOME", "/home/somebody")

    def fails() -> int:
        raise ValueError(f"token {secret} in /home/somebody/x")

    assert failures.guarded(fails, debug=False, crash_folder=lambda: tmp_path) == 1
    assert failures.guarded(fails, debug=True, crash_folder=lambda: tmp_path) == 1
    said = capsys.readouterr().err + "".join(path.read_text() for path in tmp_path.iterdir())
    assert "[hidden]" in said and secret not in said and "/home/somebody" not in said
    assert all(not path.stat().st_mode & 0o077 for path in tmp_path.iterdir())


MORE = (
    "![x](javascript:alert(1))", "[x](data:text/html,1)", "| a | b |\n|---|", "=HYPERLINK(\"http://x\")", "@SUM(1)",
    "-2-3-cmd|' /C calc'!A0", "\x9b2J", "\x1b]8;;http://x\x07link\x1b]8;;\x07", "\x1bP$q\x1b\\", "\r\n\x08\x08over",
    "<svg/onload=alert(1)>", "<iframe src=//x>", "\ufff9\ufffa", "[bold red]x[/]", "%0d%0aSet-Cookie: a=b",
)  # fmt: skip


@pytest.fixture(scope="module")
def harmless() -> list[Any]:
    return Parsed(html.render(hostile(short(sample()), "harmless"))).shape


@pytest.mark.parametrize("bad", [*HOSTILE, *MORE], ids=range(len(HOSTILE) + len(MORE)))
def test_69_hostile_names_in_the_page(bad: str, harmless: list[Any]) -> None:
    spoiled = html.render(hostile(short(sample()), bad))
    assert Parsed(spoiled).shape == harmless and Parsed(spoiled).faults == []
    assert all(character.isprintable() or character == "\n" for character in spoiled)


def test_69_hostile_names_in_the_terminal() -> None:
    test_render.test_no_name_is_obeyed()
    text = failures.error_text(failures.BadInput("".join(HOSTILE[:10] + MORE)))
    assert all(character.isprintable() for character in text)
    report = json.loads((Path(html.__file__).parents[2] / "tests/robustness/sample_report.json").read_text())
    test_render_report.test_hostile_names_are_shown_and_not_obeyed(report)


def test_69_error_texts_of_trials(make: Any) -> None:
    """What a pack says of its failure ends in the ledger and in the summary, and is shown inert."""
    from mcutune.cli.render_summary import summary_view
    from mcutune.cli.screen import console
    from mcutune.domain.trial import LaneFailure
    from mcutune.search.summary import summarise
    from tests.search.words import orders_of

    client = make()
    one, _ = orders_of(client)
    client.advance("a", [], [LaneFailure(one.lane, 1, 1, Failure.METRIC, "\x1b[2J\u202e[red]x[/]")], [], 0)
    client.close()
    out = console(width=80)
    with out.capture() as shown:
        out.print(summary_view(summarise(client.plan.folder)))
    assert "[red]x[/]" in shown.get() and not {"\u202e"} & set(shown.get()) and "\x1b[2J" not in shown.get()


def alone() -> tuple[str, ...]:
    """The prefix of a command in a name space of its own without any interface that is up, not even the loopback."""
    prefix = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--net", "--map-root-user")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no name spaces here")
    return prefix


COMMANDS = (
    SEARCH,
    ("compare", NAME, "--with", "epochs", "--place", "process", "--plain"),
    ("robustness", "--ckpt", NAME, "--protocol", "fixed", "--protocol", "random"),
    ("report", NAME, "--latex", "table.tex"),
    ("export", NAME, "--to", "exported"),
    ("study", "export", NAME, "--to", "study"),
    ("status",),
    ("data", "make", "digits"),
    ("data", "check", "small"),
    ("doctor",),
)
IN_TURN = """\
import json, sys
from mcutune.cli import app
for command in json.load(sys.stdin):
    code = app.run(command)
    if code:
        sys.exit(f"{' '.join(command)}: {code}")
import socket
socket.if_nameindex() == [(1, "lo")] or sys.exit("there is a network")
"""


def test_70_no_network(fresh: World) -> None:
    """Every command that needs no Ray (test_security_on_ray.py), in one process that has no interface that is up."""
    process = subprocess.Popen(
        [*alone(), sys.executable, "-c", IN_TURN], cwd=fresh.home, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    out, err = process.communicate(json.dumps(COMMANDS))
    assert process.returncode == 0, err
    assert (fresh.home / "exported").is_dir() and "epochs" in out


def test_71_a_vulnerable_dependency(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"ray": "2.51.0", "torch": "2.9.1+cpu", "pyarrow": "14.0.0"}
    monkeypatch.setattr(advisories.metadata, "version", lambda name: old.get(name, "99"))
    found = {floor.library: version for floor, version in below(advisories.metadata.version)}
    assert found == old
    monkeypatch.setattr(advisories, "below", lambda: below(lambda name: old.get(name, "99")))
    for command in (SEARCH, ("robustness", "--ckpt", NAME)):
        err = fresh.refused(2, *command)
        assert "ray 2.51.0 is below 2.59" in err or "no run" in err
    assert not (fresh.home / "runs").exists()


def test_71_the_floors_are_kept_here_and_in_the_requirements() -> None:
    from packaging.requirements import Requirement

    assert list(below()) == []
    needed = {one.name: one for one in map(Requirement, metadata.requires("mcutune") or ()) if one.marker is None}
    for floor in FLOORS:
        assert not needed[floor.library].specifier.contains(f"{floor.version}.dev0"), floor
