"""MCULoRA over frozen encoders (the paper's figure): one pass trains P lanes, one pass measures all combinations.

Per modality m: shared R^{m,com} = s B^com A^com X^m, private R^{m,i} = s B^i A^i X^m (E1, E2), s the adapter scale.
y_com = linear([R^m ; R^{m,com}] of the present modalities), y_char = linear([R^{m,i}]), w = sigmoid(MLP([R^{m,i}])),
y = (1 − w) y_com + w y_char (E5 to E8); absent modalities contribute zeros. Dropout acts on X^m before the adapters
(`adapter_dropout`) and on R^m before the classifier (`dropout`).

No representation is ever made in its full width in training: all that reads one is linear in it (the classifiers, the
weight MLP's first layer) or a scalar product of two (the orthogonality loss). So each row keeps the R numbers
z = s A X, and W is summed over once a step and lane, in B times what reads it: y takes z (B V), |R|² takes z (B Bᵀ) zᵀ.

Rows are independent, so B counts rows here, whatever the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mcutune.domain.combination import membership
from mcutune.model.adapted import Adapted, readings
from mcutune.model.alignment import COLUMNS, ROWS, cohort_product, padded_rows, product, up
from mcutune.model.lanes import Lanes, Output, pairs_of
from mcutune.model.layout import Layout, Parameter
from mcutune.model.losses import cosine_of
from mcutune.model.noise import Dropout

_LEAST_HIDDEN = 8
_CELLS = 1 << 12  # rows × combinations measured at once: bounds memory; never depends on P, so bits do not either


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
        self.private = self.pairs[0].count  # private pairs of a modality: J = 2^(M-1), the same for each
        slots = torch.stack([pairs.slot for pairs in self.pairs], 1)  # [C, M]
        self._slots = slots.T.cpu().numpy()
        self._chosen = slots[..., None] == torch.arange(1 + self.private, device=device)  # [C, M, 1 + J]
        self._chosen[..., 0] = self.member
        self._place = (slots - 1).clamp_min(0)  # [C, M]: which private pair, any where there is none
        self.layout = Layout(tuple(self._parameters()))

    def _parameters(self) -> list[Parameter]:
        many, width, hidden, slots = len(self.dims), self.width, hidden_units(self.classes), 1 + self.private
        return [
            *(
                Parameter(f"adapter.{m}.A", (slots, self.rank, dim), "uniform", dim, rank_axis=1)
                for m, dim in enumerate(self.dims)
            ),
            Parameter("shared.B", (many, self.rank, width), "zeros", rank_axis=1),
            Parameter("private.B", (many, self.private, self.rank, width), "zeros", rank_axis=2),
            Parameter("common.encoder", (many, self.classes, width), "uniform", 2 * many * width),
            Parameter("common.adapter", (many, width, self.classes), "uniform", 2 * many * width),
            Parameter("common.bias", (self.classes,), "zeros"),
            # y_char and the first layer of the weight MLP read the same R^s: one product serves both.
            Parameter("characteristic", (many, width, self.classes + hidden), "uniform", many * width),
            Parameter("characteristic.bias", (self.classes + hidden,), "zeros"),
            Parameter("weight.out", (hidden, 1), "uniform", hidden),
            Parameter("weight.bias", (1,), "zeros"),
        ]

    def modules(self, tensors: dict[str, Tensor], m: int) -> list[Tensor]:
        """Of the parameters (or what has their names and shapes) those of modality m alone: its adapters.

        The classifiers and the weight MLP read all modalities, so they are of none.
        """
        return [tensors[f"adapter.{m}.A"], tensors["shared.B"][:, m], tensors["private.B"][:, m]]

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """[.., n, k] × [.., k, l] in the configured precision."""
        batch = a.shape[:-2]
        flat = product(a.flatten(0, -3), b.flatten(0, -3), low_precision=self.low_precision)
        return flat.unflatten(0, batch)

    def forward(
        self,
        params: dict[str, Tensor],
        inputs: list[Tensor],
        encoded: Tensor,
        combination: npt.NDArray[np.int64],
        lanes: Lanes,
        drop: Dropout,
        cohorts: Sequence[int],
    ) -> Output:
        """One training pass. combination [P, B]: that of each row, on the host.

        cohorts: how many of the P lanes, in order, share inputs, noise and rates: U sizes that sum to P.
        inputs[m] [U, B, D_m], encoded [U, M, B, W], and `drop` have an entry a cohort.
        """
        first = [sum(cohorts[:u]) for u in range(len(cohorts))]
        rates = lanes.adapter_dropout[first], lanes.dropout[first]
        drawn = torch.from_numpy(combination).to(encoded.device)
        here = self.member[drawn].transpose(1, 2)[..., None]  # [P, M, B, 1]
        used = self._chosen[drawn] * lanes.along("scale", 4)  # [P, B, M, 1 + J]
        parts = []
        for m, x in enumerate(inputs):
            plan = readings(self._slots[m][combination], cohorts, self.private, x.device)
            dropped = drop(x, rates[0], f"x{m}")
            parts.append(Adapted.apply(params[f"adapter.{m}.A"], dropped, used[:, :, m], plan, self.low_precision))
        own, mine = (torch.stack(part, 1) for part in zip(*parts, strict=True))  # [P, M, B, R]
        place = self._place[drawn].transpose(1, 2)[..., None, None].expand(-1, -1, -1, 1, self.rank)
        masked = mine.new_zeros(*mine.shape[:3], self.private, self.rank).scatter(3, place, mine[..., None, :])

        # Contiguous once, for two products that group it differently.
        b_shared, b_private = params["shared.B"], params["private.B"].contiguous()
        transposed = b_shared.transpose(2, 3)
        of_own = self.product(b_shared, torch.cat([params["common.adapter"], transposed], -1))
        to_common, to_own = self.product(own, of_own).split([self.classes, self.rank], -1)
        of_private = self.product(b_private.flatten(2, 3), torch.cat([params["characteristic"], transposed], -1))
        among = self.product(b_private, b_private.transpose(3, 4)).flatten(2, 3)  # [P, M, J·R, R]
        reached = self.product(masked.flatten(3), torch.cat([of_private, among], -1))
        to_both, to_shared, to_mine = reached.split([params["characteristic"].shape[-1], self.rank, self.rank], -1)

        cos2 = cosine_of((to_shared * own).sum(-1), (to_own * own).sum(-1), (to_mine * mine).sum(-1))
        frozen = self._read_encoders(params, drop(encoded, rates[1], "e"), cohorts)
        common = params["common.bias"][:, None] + torch.where(here, frozen + to_common, 0.0).sum(1)
        both = params["characteristic.bias"][:, None] + to_both.sum(1)
        return Output(self._fused(params, common, both, lanes), cos2.transpose(1, 2), self.member[drawn])

    def _inner(self, params: dict[str, Tensor], m: int, x: Tensor, cohorts: Sequence[int]) -> Tensor:
        """A X of every pair of modality m [P, n, slots · R], the shared one first, from x [U, n, D].

        For what is measured under every combination; a training step multiplies drawn pairs only (model/adapted.py).
        """
        return self._cohorts(x, params[f"adapter.{m}.A"].flatten(1, 2), cohorts)

    def _read_encoders(self, params: dict[str, Tensor], encoded: Tensor, cohorts: Sequence[int]) -> Tensor:
        """What y_com takes of encoded [U, M, n, W]: [P, M, n, K]."""
        weights = params["common.encoder"].unbind(1)
        return torch.stack([self._cohorts(encoded[:, m], w, cohorts) for m, w in enumerate(weights)], 1)

    def _cohorts(self, x: Tensor, b: Tensor, cohorts: Sequence[int]) -> Tensor:
        return cohort_product(x, b, cohorts, low_precision=self.low_precision)

    def _fused(self, params: dict[str, Tensor], common: Tensor, both: Tensor, lanes: Lanes) -> Tensor:
        """y [P, .., K] from y_com [P, .., K] and the product with R^s [P, .., K + hidden]."""
        hidden = torch.relu(both[..., self.classes :])
        flat = self.product(hidden.flatten(1, -2), params["weight.out"])
        bias = params["weight.bias"].view(-1, *(1,) * (both.dim() - 1))
        weight = torch.sigmoid(flat.view(*both.shape[:-1], 1) + bias)
        return lanes.fuse(common, both[..., : self.classes], weight)

    @torch.no_grad()
    def all_combinations(
        self, params: dict[str, Tensor], inputs: list[Tensor], encoded: Tensor, lanes: Lanes, cohorts: Sequence[int]
    ) -> Tensor:
        """Logits [P, C, N, K] of every combination: each modality's products are made once and shared by them.

        inputs[m] [N, D_m] (the same rows for all lanes); encoded [U, M, N, W], cohorts: lanes that share an encoder.
        Equal to `forward` with each combination in turn, to float tolerance.
        """
        return self.differentiable(params, inputs, encoded, lanes, cohorts)

    def differentiable(
        self, params: dict[str, Tensor], inputs: list[Tensor], encoded: Tensor, lanes: Lanes, cohorts: Sequence[int]
    ) -> Tensor:
        """`all_combinations`, through which gradients flow."""
        rows = max(ROWS, _CELLS // len(self.member) // ROWS * ROWS)
        total = len(inputs[0])
        inputs, encoded = [padded_rows(x, 0) for x in inputs], padded_rows(encoded, 2)
        folded = self._folded(params)
        pieces = [
            self._measure(
                params, folded, [x[i : i + rows] for x in inputs], encoded[:, :, i : i + rows], lanes, cohorts
            )
            for i in range(0, len(inputs[0]), rows)
        ]
        return torch.cat(pieces, 2)[:, :, :total]

    def _folded(self, params: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What reads the R numbers of a pair: classifier [P, M, R, K] of the shared, [P, M, J, R, K + hidden]."""
        shared = self.product(params["shared.B"], params["common.adapter"])
        private = self.product(params["private.B"].flatten(2, 3), params["characteristic"])
        return shared, private.unflatten(2, (self.private, self.rank))

    def _measure(
        self, params: dict[str, Tensor], folded: tuple[Tensor, Tensor], inputs: list[Tensor], encoded: Tensor,
        lanes: Lanes, cohorts: Sequence[int],
    ) -> Tensor:  # fmt: skip
        many, rows, count = len(lanes.scale), len(inputs[0]), len(self.member)
        common = params["common.bias"].view(many, 1, 1, -1).repeat(1, count, rows, 1)
        both = params["characteristic.bias"].view(many, 1, 1, -1).repeat(1, count, rows, 1)
        z = torch.stack([self._inner(params, m, x[None], [many]) for m, x in enumerate(inputs)], 1)
        own, private = (z * lanes.along("scale", 4)).split([self.rank, self.private * self.rank], -1)
        to_common = self._read_encoders(params, encoded, cohorts) + self.product(own, folded[0])
        inner = private.unflatten(-1, (self.private, self.rank)).transpose(2, 3)  # [P, M, J, n, R]
        to_both = self.product(inner, folded[1])
        for m, pairs in enumerate(self.pairs):
            common.index_add_(1, pairs.combinations, to_common[:, m, None].expand(-1, pairs.count, -1, -1))
            both.index_add_(1, pairs.combinations, to_both[:, m])
        return self._fused(params, common, both, lanes)

    @torch.no_grad()
    def representations(self, params: dict[str, Tensor], m: int, x: Tensor, lanes: Lanes) -> tuple[Tensor, Tensor]:
        """Shared [P, N, W] and every private [P, J, N, W] representation of modality m for rows x [N, D_m]."""
        z = self._inner(params, m, x[None], [len(lanes.scale)]) * lanes.along("scale", 3)
        shared = self.product(z[..., : self.rank], params["shared.B"][:, m])
        inner = z[..., self.rank :].unflatten(-1, (-1, self.rank)).transpose(1, 2)
        return shared, self.product(inner, params["private.B"][:, m])
