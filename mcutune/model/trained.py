"""MCULoRA with everything trained together, after the authors' code of April 2025 (method: sections 1.2, 1.5).

Per modality: a projection, `depth` blocks of self-attention over the dialogue and an MLP (ratio 1, GELU). Adapters sit
in the projections, both linears of every MLP (twice the rank), the fusion layer and the head. The shared path runs
base, shared adapters and attention: W x + s B^com A^com x. The private path x' of the combination runs past the
attention and takes the base output of the shared one, as there: W x + s B^i A^i x'. Here, other than there: a LayerNorm
before attention and MLP, y = (1 − w) y_com + w y_char (E8; `fusion: sum` is theirs), and L_ort is trained.

Nothing is computed for a modality that a row lacks: rows are a list without padding, and each modality has its own,
shorter one (model/sequences.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from mcutune.domain.combination import membership
from mcutune.model.alignment import padded_indices
from mcutune.model.divergence import divergence
from mcutune.model.lanes import Lanes, Output, pairs_of
from mcutune.model.layout import Layout, Parameter
from mcutune.model.losses import squared_cosine
from mcutune.model.noise import Dropout
from mcutune.model.precision import baddbmm, bmm
from mcutune.model.sequences import Sequences

MLP_RANK = 2  # the adapters of the block MLPs have twice the rank
Linear = Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Name, x [P, n, D], x' [P, .., n, D] → W x + s B^com A^com x and W x + s B^i A^i x' (E1, E2)."""
Mix = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""W x [P, n, W], x' [P, .., n, D], all private A [P, D, J, R] and B [P, J, R, W], s [P, 1, 1] → W x + s B^i A^i x'."""


class TrainedNetwork:
    """The program of a pack with `encoder: trained`. Holds no parameters: they come as [P, ..] views by name."""

    def __init__(
        self, dims: tuple[int, ...], classes: int, width: int, depth: int, heads: int, rank: int,
        *, low_precision: bool, device: torch.device,
    ) -> None:  # fmt: skip
        self.dims, self.classes, self.width, self.depth = dims, classes, width, depth
        self.heads, self.rank = heads, rank
        self.kind = torch.bfloat16 if low_precision else None  # of what goes into and comes out of products
        self.member = torch.from_numpy(membership(len(dims)).copy()).to(device)  # [C, M]
        self.pairs = pairs_of(self.member)
        self.layout = Layout(tuple(self._parameters()))

    def _parameters(self) -> list[Parameter]:
        width, fused = self.width, len(self.dims) * self.width
        parameters = []
        for m, dim in enumerate(self.dims):
            slots = 1 + self.pairs[m].count
            parameters += _linear(f"enter.{m}", dim, width, slots, self.rank, 1)
            for block in range(self.depth):
                name = f"block.{m}.{block}"
                parameters += [
                    *_norm_parameters(f"{name}.attention.norm", width),
                    Parameter(f"{name}.attention.weight", (width, 3 * width), "uniform", width),
                    Parameter(f"{name}.attention.bias", (3 * width,), "zeros"),
                    *_norm_parameters(f"{name}.norm", width),
                    *_linear(f"{name}.up", width, width, slots, self.rank, MLP_RANK),
                    *_linear(f"{name}.down", width, width, slots, self.rank, MLP_RANK),
                ]
        every = 1 + len(self.member)
        return [
            *parameters,
            *_linear("fusion", fused, fused, every, self.rank, 1),
            *_linear("head", fused, self.classes, every, self.rank, 1),
            Parameter("weight.out", (fused, 1), "uniform", fused),
            Parameter("weight.bias", (1,), "zeros"),
        ]

    def modules(self, tensors: dict[str, Tensor], m: int) -> list[Tensor]:
        """Of the parameters (or what has their names and shapes) those of modality m alone: its projection and blocks.

        The fusion layer and the head, adapters included, read all modalities, so they are of none.
        """
        return [one for name, one in tensors.items() if name.startswith((f"enter.{m}.", f"block.{m}."))]

    def _low(self, x: Tensor) -> Tensor:
        """x as products take it."""
        return x if self.kind is None else x.to(self.kind)

    def _high(self, x: Tensor) -> Tensor:
        """What products gave, as the loss takes it."""
        return x if self.kind is None else x.float()

    def _plus(self, start: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """start + a × b, for a [P, n, k] and b [P, k, l]; start broadcasts."""
        return baddbmm(self._low(start), self._low(a), self._low(b))

    def _times(self, a: Tensor, b: Tensor) -> Tensor:
        """a × b, for a [P, n, k] and b [P, k, l]."""
        return self._high(bmm(self._low(a), self._low(b)))

    def _narrow(self, a: Tensor, b: Tensor) -> Tensor:
        """The same where b has few columns: as the transpose, with few rows, a CPU makes it several times faster."""
        return self._times(b.transpose(1, 2), a.transpose(1, 2)).transpose(1, 2)

    def _norm(self, params: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
        """LayerNorm of x [P, .., W] by each lane's gain and offset [P, W], as products take it."""
        gain, offset = params[f"{name}.gain"], params[f"{name}.offset"]
        if len(x) == 1:
            return self._low(functional.layer_norm(x, x.shape[-1:], gain[0], offset[0]))
        shape = len(x), *(1,) * (x.dim() - 2), x.shape[-1]
        return self._low(torch.addcmul(offset.view(shape), functional.layer_norm(x, x.shape[-1:]), gain.view(shape)))

    def _linear(
        self, params: dict[str, Tensor], name: str, shared: Tensor, private: Tensor, *, mix: Mix, lanes: Lanes,
        drop: Dropout | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """W x + s B^com A^com x (E2), and W x + s B^i A^i x' (E1, with the April code's base term).

        shared: x [P, n, D]; private: x' [P, .., n, D].
        """
        a, b = self._low(params[f"{name}.A"]), self._low(params[f"{name}.B"])
        shared, private, scale = self._low(shared), self._low(private), self._low(lanes.along("scale", 3))
        base = self._plus(params[f"{name}.bias"][:, None], shared, params[f"{name}.weight"])
        if drop is None:
            inner = self._low(self._narrow(shared, a[:, :, 0])) * scale
        else:
            inner = bmm(drop(shared, lanes.adapter_dropout, f"{name}.s"), a[:, :, 0]) * scale
        return baddbmm(base, inner, b[:, 0]), mix(base, private, a[:, :, 1:], b[:, 1:], scale)

    def _mix_chosen(self, chosen: Tensor) -> Mix:
        """The pair of each row: chosen [P, n, J] is one-hot. All are multiplied, which a narrow product hides."""
        picked = self._low(chosen[..., None].to(torch.get_default_dtype()))

        def mix(base: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
            inner = bmm(x, a.flatten(2)).unflatten(-1, a.shape[2:]) * (picked * scale[..., None])
            return baddbmm(base, inner.flatten(2), b.flatten(1, 2))

        return mix

    def _mix_every(self, base: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
        """Every pair at once: x [P, J, n, D], or [P, 1, n, D] where all read the same."""
        start = base[:, None].expand(-1, b.shape[1], -1, -1)
        x = x.expand(*b.shape[:2], -1, -1)
        inner = self._narrow(x.flatten(0, 1), a.transpose(1, 2).flatten(0, 1)).unflatten(0, b.shape[:2])
        inner = self._low(inner * scale[..., None]).flatten(0, 1)
        return baddbmm(start.flatten(0, 1), inner, b.flatten(0, 1)).unflatten(0, start.shape[:2])

    def _encode(
        self, params: dict[str, Tensor], m: int, x: Tensor, rows: Sequences, linear: Linear, private: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Shared [P, n, W] and private [P, .., n, W] representations of modality m; x [P, n, D], private: x' of it.

        What runs along (shared, private) stays float32; only products and what is between two of them is not.
        """
        shared, private = linear(f"enter.{m}", x, private)
        shared, private = self._high(shared), self._high(private)
        for block in range(self.depth):
            name = f"block.{m}.{block}"
            normed = self._norm(params, f"{name}.attention.norm", shared)
            qkv = self._plus(params[f"{name}.attention.bias"][:, None], normed, params[f"{name}.attention.weight"])
            shared = shared + rows.attend(qkv, self.heads)
            s, p = self._norm(params, f"{name}.norm", shared), self._norm(params, f"{name}.norm", private)
            s, p = linear(f"{name}.up", s, p)
            s, p = linear(f"{name}.down", functional.gelu(s), functional.gelu(p))
            shared, private = shared + s, private + p
        return shared, private

    def _drawn(
        self, params: dict[str, Tensor], m: int, x: Tensor, rows: Sequences, drawn: Tensor, lanes: Lanes, drop: Dropout
    ) -> tuple[Tensor, Tensor]:
        """Shared and private representation [P, n, W] of modality m by the pair that each row's combination has."""
        slots = self.pairs[m].slot[rows.taken(drawn)]  # [P, n]
        chosen = slots[..., None] == torch.arange(1, 1 + self.pairs[m].count, device=x.device)
        mix = self._mix_chosen(chosen)
        return self._encode(params, m, x, rows, partial(self._linear, params, mix=mix, lanes=lanes, drop=drop), x)

    def forward(
        self, params: dict[str, Tensor], inputs: list[Tensor], rows: list[Sequences], drawn: Tensor, lanes: Lanes,
        drop: Dropout,
    ) -> Output:  # fmt: skip
        """One training pass. inputs[m] [P, n_m, D_m] of the rows that rows[m] lists; drawn [P, B]: combinations."""
        shared, private, cosines = [], [], []
        for m, x in enumerate(inputs):
            s, p = self._drawn(params, m, x, rows[m], drawn, lanes, drop)
            cosines.append(rows[m].spread(squared_cosine(s, p)[..., None])[..., 0])
            shared.append(rows[m].spread(s))
            private.append(rows[m].spread(p))
        every = drawn[..., None] == torch.arange(len(self.member), device=drawn.device)
        joined, own = torch.cat(shared, -1), torch.cat(private, -1)
        mix = self._mix_chosen(every)
        fused, characteristic = self._linear(params, "fusion", joined, own, mix=mix, lanes=lanes, drop=drop)
        hidden = drop(torch.relu(fused), lanes.dropout, "fusion.s.out") + joined
        apart = drop(torch.relu(characteristic), lanes.dropout, "fusion.p.out") + own
        return Output(
            self._classify(params, hidden, apart, mix, lanes, drop), torch.stack(cosines, -1), self.member[drawn]
        )

    def _classify(
        self, params: dict[str, Tensor], hidden: Tensor, apart: Tensor, mix: Mix, lanes: Lanes, drop: Dropout | None
    ) -> Tensor:
        """Logits [P, n, K] from the fusion layer's outputs [P, n, M·W], shared and private."""
        y_common, y_characteristic = self._linear(params, "head", hidden, apart, mix=mix, lanes=lanes, drop=drop)
        weight = torch.sigmoid(self._high(self._plus(params["weight.bias"][:, None], apart, params["weight.out"])))
        return lanes.fuse(self._high(y_common), self._high(y_characteristic), weight)

    def _unimodal(
        self, params: dict[str, Tensor], m: int, x: Tensor, rows: Sequences, lanes: Lanes
    ) -> tuple[Tensor, Tensor]:
        """Shared [P, n, W] and every private [P, J, n, W] representation of modality m; x [n, D], the same for all."""
        x = x.expand(len(lanes.scale), -1, -1)
        linear = partial(self._linear, params, mix=self._mix_every, lanes=lanes, drop=None)
        return self._encode(params, m, x, rows, linear, x[:, None])

    @torch.no_grad()
    def all_combinations(
        self, params: dict[str, Tensor], inputs: list[Tensor], rows: list[Sequences], lanes: Lanes
    ) -> Tensor:
        """Logits [P, C, B, K] under every combination; inputs[m] [n_m, D_m] of the rows that rows[m] lists.

        Attention reads one modality only, so each modality is encoded once and shared by all combinations; so is what
        the fusion layer's base takes of it.
        """
        return self.differentiable(params, inputs, rows, lanes)

    def differentiable(
        self, params: dict[str, Tensor], inputs: list[Tensor], rows: list[Sequences], lanes: Lanes
    ) -> Tensor:
        """`all_combinations`, through which gradients flow."""
        encoded = [self._read(params, m, *self._unimodal(params, m, x, rows[m], lanes), rows[m])
                   for m, x in enumerate(inputs)]  # fmt: skip
        logits = []
        for c, member in enumerate(self.member.tolist()):
            here = [(s, p[:, int(pairs.slot[c]) - 1])
                    for (s, p), pairs, has in zip(encoded, self.pairs, member, strict=True) if has]  # fmt: skip
            shared, private = (sum(parts[1:], parts[0]) for parts in zip(*here, strict=True))
            logits.append(self._combined(params, c, shared, private, lanes))
        return torch.stack(logits, 1)

    def _read(
        self, params: dict[str, Tensor], m: int, shared: Tensor, private: Tensor, rows: Sequences
    ) -> tuple[Tensor, Tensor]:
        """What fusion layer and head take of R^{m,com} [P, n, W] and of every R^{m,i} [P, J, n, W], for all rows.

        Both are linear in them but for what the fusion layer gives, so a combination only adds up its modalities':
        [P, B, M·W + R + K + R] (W, A^com; W, A^com) and [P, J, B, R + R + 1] (A^i; A^i, weight).
        """
        own, pairs = slice(m * self.width, (m + 1) * self.width), self.pairs[m]
        fusion, head = params["fusion.A"][:, own], params["head.A"][:, own]
        weights = params["fusion.weight"][:, own], fusion[:, :, 0], params["head.weight"][:, own], head[:, :, 0]
        of_shared = self._times(shared, torch.cat(weights, -1))
        out = params["weight.out"][:, own, None].expand(-1, -1, pairs.count, -1)
        read = torch.cat([fusion[:, :, 1 + pairs.combinations], head[:, :, 1 + pairs.combinations], out], -1)
        every = self._narrow(private.flatten(0, 1), read.transpose(1, 2).flatten(0, 1))
        return rows.spread(of_shared), rows.spread(every).unflatten(0, private.shape[:2])

    def _combined(self, params: dict[str, Tensor], c: int, shared: Tensor, private: Tensor, lanes: Lanes) -> Tensor:
        """Logits [P, B, K] of combination c from what its modalities give of R^f and R^s (see `_read`)."""
        rank, classes, scale = self.rank, self.classes, lanes.along("scale", 3)
        base, z, to_head = shared.split([len(self.dims) * self.width, rank, classes + rank], -1)
        z_own, to_own = private.split([rank, rank + 1], -1)
        fusion_b, head_a, head_b = params["fusion.B"], params["head.A"], params["head.B"]
        base = base + params["fusion.bias"][:, None]
        hidden = torch.relu(self._high(self._plus(base, z * scale, fusion_b[:, 0])))
        apart = torch.relu(self._high(self._plus(base, z_own * scale, fusion_b[:, 1 + c])))
        to_head = to_head + self._narrow(hidden, torch.cat([params["head.weight"], head_a[:, :, 0]], -1))
        to_own = to_own + self._narrow(apart, torch.cat([head_a[:, :, 1 + c], params["weight.out"]], -1))
        y = to_head[..., :classes] + params["head.bias"][:, None]
        common = self._high(self._plus(y, to_head[..., classes:] * scale, head_b[:, 0]))
        characteristic = self._high(self._plus(y, to_own[..., :rank] * scale, head_b[:, 1 + c]))
        weight = torch.sigmoid(to_own[..., rank:] + params["weight.bias"][:, None])
        return lanes.fuse(common, characteristic, weight)

    @torch.no_grad()
    def divergences(
        self, params: dict[str, Tensor], inputs: list[Tensor], rows: list[Sequences], wanted: Tensor, lanes: Lanes,
        name: str,
    ) -> Tensor:  # fmt: skip
        """[P, C]: the named divergence of private from shared, mean over modalities and over the rows `wanted` [B]."""
        total = torch.zeros(len(lanes.scale), len(self.member), device=self.member.device)
        for m, x in enumerate(inputs):
            shared, private = self._unimodal(params, m, x, rows[m], lanes)
            here = torch.nonzero(functional.pad(wanted, (0, 1))[rows[m].place[0]])[:, 0]
            if not len(here):
                continue  # nothing to tell apart
            kept, weight = padded_indices(here.cpu().numpy(), x.device)
            each = (divergence(name, shared[:, None, kept], private[:, :, kept]) * weight).sum(2)
            total.index_add_(1, self.pairs[m].combinations, each)
        return total / self.member.sum(1)


def _linear(name: str, dim: int, width: int, slots: int, rank: int, factor: int) -> list[Parameter]:
    return [
        Parameter(f"{name}.weight", (dim, width), "uniform", dim),
        Parameter(f"{name}.bias", (width,), "zeros"),
        Parameter(f"{name}.A", (dim, slots, rank * factor), "uniform", dim, rank_axis=2, rank_factor=factor),
        Parameter(f"{name}.B", (slots, rank * factor, width), "zeros", rank_axis=1, rank_factor=factor),
    ]


def _norm_parameters(name: str, width: int) -> list[Parameter]:
    return [Parameter(f"{name}.gain", (width,), "ones"), Parameter(f"{name}.offset", (width,), "zeros")]
