"""The best possible predictor of planted data: its measured intervals hold the accuracy that is known exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcutune.data import planted
from mcutune.data.table import Table
from mcutune.domain.combination import combinations
from mcutune.files import read_json
from mcutune.robustness.run import certify
from tests.robustness.test_certify import measured
from tests.robustness.worlds import FakeModel, make_run


class Oracle(FakeModel):
    """The exact posterior of a single utterance, from the options that the table was generated with."""

    options: planted.PlantedOptions

    def with_presence(self, features, presence, dialogue, order, group, *, normalisation=None, noise=None):  # type: ignore[no-untyped-def]
        mixing = planted._mixing(self.options)
        codes = [features[name] @ mix for name, mix in zip(self.modalities.names, mixing, strict=True)]
        result = np.zeros((len(dialogue), self.classes), dtype=np.float32)
        for one in combinations(len(self.modalities)):
            rows = np.flatnonzero((presence == [m in one for m in range(len(self.modalities))]).all(axis=1))
            mine = [code[rows] for code in codes]
            result[rows] = planted._log_likelihoods(self.options, mine, one.modalities())
        return result


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return planted.make("planted", tmp_path, rows=3000, seed=3)


def test_intervals_of_the_oracle_hold_the_known_optimum(tmp_path: Path, table: Table) -> None:
    make_run(tmp_path, table, "run", seeds=1)
    extra: dict[str, Any] = table.manifest.extra["planted"]

    def load(folder: Path) -> Oracle:
        model = Oracle(read_json(folder / "checkpoint.json"))
        model.options = planted.PlantedOptions.model_validate(extra["options"])
        return model

    report = certify("run", ["fixed"], home=tmp_path, against=(), load=load)
    held = 0
    for label, known in extra["bayes"]["accuracy"].items():
        for metric in ("wa", "ua"):  # classes are equally frequent
            found = measured(report, combination=label, metric=metric)
            assert found["interval"].startswith("bootstrap")
            assert found["value"] == pytest.approx(known["utterance"], abs=0.04)
            held += found["low"] <= known["utterance"] <= found["high"]
    assert held >= 12  # of 14 intervals of 95 %, which are correlated
