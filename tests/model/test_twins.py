"""The packed model against its slow twin: values and gradients, over skewed and uniform mixtures of combinations."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mcutune.domain.combination import combinations
from mcutune.model import adapted
from mcutune.model.frozen import FrozenNetwork
from mcutune.model.lanes import FUSIONS, Lanes, Output
from mcutune.model.losses import orthogonality, task_loss
from mcutune.model.noise import Dropout
from mcutune.model.sequences import of_rows, sequences
from mcutune.model.trained import TrainedNetwork
from tests.reference.mcla import frozen_loss, frozen_row, trained_dialogue

CPU = torch.device("cpu")


def lanes_of(count, fusion="adaptive", absolute=False):
    t = torch.linspace(0.5, 2.0, count)
    return Lanes(
        t, 0.1 * t, torch.zeros(count), torch.zeros(count), torch.tensor([absolute] * count),
        torch.tensor([FUSIONS.index(fusion)] * count),
    )  # fmt: skip


def filled(network, lanes):
    """Deterministic parameters without a random generator, so that padding and order are visible."""
    size = network.layout.size
    flat = torch.sin(torch.arange(lanes * size, dtype=torch.float64) * 0.7).view(lanes, size).float() * 0.4
    return network.layout.views(flat)


def no_drop(count):
    return Dropout([(0, 0, p) for p in range(count)], CPU)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("mixture", ["uniform", "skewed", "one"])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("cohorts, part, padding", [((1, 1, 1), 128, 32), ((2, 1), 128, 32), ((2, 1), 4, 2)])
def test_frozen_values_and_gradients_equal_the_slow_twin(
    fusion, mixture, absolute, cohorts, part, padding, monkeypatch
):
    """Also where a batch is summed in parts, and where each pair has a product of its own (few rows: one for all)."""
    monkeypatch.setattr(adapted, "PART", part)
    monkeypatch.setattr(adapted, "ROWS", padding)
    lanes, batch, dims = 3, 9, (5, 3, 4)
    network = FrozenNetwork(dims, 4, 6, 2, low_precision=False, device=CPU)
    settings = lanes_of(lanes, fusion, absolute)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(lanes, batch, d, generator=generator) for d in dims]
    encoded = torch.randn(lanes, 3, batch, 6, generator=generator)
    if cohorts == (2, 1):
        inputs, encoded = [x[[0, 0, 2]] for x in inputs], encoded[[0, 0, 2]]
    first = [0, 2] if cohorts == (2, 1) else [0, 1, 2]
    drawn = {
        "uniform": torch.randint(7, (lanes, batch), generator=generator),
        "skewed": torch.where(torch.rand(lanes, batch, generator=generator) < 0.8, 6, 1),
        "one": torch.full((lanes, batch), 3),
    }[mixture]
    target = torch.randint(4, (lanes, batch), generator=generator)
    views = {name: v.clone().requires_grad_() for name, v in filled(network, lanes).items()}
    out = network.forward(
        views, [x[first] for x in inputs], encoded[first], drawn.numpy(), settings, no_drop(len(first)), cohorts
    )
    present = out.present.float()
    share = present / present.sum((1, 2), keepdim=True)
    total = task_loss(out.logits, target, torch.full((lanes, batch), 1 / batch))
    total = total + settings.beta * orthogonality(out.cos2, share, settings.absolute)
    packed = torch.autograd.grad(total.sum(), list(views.values()), allow_unused=True)
    for p in range(lanes):
        alone = {name: v[p].detach().clone().requires_grad_() for name, v in views.items()}
        loss = frozen_loss(
            alone, [x[p] for x in inputs], encoded[p], drawn[p], target[p],
            float(settings.scale[p]), float(settings.beta[p]), fusion, absolute,
        )  # fmt: skip
        torch.testing.assert_close(total[p], loss, rtol=1e-5, atol=1e-6)
        slow = torch.autograd.grad(loss, list(alone.values()), allow_unused=True)
        for name, fast, one in zip(views, packed, slow, strict=True):
            expected = torch.zeros_like(alone[name]) if one is None else one
            torch.testing.assert_close(fast[p], expected, rtol=2e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dims", [(4,), (5, 3), (5, 3, 4), (2, 3, 2, 4)])
def test_all_combinations_equals_row_by_row(dims):
    lanes, rows = 2, 5
    network = FrozenNetwork(dims, 3, 6, 2, low_precision=False, device=CPU)
    settings = lanes_of(lanes)
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(rows, d, generator=generator) for d in dims]
    encoded = torch.randn(lanes, len(dims), rows, 6, generator=generator)
    views = filled(network, lanes)
    fast = network.all_combinations(views, inputs, encoded, settings, [1] * lanes)
    for p in range(lanes):
        alone = {name: v[p] for name, v in views.items()}
        for c in range(2 ** len(dims) - 1):
            for n in range(rows):
                slow, _ = frozen_row(
                    alone, [x[n] for x in inputs], encoded[p, :, n], c, float(settings.scale[p]), "adaptive"
                )
                torch.testing.assert_close(fast[p, c, n], slow, rtol=1e-4, atol=1e-5)


def run_trained(network, views, inputs, present, settings, padded=True):
    """Output of inputs[m] [P, G, T, D] with present [P, G, T, M]; lanes together with padding, or one after another."""
    lanes, groups, length = present.shape[:3]
    bits = 1 << torch.arange(present.shape[-1])
    lookup = {c.mask: i for i, c in enumerate(combinations(present.shape[-1]))}
    drawn = torch.tensor([lookup[int(mask)] for mask in (present * bits).sum(-1).flatten()]).view(lanes, -1)
    dialogue = np.repeat(np.arange(groups), length)[None]
    outputs = []
    for p in [slice(0, lanes)] if padded else [slice(p, p + 1) for p in range(lanes)]:
        flags = present[p].flatten(1, 2).numpy()
        many = np.repeat(dialogue, len(flags), 0)
        lists = [sequences(flags[..., m], many, CPU) for m in range(len(inputs))]
        assert all((one.blocks is None) == (len(flags) == 1) for one in lists)
        given = []
        for x, one in zip(inputs, lists, strict=True):
            rows = torch.nn.functional.pad(x[p].flatten(1, 2), (0, 0, 0, 1))
            given.append(torch.stack([r[i] for r, i in zip(rows, one.place, strict=True)]))
        some = {name: view[p] for name, view in views.items()}
        outputs.append(network.forward(some, given, lists, drawn[p], settings.part(p), no_drop(len(flags))))
    return Output(*(torch.cat([getattr(o, f) for o in outputs]) for f in ("logits", "cos2", "present")))


@pytest.mark.parametrize("fusion", ["adaptive", "sum"])
@pytest.mark.parametrize("padded", [True, False])
def test_trained_values_and_gradients_equal_the_slow_twin(fusion, padded):
    lanes, groups, length, dims, depth, heads = 2, 2, 4, (5, 3, 4), 2, 2
    network = TrainedNetwork(dims, 3, 8, depth, heads, 2, low_precision=False, device=CPU)
    settings = lanes_of(lanes, fusion)
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(lanes, groups, length, d, generator=generator) for d in dims]
    present = torch.rand(lanes, groups, length, 3, generator=generator) < 0.6
    present[..., 0] |= ~present.any(-1)
    views = {name: v.clone().requires_grad_() for name, v in filled(network, lanes).items()}
    out = run_trained(network, views, inputs, present, settings, padded)
    out = replace(out, logits=out.logits.unflatten(1, (groups, length)))
    weights = torch.sin(torch.arange(out.logits.numel(), dtype=torch.float32)).view(out.logits.shape)
    packed = torch.autograd.grad((out.logits * weights).sum(), list(views.values()), allow_unused=True)
    for p in range(lanes):
        alone = {name: v[p].detach().clone().requires_grad_() for name, v in views.items()}
        slow = torch.stack([
            trained_dialogue(
                alone, [x[p, g] for x in inputs], present[p, g], float(settings.scale[p]), depth, heads, fusion
            )
            for g in range(groups)
        ])  # fmt: skip
        torch.testing.assert_close(out.logits[p], slow, rtol=1e-4, atol=1e-4)
        gradients = torch.autograd.grad((slow * weights[p]).sum(), list(alone.values()), allow_unused=True)
        for name, fast, one in zip(views, packed, gradients, strict=True):
            if fast is None:
                assert one is None
                continue
            expected = torch.zeros_like(alone[name]) if one is None else one
            torch.testing.assert_close(fast[p], expected, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kind", ["frozen", "trained"])
def test_a_padded_rank_is_the_true_rank_in_float64(kind):
    """Values and gradients agree to 1e-12, and the padding's own gradient is exactly zero."""
    lanes, rows, dims, settings = 2, 8, (5, 3, 4), lanes_of(2)
    generator = torch.Generator().manual_seed(4)
    inputs = [torch.randn(lanes, rows, d, generator=generator, dtype=torch.float64) for d in dims]
    encoded = torch.randn(lanes, 3, rows, 16, generator=generator, dtype=torch.float64)
    drawn = torch.randint(7, (lanes, rows), generator=generator)
    results = []
    for rank in (2, 5):
        if kind == "frozen":
            network = FrozenNetwork(dims, 3, 16, rank, low_precision=False, device=CPU)
        else:
            network = TrainedNetwork(dims, 3, 16, 1, 2, rank, low_precision=False, device=CPU)
        vector = torch.from_numpy(network.layout.initial(0, 0, 2))
        tensors = {
            n: t + torch.sin(torch.arange(t.numel())).view(t.shape)
            for n, t in network.layout.unpadded(vector, 2).items()
        }
        flat = torch.stack([network.layout.padded(tensors)] * lanes).double()
        views = {n: v.clone().requires_grad_() for n, v in network.layout.views(flat).items()}
        if kind == "frozen":
            logits = network_forward(network, views, inputs, encoded, drawn, settings)
        else:
            present = network.member[drawn][:, None]
            logits = run_trained(network, views, [x[:, None] for x in inputs], present, settings).logits
        gradients = torch.autograd.grad((logits**2).sum(), list(views.values()), allow_unused=True)
        gradients = [torch.zeros_like(v) if g is None else g for g, v in zip(gradients, views.values(), strict=True)]
        whole = torch.cat([g.flatten(1) for g in gradients], 1)
        whole = torch.nn.functional.pad(whole, (0, network.layout.size - whole.shape[1]))
        results.append((logits.flatten(), network.layout.unpadded(whole[0], 2)))
        again = network.layout.padded(results[-1][1]).double()
        assert (again == 0).eq(whole[0].float().double() == 0).all()  # nothing outside the true rank
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-12, atol=1e-12)
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(gradient, results[1][1][name], rtol=1e-10, atol=1e-10, msg=name)


