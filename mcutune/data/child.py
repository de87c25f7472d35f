"""Readers of formats that deserve distrust run in a process of their own, with limits on memory and time."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcutune.data.hints import shown
from mcutune.errors import BadInput, UserError


def run(module: str, request: dict[str, Any], source: Path, *, memory: int, seconds: int) -> Any:
    """The answer of `python -m module` to a request, both JSON, within limits (bytes; seconds of CPU).

    `source`: the file it reads, for messages. Raises BadInput with the child's own message, or where it ended without
    an answer or took more than twice the time.
    """
    one_thread = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    search_path = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), str(Path(__file__).parents[2])]
    environment = {**os.environ, **one_thread, "PYTHONPATH": os.pathsep.join(filter(None, search_path))}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module],  # -P: the working folder is not searched for modules
            input=json.dumps({"request": request, "memory": memory, "seconds": seconds}).encode(),
            capture_output=True,
            env=environment,
            timeout=2 * seconds + 30,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BadInput(f"{shown(source, 200)} took too long to read") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise BadInput(f"{shown(source, 200)} cannot be read: {_ending(done.returncode)}") from None
    if "error" in answer:
        raise BadInput(f"{shown(source, 200)}: {answer['error']}")
    return answer["result"]


def _ending(code: int) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "the reader used up its time or memory"
    return f"the reader ended with {signal.Signals(-code).name if code < 0 else f'code {code}'}"


def serve(answer: Callable[[dict[str, Any]], Any]) -> None:
    """In the child: read the request, set the limits, answer."""
    given = json.load(sys.stdin)
    limits = {resource.RLIMIT_AS: given["memory"], resource.RLIMIT_CPU: given["seconds"], resource.RLIMIT_CORE: 0}
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    try:
        reply = json.dumps({"result": answer(given["request"])})
    except UserError as error:
        reply = json.dumps({"error": str(error)})
    except MemoryError:
        reply = json.dumps({"error": f"needs more than {given['memory'] >> 20:,} MiB to read"})
    sys.stdout.write(reply)
