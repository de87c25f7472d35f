"""Ctrl-C at any moment: 6 within ten seconds, one line, no traceback; also where nobody can raise, or hears it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mcutune.cli.interruption import heeded
from mcutune.cluster.interrupts import Interrupts

TOLD = "error: stopped (the same command continues where it was)\n"
# Set up as the command does it; a module that swallows what is raised while it is loaded, as libraries do.
HEAD = """
import os, signal, sys, time
from mcutune.cli import interruption
from mcutune.cli.failures import guarded
def interrupt(): os.kill(os.getpid(), signal.SIGINT)
def swallow(seconds):
    try:
        interrupt(); time.sleep(seconds)
    except BaseException: pass
def ends(work):
    with interruption.heeded() as ending:
        sys.exit(guarded(work, debug=False, crash_folder=None, ending=ending))
"""
MODULE = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT); time.sleep({seconds})
except BaseException as error:
    {then}
"""


def run(tmp_path: Path, text: str, seconds: float = 10.0, then: str = "pass", loads: float = 0.2) -> tuple[int, str]:
    """Exit code and stderr of a program; it must end in so many seconds."""
    (tmp_path / "library.py").write_text(MODULE.format(seconds=loads, then=then))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    start = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", HEAD + text], env=environment, capture_output=True, text=True, timeout=60
    )
    assert time.monotonic() - start < seconds, ended
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("then", ["pass", "raise ImportError('initialization failed') from None"])
def test_while_a_library_is_loaded(tmp_path: Path, then: str) -> None:
    """It is raised once that is over: the rest of the command is not run."""
    text = "def work():\n  import library\n  time.sleep(0.5); os.write(2, b'went on'); time.sleep(60)\nends(work)"
    assert run(tmp_path, text, then=then) == (6, TOLD)


def test_while_a_library_is_loaded_that_takes_long(tmp_path: Path) -> None:
    text = "interruption._DEAF, interruption._LEAVE = 0.3, 30.0\ndef work():\n  import library\nends(work)"
    assert run(tmp_path, text, loads=60.0) == (6, TOLD)


def test_in_a_finaliser(tmp_path: Path) -> None:
    text = (
        "class Thing:\n  def __del__(self): interrupt(); time.sleep(0.2)\n"
        "def work():\n  Thing(); time.sleep(0.5); os.write(2, b'went on'); time.sleep(60)\nends(work)"
    )
    assert run(tmp_path, text) == (6, TOLD)


def test_swallowed_by_a_library_at_work(tmp_path: Path) -> None:
    text = (
        "interruption._AGAIN, interruption._LEAVE = 0.3, 30.0\ndef work():\n  swallow(0.1); time.sleep(60)\nends(work)"
    )
    assert run(tmp_path, text) == (6, TOLD)


def test_where_nothing_is_heard_at_all(tmp_path: Path) -> None:
    text = "interruption._AGAIN, interruption._LEAVE = 0.2, 0.6\ndef work():\n  while True: swallow(0.1)\nends(work)"
    assert run(tmp_path, text) == (6, TOLD)


def test_a_library_that_makes_another_error_of_it(tmp_path: Path) -> None:
    text = (
        "def work():\n  try: interrupt(); time.sleep(1)\n"
        "  except BaseException: raise RuntimeError('odd') from None\nends(work)"
    )
    assert run(tmp_path, text) == (6, TOLD)


def test_an_error_of_ours_that_was_made_of_it(tmp_path: Path) -> None:
    """A library turns it into an OSError, and that is told as damage by whoever reads a file through it."""
    text = (
        "from mcutune.errors import Damaged\ndef work():\n  try: interrupt(); time.sleep(1)\n"
        "  except BaseException: raise Damaged('odd') from None\nends(work)"
    )
    assert run(tmp_path, text) == (6, TOLD)


