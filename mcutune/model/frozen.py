"""MCULoRA over frozen encoders (the paper's figure): one pass trains P lanes, one pass measures all combinations.

Per modality m: shared R^{m,com} = s B^com A^com X^m, private R^{m,i} = s B^i A^i X^m (E1, E2), s the adapter scale.
y_com = linear([R^m ; R^{m,com}] of the present modalities), y_char = linear([R^{m,i}]), w = sigmoid(MLP([R^{m,i}])),
y = (1 − w) y_com + w y_char (E5 to E8); absent modalities contribute zeros. Dropout acts on X^m before the adapters
(`adapter_dropout`) and on R^m before the classifier (`dropout`).

Rows are independent, so B counts rows here, whatever the encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mcutune.domain.combination import membership
from mcutune.model.alignment import COLUMNS, ROWS, padded_rows, product, up
from mcutune.model.lanes import Lanes, Output, pairs_of
from mcutune.model.layout import Layout, Parameter
from mcutune.model.losses import squared_cosine
from mcutune.model.noise import Dropout

_LEAST_HIDDEN = 8
_CELLS = 1 << 14  # rows × combinations measured at once: bounds memory; never depends on P, so bits do not either


def hidden_units(classes: int) -> int:
    """Units of the weight MLP: what fills its product, shared with the classifier's, to aligned columns."""
    return up(classes + _LEAST_HIDDEN, COLUMNS) - classes


