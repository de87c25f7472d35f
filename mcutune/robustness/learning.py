"""Do the modalities learn alike? Norms of the loss's gradient at each modality's own modules, over all of training.

It answers the question of MissBench's Modality Learning Index (arXiv:2603.09874). Their formula is not at hand: this
one is ours, and its values are not comparable with theirs. After each epoch that `mcutune compare NAME --with epochs`
kept (with `encoder: trained` six of them, evenly spaced), the gradient of the task loss is taken over training rows of
the fold, each under the combinations that DPFT draws for it, as often as it draws them (model/gradients.py). Its
Euclidean norm over the parameters that read one modality alone, mean over the epochs, has a share in the sum over
modalities; the index is the normalised entropy of these shares: 1 where all modalities are pulled at alike, 0 where one
takes all. A frozen encoder is not trained with the others and has no part in it. A norm grows with a modality's
features, their number and scale, as it does in training.

No row that is tested has a part in it, so there is nothing to resample: the spread is that of folds and seeds.

EVIDENCE/
  gradients-TABLE.parquet   fold, seed, epoch, modality, norm

Axes: L trained models (a fold and seed each), E epochs, M modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mcutune.data.table import Table
from mcutune.data.views import FoldData, fold_data
from mcutune.domain.task import Task
from mcutune.errors import Damaged
from mcutune.robustness.blocks import Block
from mcutune.robustness.evidence import Array, ParquetFile, codes, positions
from mcutune.robustness.overall import evenness, has_all, not_measured
from mcutune.robustness.paired import number
from mcutune.robustness.stored import Store

Entry = dict[str, Any]

NAME = "learning"
INTERVAL = "none: no test row is in it; its spread over folds and seeds is in `learning`"
# Rows × combinations of a gradient. Few rows lie: their own noise has a norm, too, the more so the better training fits
# (on IEMOCAP the index is .986 with all 3,300 rows of a fold, .966 with 1,024, .916 with 292). So where everything is
# trained, and a gradient is dear, epochs are left out before rows are.
CELLS, CELLS_TRAINED = 1 << 16, 1 << 13
LEAST_ROWS = 64
EPOCHS_TRAINED = 6  # evenly spaced
KEEP = "every epoch's checkpoint is needed: mcutune compare NAME --with epochs, then robustness without --against"
_AGAIN = "this evidence was written without gradients: run robustness again"
_HIDDEN = "the winners were trained with a part of their training rows hidden (training_missing)"
_ONE = "there is one modality"
_STILL = "in some training no gradient reached a modality's modules"
_OTHERS = "every epoch was kept of the winners only"


def gradients_file(table: str) -> str:
    return f"gradients-{table}.parquet"


class Training:
    """A fold's training rows as gradients are taken over them, and what of them they are taken over.

    Test rows are not in it: `data` is what a search sees of the fold. `model`: one of the fold's.
    """

    def __init__(self, table: Table, fold: str, model: Any) -> None:
        self.data = fold_data(table, fold)
        usable = usable_rows(self.data)
        self.available = len(usable)
        self.thinned = model.configuration.get("encoder") == "trained"
        cells = CELLS_TRAINED if self.thinned else CELLS
        most = max(LEAST_ROWS, cells // len(model.modalities.labels))
        self.rows = sample(usable, self.data.dialogue if model.attends else None, most)

    def norms(self, model: Any, epochs: Sequence[Any], after: Array) -> Array:
        """Norms [E, M] of a model, given after each epoch, after the epochs `after` [E], from 0."""
        data = self.data
        batch = (data.features, data.labels, data.dialogue, data.order, data.group)
        found: Array = model.gradient_norms(epochs, *batch, presence=data.presence, rows=self.rows, after=after)
        return found


def looked_at(epochs: int, thinned: bool) -> Array:
    """Which of so many epochs (from 0) a gradient is taken after: each, or some, the first and the last among them."""
    if not thinned:
        return np.arange(epochs)
    return np.unique(np.linspace(0, epochs - 1, EPOCHS_TRAINED).round().astype(np.int64))


def usable_rows(data: FoldData) -> Array:
    """Row numbers of the training rows that have a label and a modality."""
    labelled = data.labels >= 0 if data.task is Task.CLASSIFICATION else np.isfinite(data.labels)
    return np.flatnonzero(labelled & ~data.validation & data.presence.any(axis=1))


def sample(rows: Array, dialogue: Array | None, most: int) -> Array:
    """All of the rows, or `most`, drawn once and for all; of dialogues [N], where given, whole ones until then."""
    if len(rows) <= most:
        return rows
    random = np.random.default_rng(0)
    if dialogue is None:
        return np.sort(random.permutation(rows)[:most])
    names, sizes = np.unique(dialogue[rows], return_counts=True)
    order = random.permutation(len(names))
    enough = int(np.searchsorted(np.cumsum(sizes[order]), most)) + 1
    return rows[np.isin(dialogue[rows], names[order[:enough]])]


def not_repeatable(configuration: Entry) -> str | None:
    """Why the training of a model cannot be looked at again; None where it can."""
    return _HIDDEN if configuration.get("training_missing") else None


def without_probabilities(fold: str, seed: int) -> str:
    """Why there is no gradient of a trained model of which it is not known how combinations were drawn."""
    return f"DPFT's probabilities are not those of every epoch in fold {fold}, seed {seed}"


def write_norms(
    file: ParquetFile, norms: Array, after: Array, fold: str, seed: int, modalities: Sequence[str]
) -> None:  # fmt: skip
    """Append the norms [E, M] of a trained model after the epochs `after` [E], from 0."""
    epoch, modality = (index.ravel() for index in np.indices(norms.shape))
    file.append(
        {
            "fold": (np.zeros(norms.size, dtype=np.int64), [fold]),
            "seed": np.full(norms.size, seed, dtype=np.int32),
            "epoch": (after[epoch] + 1).astype(np.int16),
            "modality": (modality, list(modalities)),
            "norm": norms.astype(np.float64).ravel(),
        }
    )


def learning(store: Store, table: str, facts: Entry | None, modalities: Sequence[str]) -> Entry:
    """The section of a report, with the reason where it is not measured. Raises Damaged where a norm is missing."""
    if facts is None:
        return _nothing(KEEP)
    told = facts.get("gradients")
    if told is None:
        return _nothing(_AGAIN)
    if told["reason"] is not None:
        return _nothing(told["reason"])
    if len(modalities) == 1:
        return _nothing(_ONE)
    trained = [(one["fold"], one["seed"], one["epoch"]) for one in facts["chosen"]]
    # older evidence has one word for all models
    thinned = [one.get("thinned", told.get("thinned", False)) for one in facts["chosen"]]
    norms = _read(store, gradients_file(table), trained, modalities, thinned)
    for (fold, seed, _), one in zip(trained, norms, strict=True):
        if not np.isfinite(one).all():
            return _nothing(f"a gradient is not finite in fold {fold}, seed {seed}")
    shares = np.stack([_shares(one.mean(axis=0)) for one in norms])
    values = evenness(shares) + 0.0  # never −0
    if not np.isfinite(values).all():
        return _nothing(_STILL)
    ends = [np.stack([_shares(one[at]) for one in norms]) for at in (0, -1)]
    return {
        "reason": None,
        "value": number(values.mean()),  # every fold has as many seeds
        "least": number(values.min()),
        "most": number(values.max()),
        "modalities": [
            {
                "modality": name,
                "share": number(shares[:, m].mean()),
                "least": number(shares[:, m].min()),
                "most": number(shares[:, m].max()),
                **{key: number(of[:, m].mean()) for key, of in zip(("first", "last"), ends, strict=True)},
                "norm": number(np.mean([one[:, m].mean() for one in norms])),
            }
            for m, name in enumerate(modalities)
        ],
        "folds": len({fold for fold, _, _ in trained}),
        "seeds": len({seed for _, seed, _ in trained}),
        "epochs": {"least": min(map(len, norms)), "most": max(map(len, norms)), "every": not any(thinned)},
        "rows": told["rows"],
        "available": told["available"],
    }


def _nothing(reason: str) -> Entry:
    """Not measured, and why."""
    none = dict.fromkeys(("value", "least", "most", "folds", "seeds", "epochs", "rows", "available"))
    return {"reason": reason, "modalities": [], **none}


def _shares(norms: Array) -> Array:
    """Of the sum over modalities [M]; NaN where it is zero."""
    with np.errstate(invalid="ignore"):
        found: Array = norms / norms.sum()
    return found


def _read(
    store: Store, name: str, trained: Sequence[tuple[str, int, int]], modalities: Sequence[str],
    thinned: Sequence[bool],
) -> list[Array]:  # fmt: skip
    """Norms [E, M], finite or not, of each trained model: its fold, seed, and the epoch that validation chose.

    thinned: of each, whether only some of its epochs are looked at. Raises Damaged where a norm is missing.
    """
    content = store.table(name)
    fold, folds = codes(content, "fold")
    modality = positions(content, "modality", {one: m for m, one in enumerate(modalities)}, name)
    seed, epoch = content["seed"].to_numpy(), content["epoch"].to_numpy().astype(np.int64) - 1
    norm, found, read = content["norm"].to_numpy(), [], 0
    for (of_fold, of_seed, chosen), some in zip(trained, thinned, strict=True):
        mine = (seed == of_seed) & (fold == (folds.index(of_fold) if of_fold in folds else -1))
        count = int(epoch[mine].max(initial=-1)) + 1
        norms, stored = np.zeros((count, len(modalities))), np.zeros((count, len(modalities)), dtype=bool)
        norms[epoch[mine], modality[mine]] = norm[mine]
        stored[epoch[mine], modality[mine]] = True
        if count:
            norms, stored = (of[looked_at(count, some)] for of in (norms, stored))
        read += int(mine.sum())
        if count < chosen or mine.sum() != norms.size or not stored.all() or (norms < 0).any():
            raise Damaged(
                f"{name}: fold {of_fold}, seed {of_seed} does not have one norm an epoch and modality",
                hint="run robustness again",
            )
        found.append(norms)
    if read != len(norm):
        raise Damaged(f"{name} has norms of models that were not trained", hint="run robustness again")
    return found


def index(block: Block, learned: Entry, subject: str) -> list[Entry]:
    """The index of a block that measured every combination, beside its others; [] of any other block."""
    if not has_all(block):
        return []
    if block.model != subject or learned["value"] is None:
        return [not_measured(block, None, NAME, learned["reason"] or _OTHERS)]
    mine = {"value": learned["value"], "interval": INTERVAL, "reason": None, "n": learned["rows"]}
    return [not_measured(block, None, NAME, "") | mine | {"groups": learned["folds"] * learned["seeds"]}]
