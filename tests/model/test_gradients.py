"""Norms of gradients against slow twins: the equations row by row in float64, and finite differences along them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mcutune.domain.combination import combination_index, combinations, membership
from mcutune.errors import Damaged
from mcutune.model.encoder import encode
from mcutune.model.gradients import drawn_shares, of_dialogues
from mcutune.model.predictor import Predictor, load_predictor
from mcutune.training.result import lane_files
from tests.reference import mcla
from tests.training.fold import fold, order, pack_of, trained

STEP = 1e-5


def model_of(folder: Path, data, **shape) -> Predictor:
    """A model trained for two epochs with both kept."""
    pack = pack_of(data, shape)
    [lane], _ = trained(pack, [order(0, 1, kept="every", sensitivity=0.5, rank=3, **shape)], epochs=2)
    encoders = pack.encoder_files(1) if shape["encoder"] == "frozen" else []
    for name, content in lane_files(lane, pack, encoders).items():
        (folder / name).write_bytes(content)
    return load_predictor(folder)


def norms(model: Predictor, data, rows) -> np.ndarray:
    given = (data.features, data.labels, data.dialogue, data.order, data.group)
    return model.gradient_norms(model.epochs(), *given, presence=data.presence, rows=rows)


def own(model: Predictor, params, m: int) -> list[torch.Tensor]:
    """What belongs to modality m, by its name, not by what the networks say."""
    if model.settings.encoder == "trained":
        return [v for name, v in params.items() if name.split(".")[:2] in (["enter", str(m)], ["block", str(m)])]
    return [params[f"adapter.{m}.A"], params["shared.B"], params["private.B"]]


def squares(model: Predictor, params, m: int) -> float:
    found = 0.0
    for name, value in params.items():
        gradient = value.grad if value.grad is not None else torch.zeros_like(value)
        if name in ("shared.B", "private.B"):
            found += float((gradient[m] ** 2).sum())
        elif any(value is one for one in own(model, params, m)):
            found += float((gradient**2).sum())
    return found


def drawn(model: Predictor, data, q, row: int, by_dialogue: bool) -> dict[int, float]:
    """Share of each combination, after what the row lacks is taken off; nothing at all is left out."""
    mates = data.presence[data.dialogue == data.dialogue[row]].any(0) if by_dialogue else data.presence[row]
    allowed = [c for c, of in enumerate(combinations(len(mates))) if all(mates[m] for m in of.modalities())]
    found: dict[int, float] = {}
    for c in allowed:
        left = int(combination_index(membership(len(mates))[c] & data.presence[row]))
        if left >= 0 and q[c] > 0:
            found[left] = found.get(left, 0) + q[c] / sum(q[a] for a in allowed)
    return found


def twin_loss(model: Predictor, params, data, rows, q) -> torch.Tensor:
    c = model.settings
    by_dialogue = c.encoder == "trained" or c.encoder_kind == "dialogue"
    x = [a.double() for a in model._normalised(data.features, data.presence, data.group, None)]
    counts = np.bincount(data.labels[rows]) if not np.issubdtype(data.labels.dtype, np.floating) else None
    encoded = []
    for m, encoder in enumerate(model.encoders):
        blocks = [np.flatnonzero(data.dialogue == d) for d in np.unique(data.dialogue)]
        block = torch.from_numpy(np.stack(blocks))
        encoded.append(encode(encoder, x[m].float(), torch.from_numpy(data.presence[:, m]), block).double())
    total, weights = 0.0, 0.0
    for row in rows:
        weight = 1.0
        if counts is not None and c.class_weight == "balanced":
            weight = len(rows) / (len(counts) * counts[data.labels[row]])
        for combination, share in drawn(model, data, q, row, by_dialogue).items():
            if c.encoder == "frozen":
                args = [a[row] for a in x], [e[row] for e in encoded], combination, c.scale, c.fusion
                logits, _ = mcla.frozen_row(params, *args)
            else:
                mates = np.flatnonzero(data.dialogue == data.dialogue[row])
                mates = mates[np.argsort(data.order[mates])]
                present = torch.from_numpy(data.presence[mates].copy())
                at = int(np.flatnonzero(mates == row)[0])
                logits = trained_row(model, params, [a[mates] for a in x], present, at, combination)
            if data.labels.dtype == np.float32:
                loss = (logits[0] - float(data.labels[row])) ** 2
            else:
                loss = torch.logsumexp(logits, 0) - logits[data.labels[row]]
            total, weights = total + weight * share * loss, weights + weight * share
    return total / weights


def trained_row(model: Predictor, params, x, present, at: int, combination: int) -> torch.Tensor:
    """One row's logits where its dialogue is drawn the combination: each row keeps what it has of it."""
    c = model.settings
    member = torch.from_numpy(membership(len(x))[combination].copy())
    here = present & member
    kept = torch.nonzero(here.any(1))[:, 0]
    place = int((kept == at).nonzero()[0, 0])
    return mcla.trained_dialogue(params, [a[kept] for a in x], here[kept], c.scale, c.depth, c.heads, c.fusion)[place]


