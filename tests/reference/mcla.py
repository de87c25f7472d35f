"""The slow twin of the packed model: one lane, one row at a time, straight from the equations, no tricks."""

from __future__ import annotations

import torch
from torch import Tensor

from mcutune.domain.combination import combinations


def frozen_row(params: dict[str, Tensor], x: list[Tensor], encoded: list[Tensor], c: int, scale: float, fusion: str):
    """Logits [K] and the list of (m, cos²) of one row under combination index c. params without the lane axis."""
    many = len(x)
    combination = combinations(many)[c]
    classes = params["common.bias"].shape[0]
    y_common = params["common.bias"].clone()
    both = params["characteristic.bias"].clone()
    cosines = {}
    for m in combination.modalities():
        with_m = [i for i, other in enumerate(combinations(many)) if m in other]
        own = 1 + with_m.index(c)
        a = params[f"adapter.{m}.A"]
        b = [params["shared.B"][m], *params["private.B"][m]]
        shared = scale * (a[0] @ x[m]) @ b[0]
        private = scale * (a[own] @ x[m]) @ b[own]
        y_common = y_common + params["common.encoder"][m] @ encoded[m] + shared @ params["common.adapter"][m]
        both = both + private @ params["characteristic"][m]
        cosines[m] = (shared @ private) ** 2 / ((shared @ shared) * (private @ private) + 1e-12)
    y_characteristic, hidden = both[:classes], torch.relu(both[classes:])
    w = torch.sigmoid(hidden @ params["weight.out"] + params["weight.bias"])
    mixed = {
        "adaptive": (1 - w) * y_common + w * y_characteristic,
        "sum": y_common + y_characteristic,
        "common": y_common,
        "characteristic": y_characteristic,
    }
    return mixed[fusion], cosines


def frozen_loss(params, x, encoded, drawn, target, scale, beta, fusion, absolute):
    """Total loss of one lane's batch: rows in a loop. x[m] [B, D], drawn [B], target [B]."""
    losses, cosines = [], []
    for row in range(len(drawn)):
        logits, cos = frozen_row(params, [a[row] for a in x], encoded[:, row], int(drawn[row]), scale, fusion)
        if target.is_floating_point():
            losses.append((logits[0] - target[row]) ** 2)
        else:
            losses.append(torch.logsumexp(logits, 0) - logits[target[row]])
        cosines += [(v + 1e-12).sqrt() if absolute else v for v in cos.values()]
    return torch.stack(losses).mean() + beta * torch.stack(cosines).mean()


def linear(params, name, x, slot, scale, adapted=None):
    """W x + s B A x; with `adapted` the adapter reads that instead, as on a private path."""
    a, b = params[f"{name}.A"], params[f"{name}.B"]
    read = x if adapted is None else adapted
    return x @ params[f"{name}.weight"] + params[f"{name}.bias"] + scale * (read @ a[:, slot]) @ b[slot]


def norm(params, name, x):
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + 1e-5) * params[f"{name}.gain"] + params[f"{name}.offset"]


def attention(qkv, heads, attended):
    """What each of T utterances takes from those attended to; qkv: T vectors [3 W]."""
    if not qkv:
        return []
    width = len(qkv[0]) // 3
    size = width // heads
    mixed = []
    for own in qkv:
        pieces = []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            scores = [own[:width][part] @ qkv[u][width : 2 * width][part] / size**0.5 for u in attended]
            weights = torch.stack(scores).softmax(0)
            pieces.append(sum(w * qkv[u][2 * width :][part] for w, u in zip(weights, attended, strict=True)))
        mixed.append(torch.cat(pieces))
    return mixed


def modality(params, m, x, here, slots, scale, depth, heads):
    """Shared and private of the utterances that have modality m; slots: the private slot of each utterance."""
    shared = {t: linear(params, f"enter.{m}", x[t], 0, scale) for t in here}
    private = {t: linear(params, f"enter.{m}", x[t], slots[t], scale, x[t]) for t in here}
    for block in range(depth):
        name = f"block.{m}.{block}"
        qkv = [
            norm(params, f"{name}.attention.norm", shared[t]) @ params[f"{name}.attention.weight"]
            + params[f"{name}.attention.bias"]
            for t in here
        ]
        for t, mixed in zip(here, attention(qkv, heads, range(len(here))), strict=True):
            h, p = shared[t] + mixed, private[t]
            n_h, n_p = norm(params, f"{name}.norm", h), norm(params, f"{name}.norm", p)
            i_h = torch.nn.functional.gelu(linear(params, f"{name}.up", n_h, 0, scale))
            i_p = torch.nn.functional.gelu(linear(params, f"{name}.up", n_h, slots[t], scale, n_p))
            shared[t] = h + linear(params, f"{name}.down", i_h, 0, scale)
            private[t] = p + linear(params, f"{name}.down", i_h, slots[t], scale, i_p)
    return shared, private


def trained_dialogue(params, x, present, scale, depth, heads, fusion):
    """Logits [T, K] of one dialogue. x[m] [T, D]; present [T, M]; everything row by row."""
    many, length = len(x), len(present)
    every = combinations(many)
    rows = [next(i for i, c in enumerate(every) if c.modalities() == tuple(present[t].nonzero()[:, 0].tolist()))
            for t in range(length)]  # fmt: skip
    found = []
    for m in range(many):
        with_m = [i for i, c in enumerate(every) if m in c]
        here = [t for t in range(length) if present[t, m]]
        slots = {t: 1 + with_m.index(rows[t]) for t in here}
        found.append(modality(params, m, x[m], here, slots, scale, depth, heads))
    nothing = torch.zeros_like(params["enter.0.bias"])
    logits = []
    for t in range(length):
        f_s, f_p = (torch.cat([each[kind].get(t, nothing) for each in found]) for kind in (0, 1))
        common = torch.relu(linear(params, "fusion", f_s, 0, scale)) + f_s
        own = torch.relu(linear(params, "fusion", f_s, 1 + rows[t], scale, f_p)) + f_p
        y_common = linear(params, "head", common, 0, scale)
        y_own = linear(params, "head", common, 1 + rows[t], scale, own)
        w = torch.sigmoid(own @ params["weight.out"] + params["weight.bias"])
        logits.append({"adaptive": (1 - w) * y_common + w * y_own, "sum": y_common + y_own}[fusion])
    return torch.stack(logits)