def test_where_no_thread_can_start(tmp_path: Path) -> None:
    """As while Python winds up, from 3.12 on."""
    text = (
        "import atexit\nfrom mcutune.cli import app; from mcutune import __main__\n"
        "def none(*given): raise RuntimeError('no thread')\n"
        "def late(): interruption._thread.start_new_thread = none; interrupt(); time.sleep(0.2)\n"
        "def invoke(given): return 3\n"
        "app._invoke = invoke\natexit.register(late)\n__main__.main()"
    )
    assert run(tmp_path, text) == (3, "")


@pytest.mark.parametrize("then", ["return 3", "raise BadInput('odd')"])
def test_the_last_word_is_not_disturbed(tmp_path: Path, then: str) -> None:
    """A signal after the command is over, while the process winds up, changes neither its code nor what it has said."""
    text = (
        "import atexit; from mcutune.errors import BadInput\n"
        "from mcutune.cli import app; from mcutune import __main__\n"
        f"def invoke(given): {then}\n"
        "app._invoke = invoke\n"
        "atexit.register(lambda: (interrupt(), time.sleep(0.2)))\n__main__.main()"
    )
    assert run(tmp_path, text) == ((3, "") if "return" in then else (2, "error: odd\n"))


def test_between_the_imports_and_the_command(tmp_path: Path) -> None:
    text = "from mcutune.cli import app; from mcutune import __main__\ndef run(*given): interrupt(); time.sleep(60)\n"
    assert run(tmp_path, f"{text}app.run = run\n__main__.main()") == (6, TOLD)


def test_what_a_script_runs_in_the_background_hears_kill_int(tmp_path: Path) -> None:
    """A shell without job control starts it with SIGINT ignored, and Python installs no handler of its own then."""
    text = "def work():\n  interrupt(); time.sleep(60)\nends(work)"
    (tmp_path / "background.py").write_text(HEAD + text)
    script = f"{sys.executable} {tmp_path / 'background.py'} & wait $!"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (6, TOLD)


def test_both_that_take_signals_take_an_ignored_ctrl_c() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupts.asked
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_passed_through_exec_is_over(tmp_path: Path) -> None:
    """Python ends what `-m` runs by SIGINT where it takes such an interrupt for unhandled: the code would be -2."""
    (tmp_path / "sitecustomize.py").write_text(
        "from mcutune.cli import app\n"
        "def interrupted(*given): exec('import os, signal; os.kill(os.getpid(), signal.SIGINT)')\n"
        "app._invoke = interrupted\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    ended = subprocess.run([sys.executable, "-m", "mcutune"], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (6, TOLD)


# In the process that is interrupted: a file appears once Ctrl-C is heeded. Before, Python itself is starting.
READY = """
import _thread, os, signal, sys, time
def wait():
    while signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # the last of those that are taken
        time.sleep(0.001)
    open(os.environ['READY'], 'w').close()
_thread.start_new_thread(wait, ())
"""


@pytest.mark.parametrize("step", range(8))
def test_the_command_at_many_moments(tmp_path: Path, step: int) -> None:
    """From the first moment on: a command that loads everything and goes to work."""
    (tmp_path / "sitecustomize.py").write_text(READY)
    ready = tmp_path / "ready"
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "READY": str(ready), "MCUTUNE_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "mcutune", "search", "--space", "full", "--place", "process", "--plain"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(0.25 * step)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()  # else it would search on beside all other tests
    assert time.monotonic() - start < 10
    assert process.returncode == 6 and err.count("\n") == 1 and "the same command continues" in err, err


def test_what_a_library_swallowed_is_told_to_who_has_the_signals_next() -> None:
    with heeded():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with Interrupts() as interrupts:
            end = time.monotonic() + 5
            while not interrupts.asked and time.monotonic() < end:
                time.sleep(0.01)
            assert interrupts.asked and not interrupts.twice


def test_what_was_started_under_nohup_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        for opened in (heeded, Interrupts):
            with opened():
                assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
                assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_it_is_heeded_before_anything_else_is_loaded() -> None:
    text = (
        "import sys, mcutune.__main__; print(*(name for name in sys.modules if name.startswith(('mcutune', 'typer'))))"
    )
    found = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(found) == ["mcutune", "mcutune.__main__", "mcutune.cli", "mcutune.cli.interruption"]
