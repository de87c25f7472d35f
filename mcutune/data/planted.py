"""Generated dialogues whose best possible accuracy is known for every combination of modalities.

The world. The class y of an utterance follows a Markov chain along its dialogue (it stays with probability `stay`, else
moves to any other class; the start is uniform, so every utterance's marginal is uniform). Given y, with μ_y the
vertices of a simplex in K − 1 dimensions and δ the separation:

    s   = δ μ_y + N(0, I)                 shared by all modalities
    p^m = δ μ_y + N(0, I)                 private to modality m
    x^m = W^m g_m [s; p^m] + N(0, I)      W^m orthonormal, g_m the informativeness

The codes z^m = W^mᵀ x^m are sufficient for y. Given y they are Gaussian with a covariance that does not depend on y,
so log p(y | x of any combination) is linear in x, up to a constant: the optimum of an utterance alone is within reach
of an encoder per modality and a fused linear layer. The optimum given the dialogue is forward-backward on the chain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.linalg import block_diag, helmert

from mcutune.data.columns import Array, Columns
from mcutune.data.table import Table, datasets_folder, write_table
from mcutune.domain.combination import Modalities, combinations
from mcutune.domain.task import Task
from mcutune.errors import BadInput, Problems
from mcutune.files import checked_name

FOLDS = 5
_MOST = 8  # modalities: 255 combinations
_THREE = ("audio", "text", "video")
_DIMS = (24, 32, 20)
_SEPARATION = 1.5  # of the class means at difficulty 1
_SAMPLE_CELLS = 700_000  # utterances times combinations on which the Bayes values are estimated
_WORLD, _TABLE, _SAMPLE = 0, 1, 2  # independent random streams of one seed


class PlantedOptions(BaseModel):
    """What a planted table is generated from. `dialogue_rows`: mean utterances of a dialogue (± a third)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rows: int = Field(ge=100, le=1_000_000)
    modalities: tuple[str, ...] = Field(min_length=1, max_length=_MOST)
    dims: tuple[int, ...]
    classes: int = Field(ge=2, le=10)
    difficulty: float = Field(gt=0, le=100)
    informativeness: tuple[float, ...]
    dialogue_rows: int = Field(ge=1, le=1000)
    stay: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0, lt=2**63)

    @model_validator(mode="after")
    def _fits(self) -> PlantedOptions:
        for name in ("dims", "informativeness"):
            if len(getattr(self, name)) != len(self.modalities):
                raise ValueError(f"{name}: one value a modality is needed")
        if min(self.dims) < 2 * (self.classes - 1):
            raise ValueError(f"dims: at least 2 (classes - 1) = {2 * (self.classes - 1)} are needed")
        if min(self.informativeness) < 0:
            raise ValueError("informativeness: not below 0")
        if self.rows < FOLDS * 2 * self.dialogue_rows:
            raise ValueError(f"rows: at least {FOLDS * 2 * self.dialogue_rows} for dialogues of {self.dialogue_rows}")
        return self


class Posteriors(NamedTuple):
    """p(class | x), [C, N, K]: of each utterance alone, and given all utterances of its dialogue."""

    utterance: Array
    dialogue: Array


def options(
    *,
    rows: int = 4000,
    modalities: int = 3,
    classes: int = 4,
    difficulty: float = 1.0,
    informativeness: tuple[float, ...] | None = None,
    dims: tuple[int, ...] | None = None,
    dialogue_rows: int = 15,
    stay: float = 0.6,
    seed: int = 0,
) -> PlantedOptions:
    """Checked options. Modalities are audio, text, video, or m1, m2, … unless there are three. Raises Problems."""
    if not 1 <= modalities <= _MOST:
        raise Problems("the options of planted data are not valid", problems=(f"modalities: from 1 to {_MOST}",))
    names = _THREE if modalities == len(_THREE) else tuple(f"m{number}" for number in range(1, modalities + 1))
    strengths = informativeness or tuple(np.linspace(0.9, 0.45, modalities).round(3).tolist())
    try:
        return PlantedOptions(
            rows=rows,
            modalities=names,
            dims=dims or tuple(_DIMS[m % len(_DIMS)] for m in range(modalities)),
            classes=classes,
            difficulty=difficulty,
            informativeness=strengths,
            dialogue_rows=dialogue_rows,
            stay=stay,
            seed=seed,
        )
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in error.errors(include_url=False)]
        raise Problems("the options of planted data are not valid", problems=tuple(found)) from None


