"""Rows put together as dialogues."""

from __future__ import annotations

import numpy as np

from mcutune.data.columns import Array


def grouped(dialogue: Array, order: Array) -> tuple[Array, Array]:
    """Row numbers of every dialogue in order [G, T] (−1: padding), and the dialogue's number of every row [N].

    `dialogue`, `order` [N]: code of the dialogue, and place in it, of every row.
    """
    _, of_row = np.unique(dialogue, return_inverse=True)
    rows = np.lexsort((order, of_row))
    lengths = np.bincount(of_row)
    table = np.full((len(lengths), int(lengths.max())), -1, dtype=np.int64)
    table[of_row[rows], np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)] = rows
    return table, of_row.astype(np.int64)
