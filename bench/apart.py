"""Work in a fresh interpreter: what Ray and imports cost is paid there, and nothing of it is left for the next."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]


def apart(module: str, *arguments: object, seconds: float = 1800.0) -> dict[str, Any]:
    """Run `python -m MODULE ARGUMENTS` and return the JSON object on its last line, with `begun`: seconds (epoch).

    `begun` is taken before the interpreter starts. Raises RuntimeError with the end of what it wrote if it fails.
    """
    begun = time.time()
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=_ROOT, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError(f"{module} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return {"begun": begun, **json.loads(lines[-1])}
