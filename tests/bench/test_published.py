"""The published form is what was published, and the same function as ours where the two can coincide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bench.baselines import published
from bench.baselines.published import COMBINATIONS, PATHS, AdaptedLinear, Dialogues, Published
from mcutune.domain.combination import combinations
from mcutune.model.lanes import Lanes
from mcutune.model.sequences import of_rows
from mcutune.model.trained import TrainedNetwork
from mcutune.training.config import configuration

DIMS, CLASSES = (6, 5, 4), 3


@pytest.mark.parametrize("outputs, count", [(4, 6_289_570), (1, 6_284_842)], ids=["iemocap4", "mosei"])
def test_it_has_as_many_parameters_as_were_logged(outputs, count):
    assert sum(p.numel() for p in Published((512, 1024, 1024), outputs).parameters()) == count


def _norm(width):
    norm = nn.LayerNorm(width)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    return norm


@pytest.fixture(params=[0, 2], ids=["without blocks", "with blocks"])
def pair(request, monkeypatch):
    """The published form with what ours has besides, and our network with the same weights."""
    monkeypatch.setattr(published, "HIDDEN", 16)
    torch.manual_seed(0)
    theirs = Published(DIMS, CLASSES, depth=request.param, norm=_norm).eval()
    for name, parameter in theirs.named_parameters():
        if ".up." in name and "base" not in name:
            nn.init.normal_(parameter, std=0.3)  # adapters start at zero, which would hide them
    ours = TrainedNetwork(DIMS, CLASSES, 16, request.param, 2, 4, low_precision=False, device=torch.device("cpu"))
    return theirs, ours, _weights(theirs, ours)


def _weights(theirs: Published, ours: TrainedNetwork) -> dict[str, torch.Tensor]:
    """Our parameters [1, ..] with the published form's values."""
    views = ours.layout.views(torch.zeros(1, ours.layout.size))

    def linear(name: str, module: AdaptedLinear, members: list[tuple[int, ...]]) -> None:
        slots = [0, *(1 + PATHS.index(m) for m in members)]
        views[f"{name}.weight"][0] = module.base.weight.T
        views[f"{name}.bias"][0] = module.base.bias
        views[f"{name}.A"][0] = torch.stack([module.down[s].weight.T for s in slots], 1)
        views[f"{name}.B"][0] = torch.stack([module.up[s].weight.T for s in slots])

    every = [tuple(int(m in c) for m in range(3)) for c in combinations(3)]
    with torch.no_grad():
        for m in range(3):
            inside = [member for member in every if member[m]]
            linear(f"enter.{m}", theirs.enter[m], inside)
            for number, block in enumerate(theirs.blocks[m]):
                name = f"block.{m}.{number}"
                for part, norm in (
                    (f"{name}.attention.norm", block.before_attention),
                    (f"{name}.norm", block.before_mlp),
                ):
                    views[f"{part}.gain"][0], views[f"{part}.offset"][0] = norm.weight, norm.bias
                views[f"{name}.attention.weight"][0] = block.attention.weight.T
                views[f"{name}.attention.bias"][0] = block.attention.bias
                linear(f"{name}.up", block.up, inside)
                linear(f"{name}.down", block.down, inside)
        linear("fusion", theirs.fusion, every)
        linear("head", theirs.head, every)
    return views


def _inputs(dialogues=2, length=16):
    inputs = [torch.randn(dialogues, length, d) for d in DIMS]
    there = torch.ones(dialogues, length, dtype=torch.bool)
    there[1, 9:] = False
    return inputs, there


@torch.no_grad()
def test_it_gives_what_ours_gives_under_every_combination(pair):
    theirs, ours, weights = pair
    inputs, there = _inputs()
    lanes = Lanes.of([configuration({"encoder": "trained", "fusion": "sum"})], torch.device("cpu"))
    rows = np.flatnonzero(there.flatten())
    dialogue = np.repeat(np.arange(len(there)), there.shape[1])
    flat = [x.flatten(0, 1) for x in inputs]
    given = of_rows(flat, rows, np.ones((len(dialogue), 3), dtype=bool), dialogue)
    found = ours.all_combinations(weights, *given, lanes)[0]
    for c, combination in enumerate(combinations(3)):
        kept = tuple(int(m in combination) for m in range(3))
        present = there[..., None] & torch.tensor(kept, dtype=torch.bool)
        expected = theirs(inputs, present, PATHS.index(kept))
        torch.testing.assert_close(found[c], expected[there], rtol=1e-4, atol=1e-5)


def test_training_lowers_its_loss_and_every_row_is_evaluated():
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    target = torch.from_numpy(random.integers(0, CLASSES, 60))
    features = [torch.eye(CLASSES, d)[target] * 3 + 0.1 * torch.randn(60, d) for d in DIMS]
    data = Dialogues(features, target, np.split(np.arange(60), [5, 20, 32]))
    model = Published(DIMS, CLASSES, depth=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = published.evaluate(model, data)
    for _ in range(60):
        published.train_epoch(model, optimizer, data, random)
    after = published.evaluate(model, data)
    assert len(after) == len(COMBINATIONS) and min(after) > 0.9 > max(before)