def network_forward(network, views, inputs, encoded, drawn, settings):
    return network.forward(
        views, inputs, encoded, drawn.numpy(), settings, no_drop(len(drawn)), [1] * len(drawn)
    ).logits


def test_trained_all_combinations_equals_forward():
    lanes, groups, length, dims = 2, 3, 4, (5, 3, 4)
    network = TrainedNetwork(dims, 3, 8, 1, 2, 2, low_precision=False, device=CPU)
    settings = lanes_of(lanes)
    generator = torch.Generator().manual_seed(3)
    inputs = [torch.randn(groups, length, d, generator=generator) for d in dims]
    rows, dialogue = np.arange(groups * length), np.repeat(np.arange(groups), length)
    flat = [x.flatten(0, 1) for x in inputs]
    views = filled(network, lanes)
    fast = network.all_combinations(
        views, *of_rows(flat, rows, np.ones((len(rows), 3), dtype=bool), dialogue), settings
    )
    for c, member in enumerate(network.member):
        present = member.expand(lanes, groups, length, 3)
        many = [x.expand(lanes, -1, -1, -1) for x in inputs]
        slow = run_trained(network, views, many, present, settings).logits
        torch.testing.assert_close(fast[:, c], slow, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padded", [True, False])
def test_a_dialogue_without_a_modality_stays_finite(padded):
    network = TrainedNetwork((5, 3), 3, 16, 1, 2, 2, low_precision=False, device=CPU)
    views = {name: v.clone().requires_grad_() for name, v in filled(network, 1).items()}
    inputs = [torch.randn(1, 2, 4, d, generator=torch.Generator().manual_seed(5)) for d in (5, 3)]
    present = torch.ones(1, 2, 4, 2, dtype=torch.bool)
    present[0, 1, :, 0] = False
    out = run_trained(network, views, inputs, present, lanes_of(1), padded)
    gradients = torch.autograd.grad(out.logits.square().sum(), list(views.values()), allow_unused=True)
    assert torch.isfinite(out.logits).all()
    assert all(g is None or torch.isfinite(g).all() for g in gradients)


def test_rows_are_spread_where_padding_makes_up_their_number():
    """48 of 64 rows, padded to 64: not every row has the modality."""
    present = np.arange(64)[None] % 4 != 0
    dialogue = np.repeat(np.arange(8), 8)[None]
    alone = sequences(present, dialogue, CPU)
    padded = sequences(present.repeat(2, 0), dialogue.repeat(2, 0), CPU)
    one = replace(padded, place=padded.place[:1], blocks=padded.blocks[:1], back=padded.back[:1])  # as on a GPU
    assert one.place.shape[1] == one.count
    x = torch.randn(1, 48, 5)
    spread = one.spread(torch.nn.functional.pad(x, (0, 0, 0, 16)))
    assert torch.equal(spread, alone.spread(x))
    assert torch.equal(spread[0, present[0]], x[0]) and not spread[0, ~present[0]].any()
