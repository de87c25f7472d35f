"""Normalisation: against scikit-learn, per group, with absent rows, and through JSON to the bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.preprocessing import StandardScaler

from mcutune.data.normalise import Normalisation, apply, fit
from mcutune.errors import BadInput

RANDOM = np.random.default_rng(0)
X = {"audio": RANDOM.normal(3, 5, (40, 4)).astype(np.float32), "text": RANDOM.normal(size=(40, 2)).astype(np.float32)}
ALL = np.ones((40, 2), dtype=bool)
TRAIN = np.arange(25)


def test_train_mode_is_the_standard_scaler_of_the_training_rows() -> None:
    scaled = apply(fit(X, ALL, TRAIN, "train"), X, ALL, None)
    for name, values in X.items():
        expected = StandardScaler().fit(values[TRAIN].astype(np.float64)).transform(values)
        np.testing.assert_allclose(scaled[name], expected, atol=1e-5)
        assert scaled[name].dtype == np.float32


def test_group_mode_uses_each_groups_own_rows() -> None:
    group = np.arange(40) % 3
    scaled = apply(fit(X, ALL, TRAIN, "group"), X, ALL, group)
    for code in range(3):
        own = X["audio"][group == code].astype(np.float64)
        np.testing.assert_allclose(scaled["audio"][group == code], StandardScaler().fit_transform(own), atol=1e-5)


def test_unknown_or_tiny_groups_use_the_training_rows() -> None:
    normalisation = fit(X, ALL, TRAIN, "group")
    by_train = apply(fit(X, ALL, TRAIN, "train"), X, ALL, None)
    np.testing.assert_array_equal(apply(normalisation, X, ALL, None)["audio"], by_train["audio"])
    alone = np.zeros(40, dtype=np.int64)
    alone[7] = 1
    np.testing.assert_array_equal(apply(normalisation, X, ALL, alone)["audio"][7], by_train["audio"][7])


def test_absent_rows_count_for_nothing_and_stay_zero() -> None:
    presence = ALL.copy()
    presence[::3, 0] = False
    present = TRAIN[presence[TRAIN, 0]]
    normalisation = fit(X, presence, TRAIN, "train")
    np.testing.assert_allclose(normalisation.mean["audio"], X["audio"][present].mean(axis=0), rtol=1e-5)
    for mode in ("train", "group", "none"):
        scaled = apply(fit(X, presence, TRAIN, mode), X, presence, np.arange(40) % 2)
        assert not scaled["audio"][::3].any() and scaled["audio"][1].any()


def test_constant_features_are_centred_not_blown_up() -> None:
    values = {"audio": np.full((40, 3), 0.1, np.float32)}
    normalisation = fit(values, ALL[:, :1], TRAIN, "train")
    np.testing.assert_array_equal(normalisation.std["audio"], np.ones(3))
    assert np.abs(apply(normalisation, values, ALL[:, :1], None)["audio"]).max() < 1e-6


def test_none_mode_changes_nothing() -> None:
    np.testing.assert_array_equal(apply(fit(X, ALL, TRAIN, "none"), X, ALL, None)["text"], X["text"])


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, (5, 3), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_json_gives_back_the_same_bits(values: np.ndarray) -> None:
    before = fit({"m": values}, np.ones((5, 1), bool), np.arange(5), "train")
    after = Normalisation.from_json(json.loads(json.dumps(before.to_json())))
    assert after.mode == before.mode
    for one, other in ((before.mean, after.mean), (before.std, after.std)):
        assert one["m"].tobytes() == other["m"].tobytes()


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"mode": "other", "mean": {}, "std": {}},
        {"mode": "train", "mean": {"m": [0.0]}, "std": {"m": [0.0]}},
        {"mode": "train", "mean": {"m": [float("nan")]}, "std": {"m": [1.0]}},
        {"mode": "train", "mean": {"m": [0.0]}, "std": {"m": [1.0, 1.0]}},
        {"mode": "train", "mean": {"m": ["x"]}, "std": {"m": [1.0]}},
        {"mode": "train", "mean": [1], "std": {"m": [1.0]}},
    ],
)
def test_json_that_is_not_a_normalisation_is_refused(value: object) -> None:
    with pytest.raises(BadInput, match="normalisation"):
        Normalisation.from_json(value)


def test_other_modalities_or_dimensions_are_refused() -> None:
    normalisation = fit(X, ALL, TRAIN, "train")
    for other in (
        {"audio": X["audio"]},
        {"audio": X["text"], "text": X["text"]},
        {"text": X["text"], "audio": X["audio"]},
    ):
        with pytest.raises(BadInput, match="normalisation is for"):
            apply(normalisation, other, ALL, None)
    with pytest.raises(BadInput, match="mode"):
        fit(X, ALL, TRAIN, "z")  # type: ignore[arg-type]
