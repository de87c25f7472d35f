"""What eval_protocols/*.yaml define, once more: row by row, with Python's sorting and fractions, from the same words.

A mask is a list of sets: the modalities that are present in each row. Nothing here is shared with mcutune.
"""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np


def words(*key: int, count: int) -> list[int]:
    """Raw 64-bit words of numpy's Philox under a key."""
    return [int(word) for word in np.random.Philox(np.random.SeedSequence(key)).random_raw(count)]


def by_word(items: list[int], word: dict[int, int]) -> list[int]:
    return sorted(items, key=lambda item: (word[item], item))


def random_dialogues(
    dialogue: list[str], labelled: list[bool], modalities: int, rate: float, seed: int, number: int, fold: int
) -> list[set[int]]:  # fmt: skip
    """One fold's rows, a mask a dialogue; every place is filled one by one, and the nearest rate is looked up."""
    names = sorted(set(dialogue))
    rows = {name: sum(kept for one, kept in zip(dialogue, labelled, strict=True) if one == name) for name in names}
    word = words(seed, number, 2 * fold, count=len(names) * (modalities + 1))
    first = [(u, word[u] % modalities) for u in range(len(names))]
    places = [(u, m) for u in range(len(names)) for m in range(modalities) if (u, m) not in first]
    rank = {(u, m): word[len(names) + u * modalities + m] >> 1 for u, m in places}
    places.sort(key=lambda place: (rank[place], place))
    total = sum(rows.values())
    wanted = max(total, round((1 - rate) * total * modalities))
    filled = [total]
    for u, _ in places:
        filled.append(filled[-1] + rows[names[u]])
    best = min(range(len(filled)), key=lambda k: (abs(filled[k] - wanted), k))
    present = {name: {m for u, m in first + places[:best] if names[u] == name} for name in names}
    return [present[name] for name in dialogue]


def batches(
    rows: int, modalities: int, size: int, one: float, two: float, seed: int, number: int, stratum: int
) -> list[set[int]]:
    """Rows in a random order, cut into batches; whole batches lack two, then one, to the nearest border."""
    starts = list(range(0, rows, size))
    word = words(seed, number, stratum, count=rows + len(starts) * modalities)
    order = by_word(list(range(rows)), dict(enumerate(word[:rows])))
    borders = [*starts, rows]
    lacking_two = min(borders, key=lambda border: (abs(border - two * rows), border))
    lacking_some = min(borders, key=lambda border: (abs(border - (two + one) * rows), border))
    mask = [set(range(modalities)) for _ in range(rows)]
    for b, start in enumerate(starts):
        own = dict(enumerate(word[rows + b * modalities : rows + (b + 1) * modalities]))
        first, second = by_word(list(range(modalities)), own)[:2]
        for place in range(start, min(start + size, rows)):
            if place < lacking_some:
                mask[order[place]].discard(first)
            if place < lacking_two:
                mask[order[place]].discard(second)
    return mask


def at_rates(rows: int, rates: list[float], key: tuple[int, ...]) -> list[set[int]]:
    """Every row keeps one modality; of the others, each is lost in as many rows as its rate asks for."""
    modalities = len(rates)
    word = words(*key, count=rows * (modalities + 1))
    lost = [round(rate * rows) for rate in rates]
    while sum(lost) > rows * (modalities - 1):
        lost[lost.index(max(lost))] -= 1
    share = [Fraction((rows - one) * rows, sum(rows - other for other in lost)) for one in lost]
    keep = [math.floor(one) for one in share]
    rest = sorted(range(modalities), key=lambda m: (-(share[m] - keep[m]), m))
    for m in rest[: rows - sum(keep)]:
        keep[m] += 1
    kept = [m for m in range(modalities) for _ in range(keep[m])]
    order = by_word(list(range(rows)), dict(enumerate(word[:rows])))
    of_row = dict(zip(order, kept, strict=True))
    mask = [set(range(modalities)) for _ in range(rows)]
    for m in range(modalities):
        own = dict(enumerate(word[rows * (m + 1) : rows * (m + 2)]))
        free = [row for row in range(rows) if of_row[row] != m]
        for row in by_word(free, own)[: lost[m]]:
            mask[row].discard(m)
    return mask


def block(dialogue: list[str], order: list[int], share: float, seed: int, number: int, fold: int) -> list[bool]:
    """One fold's rows: which lie in the block of their dialogue, its start by exact fractions."""
    inside = [False] * len(dialogue)
    names = sorted(set(dialogue))
    word = words(seed, number, 2 * fold, count=len(names))
    for d, name in enumerate(names):
        mine = sorted((row for row in range(len(dialogue)) if dialogue[row] == name), key=lambda row: order[row])
        inner = mine[1:-1]
        length = round(len(inner) * share)
        start = math.floor(Fraction(word[d] >> 32, 2**32) * (len(inner) - length + 1))
        for row in inner[start : start + length]:
            inside[row] = True
    return inside


def class_rates(counts: list[int], overall: float, strength: float, modalities: int) -> list[float]:
    """Rates of classes by bisection of the scale: each is its weight times the scale, or the most that can be had."""
    classes, most = len(counts), (modalities - 1) / modalities
    weight = [strength ** (k / (classes - 1)) if classes > 1 else 1.0 for k in range(classes)]

    def rates(scale: float) -> list[float]:
        return [min(most, scale * one) for one in weight]

    low, high = 0.0, most / min(weight)
    for _ in range(200):
        middle = (low + high) / 2
        missing = sum(n * rate for n, rate in zip(counts, rates(middle), strict=True))
        low, high = (middle, high) if missing < overall * sum(counts) else (low, middle)
    return rates(high)


def normal(key: tuple[int, ...], count: int) -> list[float]:
    """Standard normal numbers by the standard library's inverse distribution function."""
    return [NormalDist().inv_cdf(((word >> 12) + 0.5) / 2**52) for word in words(*key, count=count)]
