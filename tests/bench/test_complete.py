"""The complete pass that evaluations are measured against gives what the predictor gives with everything present."""

from __future__ import annotations

import numpy as np
import pytest

from bench.baselines.complete import complete_pass
from bench.engine import checkpoint
from mcutune.model.predictor import load_predictor
from tests.training.fold import SMALL, fold


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-5), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("encoder", ["frozen", "trained"])
def test_it_gives_what_the_predictor_gives(tmp_path, encoder, precision, tolerance):
    data = fold()
    checkpoint(data, {**SMALL, "encoder": encoder, "precision": precision}, tmp_path)
    rows = data.features, data.dialogue, data.order, data.group
    expected = load_predictor(tmp_path).all_combinations(*rows)[-1]
    np.testing.assert_allclose(complete_pass(tmp_path)(*rows).numpy(), expected, rtol=10 * tolerance, atol=tolerance)
