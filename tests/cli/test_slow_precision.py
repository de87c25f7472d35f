"""bfloat16 on a CPU that has no products in it: said in one line before a search and by `doctor`, nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcutune.cli.doctor import _devices
from mcutune.cli.searching import slow_precision
from mcutune.cluster.place import Place
from mcutune.cluster.resources import Plan as Packs
from mcutune.cluster.resources import Request
from mcutune.model import precision
from tests.search.simulate import plan_of

FIXED = "fixed: {precision: bfloat16}\nparameters:\n  rank: {role: scientific, values: [1, 2]}\ntrials: 2\n"
SEARCHED = "parameters:\n  precision: {role: nuisance, values: [float32, bfloat16]}\ntrials: 2\n"
NONE = "parameters:\n  rank: {role: scientific, values: [1, 2]}\ntrials: 2\n"


def packs(gpus: float = 0.0) -> Packs:
    return Packs(Request(packs=1, workers=1, cpus=1, gpus=gpus), 1, 0)


@pytest.mark.parametrize(
    ("text", "kind", "gpus", "native", "said"),
    [
        (FIXED, "local", 0.0, False, True),
        (SEARCHED, "process", 0.0, False, True),
        (NONE, "local", 0.0, False, False),
        (FIXED, "cluster", 0.0, False, False),
        (FIXED, "local", 1.0, False, False),
        (FIXED, "local", 0.0, True, False),
    ],
)
def test_a_search_says_it_where_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kind: str, gpus: float, native: bool, said: bool
) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: native)
    line = slow_precision(plan_of(tmp_path / "run", text), packs(gpus), Place(kind, tmp_path))  # type: ignore[arg-type]
    assert (line is not None) == said
    assert line is None or line == (
        "warning: this CPU has no products in bfloat16: precision bfloat16 is no faster here than float32"
    )


@pytest.mark.parametrize("native", [False, True])
def test_doctor_says_it(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: native)
    assert any(one.subject == "cpu" and one.level == "note" for one in _devices()) != native
