"""A Ray that died under a search: this process does not touch what is left of it, and ends beside it.

Threads of Tune may wait in Ray's compiled code, and Ray's own may be ending its client by themselves. An orderly end,
`ray.shutdown` and what Ray has Python call at its exit, frees what they use (seen with 2.60: SIGSEGV in place of an
exit code, on a machine that was busy). Nor is there time for it: some ten seconds after its raylet has gone, Ray ends
this process without a word.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, NoReturn

from mcutune.errors import Stopped

_abandoned = False


class RayGone(Stopped):
    """Ray is gone: nothing that goes through it can be asked any more."""


def is_gone(error: BaseException | None) -> bool:
    """Whether an error is of a Ray that has died, or was raised while such a one was on its way."""
    while error is not None and not isinstance(error, RayGone):
        error = error.__context__
    return error is not None


def abandon(node: Any) -> None:
    """Give up this process's Ray, in place of `ray.shutdown`. `node`: what it started itself, None on a cluster."""
    global _abandoned
    _abandoned = True
    if node is not None:
        node.kill_all_processes()


def leave(code: int) -> NoReturn:
    """End this process with `code`: at once where a Ray was abandoned, else as any Python does."""
    if not _abandoned:
        sys.exit(code)
    try:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or nobody reads it any more
                stream.flush()
    finally:
        os._exit(code)
