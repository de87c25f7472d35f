"""`mcutune`, and `python -m mcutune`: heed Ctrl-C first, which may come while the rest is being imported."""

from __future__ import annotations

import sys

from mcutune.cli.interruption import EXIT, Ending


def main() -> None:
    """The entry point of the `mcutune` script."""
    ending = Ending()  # never closed: the process ends with the command
    try:
        from mcutune.cli.app import run

        code = run(sys.argv[1:], ending)
    except KeyboardInterrupt:  # before the command, or while its last word was said
        from mcutune.cli.failures import told_stopped

        ending.code = code = EXIT
        told_stopped()
    if ending.asked:
        _forgotten()
    _leave(code)


def _leave(code: int) -> None:
    """What began no Ray need not load what ends one."""
    gone = sys.modules.get("mcutune.cluster.gone")
    (sys.exit if gone is None else gone.leave)(code)


def _forgotten() -> None:
    """Make Python forget an interrupt that was handled.

    Where one has passed through an exec of text, as libraries have it, Python takes it for unhandled until the next
    such exec, and ends what `-m` runs by SIGINT, whatever its code. A named tuple is made by one.
    """
    from collections import namedtuple

    namedtuple("Forgotten", "")


if __name__ == "__main__":
    main()
