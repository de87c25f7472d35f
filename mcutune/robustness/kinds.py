"""What a protocol may say: one class a kind. What follows from it: scenarios.py (which), masks.py and noise.py (drawn).

Exact definitions are in the comments of eval_protocols/*.yaml.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from mcutune.files import canonical_json, sha256

_FRAMING = {"title", "citation", "notes"}  # may change without changing the meaning

Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Rates = dict[str, Share]  # missing rate by modality


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Common(_Strict):
    id: Name
    version: int = Field(ge=1)
    title: str = Field(min_length=1)
    citation: str = Field(min_length=1)
    notes: list[str] = []
    metrics: Literal["all"] | list[str] = "all"

    @property
    def hash(self) -> str:
        """SHA-256 of the meaning: everything but title, citation and notes."""
        return sha256(canonical_json(self.model_dump(mode="json", exclude=_FRAMING)))


class _Drawn(_Common):
    """`masks` draws a scenario, all from one `seed`."""

    masks: int = Field(ge=1, le=100)
    seed: int = Field(ge=0, lt=2**63)


class Fixed(_Common):
    """The same combination in every row."""

    kind: Literal["fixed"]
    combinations: Literal["all"] | list[str] = "all"


class IncompleteTraining(Fixed):
    """As Fixed, of models trained on rows that are incomplete themselves: `training_rates`, one a model."""

    kind: Literal["incomplete_training"]  # type: ignore[assignment]
    training_rates: list[Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1)


class Random(_Drawn):
    """Modalities missing at random at exact rates, row by row or dialogue by dialogue.

    rate_shift: the same, of models trained at each of the rates.
    """

    kind: Literal["random", "rate_shift"]
    rates: list[Share] = Field(min_length=1)
    per: Literal["utterance", "dialogue"] = "utterance"


class Step(_Strict):
    """A step of a schedule: the share of batches that lack one modality, and two, at a nominal missing rate."""

    rate: Share
    one: Share
    two: Share


class RandomBatch(_Drawn):
    """Modalities missing batch by batch, of three, by a published schedule. `batch`: rows of a batch."""

    kind: Literal["random_batch"]
    batch: int = Field(ge=1, le=100_000)
    schedule: list[Step] = Field(min_length=1)


class Imbalanced(_Drawn):
    """A missing rate for each modality; `settings`: rates by modality, every modality of the table in each."""

    kind: Literal["imbalanced"]
    settings: list[Rates] = Field(min_length=1)


class Gaps(_Drawn):
    """One contiguous block of every dialogue lost. `shares`: of its length. `modalities`: one at a time, or all."""

    kind: Literal["gaps"]
    shares: list[Share] = Field(min_length=1)
    modalities: list[Literal["one", "all"]] = Field(min_length=1)


class Noise(_Drawn):
    """Gaussian noise on present modalities. `sigmas`: in standard deviations of the normalised feature."""

    kind: Literal["noise"]
    sigmas: list[Annotated[float, Field(ge=0, le=1000)]] = Field(min_length=1)
    modalities: list[Literal["one", "all"]] = Field(min_length=1)


class LabelDependent(_Drawn):
    """How much is missing depends on the label.

    `overall` and `strengths`: a rate over all rows, and how many times as often the last class misses a modality as the
    first. `settings`: name to class to rates by modality; a class or modality that is not named misses nothing.
    `quantiles`: classes that the values of a regression are cut into.
    """

    kind: Literal["label_dependent"]
    overall: list[Share] = []
    strengths: list[Annotated[float, Field(gt=0, le=1000)]] = []
    settings: dict[Name, dict[str, Rates]] = {}
    quantiles: int = Field(default=4, ge=2, le=100)


class CrossDataset(_Common):
    """Trained on one table, measured on all labelled rows of another, under every combination that both have.

    `label_map`: name of a label to what it means; names not listed mean themselves. `drop`: labels of the target
    whose rows are left out.
    """

    kind: Literal["cross_dataset"]
    normalisation: list[Literal["source", "corpus"]] = Field(min_length=1)
    label_map: dict[str, str] = {}
    drop: list[str] = []


Masked = Random | RandomBatch | Imbalanced | Gaps | LabelDependent
Drawn = Masked | Noise
Protocol = Fixed | IncompleteTraining | Drawn | CrossDataset
KINDS: dict[str, type[Protocol]] = {
    "fixed": Fixed,
    "incomplete_training": IncompleteTraining,
    "random": Random,
    "rate_shift": Random,
    "random_batch": RandomBatch,
    "imbalanced": Imbalanced,
    "gaps": Gaps,
    "noise": Noise,
    "label_dependent": LabelDependent,
    "cross_dataset": CrossDataset,
}
