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
        rows = dialogues.clamp_min(0)
        logits = inputs[0].new_zeros(len(dialogue), len(tensors["head.bias"]))
        kept = dialogues >= 0
        logits[dialogues[kept]] = _trained(tensors, [x[rows] for x in inputs], kept, c)[kept]
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
    return (a.bfloat16() @ b.bfloat16()).float() if c.precision == "bfloat16" else a @ b


def _frozen(p: dict[str, Tensor], inputs: list[Tensor], encoded: list[Tensor], c: SimpleNamespace) -> Tensor:
    """Logits [N, K]; the last private pair of each modality is that of the complete combination."""
    common, both = p["common.bias"], p["characteristic.bias"]
    for m, (x, r) in enumerate(zip(inputs, encoded, strict=True)):
        a, b = p[f"adapter.{m}.A"], p["adapter.B"][m]
        shared, private = (c.scale * _product(_product(x, a[slot].T, c), b[slot], c) for slot in (0, -1))
        common = common + _product(r, p["common.encoder"][m].T, c) + _product(shared, p["common.adapter"][m], c)
        both = both + _product(private, p["characteristic"][m], c)
    classes = common.shape[-1]
    weight = torch.sigmoid(torch.relu(both[:, classes:]) @ p["weight.out"] + p["weight.bias"])
    return (1 - weight) * common + weight * both[:, :classes]


def _trained(p: dict[str, Tensor], inputs: list[Tensor], there: Tensor, c: SimpleNamespace) -> Tensor:
    """Logits [G, T, K] of inputs[m] [G, T, D_m], there [G, T]."""

    def linear(name: str, x: Tensor, slot: int) -> Tensor:
        adapted = _product(_product(x, p[f"{name}.A"][:, slot], c), p[f"{name}.B"][slot], c)
        return _product(x, p[f"{name}.weight"], c) + p[f"{name}.bias"] + c.scale * adapted

    def norm(x: Tensor, affine: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], affine[0], affine[1] - 1)

    def encoded(m: int, x: Tensor, slot: int) -> Tensor:
        hidden = linear(f"enter.{m}", x, slot)
        for block in range(c.depth):
            name = f"block.{m}.{block}"
            if slot == 0:
                normed, weight = norm(hidden, p[f"{name}.norm"][0]), p[f"{name}.attention.weight"]
                qkv = _product(normed, weight, c) + p[f"{name}.attention.bias"]
                q, k, v = qkv.unflatten(-1, (3, c.heads, -1)).permute(2, 0, 3, 1, 4)
                mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None])
                hidden = hidden + mixed.transpose(1, 2).flatten(2)
            inner = functional.gelu(linear(f"{name}.up", norm(hidden, p[f"{name}.norm"][1]), slot))
            hidden = hidden + linear(f"{name}.down", inner, slot)
        return hidden

    def fused(slot: int) -> Tensor:
        joined = torch.cat([encoded(m, x, slot) for m, x in enumerate(inputs)], -1)
        return torch.relu(linear("fusion", joined, slot)) + joined

    common, own = fused(0), fused(-1)
    weight = torch.sigmoid(own @ p["weight.out"] + p["weight.bias"])
    return (1 - weight) * linear("head", common, 0) + weight * linear("head", own, -1)
