"""The configuration of a trial: every training setting, validated; the paper's defaults with their sources."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mcutune.errors import Problems

# Lanes of one pack must agree in these: they decide shapes or the program itself. Everything else may differ.
SHAPE_KEYS = (
    "encoder", "encoder_kind", "encoder_width", "encoder_layers", "encoder_dropout", "encoder_learning_rate",
    "encoder_weight_decay", "encoder_epochs", "encoder_batch", "width", "depth", "heads", "batch", "precision", "draw",
    "divergence", "probe_rows", "class_weight", "training_missing",
)  # fmt: skip

# Keys that came when runs had already been made: at these values a configuration is what it was without them.
_ABSENT = object()
_LATER = {"training_missing": 0.0, "chosen_by": "objective", "kept": "best"}


class Configuration(BaseModel):
    """Hyperparameter values of a trial. Units: epochs; rows (utterances) or dialogues a batch; natural logarithm."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    encoder: Literal["frozen", "trained"]
    encoder_kind: Literal["utterance", "dialogue"]
    encoder_width: int = Field(ge=16, le=2048, multiple_of=16)
    encoder_layers: int = Field(ge=1, le=8)
    encoder_dropout: float = Field(ge=0, lt=1)
    encoder_learning_rate: float = Field(gt=0, le=1)
    encoder_weight_decay: float = Field(ge=0, le=1)
    encoder_epochs: int = Field(ge=1, le=1000)
    encoder_batch: int = Field(ge=1, le=65536)
    width: int = Field(ge=16, le=2048, multiple_of=16)
    depth: int = Field(ge=1, le=12)
    heads: int = Field(ge=1, le=16)
    rank: int = Field(ge=1, le=256)
    alpha: float = Field(gt=0, le=1024)
    rank_scaling: Literal["alpha/r", "alpha/sqrt(r)"]
    adapter_dropout: float = Field(ge=0, lt=1)
    dropout: float = Field(ge=0, lt=1)
    beta: float = Field(ge=0, le=1000)
    orthogonality: Literal["cos2", "abs_cos"]
    fusion: Literal["adaptive", "sum", "common", "characteristic"]
    sensitivity: float = Field(ge=0, le=1)
    range: float = Field(ge=0, le=1)
    freeze_after: int | None = Field(ge=0)
    static: tuple[float, ...] | None
    divergence: Literal["js", "kl_symmetric", "hellinger", "wasserstein", "mmd"]
    draw: Literal["auto", "row", "dialogue"]
    probe_rows: int = Field(ge=8, le=65536)
    optimizer: Literal["adam", "adamw"]
    learning_rate: float = Field(gt=0, le=10)
    weight_decay: float = Field(ge=0, le=1)
    gradient_clip: float | None = Field(gt=0)
    class_weight: Literal["none", "balanced"]
    batch: int = Field(ge=1, le=65536)
    epochs: int = Field(ge=1, le=10000)
    precision: Literal["float32", "bfloat16"]
    training_missing: float = Field(ge=0, lt=1)
    chosen_by: Literal["objective", "static"]
    kept: Literal["best", "every"]

    @model_validator(mode="after")
    def _static_is_a_distribution(self) -> Configuration:
        if self.static is not None and not (min(self.static, default=-1) >= 0 and sum(self.static) > 0):
            raise ValueError("static: one number of at least 0 a combination, not all 0")
        if self.static is None and self.chosen_by == "static":
            raise ValueError("chosen_by: static needs `static`, the probabilities to weight combinations by")
        return self

    @property
    def scale(self) -> float:
        """The factor on every adapter's output: alpha / r, or alpha / sqrt(r) (rsLoRA, arXiv 2312.03732)."""
        return self.alpha / (self.rank if self.rank_scaling == "alpha/r" else self.rank**0.5)

    def canonical(self) -> dict[str, Any]:
        """As JSON values, without the later keys where they change nothing: what was searched before stays the same."""
        values = self.model_dump(mode="json")
        return {key: value for key, value in values.items() if _LATER.get(key, _ABSENT) != value}

    def objective(self, searched: dict[str, Any] | str, labels: Sequence[str]) -> dict[str, Any] | str:
        """What the best epoch is chosen by: the search's objective, or the mean weighted by `static`.

        labels: of all combinations, C of them.
        """
        if self.chosen_by == "objective" or self.static is None:
            return searched
        return {"mix": {label: share for label, share in zip(labels, self.static, strict=True) if share > 0}}

    def shape(self) -> tuple[Any, ...]:
        """What lanes of one pack must have in common."""
        return tuple(getattr(self, key) for key in SHAPE_KEYS)


@lru_cache(maxsize=1)
def default_values() -> dict[str, Any]:
    """The paper's defaults, key to value, as in training/defaults.yaml (each with its source there)."""
    text = resources.files("mcutune.training").joinpath("defaults.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    assert isinstance(values, dict)
    return values


def configuration(overrides: dict[str, Any]) -> Configuration:
    """The defaults with these values over them. Raises Problems naming every wrong key and what is valid."""
    values = {**default_values(), **overrides}
    if isinstance(values.get("static"), list):
        values["static"] = tuple(values["static"])
    for name in _floats():  # 1 is a number where 1.0 is meant; strict mode would refuse it
        if isinstance(values.get(name), int) and not isinstance(values.get(name), bool):
            values[name] = float(values[name])
    try:
        return Configuration(**values)
    except ValidationError as error:
        lines = tuple(_line(e["loc"], e["msg"], e["input"]) for e in error.errors())
        raise Problems("the configuration is not valid", problems=lines) from None


def _line(location: tuple[Any, ...], message: str, found: Any) -> str:
    if not location:  # of the configuration as a whole; the message names the key
        return message.removeprefix("Value error, ")
    return f"{'.'.join(map(str, location))}: {message} (got {found!r})"


@lru_cache(maxsize=1)
def _floats() -> tuple[str, ...]:
    """The keys whose values are numbers with a fraction."""
    return tuple(name for name, field in Configuration.model_fields.items() if float in _types(field.annotation))


def _types(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *getattr(annotation, "__args__", ()))
