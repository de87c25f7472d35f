"""ONNX: the graph of a model as a file, and the proof that it computes what torch does, on every combination.

The one file that knows onnx and onnxruntime; both come with the extra `export`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mcutune.domain.combination import membership
from mcutune.domain.task import Task
from mcutune.errors import BadInput, CheckFailed, NoResult
from mcutune.model.graph import LOGITS, PRESENCE, PROBABILITIES, VALUE, Graph
from mcutune.model.predictor import Array, Predictor

BOUND = 1e-4  # largest difference allowed, relative to the largest logit where that is above 1
OPSET = 20
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_ROWS = ((1,), (2,), (7,), (33,))  # batches checked where rows are alone
_DIALOGUES = ((1, 1), (1, 5), (2, 3), (3, 8))  # dialogues, utterances of the longest
_RESERVED = (PRESENCE, LOGITS, PROBABILITIES, VALUE)


@dataclass(frozen=True)
class Checked:
    """What the comparison with torch found: batches compared, the largest difference, and the bound that it kept."""

    batches: int
    combinations: int
    largest: float
    bound: float


def obstacle(predictors: Sequence[Predictor]) -> BadInput | None:
    """Why this model cannot be written as ONNX here, if so."""
    lacking = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        return BadInput(f"ONNX needs {', '.join(lacking)}", hint="pip install 'mcutune[export]', or --no-onnx")
    precision = predictors[0].settings.precision
    if precision != "float32":
        return BadInput(
            f"a model of precision {precision} has no ONNX form: that would compute in float32, which was not measured",
            hint="--no-onnx",
        )
    taken = [name for name in predictors[0].modalities.names if name in _RESERVED]
    if taken:
        return BadInput(
            f"a modality is named {taken[0]}, as the graph's own inputs and outputs are", hint="export with --no-onnx"
        )
    return None


def onnx_file(predictors: Sequence[Predictor], facts: dict[str, str]) -> bytes:
    """The ONNX file of a model's seeds side by side; `facts` go into its metadata. Raises NoResult where torch cannot.

    Inputs: raw features by modality and `presence`; outputs: `logits` and `probabilities` or `value` (model/graph.py).
    """
    first = predictors[0]
    graph = Graph(predictors).eval()
    shape = (3, 4) if first.attends else (5,)
    names = ("dialogues", "utterances") if first.attends else ("rows",)
    axes = {axis: torch.export.Dim(name) for axis, name in enumerate(names)}
    features = [torch.zeros(*shape, dim) for dim in first.dims]
    presence = torch.ones(*shape, len(first.dims), dtype=torch.bool)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph, (features, presence), dynamo=True, optimize=True, verbose=False, opset_version=OPSET,
                input_names=[*first.modalities.names, PRESENCE],
                output_names=[LOGITS, PROBABILITIES if graph.classified else VALUE],
                dynamic_shapes={"features": [axes] * len(features), "presence": axes},
            )  # fmt: skip
    except (RuntimeError, ValueError, TypeError) as error:
        raise NoResult(f"torch cannot write this model as ONNX: {str(error)[:200]}", hint="--no-onnx") from error
    assert program is not None
    return _cleaned(program.model_proto, facts)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's talk, and with attention as plain products rather than torch's fused inference kernel."""
    fused = torch.backends.mha.get_fastpath_enabled()
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    torch.backends.mha.set_fastpath_enabled(False)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _cleaned(proto: Any, facts: dict[str, str]) -> bytes:
    """The file without the exporter's traces: they are larger than the weights, and name folders of this machine."""
    import onnx

    parts = [proto.graph, *(f for f in proto.functions)]
    for part in parts:
        for one in (part, *part.node):
            del one.metadata_props[:]
            one.doc_string = ""
    for values in (proto.graph.input, proto.graph.output, proto.graph.value_info, proto.graph.initializer):
        for value in values:
            del value.metadata_props[:]
            value.doc_string = ""
    del proto.metadata_props[:]
    for key, text in sorted(facts.items()):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, text
    onnx.checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def check(content: bytes, predictors: Sequence[Predictor]) -> Checked:
    """Compare with torch: every combination in batches of several sizes, and rows of mixed combinations.

    Features are drawn with the mean and deviation of the training rows. Raises CheckFailed above the bound.
    """
    first = predictors[0]
    session = _session(content)
    random = np.random.default_rng(0)
    shapes = _DIALOGUES if first.attends else _ROWS
    member = membership(len(first.dims))
    cases = [(shape, np.tile(row, (*shape, 1))) for row in member for shape in shapes]
    cases += [(shape, random.random((*shape, len(first.dims))) < 0.5) for shape in shapes]
    largest, bound = 0.0, BOUND
    for number, (shape, presence) in enumerate(cases):
        features = {
            name: (
                first.normalisation.mean[name]
                + first.normalisation.std[name] * random.standard_normal((*shape, dim), dtype=np.float32)
            )
            for name, dim in zip(first.modalities.names, first.dims, strict=True)
        }
        found, scale = _difference(session, predictors, features, presence)
        largest = max(largest, found / scale)
        if not found <= bound * scale:
            where = first.modalities.labels[number // len(shapes)] if number // len(shapes) < len(member) else "mixed"
            raise CheckFailed(
                f"ONNX and torch differ by {found:.2g} ({where}, batch {'×'.join(map(str, shape))}), allowed is "
                f"{bound * scale:.2g}", hint="nothing was written; --no-onnx exports without it",
            )  # fmt: skip
    return Checked(len(cases), len(member), largest, bound)


def _session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _difference(
    session: Any, predictors: Sequence[Predictor], features: dict[str, Array], presence: Array
) -> tuple[float, float]:
    """The largest difference of logits and of what is made from them, and the size of the logits, at least 1."""
    first, shape = predictors[0], presence.shape[:-1]
    rows = int(np.prod(shape))
    flat = presence.reshape(rows, -1)
    kept = flat.any(1)
    logits, second = session.run(None, {**features, PRESENCE: np.ascontiguousarray(presence)})
    logits = logits.reshape(len(predictors), rows, -1)
    second = second.reshape(rows, -1)
    if not (np.isnan(logits[:, ~kept]).all() and np.isnan(second[~kept]).all()):
        return np.inf, 1.0  # a row with nothing present must not look like a prediction
    if not kept.any():
        return 0.0, 1.0
    expected = reference(predictors, {name: x.reshape(rows, -1) for name, x in features.items()}, flat, shape)
    made = averaged(expected, first.task)
    apart = max(np.abs(logits - expected)[:, kept].max(), np.abs(second - made)[kept].max())
    return float(apart), max(1.0, float(np.abs(expected[:, kept]).max()))


def reference(
    predictors: Sequence[Predictor], features: dict[str, Array], presence: Array, shape: tuple[int, ...]
) -> Array:
    """Logits [S, N, K] by torch; shape: (N,) or (B, T)."""
    rows = len(presence)
    dialogue = np.arange(rows) // (shape[1] if len(shape) > 1 else 1)
    zero = np.zeros(rows, dtype=np.int64)
    return np.stack([one.with_presence(features, presence, dialogue, np.arange(rows), zero) for one in predictors])


def averaged(logits: Array, task: Task) -> Array:
    """From logits [S, N, K] the mean over seeds of probabilities [N, K] or of values [N, 1]."""
    if task is not Task.CLASSIFICATION:
        return logits.mean(0, dtype=np.float64)
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return (shifted / shifted.sum(-1, keepdims=True)).mean(0)
