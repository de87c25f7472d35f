"""What a search may see of a fold: training and validation rows, nothing of test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcutune.data.columns import Array, NormalisationMode
from mcutune.data.splits import split_of
from mcutune.data.table import Table
from mcutune.domain.task import Task
from mcutune.files import canonical_json, sha256


@dataclass(frozen=True, eq=False)
class FoldData:
    """Training and validation rows of a fold, N of them, in table order. Plain numpy: it pickles.

    `features`: modality to raw float32 [N, D]. `presence`: bool [N, M]. `labels`: int64 [N] with −1, or float32 [N]
    with NaN, where there is none. `dialogue`, `order`, `group`: int64 [N]. `validation`: bool [N]. `normalisation`:
    the mode to normalise with. `table`: the dataset's name, which a checkpoint keeps beside its hash.
    """

    modalities: tuple[str, ...]
    features: dict[str, Array]
    presence: Array
    labels: Array
    dialogue: Array
    order: Array
    group: Array
    validation: Array
    task: Task
    label_names: tuple[str, ...]
    table_hash: str
    split_hash: str
    fold: str
    normalisation: NormalisationMode
    table: str = ""

    @property
    def classes(self) -> int:
        """K; 1 for regression."""
        return len(self.label_names) or 1


EVERY = "all"  # the name of the fold that holds all rows


def every_row(table: Table, like: str, *, normalisation: NormalisationMode) -> FoldData:
    """All rows of a table as training rows, those of test included: for a last training that nothing measures.

    A pack measures validation rows after each epoch, so copies of those of fold `like` stand in for them, as dialogues
    and groups of their own; what is measured on them says nothing. Raises BadInput for an unknown fold.
    """
    count = len(table)
    copies = split_of(table, like).validation
    rows = np.concatenate([np.arange(count), copies])
    copied = np.arange(len(rows)) >= count
    digest = sha256(canonical_json([table.manifest.hash, EVERY]))
    return FoldData(
        modalities=table.modalities.names,
        features={name: table.features(name)[rows] for name in table.modalities.names},
        presence=table.presence[rows],
        labels=table.labels(rows),
        dialogue=table.dialogue[rows] + copied * (int(table.dialogue.max()) + 1),
        order=table.order[rows],
        group=table.group[rows] + copied * (int(table.group.max()) + 1),
        validation=copied,
        task=table.manifest.task,
        label_names=tuple(table.manifest.label_names or ()),
        table_hash=table.manifest.hash,
        split_hash=digest,
        fold=EVERY,
        normalisation=normalisation,
        table=table.manifest.name,
    )


def fold_data(table: Table, fold: str, *, normalisation: NormalisationMode | None = None) -> FoldData:
    """The view of one fold, in the table's default normalisation mode unless another is given.

    Labels come through a handle on which the test rows are sealed. Raises BadInput for an unknown fold.
    """
    split = split_of(table, fold)
    sealed = table.seal(split.test)
    rows = np.sort(np.concatenate([split.train, split.validation]))
    return FoldData(
        modalities=table.modalities.names,
        features={name: table.features(name)[rows] for name in table.modalities.names},
        presence=table.presence[rows],
        labels=sealed.labels(rows),
        dialogue=table.dialogue[rows],
        order=table.order[rows],
        group=table.group[rows],
        validation=np.isin(rows, split.validation),
        task=table.manifest.task,
        label_names=tuple(table.manifest.label_names or ()),
        table_hash=table.manifest.hash,
        split_hash=split.hash,
        fold=fold,
        normalisation=normalisation or table.manifest.normalisation,
        table=table.manifest.name,
    )