def _means(chosen: PlantedOptions) -> Array:
    """Class means of each modality's code, [M, K, 2(K − 1)]."""
    vertices = helmert(chosen.classes).T * _SEPARATION / chosen.difficulty
    return np.stack([strength * np.hstack([vertices, vertices]) for strength in chosen.informativeness])


def _covariance(chosen: PlantedOptions, members: tuple[int, ...]) -> Array:
    """Covariance of the joined codes of these modalities given the class; shared latents link modalities."""
    half = chosen.classes - 1
    strengths = np.array([chosen.informativeness[m] for m in members])
    shared = np.kron(np.outer(strengths, strengths), np.diag([1.0] * half + [0.0] * half))
    private = block_diag(*(g**2 * np.diag([0.0] * half + [1.0] * half) for g in strengths))
    return shared + private + np.eye(2 * half * len(members))


def _mixing(chosen: PlantedOptions) -> list[Array]:
    """W^m, orthonormal [D, 2(K − 1)], unique: the triangular factor of the QR has a positive diagonal."""
    random = np.random.default_rng([chosen.seed, _WORLD])
    matrices = []
    for dim in chosen.dims:
        q, r = np.linalg.qr(random.normal(size=(dim, 2 * (chosen.classes - 1))))
        matrices.append(q * np.sign(np.diag(r)))
    return matrices


def _transition(chosen: PlantedOptions) -> Array:
    """Chain of the classes, [K, K]; its stationary distribution is uniform."""
    matrix = np.full((chosen.classes, chosen.classes), (1 - chosen.stay) / (chosen.classes - 1))
    np.fill_diagonal(matrix, chosen.stay)
    return matrix


