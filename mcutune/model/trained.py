"""MCULoRA with everything trained together, after the authors' code of April 2025 (method: sections 1.2, 1.5).

Per modality: a projection, `depth` blocks of self-attention over the dialogue and an MLP (ratio 1, GELU). Adapters sit
in the projections, both linears of every MLP (twice the rank), the fusion layer and the head. The shared path runs
base, shared adapters and attention; the private path runs base and the private adapters of the combination, past the
attention. Here, other than there: y = (1 − w) y_com + w y_char (E8; `fusion: sum` is theirs) and L_ort is trained.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mcutune.domain.combination import combinations, membership
from mcutune.model.alignment import padded_indices, product
from mcutune.model.divergence import divergence
from mcutune.model.lanes import Lanes, Output, pairs_of
from mcutune.model.layout import Layout, Parameter
from mcutune.model.losses import squared_cosine
from mcutune.model.noise import Dropout

MLP_RANK = 2  # the adapters of the block MLPs have twice the rank


class TrainedNetwork:
    """The program of a pack with `encoder: trained`. Holds no parameters: they come as [P, ..] views by name."""

    def __init__(
        self, dims: tuple[int, ...], classes: int, width: int, depth: int, heads: int, rank: int,
        *, low_precision: bool, device: torch.device,
    ) -> None:  # fmt: skip
        self.dims, self.classes, self.width, self.depth, self.heads, self.rank = (
            dims,
            classes,
            width,
            depth,
            heads,
            rank,
        )
        self.low_precision = low_precision
        self.member = torch.from_numpy(membership(len(dims)).copy()).to(device)  # [C, M]
        self.pairs = pairs_of(self.member)
        lookup = torch.zeros(2 ** len(dims), dtype=torch.long)
        for index, combination in enumerate(combinations(len(dims))):
            lookup[combination.mask] = index
        self._lookup = lookup.to(device)
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
                    Parameter(f"{name}.norm", (2, 2, width), "ones"),
                    Parameter(f"{name}.attention.weight", (width, 3 * width), "uniform", width),
                    Parameter(f"{name}.attention.bias", (3 * width,), "zeros"),
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

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """[P, n, k] × [P, k, l] in the configured precision."""
        return product(a, b, low_precision=self.low_precision)

    def _base(self, params: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
        return self.product(x, params[f"{name}.weight"]) + params[f"{name}.bias"][:, None]

    def _shared(self, params: dict[str, Tensor], name: str, x: Tensor, lanes: Lanes, drop: Dropout | None) -> Tensor:
        """W x + s B^com A^com x (E2) of x [P, n, D]."""
        dropped = x if drop is None else drop(x, lanes.adapter_dropout, f"{name}.s")
        inner = self.product(dropped, params[f"{name}.A"][:, :, 0])
        return self._base(params, name, x) + self.product(inner, params[f"{name}.B"][:, 0]) * lanes.along("scale", 3)

    def _private(
        self, params: dict[str, Tensor], name: str, x: Tensor, chosen: Tensor, lanes: Lanes, drop: Dropout | None
    ) -> Tensor:
        """W x + s B^i A^i x (E1, with the April code's base term); chosen [P, n, slots − 1]: the pair of each row."""
        dropped = x if drop is None else drop(x, lanes.adapter_dropout, f"{name}.p")
        a, b = params[f"{name}.A"], params[f"{name}.B"]
        inner = self.product(dropped, a[:, :, 1:].flatten(2)).unflatten(-1, (chosen.shape[-1], -1))
        inner = (inner * chosen[..., None].to(inner.dtype)).flatten(2)
        return self._base(params, name, x) + self.product(inner, b[:, 1:].flatten(1, 2)) * lanes.along("scale", 3)

    def _attend(self, params: dict[str, Tensor], name: str, x: Tensor, keys: Tensor) -> Tensor:
        """Self-attention over the dialogue of x [P, G, T, W]; keys [P·G, T]: utterances that can be attended to."""
        lane_count, groups, length, width = x.shape
        qkv = self.product(x.flatten(1, 2), params[f"{name}.weight"]) + params[f"{name}.bias"][:, None]
        qkv = qkv.view(lane_count * groups, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=keys[:, None, None])
        return mixed.transpose(1, 2).reshape(x.shape)

    def _encode_shared(
        self, params: dict[str, Tensor], m: int, x: Tensor, has: Tensor, lanes: Lanes, drop: Dropout | None
    ) -> Tensor:
        """Shared representation [P, G·T, W] of modality m from x [P, G, T, D] with has [P, G, T]."""
        shape = x.shape[:3]
        keys = has.flatten(0, 1)  # a dialogue without any gives zeros, which are never read
        hidden = self._shared(params, f"enter.{m}", x.flatten(1, 2), lanes, drop)
        for block in range(self.depth):
            name = f"block.{m}.{block}"
            normed = _norm(hidden, params[f"{name}.norm"][:, 0])
            hidden = hidden + self._attend(params, f"{name}.attention", normed.view(*shape, -1), keys).flatten(1, 2)
            inner = self._shared(params, f"{name}.up", _norm(hidden, params[f"{name}.norm"][:, 1]), lanes, drop)
            hidden = hidden + self._shared(params, f"{name}.down", functional.gelu(inner), lanes, drop)
        return hidden

    def _encode_private(
        self, params: dict[str, Tensor], m: int, x: Tensor, chosen: Tensor, lanes: Lanes, drop: Dropout | None
    ) -> Tensor:
        """Private representation [P, n, W] of modality m from x [P, n, D]; chosen [P, n, pairs]."""
        hidden = self._private(params, f"enter.{m}", x, chosen, lanes, drop)
        for block in range(self.depth):
            name = f"block.{m}.{block}"
            normed = _norm(hidden, params[f"{name}.norm"][:, 1])
            inner = self._private(params, f"{name}.up", normed, chosen, lanes, drop)
            hidden = hidden + self._private(params, f"{name}.down", functional.gelu(inner), chosen, lanes, drop)
        return hidden

    def _classify(
        self,
        params: dict[str, Tensor],
        shared: Tensor,
        private: Tensor,
        chosen: Tensor,
        lanes: Lanes,
        drop: Dropout | None,
    ) -> Tensor:
        """Logits [P, n, K] from concatenated R^f, R^s [P, n, M·W] (zeros where absent); chosen [P, n, C]."""

        def hidden(inner: Tensor, skip: Tensor, site: str) -> Tensor:
            inner = torch.relu(inner)
            return (inner if drop is None else drop(inner, lanes.dropout, site)) + skip

        common = hidden(self._shared(params, "fusion", shared, lanes, drop), shared, "fusion.s.out")
        own = hidden(self._private(params, "fusion", private, chosen, lanes, drop), private, "fusion.p.out")
        y_common = self._shared(params, "head", common, lanes, drop)
        y_characteristic = self._private(params, "head", own, chosen, lanes, drop)
        weight = torch.sigmoid(self.product(own, params["weight.out"]) + params["weight.bias"][:, None])
        return lanes.fuse(y_common, y_characteristic, weight)

    def forward(
        self, params: dict[str, Tensor], inputs: list[Tensor], present: Tensor, lanes: Lanes, drop: Dropout
    ) -> Output:
        """One training pass. inputs[m] [P, G, T, D_m]; present [P, G, T, M]. Output axes [P, G, T, ..]."""
        bits = 1 << torch.arange(len(self.dims), device=present.device)
        row = self._lookup[(present * bits).sum(-1)].flatten(1)  # combination of each row, [P, G·T]
        shared, private, cosines = [], [], []
        for m, x in enumerate(inputs):
            here = present[..., m].flatten(1)[..., None]
            x = torch.where(present[..., m, None], x, 0.0)
            s = self._encode_shared(params, m, x, present[..., m], lanes, drop)
            p = self._encode_private(params, m, x.flatten(1, 2), self._chosen(m, row), lanes, drop)
            cosines.append(squared_cosine(s, p))
            shared.append(torch.where(here, s, 0.0))
            private.append(torch.where(here, p, 0.0))
        every = row[..., None] == torch.arange(len(self.member), device=row.device)
        logits = self._classify(params, torch.cat(shared, -1), torch.cat(private, -1), every, lanes, drop)
        shape = present.shape[1:3]
        return Output(logits.unflatten(1, shape), torch.stack(cosines, -1).unflatten(1, shape), present)

    def _chosen(self, m: int, row: Tensor) -> Tensor:
        """Which private pair [.., pairs] of modality m a row with combination row [..] uses; none where it lacks m."""
        return self.pairs[m].slot[row][..., None] == torch.arange(1, 1 + self.pairs[m].count, device=row.device)

    def _unimodal(
        self, params: dict[str, Tensor], m: int, x: Tensor, has: Tensor, lanes: Lanes
    ) -> tuple[Tensor, list[Tensor]]:
        """Shared [P, G·T, W] and every private [P, G·T, W] representation of modality m; x [G, T, D], has [G, T]."""
        many = len(lanes.scale)
        x = torch.where(has[..., None], x, 0.0).expand(many, -1, -1, -1)
        shared = self._encode_shared(params, m, x, has.expand(many, -1, -1), lanes, None)
        flat = x.flatten(1, 2)
        row = self.pairs[m].combinations[:, None, None].expand(-1, many, flat.shape[1])
        private = [self._encode_private(params, m, flat, self._chosen(m, one), lanes, None) for one in row]
        return shared, private

    @torch.no_grad()
    def all_combinations(self, params: dict[str, Tensor], inputs: list[Tensor], has: Tensor, lanes: Lanes) -> Tensor:
        """Logits [P, C, G·T, K] under every combination; inputs[m] [G, T, D_m], has [G, T, M] what rows have at all.

        Attention reads one modality only, so each modality is encoded once and shared by all combinations.
        """
        encoded = [self._unimodal(params, m, x, has[..., m], lanes) for m, x in enumerate(inputs)]
        rows, zero = has.flatten(0, 1), torch.zeros_like(encoded[0][0])
        logits = []
        for c, member in enumerate(self.member.tolist()):
            shared, private = [], []
            for m, (s, p) in enumerate(encoded):
                here = rows[:, m, None]
                shared.append(torch.where(here, s, 0.0) if member[m] else zero)
                private.append(torch.where(here, p[int(self.pairs[m].slot[c]) - 1], 0.0) if member[m] else zero)
            every = torch.zeros(*zero.shape[:2], len(self.member), dtype=torch.bool, device=zero.device)
            every[..., c] = True
            logits.append(self._classify(params, torch.cat(shared, -1), torch.cat(private, -1), every, lanes, None))
        return torch.stack(logits, 1)

    @torch.no_grad()
    def divergences(
        self, params: dict[str, Tensor], inputs: list[Tensor], has: Tensor, place: Tensor, lanes: Lanes, name: str
    ) -> Tensor:
        """[P, C]: the named divergence of private from shared, mean over modalities and over the rows at `place`."""
        total = torch.zeros(len(lanes.scale), len(self.member), device=self.member.device)
        for m, x in enumerate(inputs):
            shared, private = self._unimodal(params, m, x, has[..., m], lanes)
            here = place[has[..., m].flatten()[place]]
            kept, weight = padded_indices((here if len(here) else place).cpu().numpy(), place.device)
            each = [(divergence(name, shared[:, kept], p[:, kept]) * weight).sum(1) for p in private]
            total.index_add_(1, self.pairs[m].combinations, torch.stack(each, 1))
        return total / self.member.sum(1)


def _linear(name: str, dim: int, width: int, slots: int, rank: int, factor: int) -> list[Parameter]:
    return [
        Parameter(f"{name}.weight", (dim, width), "uniform", dim),
        Parameter(f"{name}.bias", (width,), "zeros"),
        Parameter(f"{name}.A", (dim, slots, rank * factor), "uniform", dim, rank_axis=2, rank_factor=factor),
        Parameter(f"{name}.B", (slots, rank * factor, width), "zeros", rank_axis=1, rank_factor=factor),
    ]


def _norm(x: Tensor, affine: Tensor) -> Tensor:
    """LayerNorm of x [P, n, W] by each lane's affine [P, 2, W]: gain, and offset plus one (both start at one)."""
    return functional.layer_norm(x, x.shape[-1:]) * affine[:, None, 0] + (affine[:, None, 1] - 1)
