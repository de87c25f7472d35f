"""A child that takes what the request says: memory, time, or its own life."""

from __future__ import annotations

import os
import signal
from typing import Any

from mcutune.data import child
from mcutune.errors import BadInput


def _answer(request: dict[str, Any]) -> Any:
    if request["take"] == "memory":
        return len(bytearray(request["bytes"]))
    if request["take"] == "time":
        while True:
            pass
    if request["take"] == "life":
        os.kill(os.getpid(), signal.SIGSEGV)
    if request["take"] == "nothing":
        raise BadInput("holds nothing")
    return request


if __name__ == "__main__":
    child.serve(_answer)
