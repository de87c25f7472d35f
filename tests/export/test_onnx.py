"""ONNX computes what torch does: every architecture, task and number of modalities, on every combination."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

from mcutune.domain.combination import membership
from mcutune.errors import CheckFailed
from mcutune.model import onnx_graph
from mcutune.model.onnx_graph import BOUND, averaged, check, obstacle, onnx_file, reference
from mcutune.model.predictor import Predictor
from tests.export.models import predictors

CASES: dict[str, dict[str, Any]] = {
    "utterance, two modalities": {"kind": "utterance", "dims": (6, 5)},
    "utterance, four modalities, values": {"kind": "utterance", "dims": (6, 5, 4, 3), "regression": True},
    "dialogue, normalised by group": {"kind": "dialogue", "dims": (6, 5, 4), "normalisation": "group", "seeds": 1},
    "trained, sum": {"kind": "trained", "dims": (6, 5), "fusion": "sum"},
}
_made: dict[str, tuple[list[Predictor], bytes]] = {}


def made(name: str) -> tuple[list[Predictor], bytes]:
    """A model and its ONNX file: some seconds each, so once."""
    if name not in _made:
        model = predictors(**CASES[name])
        _made[name] = model, onnx_file(model, {"label_names": '["x"]'})
    return _made[name]


@pytest.mark.parametrize("name", CASES)
def test_every_combination_agrees(name: str) -> None:
    model, content = made(name)
    found = check(content, model)
    combinations = 2 ** len(model[0].dims) - 1
    assert found.combinations == combinations
    assert found.batches == 4 * (combinations + 1)
    assert 0 < found.largest < BOUND


@pytest.mark.parametrize("name", ["utterance, two modalities", "trained, sum"])
def test_what_stands_at_absent_places_does_not_count(name: str) -> None:
    """NaN and rubbish at an absent modality, also in padded utterances of a dialogue."""
    import onnxruntime

    model, content = made(name)
    first = model[0]
    shape = (3, 4) if first.attends else (12,)
    random = np.random.default_rng(1)
    presence = membership(2)[random.integers(3, size=shape)]
    features = {
        name: random.normal(size=(*shape, dim)).astype(np.float32)
        for name, dim in zip(first.modalities.names, first.dims, strict=True)
    }
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {**features, "presence": presence})
    for m, name in enumerate(features):
        features[name][~presence[..., m]] = np.nan
    again, _ = session.run(["logits", "probabilities"], {**features, "presence": presence})
    assert np.array_equal(logits, again)
    flat = {name: np.nan_to_num(x).reshape(12, -1) for name, x in features.items()}
    expected = reference(model, flat, presence.reshape(12, 2), shape)
    np.testing.assert_allclose(logits.reshape(expected.shape), expected, atol=1e-5)
    np.testing.assert_allclose(probabilities.reshape(12, -1), averaged(expected, first.task), atol=1e-5)


def test_the_file_is_clean_and_says_what_it_is() -> None:
    """No trace of the exporter (it names folders of the machine), sizes left open, our own facts."""
    import onnx

    _, content = made("trained, sum")
    proto = onnx.load_from_string(content)
    assert b".py" not in content
    assert all(not node.metadata_props and not node.doc_string for node in proto.graph.node)
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"label_names": '["x"]'}
    shapes = {x.name: [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim] for x in proto.graph.input}
    assert shapes == {
        "a": ["dialogues", "utterances", 6], "t": ["dialogues", "utterances", 5],
        "presence": ["dialogues", "utterances", 2],
    }  # fmt: skip
    assert [x.name for x in proto.graph.output] == ["logits", "probabilities"]


def test_another_models_file_is_seen() -> None:
    _, content = made("utterance, two modalities")
    with pytest.raises(CheckFailed, match="ONNX and torch differ by"):
        check(content, predictors("utterance", (6, 5), fusion="sum"))


@pytest.fixture
def empty_row_predicted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A session that answers for rows with nothing present."""
    session = onnx_graph._session

    class Guessing:
        def __init__(self, content: bytes) -> None:
            self.inner = session(content)

        def run(self, names: Any, given: Any) -> list[Any]:
            return [np.nan_to_num(x) for x in self.inner.run(names, given)]

    monkeypatch.setattr(onnx_graph, "_session", Guessing)
    yield


def test_a_guess_from_nothing_is_seen(empty_row_predicted: None) -> None:
    model, content = made("utterance, two modalities")
    with pytest.raises(CheckFailed, match="mixed"):
        check(content, model)


def test_what_has_no_form_is_said() -> None:
    assert obstacle(predictors("utterance", (6, 5))) is None
    low = obstacle(predictors("utterance", (6, 5), precision="bfloat16"))
    assert low is not None
    assert "bfloat16" in str(low)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph.importlib.util, "find_spec", lambda name: None)
    hindrance = obstacle(predictors("utterance", (6, 5)))
    assert hindrance is not None
    assert "pip install 'mcutune[export]'" in str(hindrance)
