"""Predictions of one checkpoint: under every combination in about one pass, or each row under its own presence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mcutune.data.dialogues import grouped
from mcutune.data.normalise import Normalisation, apply
from mcutune.domain.combination import Modalities, combination_index, membership
from mcutune.domain.task import Task
from mcutune.errors import BadInput, Damaged
from mcutune.model.checkpoint import EPOCHS, FACTS, WEIGHTS, expect, read, read_epochs, unpacked
from mcutune.model.dpft import draws_by_dialogue
from mcutune.model.encoder import encode, make_encoder
from mcutune.model.frozen import FrozenNetwork
from mcutune.model.gradients import Piece, drawn_shares, gradient_norms, of_dialogues
from mcutune.model.lanes import Lanes
from mcutune.model.losses import balance
from mcutune.model.sequences import Sequences, of_rows
from mcutune.model.settings import settings
from mcutune.model.trained import TrainedNetwork

Array = npt.NDArray[Any]
_DIALOGUES_AT_ONCE = 32


def load_predictor(folder: Path) -> Predictor:
    """The predictor of a checkpoint folder.

    Raises BadInput where there is none, Damaged where hash, names or shapes are not as written.
    """
    return _made(*read(folder), folder)


def predictor_of(files: Mapping[str, bytes], name: str) -> Predictor:
    """The predictor of a checkpoint's files; `name`: what to call the checkpoint. Raises as `load_predictor`."""
    return _made(*unpacked(files, name), Path(name))


