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
        a, b = params[f"adapter.{m}.A"], params["adapter.B"][m]
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


def linear(params, name, x, slot, scale):
    a, b = params[f"{name}.A"], params[f"{name}.B"]
    return x @ params[f"{name}.weight"] + params[f"{name}.bias"] + scale * (x @ a[:, slot]) @ b[slot]


def norm(x, affine):
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + 1e-5) * affine[0] + affine[1] - 1


def trained_dialogue(params, x, present, scale, depth, heads, fusion):
    """Logits [T, K] of one dialogue. x[m] [T, D]; present [T, M]; everything row by row."""
    many, length = len(x), len(present)
    every = combinations(many)
    rows = [next(i for i, c in enumerate(every) if c.modalities() == tuple(present[t].nonzero()[:, 0].tolist()))
            for t in range(length)]  # fmt: skip
    shared, private = [], []
    for m in range(many):
        here = [t for t in range(length) if present[t, m]]
        attended = here or list(range(length))
        values = [x[m][t] if present[t, m] else torch.zeros_like(x[m][t]) for t in range(length)]
        hidden = [linear(params, f"enter.{m}", v, 0, scale) for v in values]
        for block in range(depth):
            name = f"block.{m}.{block}"
            normed = [norm(h, params[f"{name}.norm"][0]) for h in hidden]
            qkv = [n @ params[f"{name}.attention.weight"] + params[f"{name}.attention.bias"] for n in normed]
            width = len(hidden[0])
            size = width // heads
            mixed = []
            for t in range(length):
                pieces = []
                for h in range(heads):
                    part = slice(h * size, (h + 1) * size)
                    q = qkv[t][:width][part]
                    weights = torch.stack([q @ qkv[u][width : 2 * width][part] / size**0.5 for u in attended]).softmax(
                        0
                    )
                    pieces.append(sum(w * qkv[u][2 * width :][part] for w, u in zip(weights, attended, strict=True)))
                mixed.append(torch.cat(pieces))
            hidden = [h + a for h, a in zip(hidden, mixed, strict=True)]
            inner = [linear(params, f"{name}.up", norm(h, params[f"{name}.norm"][1]), 0, scale) for h in hidden]
            hidden = [h + linear(params, f"{name}.down", torch.nn.functional.gelu(i), 0, scale)
                      for h, i in zip(hidden, inner, strict=True)]  # fmt: skip
        with_m = [i for i, c in enumerate(every) if m in c]
        own = []
        for t in range(length):
            if not present[t, m]:
                own.append(torch.zeros_like(hidden[t]))
                continue
            slot = 1 + with_m.index(rows[t])
            p = linear(params, f"enter.{m}", x[m][t], slot, scale)
            for block in range(depth):
                name = f"block.{m}.{block}"
                up = linear(params, f"{name}.up", norm(p, params[f"{name}.norm"][1]), slot, scale)
                p = p + linear(params, f"{name}.down", torch.nn.functional.gelu(up), slot, scale)
            own.append(p)
        shared.append([h if present[t, m] else torch.zeros_like(h) for t, h in enumerate(hidden)])
        private.append(own)
    logits = []
    for t in range(length):
        f_s, f_p = torch.cat([s[t] for s in shared]), torch.cat([p[t] for p in private])
        common = torch.relu(linear(params, "fusion", f_s, 0, scale)) + f_s
        own = torch.relu(linear(params, "fusion", f_p, 1 + rows[t], scale)) + f_p
        y_common = linear(params, "head", common, 0, scale)
        y_own = linear(params, "head", own, 1 + rows[t], scale)
        w = torch.sigmoid(own @ params["weight.out"] + params["weight.bias"])
        logits.append({"adaptive": (1 - w) * y_common + w * y_own, "sum": y_common + y_own}[fusion])
    return torch.stack(logits)
