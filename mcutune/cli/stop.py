"""`mcutune stop`: ask a running search to stop, from another terminal."""

from __future__ import annotations

import time
from typing import Annotated

import typer

_PATIENCE = 60.0


def stop(
    name: Annotated[str, typer.Argument(help="The run.")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has stopped.")] = True,
) -> None:
    """Ask a running search or compare to stop; what it has finished is kept, and the same command continues it."""
    from mcutune.cli.runs import run_folder
    from mcutune.errors import Busy
    from mcutune.search.lock import holder_of
    from mcutune.search.run_folder import request_stop

    folder = run_folder(name)
    at_work = [one for one in (folder, *sorted(folder.glob("compare/*"))) if holder_of(one) is not None]
    if not at_work:
        print(f"{name} is not running")
        return
    for one in at_work:
        request_stop(one)
    deadline = time.monotonic() + _PATIENCE
    while wait and any(holder_of(one) is not None for one in at_work):
        if time.monotonic() > deadline:
            hint = "it will, when Ray has started or its packs report next"
            raise Busy(f"{name} was asked to stop and has not yet", hint=hint)
        time.sleep(0.2)
    print(f"{name} has stopped" if wait else f"{name} was asked to stop")
