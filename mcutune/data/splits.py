"""Which rows train, validate and test. A dialogue, and a group where the parts are carved, lies in one part only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcutune.data.columns import Array
from mcutune.data.hints import did_you_mean, shown
from mcutune.data.table import Table
from mcutune.errors import BadInput
from mcutune.files import canonical_json, sha256

GIVEN, CARVED = "given", "carved"  # the one fold of a table with a split column, and of one with neither
_SHARE = 0.2  # of the rows, carved for validation or test
_NEXT_FOLD_FROM = 4  # with fewer folds, a whole one is too much to take from training


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of the parts of one fold, int64, sorted; `hash` identifies table, fold and rows."""

    fold: str
    train: Array
    validation: Array
    test: Array
    hash: str


def folds_of(table: Table) -> tuple[str, ...]:
    """Names of the outer folds: of the fold column, else `given` (a split column), else `carved`."""
    if table.manifest.folds:
        return tuple(table.manifest.folds)
    return (GIVEN,) if table.split is not None else (CARVED,)


def split_of(table: Table, fold: str, seed: int = 0) -> Split:
    """The parts of a fold, the same for the same table, fold and seed.

    Test is what the fold or split column says, else carved by groups. Validation is never taken from test: the next
    fold (cyclic) with 4 folds or more, the given validation part if its dialogues and groups are its own, else carved.
    Raises BadInput for an unknown fold, and where too few groups are left to carve.
    """
    valid = folds_of(table)
    if fold not in valid:
        raise BadInput(f"{table.manifest.name} has no fold {shown(fold)!r}", hint=did_you_mean(fold, valid))
    units = _units(table)
    every = np.arange(len(table))
    if table.fold is not None:
        test = table.fold == fold
    elif table.split is not None:
        test = table.split == "test"
    else:
        test = _carve(table, units, every, seed, "test")
    validation = _validation(table, fold, units, test, seed)
    parts = [np.flatnonzero(part) for part in (~test & ~validation, validation, test)]
    _check(table, fold, parts)
    rows = [sha256(part.astype("<i8").tobytes()) for part in parts]
    digest = sha256(canonical_json([table.manifest.hash, fold, rows]))
    return Split(fold, train=parts[0], validation=parts[1], test=parts[2], hash=digest)


def _validation(table: Table, fold: str, units: Array, test: Array, seed: int) -> Array:
    """Mask [N] of the validation rows."""
    folds = table.manifest.folds
    if table.fold is not None and len(folds) >= _NEXT_FOLD_FROM:
        return table.fold == folds[(folds.index(fold) + 1) % len(folds)]
    if table.fold is None and table.split is not None:
        given = table.split == "validation"
        if given.any() and not np.isin(units[given], units[table.split == "train"]).any():
            return given
    return _carve(table, units, np.flatnonzero(~test), seed, "validation")


def _units(table: Table) -> Array:
    """Codes [N] of the smallest sets of rows that keep dialogues and groups whole.

    Speakers share dialogues, so with group = speaker a unit is all speakers linked by dialogues.
    """
    from scipy.sparse import coo_array  # half a second to load, and packs, which are given their rows, need it not
    from scipy.sparse.csgraph import connected_components

    count = int(table.group.max()) + 1
    nodes = count + int(table.dialogue.max()) + 1
    links = coo_array((np.ones(len(table)), (table.group, count + table.dialogue)), shape=(nodes, nodes))
    codes = connected_components(links, directed=False)[1]
    return codes[table.group].astype(np.int64)


def _carve(table: Table, units: Array, rows: Array, seed: int, part: str) -> Array:
    """Mask [N] of whole units among `rows`, about a fifth of them, in an order fixed by seed and row ids."""
    codes, first, sizes = np.unique(units[rows], return_index=True, return_counts=True)
    if len(codes) < 2:
        raise BadInput(
            f"{part} rows of {table.manifest.name} cannot be carved: all rows left share one {table.manifest.group}",
            hint="give a split or fold column, or a finer group",
        )
    order = sorted(range(len(codes)), key=lambda i: sha256(f"{seed}:{part}:{table.ids[rows[first[i]]]}".encode()))
    before = np.cumsum(sizes[order]) - sizes[order]
    taken = codes[order][: len(codes) - 1][before[:-1] < _SHARE * len(rows)]
    mask = np.zeros(len(table), dtype=bool)
    mask[rows] = np.isin(units[rows], taken)
    return mask


def _check(table: Table, fold: str, parts: list[Array]) -> None:
    for name, rows in zip(("train", "validation", "test"), parts, strict=True):
        if not table.labelled[rows].any():
            raise BadInput(f"fold {shown(fold)} of {table.manifest.name} has no labelled {name} row")
    dialogues = np.concatenate([np.unique(table.dialogue[rows]) for rows in parts])
    if len(dialogues) != len(np.unique(dialogues)):
        raise BadInput(f"a dialogue of {table.manifest.name} lies in two parts of fold {shown(fold)}")
