"""Rows as dialogues, against a loop."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mcutune.data.dialogues import grouped


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3)), min_size=1, max_size=40))
def test_every_dialogue_has_its_rows_in_order(rows: list[tuple[int, int]]) -> None:
    dialogue, order = np.array(rows).T
    table, of_row = grouped(dialogue, order)
    names = sorted(set(dialogue.tolist()))
    assert len(table) == len(names)
    for number, name in enumerate(names):
        expected = sorted(np.flatnonzero(dialogue == name).tolist(), key=lambda row: (order[row], row))
        assert table[number][table[number] >= 0].tolist() == expected
        assert (of_row[expected] == number).all()
