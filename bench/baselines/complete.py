"""One forward pass of our own model with everything present and nothing else computed, written plainly.

What a user would pay who never asks how the model does without a modality: the floor of an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mcutune.data.dialogues import grouped
from mcutune.data.normalise import Normalisation, apply
from mcutune.model.alignment import plain_product
from mcutune.model.checkpoint import read
from mcutune.model.encoder import DialogueEncoder, UtteranceEncoder, encode, make_encoder
from mcutune.model.settings import settings

Features = dict[str, np.ndarray]
Pass = Callable[[Features, np.ndarray, np.ndarray, np.ndarray], Tensor]
"""Logits [N, K] from raw features [N, D_m], dialogue, order and group [N]."""


def complete_pass(folder: Path) -> Pass:
    """The pass of a checkpoint; weights are read and laid out before it."""
    tensors, facts = read(folder)
    names, c = tuple(facts["modalities"]), settings(facts["configuration"])
    normalisation = Normalisation.from_json(facts["normalisation"])
    encoders = _encoders(tensors, names, facts["dims"], c) if c.encoder == "frozen" else []

    @torch.no_grad()
    def work(features: Features, dialogue: np.ndarray, order: np.ndarray, group: np.ndarray) -> Tensor:
        present = np.ones((len(dialogue), len(names)), dtype=bool)
        ready = apply(normalisation, features, present, group)
        inputs = [torch.from_numpy(ready[name]) for name in names]
        dialogues = torch.from_numpy(grouped(dialogue, order)[0])
        if c.encoder == "frozen":
            here = torch.ones(len(dialogue), dtype=torch.bool)
            encoded = [encode(e, x, here, dialogues) for e, x in zip(encoders, inputs, strict=True)]
            return _frozen(tensors, inputs, encoded, c)
        kept = dialogues >= 0
        rows = dialogues[kept]
        logits = inputs[0].new_zeros(len(dialogue), len(tensors["head.bias"]))
        logits[rows] = _trained(tensors, [x[rows] for x in inputs], kept.sum(1).tolist(), c)
        return logits

    return work


def _encoders(
    tensors: dict[str, Tensor], names: tuple[str, ...], dims: list[int], c: SimpleNamespace
) -> list[UtteranceEncoder | DialogueEncoder]:
    found = []
    for name, dim in zip(names, dims, strict=True):
        encoder, prefix = make_encoder(c, dim).eval(), f"encoder.{name}."
        encoder.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        found.append(encoder)
    return found


def _product(a: Tensor, b: Tensor, c: SimpleNamespace) -> Tensor:
    """a b in the configured precision, as float32."""
    return plain_product(a, b, low_precision=c.precision == "bfloat16")


def _frozen(p: dict[str, Tensor], inputs: list[Tensor], encoded: list[Tensor], c: SimpleNamespace) -> Tensor:
    """Logits [N, K]; the last private pair of each modality is that of the complete combination."""
    common, both = p["common.bias"], p["characteristic.bias"]
    for m, (x, r) in enumerate(zip(inputs, encoded, strict=True)):
        a = p[f"adapter.{m}.A"]
        pairs = (a[0], p["shared.B"][m]), (a[-1], p["private.B"][m, -1])
        shared, private = (c.scale * _product(_product(x, down.T, c), up, c) for down, up in pairs)
        common = common + _product(r, p["common.encoder"][m].T, c) + _product(shared, p["common.adapter"][m], c)
        both = both + _product(private, p["characteristic"][m], c)
    classes = common.shape[-1]
    weight = torch.sigmoid(torch.relu(both[:, classes:]) @ p["weight.out"] + p["weight.bias"])
    return (1 - weight) * common + weight * both[:, :classes]


def _trained(p: dict[str, Tensor], inputs: list[Tensor], lengths: list[int], c: SimpleNamespace) -> Tensor:
    """Logits [N, K] of inputs[m] [N, D_m], one dialogue of those lengths after the other, without padding."""

    def linear(name: str, x: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """The shared path, and the private one of the last slot: the complete combination's."""
        base, a, b = _product(x, p[f"{name}.weight"], c) + p[f"{name}.bias"], p[f"{name}.A"], p[f"{name}.B"]
        shared, private = (c.scale * _product(_product(y, a[:, s], c), b[s], c) for y, s in ((x, 0), (own, -1)))
        return base + shared, base + private

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], p[f"{name}.gain"], p[f"{name}.offset"])

    def attended(name: str, x: Tensor) -> Tensor:
        qkv = _product(norm(f"{name}.norm", x), p[f"{name}.weight"], c) + p[f"{name}.bias"]
        mixed = []
        for part in qkv.split(lengths):
            q, k, v = part.unflatten(-1, (3, c.heads, -1)).permute(1, 2, 0, 3)[:, None]
            mixed.append(functional.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1))
        return torch.cat(mixed)

    def encoded(m: int, x: Tensor) -> tuple[Tensor, Tensor]:
        shared, own = linear(f"enter.{m}", x, x)
        for block in range(c.depth):
            name = f"block.{m}.{block}"
            shared = shared + attended(f"{name}.attention", shared)
            inner = linear(f"{name}.up", norm(f"{name}.norm", shared), norm(f"{name}.norm", own))
            more = linear(f"{name}.down", functional.gelu(inner[0]), functional.gelu(inner[1]))
            shared, own = shared + more[0], own + more[1]
        return shared, own

    every = [encoded(m, x) for m, x in enumerate(inputs)]
    joined, private = (torch.cat([one[path] for one in every], -1) for path in (0, 1))
    fused = linear("fusion", joined, private)
    common, own = torch.relu(fused[0]) + joined, torch.relu(fused[1]) + private
    weight = torch.sigmoid(own @ p["weight.out"] + p["weight.bias"])
    heads = linear("head", common, own)
    return (1 - weight) * heads[0] + weight * heads[1]
