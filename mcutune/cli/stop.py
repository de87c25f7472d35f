"""`mcutune stop`: ask a running search to stop, from another terminal."""

from __future__ import annotations

import time
from typing import Annotated

import typer

_PATIENCE = 30.0


def stop(
    name: Annotated[str, typer.Argument(help="The run.")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has stopped.")] = True,
) -> None:
    """Ask a running search to stop; what it has finished is kept, and the same search command continues it."""
    from mcutune.cli.runs import run_folder
    from mcutune.errors import Busy
    from mcutune.search.lock import holder_of
    from mcutune.search.run_folder import request_stop

    folder = run_folder(name)
    if holder_of(folder) is None:
        print(f"{name} is not running")
        return
    request_stop(folder)
    deadline = time.monotonic() + _PATIENCE
    while wait and holder_of(folder) is not None:
        if time.monotonic() > deadline:
            raise Busy(f"{name} was asked to stop and has not yet", hint="it stops when its packs report next")
        time.sleep(0.2)
    print(f"{name} has stopped" if wait else f"{name} was asked to stop")
