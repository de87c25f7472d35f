"""Sound files of every kind that is read, small, and hostile ones: what tests and campaigns change at random.

They are made here, not stored: what they are is written down, and no scanner of the repository meets a hostile file.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tempfile
import zipfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mcutune.files import canonical_json, sealed, sha256
from mcutune.search.canonical import canonical_lines
from mcutune.search.head import HEAD, read_head
from mcutune.search.ledger import DATABASE, read_ledger
from tests.search.rows import fill
from tests.search.simulate import SPACE

CANARY = "MCUTUNE_TEST_CANARY"  # names the file that hostile input would make
ROOT = Path(__file__).parents[2]
LEDGER_LINES: list[bytes] = []
HEADS: list[Any] = [None]


@dataclass(frozen=True)
class Sample:
    """A file as it is read. `words`: what means something in its format. `beside`: files it is read with."""

    kind: str
    name: str
    content: bytes
    words: tuple[bytes, ...] = ()
    beside: dict[str, bytes] = field(default_factory=dict)


class Gadget:
    """What a hostile pickle holds: it would run a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f'touch "${CANARY}"',)


_YAML = (
    b"!!python/object/apply:os.system [x]", b"&a [*a]", b"<<: *x", b"{", b"}", b"[[[[[[[[", b"1e400", b".nan", b"-.inf",
    b"no", b"0o17", b"1:30", b"\x00", b"\xff\xfe", b"---\n", b"? ", b"|\n", b"\t", "\u202e".encode(), b"9" * 400,
)  # fmt: skip
_JSON = (b"NaN", b"1e999", b"[" * 200, b"{}", b"null", b'""', b"-1", b"\\ud800", b"9" * 400, b"true")
_NUMPY = (b"|O", b"<f8", b"<U9999999", b"(1,)", b"True", b"descr", b"\xff\xff\xff\x7f", b"'shape': (99999999999,)")
_PICKLE = (b"cos\nsystem\n", b"R", b"\x93", b"(S'x'\ntR.", b"\x81", b"b", b"h\x00", b"\x8b\xff\xff\xff\x7f",
           b"\x80\x05", b"cbuiltins\neval\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"Q", b"\x82\x01")  # fmt: skip
_SAFE = (b'"dtype"', b'"F32"', b'"data_offsets":[0,99999999999]', b'"shape":[1099511627776]', b"\xff" * 8, b"{", b"}")


def _npy(array: Any, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def _npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "audio": rng.standard_normal((12, 3)).astype(np.float32),
        "text": rng.standard_normal((12, 2)).astype(np.float32),
        "label": np.arange(12) % 3,
        "id": np.array([f"u{i}" for i in range(12)]),
        "dialogue": np.array([f"d{i // 4}" for i in range(12)]),
    }


def _numpy_files() -> list[Sample]:
    arrays = _arrays()
    gadget = np.empty(1, dtype=object)
    gadget[0] = Gadget()
    hostile = {**arrays, "label": gadget}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in hostile.items():
            archive.writestr(f"{name}.npy", _npy(array, allow_pickle=True))
    huge = (
        b"\x93NUMPY\x01\x00"
        + struct.pack("<H", 76)
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296,), }"
    )
    return [
        Sample("npy", "a.npy", _npy(arrays["audio"]), _NUMPY),
        Sample("npy", "b.npy", _npy(arrays["id"]), _NUMPY),
        Sample("npy", "gadget.npy", _npy(gadget, allow_pickle=True), _NUMPY),
        Sample("npy", "huge.npy", huge.ljust(86) + b"\n", _NUMPY),
        Sample("npz", "a.npz", _npz(**arrays), _NUMPY),
        Sample("npz", "gadget.npz", stream.getvalue(), _NUMPY),
    ]  # fmt: skip


def _parquet_files() -> list[Sample]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = _arrays()
    columns: dict[str, Any] = {"audio": [row.tolist() for row in arrays["audio"]], "label": arrays["label"].tolist()}
    columns |= {"id": arrays["id"].tolist(), "text.0": arrays["text"][:, 0], "text.1": arrays["text"][:, 1]}
    found = []
    for name, options in (("plain", {"compression": "none"}), ("zstd", {"compression": "zstd"})):
        stream = io.BytesIO()
        pq.write_table(pa.table(columns), stream, write_page_checksum=True, **options)
        found.append(
            Sample("parquet", f"{name}.parquet", stream.getvalue(), (b"PAR1", b"\xff" * 8, b"ARROW:extension"))
        )
    return found


