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
from torch.nn import functional

from mcutune.domain.combination import membership
from mcutune.model.adapted import Adapted, readings
from mcutune.model.alignment import COLUMNS, ROWS, cohort_product, padded_rows, product, up
from mcutune.model.forms import Forms
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

    dims: D of every modality; width: W of the encoder outputs and representations; rank: the padded R.
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
        self._chosen = slots.T[..., None] == torch.arange(1 + self.private, device=device)  # [M, C, 1 + J]
        self._chosen[..., 0] = self.member.T
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
        used = self._chosen[:, drawn] * lanes.scale[:, None, None]  # [M, P, B, 1 + J]
        dropped = [drop(x, rates[0], f"x{m}") for m, x in enumerate(inputs)]
        plans = [readings(slots[combination], cohorts, self.private, encoded.device) for slots in self._slots]
        weights = [params[f"adapter.{m}.A"] for m in range(len(inputs))]
        own, private = Adapted.apply(used, dropped, plans, self.low_precision, *weights)

        names = "shared.B", "private.B", "common.adapter", "characteristic"
        readers = [params[name].transpose(0, 1).flatten(0, 1) for name in names]  # modalities first, as z lies
        forms = Forms.apply(own.flatten(0, 1), private.flatten(0, 1), *readers, self.low_precision)
        to_common, to_both, *scalars = (form.unflatten(0, (-1, len(drawn))) for form in forms)
        frozen = torch.stack(self._read_encoders(params, drop(encoded, rates[1], "e"), cohorts)).transpose(2, 3)
        here = self.member.T[:, drawn]  # [M, P, B]
        common = params["common.bias"][:, None] + torch.where(here[..., None], frozen + to_common, 0.0).sum(0)
        both = params["characteristic.bias"][:, None] + to_both.sum(0)
        cos2 = cosine_of(*scalars).permute(1, 2, 0)
        return Output(self._fused(params, common, both, lanes, -1), cos2, here.permute(1, 2, 0))

    def _inner(self, params: dict[str, Tensor], m: int, x: Tensor) -> Tensor:
        """A X of every pair of modality m [P, slots, R, n], the shared one first, from x [n, D] of all lanes.

        For what is measured under every combination; a training step multiplies drawn pairs only (model/adapted.py).
        """
        a = params[f"adapter.{m}.A"]
        return self._cohorts(x[None], a.flatten(1, 2), [len(a)]).unflatten(1, a.shape[1:3])

    def _read_encoders(self, params: dict[str, Tensor], encoded: Tensor, cohorts: Sequence[int]) -> list[Tensor]:
        """What y_com takes of encoded [U, M, n, W]: [P, K, n] of each modality."""
        return [self._cohorts(encoded[:, m], w, cohorts) for m, w in enumerate(params["common.encoder"].unbind(1))]

    def _cohorts(self, x: Tensor, b: Tensor, cohorts: Sequence[int]) -> Tensor:
        return cohort_product(x, b, cohorts, low_precision=self.low_precision)

    def _fused(self, params: dict[str, Tensor], common: Tensor, both: Tensor, lanes: Lanes, axis: int) -> Tensor:
        """y from y_com and the product with R^s: K and K + hidden numbers along `axis`; lanes are the first."""
        characteristic, read = both.split([self.classes, both.shape[axis] - self.classes], axis)
        hidden, out = torch.relu(read), params["weight.out"]
        if self.low_precision:
            hidden, out = hidden.bfloat16(), out.bfloat16()
        shape = [len(out), *(1,) * (both.dim() - 1)]
        bias = params["weight.bias"].view(shape)
        shape[axis] = -1
        weight = torch.sigmoid((hidden * out.reshape(shape)).sum(axis, keepdim=True).to(bias.dtype) + bias)
        return lanes.fuse(common, characteristic, weight)

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
        folded = self._folded(params, lanes)
        pieces = [
            self._measure(
                params, folded, [x[i : i + rows] for x in inputs], encoded[:, :, i : i + rows], lanes, cohorts
            )
            for i in range(0, len(inputs[0]), rows)
        ]
        # Classes last in memory, too: the best of them is looked for several times faster.
        return torch.cat(pieces, 3)[..., :total].transpose(2, 3).contiguous()

    def _folded(self, params: dict[str, Tensor], lanes: Lanes) -> list[Tensor]:
        """s B V of each modality [P, slots, K + hidden, R]: what reads A X of a pair, the classifier of the shared."""
        shared = self.product(params["shared.B"], params["common.adapter"])  # [P, M, R, K]
        private = self.product(params["private.B"].flatten(2, 3), params["characteristic"])
        shared = functional.pad(shared, (0, private.shape[-1] - self.classes))[:, :, None]
        both = torch.cat([shared, private.unflatten(2, (self.private, self.rank))], 2) * lanes.along("scale", 5)
        return list(both.transpose(3, 4).unbind(1))

    def _measure(
        self, params: dict[str, Tensor], folded: list[Tensor], inputs: list[Tensor], encoded: Tensor, lanes: Lanes,
        cohorts: Sequence[int],
    ) -> Tensor:  # fmt: skip
        many, rows, count = len(lanes.scale), len(inputs[0]), len(self.member)
        common = params["common.bias"].view(many, 1, -1, 1).repeat(1, count, 1, rows)
        both = params["characteristic.bias"].view(many, 1, -1, 1).repeat(1, count, 1, rows)
        of_encoders = self._read_encoders(params, encoded, cohorts)
        for m, (pairs, x) in enumerate(zip(self.pairs, inputs, strict=True)):
            read = self.product(folded[m], self._inner(params, m, x))  # [P, slots, K + hidden, n]
            to_common = of_encoders[m] + read[:, 0, : self.classes]
            common.index_add_(1, pairs.combinations, to_common[:, None].expand(-1, pairs.count, -1, -1))
            both.index_add_(1, pairs.combinations, read[:, 1:])
        return self._fused(params, common, both, lanes, -2)

    @torch.no_grad()
    def representations(self, params: dict[str, Tensor], m: int, x: Tensor, lanes: Lanes) -> tuple[Tensor, Tensor]:
        """Shared [P, N, W] and every private [P, J, N, W] representation of modality m for rows x [N, D_m]."""
        z = self._inner(params, m, x).transpose(2, 3) * lanes.along("scale", 4)  # [P, slots, N, R]
        return self.product(z[:, 0], params["shared.B"][:, m]), self.product(z[:, 1:], params["private.B"][:, m])
