"""Published numbers, shown beside own results only where dataset, classes, protocol and metric match.

A combination matches by its modalities; a mean over combinations, or a missing rate, only where all modalities do.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mcutune.strict_yaml import load, validated

_SAME = {"mosei": "cmumosei", "mosi": "cmumosi"}


class _Number(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    method: str
    dataset: str
    classes: int | None
    protocol: Literal["fixed", "random"]
    metric: str
    source: str
    warning: str
    values: dict[str, float]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    modalities: list[str]
    numbers: list[_Number]


@lru_cache(maxsize=1)
def _file() -> _File:
    text = resources.files("mcutune.robustness").joinpath("published.yaml").read_text(encoding="utf-8")
    return validated(load(text, "published.yaml"), _File)


def _plain(name: str) -> str:
    """A dataset's name without case and punctuation; both common spellings of MOSI and MOSEI."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return _SAME.get(plain, plain)


def matching(
    dataset: str, classes: int, modalities: Collection[str], measured: Collection[tuple[str, str, str]]
) -> list[dict[str, Any]]:
    """The published numbers for this dataset, as entries of a report.

    `classes`: K, 0 for values. `measured`: (kind of protocol, metric, combination or scenario or summary's name).
    """
    found, file = [], _file()
    same = set(modalities) == set(file.modalities)
    for one in file.numbers:
        if _plain(one.dataset) != _plain(dataset) or (one.classes or 0) != classes:
            continue
        of_all = {name for name in one.values if name.startswith(("mean_", "rate="))}
        shown = [name for name in one.values if same or name not in of_all]
        values = {name: one.values[name] for name in shown if (one.protocol, one.metric, name) in measured}
        if values:
            plain = one.model_dump(include={"method", "protocol", "metric", "source", "warning"})
            found.append({**plain, "dataset": one.dataset, "values": values})
    return found