CASES = {
    "utterance": ({"encoder": "frozen"}, {}),
    "balanced": ({"encoder": "frozen", "class_weight": "balanced", "fusion": "sum"}, {"gaps": True}),
    "dialogue": ({"encoder": "frozen", "encoder_kind": "dialogue"}, {"gaps": True}),
    "values": ({"encoder": "frozen"}, {"regression": True, "gaps": True}),
    "trained": ({"encoder": "trained"}, {"gaps": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_norms_are_those_of_a_slow_twin(tmp_path: Path, case: str) -> None:
    shape, options = CASES[case]
    data = fold(120, **options)
    model = model_of(tmp_path, data, **shape)
    labelled = np.isfinite(data.labels) if "regression" in options else data.labels >= 0
    usable = np.flatnonzero(labelled & ~data.validation & data.presence.any(1))
    rows = usable[: 14 if case != "trained" else 9]
    found = norms(model, data, rows)
    assert found.shape == (2, 3)
    for epoch, one in enumerate(model.epochs()):
        q = model.info["dpft"]["probabilities"][epoch]
        params = {name: value[0].double().requires_grad_() for name, value in one.params.items()}
        twin_loss(model, params, data, rows, q).backward()
        expected = [squares(model, params, m) ** 0.5 for m in range(3)]
        assert found[epoch] == pytest.approx(expected, rel=2e-4)
        assert min(expected) > 1e-5


def test_norms_are_slopes(tmp_path: Path) -> None:
    """Along its own direction the loss rises by the norm: finite differences, no autograd in them."""
    data = fold(120)
    model = model_of(tmp_path, data, encoder="frozen")
    rows = np.flatnonzero((data.labels >= 0) & ~data.validation)[:8]
    found = norms(model, data, rows)[1]
    one, q = model.epochs()[1], model.info["dpft"]["probabilities"][1]
    params = {name: value[0].double().requires_grad_() for name, value in one.params.items()}
    twin_loss(model, params, data, rows, q).backward()
    for m in range(3):
        length = squares(model, params, m) ** 0.5
        moved = []
        for sign in (1, -1):
            shifted = {}
            for name, value in params.items():
                step = torch.zeros_like(value)
                if name == f"adapter.{m}.A":
                    step = value.grad
                elif name in ("shared.B", "private.B"):
                    step[m] = value.grad[m]
                shifted[name] = value.detach() + sign * STEP * step / length
            moved.append(float(twin_loss(model, shifted, data, rows, q)))
        assert (moved[0] - moved[1]) / (2 * STEP) == pytest.approx(found[m], rel=1e-3)


@pytest.mark.parametrize("shape", [{"encoder": "frozen"}, {"encoder": "frozen", "encoder_kind": "dialogue"},
                                   {"encoder": "trained"}])  # fmt: skip
def test_a_modality_that_no_row_has_gets_no_gradient(tmp_path: Path, shape: dict[str, str]) -> None:
    data = fold(120)
    model = model_of(tmp_path, data, **shape)
    presence = data.presence.copy()
    presence[:, 1] = False
    rows = np.flatnonzero((data.labels >= 0) & ~data.validation)
    found = norms(model, dataclasses.replace(data, presence=presence), rows)
    assert (found[:, 1] == 0).all()
    assert (found[:, [0, 2]] > 0).all()


def test_a_path_that_is_cut_in_the_weights_gets_no_gradient(tmp_path: Path) -> None:
    data = fold(120)
    model = model_of(tmp_path, data, encoder="frozen")
    cut = model.epochs()
    for one in cut:
        one.params["common.adapter"][:, 2] = 0
        one.params["characteristic"][:, 2] = 0
    rows = np.flatnonzero((data.labels >= 0) & ~data.validation)
    given = (data.features, data.labels, data.dialogue, data.order, data.group)
    found = model.gradient_norms(cut, *given, presence=data.presence, rows=rows)
    assert (found[:, 2] == 0).all()
    assert (found[:, :2] > 0).all()


def test_other_rows_and_their_labels_have_no_part(tmp_path: Path) -> None:
    data = fold(120, gaps=True)
    model = model_of(tmp_path, data, encoder="frozen", encoder_kind="dialogue")
    rows = np.flatnonzero((data.labels >= 0) & (data.dialogue == 1) & data.presence.any(1))
    before = norms(model, data, rows)
    others = data.dialogue != 1
    features = {name: np.where(others[:, None], 1e3, of).astype(np.float32) for name, of in data.features.items()}
    labels = np.where(np.isin(np.arange(120), rows), data.labels, 2)
    assert (norms(model, dataclasses.replace(data, features=features, labels=labels), rows) == before).all()


def test_shares_are_what_is_drawn() -> None:
    """Against the sampler itself, on rows that lack modalities, drawn by row and by dialogue."""
    from mcutune.model.dpft import draw
    from mcutune.training.resident import containment

    random = np.random.default_rng(3)
    presence = random.random((12, 3)) < 0.6
    dialogue = np.arange(12) // 4
    q = random.random(7)
    q /= q.sum()
    for has in (presence, of_dialogues(presence, dialogue)):
        found = drawn_shares(q, has, presence)
        counts, many = np.zeros_like(found), 20_000
        for row in range(12):
            if not has[row].any():
                continue
            index = np.full(many, combination_index(has[row]))
            taken = draw(q, random.random(many), index, containment(3))
            left = combination_index(membership(3)[taken] & presence[row])
            counts[:, row] = np.bincount(left[left >= 0], minlength=7) / many
        assert found == pytest.approx(counts, abs=0.02)
    assert drawn_shares(q, presence, presence).sum(0) == pytest.approx(presence.any(1).astype(float))


def test_probabilities_of_other_epochs_are_refused(tmp_path: Path) -> None:
    data = fold(120)
    model = model_of(tmp_path, data, encoder="frozen")
    model.info["dpft"]["probabilities"].pop()
    with pytest.raises(Damaged, match="probabilities of 2 epochs"):
        norms(model, data, np.flatnonzero(data.labels >= 0))
