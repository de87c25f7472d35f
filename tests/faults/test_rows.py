"""Every row of the matrix has a test, or a reason why not."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

from tests.faults.rows import ROWS, SECTIONS, UNTESTED


def counted() -> Counter[int]:
    """How many tests bear the number of each row."""
    found: Counter[int] = Counter()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and (match := re.match(r"test_(\d\d)_", node.name)):
                found[int(match[1])] += 1
    return found


def test_every_row_is_tested_or_listed() -> None:
    assert set(ROWS) == set(range(1, 72))
    assert {row.section for row in ROWS.values()} == set(SECTIONS)
    assert sorted(set(ROWS) - set(counted()) - set(UNTESTED)) == []
    assert not set(counted()) & set(UNTESTED) and not set(counted()) - set(ROWS)