def _made(tensors: dict[str, Tensor], facts: dict[str, Any], folder: Path) -> Predictor:
    try:
        return Predictor(tensors, facts, folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(f"{folder / FACTS} does not describe a model: {error}") from None


class Predictor:
    """One trained model. info: checkpoint.json. Features come raw, [N, D_m] by modality; normalised inside.

    dialogue, order, group: int codes [N]; a dialogue encoder reads the first two, per-group normalisation the third.
    """

    def __init__(self, tensors: dict[str, Tensor], facts: dict[str, Any], folder: Path) -> None:
        self.info = facts
        self._folder = folder
        self.configuration: dict[str, Any] = facts["configuration"]
        self.modalities = Modalities(tuple(facts["modalities"]))
        self.dims = tuple(int(d) for d in facts["dims"])
        self.task = Task(facts["task"])
        self.label_names = tuple(facts["label_names"] or ())
        self.classes = len(self.label_names) if self.task is Task.CLASSIFICATION else 1
        self.normalisation = Normalisation.from_json(facts["normalisation"])
        self.settings = settings(self.configuration)
        self.lanes = Lanes.of([self.settings], torch.device("cpu"))
        self._build(tensors, folder / WEIGHTS)

    def _build(self, tensors: dict[str, Tensor], path: Path) -> None:
        c, device = self.settings, torch.device("cpu")
        low = c.precision == "bfloat16"
        self.network: FrozenNetwork | TrainedNetwork
        self.encoders = []
        if c.encoder == "frozen":
            self.network = FrozenNetwork(
                self.dims, self.classes, c.encoder_width, c.rank, low_precision=low, device=device
            )
            self.encoders = [make_encoder(c, dim).eval() for dim in self.dims]
        else:
            self.network = TrainedNetwork(
                self.dims, self.classes, c.width, c.depth, c.heads, c.rank, low_precision=low, device=device
            )
        shapes = {p.name: p.shape for p in self.network.layout.parameters}
        states = {
            f"encoder.{name}.{key}": tuple(value.shape)
            for name, encoder in zip(self.modalities.names, self.encoders, strict=False)
            for key, value in encoder.state_dict().items()
        }
        expect(tensors, {**shapes, **states}, path)
        for name, encoder in zip(self.modalities.names, self.encoders, strict=False):
            prefix = f"encoder.{name}."
            encoder.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        self.params = {name: tensors[name][None] for name in shapes}

    @property
    def attends(self) -> bool:
        """Whether a row's prediction depends on the presence of other rows of its dialogue."""
        return bool(self.settings.encoder == "trained" or self.settings.encoder_kind == "dialogue")

    def epochs(self) -> list[Predictor]:
        """The same model after each epoch of its training, first to last.

        Raises BadInput where only the best was kept, Damaged where what is stored is not of this model.
        """
        found = []
        for tensors in read_epochs(self._folder, self.info):
            expect(
                tensors, {name: tuple(value.shape[1:]) for name, value in self.params.items()}, self._folder / EPOCHS
            )
            one = copy(self)
            one.params = {name: tensors[name][None] for name in self.params}
            found.append(one)
        return found

    def gradient_norms(
        self, epochs: Sequence[Predictor], features: dict[str, Array], labels: Array, dialogue: Array, order: Array,
        group: Array, *, presence: Array, rows: Array, after: Array | None = None,
    ) -> Array:  # fmt: skip
        """Norm of the gradient of the task loss at each modality's own modules after epochs, float64 [E, M].

        epochs: as `epochs` gives them; after: which of them, from 0 (default each). rows: numbers of those that the
        loss is over, all labelled; the others are their context. What the loss is: model/gradients.py. Raises Damaged
        where DPFT's probabilities are not of these epochs.
        """
        q = np.asarray((self.info.get("dpft") or {}).get("probabilities", ()), dtype=np.float64)
        if q.shape != (len(epochs), len(self.modalities.labels)):
            raise Damaged(f"{self._folder / FACTS} does not have the probabilities of {len(epochs)} epochs")
        have = self._presence(features, presence)
        has = of_dialogues(have, dialogue) if draws_by_dialogue(self.settings) else have
        near = np.flatnonzero(np.isin(dialogue, dialogue[rows])) if self.attends else rows
        inputs = [x[near] for x in self._normalised(features, have, group, None)]
        own, asked = have[near], np.isin(near, rows)
        every = self._pieces(inputs, torch.from_numpy(own), dialogue[near], order[near])
        pieces, target = list(every), np.where(asked, labels[near], np.zeros_like(labels[near]))
        row_weight = asked.astype(np.float64)
        if self.task is Task.CLASSIFICATION:
            row_weight *= balance(labels[rows], self.classes, self.task, self.settings.class_weight)[target]
        found = []
        for number in range(len(epochs)) if after is None else after:
            weight = drawn_shares(q[number], has[near], own) * row_weight
            weight /= max(weight.sum(), np.finfo(float).tiny)
            found.append(gradient_norms(self.network, epochs[number].params, pieces, torch.from_numpy(target), weight))
        return np.stack(found)

    def all_combinations(
        self, features: dict[str, Array], dialogue: Array, order: Array, group: Array,
        *, presence: Array | None = None, normalisation: Literal["train", "group", "none"] | None = None,
    ) -> Array:  # fmt: skip
        """Logits [C, N, K] (K = 1: the value) of every row under every combination.

        presence [N, M]: what the rows have at all (default everything); a combination that names more than a row has
        gives what is left of it only where the caller looks up the row's own combination. Raises BadInput for wrong
        modalities or dimensions.
        """
        have = self._presence(features, presence)
        inputs = self._normalised(features, have, group, normalisation)
        return self._all(inputs, torch.from_numpy(have), dialogue, order)

    def with_presence(
        self, features: dict[str, Array], presence: Array, dialogue: Array, order: Array, group: Array,
        *, normalisation: Literal["train", "group", "none"] | None = None, noise: dict[str, Array] | None = None,
    ) -> Array:  # fmt: skip
        """Logits [N, K], each row under its own presence [N, M]; encoders that attend see only what is present.

        A row with nothing present gets the output of no input: the classifier's bias alone. `noise`: float32 [N, D] by
        modality, added to the normalised features of the rows that have the modality.
        """
        have = self._presence(features, presence)
        inputs = self._normalised(features, have, group, normalisation)
        for m, name in enumerate(self.modalities.names):
            if noise is not None and name in noise:
                inputs[m] = inputs[m] + torch.from_numpy(np.where(have[:, m, None], noise[name], np.float32(0)))
        every = self._all(inputs, torch.from_numpy(have), dialogue, order)
        own = combination_index(have)
        result = every[own.clip(0), np.arange(len(own))]
        result[own < 0] = self._nothing()
        return result

    def _nothing(self) -> Array:
        if self.settings.encoder == "frozen":
            return self.params["common.bias"][0].numpy()
        return self.params["head.bias"][0].numpy()

    def _presence(self, features: dict[str, Array], presence: Array | None) -> Array:
        names = self.modalities.names
        lacking = [name for name in names if name not in features]
        if lacking:
            raise BadInput(f"modality {lacking[0]!r} is not given", hint=f"the model reads {', '.join(names)}")
        for name, dim in zip(names, self.dims, strict=True):
            if features[name].ndim != 2 or features[name].shape[1] != dim:
                raise BadInput(f"modality {name!r} has shape {features[name].shape}, the model reads [N, {dim}]")
        rows = len(features[names[0]])
        return np.ones((rows, len(names)), dtype=bool) if presence is None else np.asarray(presence, dtype=bool)

    def _normalised(self, features: dict[str, Array], have: Array, group: Array, mode: Any) -> list[Tensor]:
        n = self.normalisation
        chosen = Normalisation(mode, n.mean, n.std) if mode else n
        ready = apply(chosen, {name: features[name] for name in self.modalities.names}, have, np.asarray(group))
        return [torch.from_numpy(np.ascontiguousarray(ready[name])) for name in self.modalities.names]

    @torch.no_grad()
    def _all(self, inputs: list[Tensor], have: Tensor, dialogue: Array, order: Array) -> Array:
        logits = torch.zeros(len(membership(len(self.dims))), len(have), self.classes)
        for rows, logits_of in self._pieces(inputs, have, dialogue, order):
            logits[:, rows] = logits_of(self.params)
        return logits.numpy()

    def _pieces(self, inputs: list[Tensor], have: Tensor, dialogue: Array, order: Array) -> Iterator[Piece]:
        """Parts of the rows that can be computed alone, in no order."""
        blocks, dialogue_of = grouped(np.asarray(dialogue), np.asarray(order))
        if isinstance(self.network, FrozenNetwork):
            frozen, encoded = self.network, []
            for m, (encoder, x) in enumerate(zip(self.encoders, inputs, strict=True)):
                encoded.append(encode(encoder, x, have[:, m], torch.from_numpy(blocks)))
            stacked = torch.stack(encoded)[None]
            yield slice(None), lambda params: frozen.differentiable(params, inputs, stacked, self.lanes, [1])[0]
            return
        for first in range(0, len(blocks), _DIALOGUES_AT_ONCE):
            block = blocks[first : first + _DIALOGUES_AT_ONCE]
            rows = block[block >= 0]
            yield torch.from_numpy(rows), partial(self._trained, *of_rows(inputs, rows, have.numpy(), dialogue_of))

    def _trained(self, inputs: list[Tensor], rows: list[Sequences], params: dict[str, Tensor]) -> Tensor:
        assert isinstance(self.network, TrainedNetwork)
        return self.network.differentiable(params, inputs, rows, self.lanes)[0]
