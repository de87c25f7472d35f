"""Children have limits, and whatever ends one is told in one line that names the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcutune.data import child
from mcutune.errors import BadInput

SOURCE = Path("data.pkl")


def _run(request: dict[str, Any], **limits: int) -> Any:
    return child.run("tests.data.hungry", request, SOURCE, **({"memory": 1 << 30, "seconds": 20} | limits))


def test_an_answer_comes_back() -> None:
    assert _run({"take": "answer", "text": "ü"}) == {"take": "answer", "text": "ü"}
    assert _run({"take": "memory", "bytes": 1 << 20}) == 1 << 20


@pytest.mark.parametrize(
    ("request_", "limits", "message"),
    [
        ({"take": "memory", "bytes": 2 << 30}, {}, "needs more than 1,024 MiB"),
        ({"take": "time"}, {"seconds": 1}, "used up its time or memory"),
        ({"take": "life"}, {}, "ended with SIGSEGV"),
        ({"take": "nothing"}, {}, "holds nothing"),
    ],
)
def test_what_ends_a_child_is_told(request_: dict[str, Any], limits: dict[str, int], message: str) -> None:
    with pytest.raises(BadInput, match=f"^data.pkl.*{message}"):
        _run(request_, **limits)
