"""Planted data: the stated optimum is the optimum: by a brute-force twin, by counting, by a model that reaches it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mcutune.data import planted
from mcutune.data.catalog import check, ensure
from mcutune.data.table import Table
from mcutune.domain.combination import combinations
from mcutune.errors import BadInput, Problems
from tests.reference.planted_reference import dialogue_posterior, utterance_posterior


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return ensure("planted", tmp_path_factory.mktemp("home"))


def test_posteriors_equal_the_brute_force_twin(tmp_path: Path) -> None:
    small = planted.make(
        "tiny",
        tmp_path,
        rows=100,
        modalities=2,
        classes=3,
        informativeness=(0.9, 0.4),
        dims=(5, 4),
        dialogue_rows=6,
        seed=3,
    )
    chosen = planted.PlantedOptions.model_validate(small.manifest.extra["planted"]["options"])
    mixing = planted._mixing(chosen)
    oracle = planted.oracle_posteriors(small)
    separation = planted._SEPARATION / chosen.difficulty
    for c, combination in enumerate(combinations(2)):
        members = combination.modalities()
        expected = utterance_posterior(
            {chosen.modalities[m]: small.features(chosen.modalities[m]) for m in members},
            [mixing[m] for m in members],
            tuple(chosen.informativeness[m] for m in members),
            separation,
            3,
        )
        np.testing.assert_allclose(oracle.utterance[c], expected, atol=1e-9)
        for code in np.unique(small.dialogue)[:3]:
            rows = small.dialogue == code
            np.testing.assert_allclose(oracle.dialogue[c, rows], dialogue_posterior(expected[rows], 0.6), atol=1e-9)


def test_the_stored_optimum_is_what_the_posteriors_reach(table: Table) -> None:
    bayes = table.manifest.extra["planted"]["bayes"]["accuracy"]
    labels = table.labels(np.arange(len(table)))
    for name, posterior in planted.oracle_posteriors(table)._asdict().items():
        hits = (posterior.argmax(axis=-1) == labels).mean(axis=-1)
        for label, share in zip(table.modalities.labels, hits, strict=True):
            assert bayes[label][f"{name}_error"] < 0.001
            assert abs(share - bayes[label][name]) < 0.03, (label, name)  # 4 errors of 4,000 dependent rows


def test_strengths_differ_and_every_modality_helps(table: Table) -> None:
    bayes = table.manifest.extra["planted"]["bayes"]["accuracy"]
    audio, text, video = (bayes[name]["utterance"] for name in ("audio", "text", "video"))
    assert 0.65 < audio < 0.7 and audio - text > 0.05 and text - video > 0.05 and video > 0.5
    assert 0.78 < bayes["audio+text+video"]["utterance"] < 0.8
    for larger in combinations(3):
        for smaller in combinations(3):
            if smaller.mask & larger.mask == smaller.mask != larger.mask:
                one, other = (bayes[table.modalities.label(c)] for c in (larger, smaller))
                assert one["utterance"] > other["utterance"] and one["dialogue"] > other["dialogue"]
    assert all(value["dialogue"] > value["utterance"] for value in bayes.values())


def test_a_linear_model_nearly_reaches_the_utterance_optimum() -> None:
    columns = planted.columns(planted.options(rows=12_000))
    x = np.hstack(list(columns.features.values()))
    model = LogisticRegression(C=0.01, max_iter=200).fit(x[:9000], columns.labels[:9000])
    best = columns.extra["planted"]["bayes"]["accuracy"]["audio+text+video"]["utterance"]
    assert best - 0.025 < model.score(x[9000:], columns.labels[9000:]) < best + 0.025


def test_the_default_is_quick_whole_and_without_findings(tmp_path: Path) -> None:
    start = time.process_time()
    table = ensure("planted", tmp_path)
    assert time.process_time() - start < 2
    assert (
        len(table) == 4000 and table.manifest.folds == ["1", "2", "3", "4", "5"] and table.manifest.group == "dialogue"
    )
    assert [table.features(name).shape[1] for name in table.modalities.names] == [24, 32, 20]
    lengths = np.bincount(table.dialogue)[:-1]  # the last may be cut
    assert lengths.min() == 10 and lengths.max() == 20
    assert check(table) == []
    assert ensure("planted", tmp_path).manifest.hash == table.manifest.hash


def test_same_options_same_hash_and_another_seed_another(tmp_path: Path) -> None:
    hashes = [
        planted.make("p", tmp_path / folder, rows=400, seed=seed).manifest.hash for folder, seed in ("a1", "b1", "c2")
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_mixing_is_the_same_with_any_linear_algebra_library() -> None:
    chosen = planted.options()
    random = np.random.default_rng([chosen.seed, 0])
    for mixing in planted._mixing(chosen):
        triangular = mixing.T @ random.normal(size=mixing.shape)  # Q R is unique if R has a positive diagonal
        np.testing.assert_allclose(triangular, np.triu(triangular), atol=1e-9)
        assert (np.diag(triangular) > 0).all()


def test_other_numbers_of_modalities_and_classes(tmp_path: Path) -> None:
    table = planted.make("many", tmp_path, rows=400, modalities=5, classes=6, difficulty=0.5, stay=0.9)
    assert table.modalities.names == ("m1", "m2", "m3", "m4", "m5") and len(table.manifest.label_names or []) == 6
    assert planted.oracle_posteriors(table).dialogue.shape == (31, 400, 6)
    labels = table.labels(np.arange(400))
    same = (np.diff(labels) == 0)[np.diff(table.dialogue) == 0].mean()
    assert 0.85 < same < 0.95


def test_difficulty_lowers_the_optimum() -> None:
    easy, hard = (planted.bayes(planted.options(difficulty=d))["accuracy"]["audio"]["utterance"] for d in (0.5, 3))
    assert easy > 0.85 and hard < 0.45


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rows": 10}, "rows"),
        ({"modalities": 0}, "modalities"),
        ({"classes": 1}, "classes"),
        ({"informativeness": (1.0, 0.5)}, "informativeness"),
        ({"dims": (2, 2, 2)}, "dims"),
        ({"stay": 1.0}, "stay"),
    ],
)
def test_options_that_do_not_fit_are_named(given: dict, message: str) -> None:
    with pytest.raises(Problems, match=message):
        planted.options(**given)


def test_only_planted_data_has_an_oracle(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not planted"):
        planted.oracle_posteriors(ensure("digits", tmp_path))