class FrozenNetwork:
    """The program of a pack with `encoder: frozen`. Holds no parameters: they come as a dictionary of [P, ..] views.

    dims: D of every modality; width: W of the encoder outputs and representations; rank: the pack's padded R.
    """

    def __init__(
        self, dims: tuple[int, ...], classes: int, width: int, rank: int, *, low_precision: bool, device: torch.device
    ):
        self.dims, self.classes, self.width, self.rank = dims, classes, width, rank
        self.low_precision = low_precision
        self.member = torch.from_numpy(membership(len(dims)).copy()).to(device)  # [C, M]
        self.pairs = pairs_of(self.member)
        self.layout = Layout(tuple(self._parameters()))

    def _parameters(self) -> list[Parameter]:
        many, width, hidden = len(self.dims), self.width, hidden_units(self.classes)
        parameters = []
        for m, (dim, pairs) in enumerate(zip(self.dims, self.pairs, strict=True)):
            slots = 1 + pairs.count
            parameters += [
                Parameter(f"adapter.{m}.A", (dim, slots, self.rank), "uniform", dim, rank_axis=2),
                Parameter(f"adapter.{m}.B", (slots, self.rank, width), "zeros", rank_axis=1),
            ]
        return parameters + [
            Parameter("common.encoder", (many, width, self.classes), "uniform", 2 * many * width),
            Parameter("common.adapter", (many, width, self.classes), "uniform", 2 * many * width),
            Parameter("common.bias", (self.classes,), "zeros"),
            # y_char and the first layer of the weight MLP read the same R^s: one product serves both.
            Parameter("characteristic", (many, width, self.classes + hidden), "uniform", many * width),
            Parameter("characteristic.bias", (self.classes + hidden,), "zeros"),
            Parameter("weight.out", (hidden, 1), "uniform", hidden),
            Parameter("weight.bias", (1,), "zeros"),
        ]

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """[P, n, k] × [P, k, l] in the configured precision."""
        return product(a, b, low_precision=self.low_precision)

    def forward(
        self,
        params: dict[str, Tensor],
        inputs: list[Tensor],
        encoded: list[Tensor],
        drawn: Tensor,
        lanes: Lanes,
        drop: Dropout,
    ) -> Output:
        """One training pass. inputs[m] [P, B, D_m]; encoded[m] [P, B, W]; drawn [P, B]: combination of each row."""
        present = self.member[drawn]
        common = params["common.bias"][:, None]
        characteristic = params["characteristic.bias"][:, None]
        cosines = []
        for m in range(len(self.dims)):
            here = present[..., m : m + 1]
            shared, private = self._adapted(params, m, drop(inputs[m], lanes.adapter_dropout, f"x{m}"), drawn, lanes)
            cosines.append(squared_cosine(shared, private))
            encoder = torch.where(here, drop(encoded[m], lanes.dropout, f"e{m}"), 0.0)
            shared = torch.where(here, shared, 0.0)
            common = common + self.product(encoder, params["common.encoder"][:, m])
            common = common + self.product(shared, params["common.adapter"][:, m])
            characteristic = characteristic + self.product(private, params["characteristic"][:, m])
        return Output(self._fused(params, common, characteristic, lanes), torch.stack(cosines, -1), present)

    def _adapted(
        self, params: dict[str, Tensor], m: int, x: Tensor, drawn: Tensor, lanes: Lanes
    ) -> tuple[Tensor, Tensor]:
        """R^{m,com} and R^{m,i} [P, B, W], i the row's combination; private is zero where it lacks modality m.

        All pairs' A are multiplied at once, which costs a CPU no more than two of them: a narrow product is bound by
        reading x. Only the drawn pair's part then reaches B.
        """
        a, b = params[f"adapter.{m}.A"], params[f"adapter.{m}.B"]
        scale = lanes.along("scale", 3)
        # split, not slices: the gradient of a slice is a whole tensor of zeros around it
        own, inner = self.product(x, a.flatten(2)).split([self.rank, self.pairs[m].count * self.rank], -1)
        b_shared, b_private = b.split([1, self.pairs[m].count], 1)
        shared = self.product(own, b_shared.squeeze(1)) * scale
        slots = torch.arange(1, 1 + self.pairs[m].count, device=drawn.device)
        chosen = self.pairs[m].slot[drawn][..., None] == slots  # [P, B, pairs]
        inner = (inner.unflatten(-1, (-1, self.rank)) * chosen[..., None].to(inner.dtype)).flatten(2)
        return shared, self.product(inner, b_private.flatten(1, 2)) * scale

    def _fused(self, params: dict[str, Tensor], common: Tensor, both: Tensor, lanes: Lanes) -> Tensor:
        """y [P, .., K] from y_com [P, .., K] and the product with R^s [P, .., K + hidden]."""
        hidden = torch.relu(both[..., self.classes :])
        flat = self.product(hidden.flatten(1, -2), params["weight.out"])
        bias = params["weight.bias"].view(-1, *(1,) * (both.dim() - 1))
        weight = torch.sigmoid(flat.view(*both.shape[:-1], 1) + bias)
        return lanes.fuse(common, both[..., : self.classes], weight)

    @torch.no_grad()
    def all_combinations(
        self, params: dict[str, Tensor], inputs: list[Tensor], encoded: list[Tensor], lanes: Lanes
    ) -> Tensor:
        """Logits [P, C, N, K] of every combination: each modality's products are made once and shared by them.

        inputs[m] [N, D_m] (the same rows for all lanes); encoded[m] [P, N, W]. Equal to `forward` with each
        combination in turn, to float tolerance: the classifier's part of B is folded into the rank.
        """
        rows = max(ROWS, _CELLS // len(self.member) // ROWS * ROWS)
        total = len(inputs[0])
        inputs, encoded = [padded_rows(x, 0) for x in inputs], [padded_rows(e, 1) for e in encoded]
        pieces = [
            self._measure(params, [x[i : i + rows] for x in inputs], [e[:, i : i + rows] for e in encoded], lanes)
            for i in range(0, len(inputs[0]), rows)
        ]
        return torch.cat(pieces, 2)[:, :, :total]

    def _measure(self, params: dict[str, Tensor], inputs: list[Tensor], encoded: list[Tensor], lanes: Lanes) -> Tensor:
        lane_count, rows, count = len(lanes.scale), len(inputs[0]), len(self.member)
        common = params["common.bias"].view(lane_count, 1, 1, -1).repeat(1, count, rows, 1)
        both = params["characteristic.bias"].view(lane_count, 1, 1, -1).repeat(1, count, rows, 1)
        for m, pairs in enumerate(self.pairs):
            a, b = params[f"adapter.{m}.A"], params[f"adapter.{m}.B"]
            z, scale = self.product(inputs[m].expand(lane_count, -1, -1), a.flatten(2)), lanes.along("scale", 3)
            of_shared = self.product(b[:, 0], params["common.adapter"][:, m]) * scale
            part = self.product(encoded[m], params["common.encoder"][:, m])
            part = part + self.product(z[..., : self.rank], of_shared)
            common.index_add_(1, pairs.combinations, part[:, None].expand(-1, pairs.count, -1, -1))
            folded = self.product(b[:, 1:].flatten(1, 2), params["characteristic"][:, m]) * scale
            inner = z[..., self.rank :].unflatten(-1, (-1, self.rank)).transpose(1, 2)
            part = self.product(inner.flatten(0, 1), folded.view(-1, self.rank, folded.shape[-1]))
            both.index_add_(1, pairs.combinations, part.unflatten(0, (lane_count, -1)))
        return self._fused(params, common, both, lanes)

    @torch.no_grad()
    def representations(self, params: dict[str, Tensor], m: int, x: Tensor, lanes: Lanes) -> tuple[Tensor, Tensor]:
        """Shared [P, N, W] and every private [P, pairs, N, W] representation of modality m for rows x [N, D_m]."""
        a, b = params[f"adapter.{m}.A"], params[f"adapter.{m}.B"]
        z, scale = self.product(x.expand(len(a), -1, -1), a.flatten(2)), lanes.along("scale", 3)
        shared = self.product(z[..., : self.rank], b[:, 0]) * scale
        inner = z[..., self.rank :].unflatten(-1, (-1, self.rank)).transpose(1, 2)
        private = self.product(inner.flatten(0, 1), b[:, 1:].flatten(0, 1))
        return shared, private.unflatten(0, (len(a), -1)) * scale[..., None]