def _pickles() -> list[Sample]:
    ids = {"d1": ["u1", "u2"], "d2": ["u3"]}
    labels, speakers = {"d1": [0, 1], "d2": [2]}, {"d1": ["F", "M"], "d2": ["F"]}
    sound = pickle.dumps((ids, labels, speakers, {}, ["d1"], ["d2"]), protocol=2)
    hostile = pickle.dumps((ids, labels, speakers, Gadget(), ["d1"], ["d2"]))
    bomb = b"\x80\x02" + b"]q\x00" + b"h\x00h\x00h\x00h\x00(lq\x00" * 500 + b"."
    samples = {
        "sound.pkl": sound,
        "gadget.pkl": hostile,
        "bomb.pkl": bomb,
        "giant.pkl": b"\x8e" + struct.pack("<Q", 1 << 40),
    }
    return [Sample("pickle", name, content, _PICKLE) for name, content in samples.items()]


def _checkpoints() -> list[Sample]:
    import torch
    from safetensors.torch import save

    weights = save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)})
    facts: dict[str, Any] = {key: {} for key in ("configuration", "normalisation", "data", "lane")} | {
        "modalities": [],
        "dims": [],
    }
    facts |= {"schema": 2, "task": "classification", "label_names": ["x"], "score": 0.25}
    facts |= {"sha256": {"model.safetensors": sha256(weights)}}
    told = json.dumps(sealed(facts), indent=1).encode()
    many = json.dumps({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(11_000)}).encode()
    return [
        Sample("safetensors", "a.safetensors", weights, _SAFE),
        Sample("safetensors", "length.safetensors", struct.pack("<Q", 1 << 40) + b"{}", _SAFE),
        Sample("safetensors", "many.safetensors", struct.pack("<Q", len(many)) + many, _SAFE),
        Sample("checkpoint", "checkpoint.json", told, _JSON, {"model.safetensors": weights}),
        Sample("sealed", "best.json", json.dumps(sealed({"best": [{"score": 0.5, "fold": "1"}]})).encode(), _JSON),
    ]  # fmt: skip


def _manifests() -> list[Sample]:
    from mcutune.data.table import MANIFEST, write_table
    from mcutune.robustness.evidence import SCHEMA
    from tests.robustness.worlds import make_columns

    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder, "toy"), make_columns(30, folds=2, groups=4))
        table = Path(folder, "toy", MANIFEST).read_bytes()
    body = {"schema": SCHEMA, "facts": {"rate": 0.5}, "files": {"rows-toy.parquet": "0" * 64}}
    evidence = json.dumps({**body, "hash": sha256(canonical_json(body))}).encode()
    return [
        Sample("table", "manifest.json", table, _JSON),
        Sample("evidence", "manifest.json", evidence, _JSON),
    ]


def _ledgers() -> list[Sample]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, 3)
        LEDGER_LINES[:] = list(canonical_lines(read_ledger(folder)[0]))
        database, head = (folder / DATABASE).read_bytes(), (folder / HEAD).read_bytes()
        HEADS.extend([read_head(folder), (0, b"")])
        slots = [head[:128], head[128:]]
        for number in (0, 1):
            (folder / HEAD).write_bytes(b"".join(slot if i == number else b"x" * 128 for i, slot in enumerate(slots)))
            HEADS.append(read_head(folder))
    return [
        Sample(
            "ledger", DATABASE, database, (b"SQLite format 3\x00", b"\x00" * 64, b"CREATE TABLE", b"[]"), {HEAD: head}
        ),
        Sample("head", HEAD, head, (b"0", b" ", b"\n", b"99999999999")),
    ]


def _texts() -> list[Sample]:
    shipped = [*sorted((ROOT / "eval_protocols").glob("*.yaml")), *sorted((ROOT / "search_spaces").glob("*.yaml"))]
    bomb = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(b"b%d: &b%d [*a,*a,*a,*a]\n" % (i, i) for i in range(9))
    found = [
        Sample("protocol" if path.parent.name == "eval_protocols" else "space", path.name, path.read_bytes(), _YAML)
        for path in shipped
    ]
    tag = b"question: !!python/object/apply:os.system ['touch \"$" + CANARY.encode() + b"\"']\n"
    return [
        *found,
        Sample("space", "simulated.yaml", SPACE.encode(), _YAML),
        Sample("space", "tag.yaml", tag + SPACE.encode(), _YAML),
        Sample("space", "bomb.yaml", bomb, _YAML),
        Sample("space", "deep.yaml", b"[" * 3_000, _YAML),
    ]


@cache
def files() -> tuple[Sample, ...]:
    """All samples."""
    made = (_texts, _numpy_files, _parquet_files, _pickles, _checkpoints, _manifests, _ledgers)
    return tuple(sample for make in made for sample in make())
