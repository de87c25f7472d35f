"""Tables in narrow terminals: no number is cut, every row keeps its name, columns go on below."""

from __future__ import annotations

import io

import pytest

from mcutune.cli.screen import console, table
from mcutune.cli.split_table import split

HEADS = ("scenario", "accuracy (WA)", "recall (UA)", "weighted F1")
NAMES = ("audio=0.3 text=0.5 video=0.7", "audio=0.7 text=0.3 video=0.5", "worst")


def drawn(width: int, *, below: bool = True) -> list[str]:
    made = table(*HEADS, right=(1, 2, 3), below=below)
    for number, name in enumerate(NAMES):
        made.add_row(name, *(f".{number}{column}1  .{number}{column}0–.{number}{column}9" for column in range(3)))
    out = io.StringIO()
    console(file=out, width=width).print(made)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [10, 24, 40, 60, 79, 80, 200])
def test_nothing_is_cut(width: int) -> None:
    lines = drawn(width)
    assert max(map(len, lines)) <= width
    together = "".join("".join(line.split()) for line in lines)
    assert "…" not in together
    for number in range(len(NAMES)):
        for column in range(3):
            bounds = f".{number}{column}0–.{number}{column}9"
            whole = any(f".{number}{column}1  {bounds}" in line for line in lines)
            assert whole if width >= 40 else width < 40  # below, cells wrap
    if width >= 40:
        assert together.count("worst") == sum(line.startswith("scenario") for line in lines)


def test_a_part_has_what_fits_and_the_names_again() -> None:
    assert [line.split()[1] for line in drawn(40) if line.startswith("scenario")] == ["accuracy", "recall", "weighted"]
    assert len([line for line in drawn(80) if line.startswith("scenario")]) == 1
    assert "recall" not in "".join(drawn(40, below=False))


def test_cells_that_wrap_are_all_there() -> None:
    made = table("a", "b", words=())
    made.add_row("x", "0123456789abcdef")
    out = io.StringIO()
    console(file=out, width=9).print(made)
    assert "0123456789abcdef" in "".join("".join(line.split()) for line in out.getvalue().splitlines()).replace("x", "")


def test_columns_go_beside_the_first_in_order() -> None:
    assert split([16, 20, 20, 20], 80) == [[0, 1, 2], [0, 3]]
    assert split([16, 20, 20, 20], 82) == [[0, 1, 2, 3]]
    assert split([16, 20, 20], 10) == [[0, 1], [0, 2]]  # at least one, if wrapped
    assert split([5], 3) == [[0]]