def _dialogues(chosen: PlantedOptions, rows: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Dialogue number and position of each utterance, int64 [N]."""
    spread = chosen.dialogue_rows // 3
    least, most = chosen.dialogue_rows - spread, chosen.dialogue_rows + spread
    lengths = random.integers(least, most + 1, size=rows // least + 1)
    dialogue = np.repeat(np.arange(len(lengths)), lengths)[:rows]
    return dialogue, np.arange(rows) - np.searchsorted(dialogue, dialogue)


def _labels(chosen: PlantedOptions, order: Array, random: np.random.Generator) -> Array:
    """Classes along the chains, int64 [N]: a fresh uniform draw at the start of a dialogue and where it moves."""
    moves = random.random(len(order)) >= chosen.stay
    steps = random.integers(1, chosen.classes, size=len(order)) * moves  # to one of the other classes
    starts = random.integers(chosen.classes, size=len(order))
    total = np.cumsum(np.where(order == 0, 0, steps))
    first = np.flatnonzero(order == 0)[np.cumsum(order == 0) - 1]
    return (starts[first] + total - total[first]) % chosen.classes


def _codes(chosen: PlantedOptions, labels: Array, random: np.random.Generator) -> list[Array]:
    """g_m [s; p^m] of every modality, [N, 2(K − 1)] each, before the noise of x."""
    half = chosen.classes - 1
    shared = random.normal(size=(len(labels), half))
    noises = [np.hstack([shared, random.normal(size=shared.shape)]) for _ in chosen.modalities]
    means = _means(chosen)
    return [
        means[m, labels] + strength * noise
        for m, (strength, noise) in enumerate(zip(chosen.informativeness, noises, strict=True))
    ]


def _log_likelihoods(chosen: PlantedOptions, codes: list[Array], members: tuple[int, ...]) -> Array:
    """log p(codes of these modalities | class) up to a constant of the row, [N, K]: linear in the codes."""
    joined = np.hstack([codes[m] for m in members])
    means = np.hstack([_means(chosen)[m] for m in members])
    weights = np.linalg.solve(_covariance(chosen, members), means.T)
    return joined @ weights - 0.5 * (means.T * weights).sum(axis=0)


def _softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def forward_backward(likelihoods: Array, dialogue: Array, order: Array, transition: Array) -> Array:
    """p(class | all utterances of the dialogue), [N, K].

    `likelihoods`: [N, K], each row up to a factor; `dialogue`: int64 [N] codes from 0; `order`: positions from 0
    without gaps; `transition`: [K, K]. The start of a chain is uniform.
    """
    shape = (int(dialogue.max()) + 1, int(order.max()) + 1, len(transition))
    evidence = np.ones(shape)  # beyond a dialogue's end: no evidence, which changes nothing before it
    evidence[dialogue, order] = likelihoods
    forward, backward = np.empty(shape), np.ones(shape)
    message = np.full((shape[0], shape[2]), 1 / shape[2])
    for t in range(shape[1]):
        forward[:, t] = message * evidence[:, t]
        forward[:, t] /= forward[:, t].sum(axis=-1, keepdims=True)
        message = forward[:, t] @ transition
    for t in range(shape[1] - 2, -1, -1):
        backward[:, t] = (backward[:, t + 1] * evidence[:, t + 1]) @ transition.T
        backward[:, t] /= backward[:, t].sum(axis=-1, keepdims=True)
    both = (forward * backward)[dialogue, order]
    return both / both.sum(axis=-1, keepdims=True)


def _posteriors(chosen: PlantedOptions, codes: list[Array], dialogue: Array, order: Array) -> Posteriors:
    transition = _transition(chosen)
    alone, together = [], []
    for combination in combinations(len(chosen.modalities)):
        alone.append(_softmax(_log_likelihoods(chosen, codes, combination.modalities())))
        together.append(forward_backward(alone[-1], dialogue, order, transition))
    return Posteriors(np.stack(alone), np.stack(together))


def bayes(chosen: PlantedOptions) -> dict[str, Any]:
    """The best possible accuracy of every combination, and its Monte Carlo standard error.

    The mean of max_k p(k | x) over an independent sample: unbiased, and less noisy than the share of hits. The error
    is over dialogues, since utterances of one dialogue are not independent. Classes are equally frequent, so the same
    values bound UA.
    """
    modalities = Modalities(chosen.modalities)
    rows = max(20_000, _SAMPLE_CELLS // len(modalities.labels))
    random = np.random.default_rng([chosen.seed, _SAMPLE])
    dialogue, order = _dialogues(chosen, rows, random)
    labels = _labels(chosen, order, random)
    codes = [code + random.normal(size=code.shape) for code in _codes(chosen, labels, random)]
    posteriors = _posteriors(chosen, codes, dialogue, order)
    values: dict[str, Any] = {label: {} for label in modalities.labels}
    for name, posterior in posteriors._asdict().items():
        best = posterior.max(axis=-1)
        for label, row in zip(modalities.labels, best, strict=True):
            off = np.bincount(dialogue, weights=row - row.mean())
            values[label][name] = round(float(row.mean()), 5)
            values[label][f"{name}_error"] = round(float(np.sqrt((off**2).sum()) / rows), 6)
    return {"rows": rows, "accuracy": values}


def columns(chosen: PlantedOptions) -> Columns:
    """The rows of a planted table; five folds of whole dialogues; the inference group is the dialogue."""
    random = np.random.default_rng([chosen.seed, _TABLE])
    dialogue, order = _dialogues(chosen, chosen.rows, random)
    labels = _labels(chosen, order, random)
    codes = _codes(chosen, labels, random)
    features = {
        name: (code @ mixing.T + random.normal(size=(len(code), len(mixing)))).astype(np.float32)
        for name, code, mixing in zip(chosen.modalities, codes, _mixing(chosen), strict=True)
    }
    names = np.array([f"d{number:05}" for number in dialogue])
    return Columns(
        features=features,
        ids=np.array([f"{name}_{position:03}" for name, position in zip(names, order, strict=True)]),
        labels=labels,
        dialogue=names,
        order=order,
        group=names,
        presence=np.ones((chosen.rows, len(features)), dtype=bool),
        task=Task.CLASSIFICATION,
        label_names=tuple(f"class{k}" for k in range(chosen.classes)),
        fold=np.array([str(1 + number % FOLDS) for number in dialogue]),
        group_kind="dialogue",
        extra={"planted": {"options": chosen.model_dump(mode="json"), "bayes": bayes(chosen)}},
    )


def make(name: str, home: Path | None = None, **given: Any) -> Table:
    """Generate a planted table under a home; keywords as for `options`."""
    return write_table(datasets_folder(home) / checked_name(name, "dataset"), columns(options(**given)))


def oracle_posteriors(table: Table) -> Posteriors:
    """The exact posteriors of every row of a planted table, from its stored options. Raises BadInput for another."""
    stored = table.manifest.extra.get("planted")
    if stored is None:
        raise BadInput(f"{table.manifest.name} is not planted data: its best possible accuracy is not known")
    chosen = PlantedOptions.model_validate(stored["options"])
    codes = [table.features(name) @ mixing for name, mixing in zip(chosen.modalities, _mixing(chosen), strict=True)]
    return _posteriors(chosen, codes, table.dialogue, table.order)
