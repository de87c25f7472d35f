"""Section F: nothing but a whole checkpoint, which is the one that was meant, predicts."""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from mcutune.errors import Damaged, UserError
from mcutune.files import sealed, sha256
from mcutune.model.checkpoint import parse_tensors
from mcutune.model.checkpoint import read as read_checkpoint
from mcutune.model.predictor import load_predictor
from tests.faults.conftest import NAME, World


def first(world: World, trial: int = 0) -> Path:
    return world.run / "checkpoints" / "1" / str(trial) / "0"


class _Gadget:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._marker}",)


def test_54_a_hostile_pt_file(world: World) -> None:
    marker = world.home / "owned"
    torch.save({"weights": _Gadget(marker)}, world.home / "evil.pt")
    world.refused(2, "robustness", "--ckpt", "./evil.pt")
    for name in ("model.safetensors", "checkpoint.json"):
        folder = world.home / f"folder-{name}"
        shutil.copytree(first(world), folder)
        shutil.copy(world.home / "evil.pt", folder / name)
        world.refused(4, "robustness", "--ckpt", str(folder))
    assert not marker.exists()


Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
CHANGES: dict[str, tuple[Change, str]] = {
    "half the keys": (lambda t: dict(list(t.items())[::2]), "lacks tensor"),
    "an extra key": (lambda t: {**t, "zzz": torch.zeros(1)}, "unexpected tensor zzz"),
    "a transposed one": (
        lambda t: {k: v.T.contiguous() if v.dim() == 2 and v.shape[0] != v.shape[1] else v for k, v in t.items()},
        "has shape",
    ),
    "another rank": (lambda t: {k: torch.cat([v, v]) if v.dim() else v for k, v in t.items()}, "has shape"),
    "half precision": (lambda t: {k: v.half() for k, v in t.items()}, "torch.float16"),
    "none": (lambda t: {}, "lacks tensor"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_55_checkpoints_that_are_foreign_or_half(world: World, name: str) -> None:
    """Also where somebody made the hash fit."""
    change, words = CHANGES[name]
    folder = world.home / "moved"
    shutil.copytree(first(world), folder)
    weights = save(change(load((folder / "model.safetensors").read_bytes())))
    facts = json.loads((folder / "checkpoint.json").read_text())
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(Damaged, match="SHA-256"):
        load_predictor(folder)
    facts = sealed({**facts, "sha256": {"model.safetensors": sha256(weights)}})
    (folder / "checkpoint.json").write_text(json.dumps(facts))
    with pytest.raises(Damaged, match=words):
        load_predictor(folder)


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 100, -2])
@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.json"])
def test_55_checkpoints_that_are_cut(world: World, name: str, cut: int) -> None:
    path = first(world) / name
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(Damaged):
        load_predictor(first(world))
    assert name in world.refused(4, "robustness", "--ckpt", f"{NAME}:0") or name == "model.safetensors"


def header(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if length is None else length) + content


BOMBS = {
    "a header of 2^40": header(b"{}", 1 << 40),
    "300,000 tensors": header(
        json.dumps({f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(100_000)}).encode()
    ),
    "a shape of 2^40": header(b'{"t":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'),
    "a shape that overflows": header(b'{"t":{"dtype":"F32","shape":[4294967296,4294967296,8],"data_offsets":[0,8]}}'),
    "nested": header(b"[" * 100_000),
    "nothing": b"",
}


@pytest.mark.parametrize("name", BOMBS)
def test_56_header_bombs(tmp_path: Path, name: str) -> None:
    start = time.process_time()
    with pytest.raises(Damaged):
        parse_tensors(BOMBS[name], tmp_path / "model.safetensors")
    assert time.process_time() - start < 1.0


def test_57_two_valid_checkpoints_swapped(world: World) -> None:
    """Weights, whole folders of seeds, whole folders of trials: each is valid by itself."""
    trials = sorted(path for path in (world.run / "checkpoints" / "1").iterdir() if path.name.isdecimal())
    assert len(trials) >= 2
    winner = json.loads((world.run / "best.json").read_text())["best"][0]["trial"]
    other = next(path for path in trials if path.name != str(winner))
    best = other.with_name(str(winner))
    pairs = [
        (best / "0" / "model.safetensors", other / "0" / "model.safetensors"), (best / "0", best / "1"), (best, other),
    ]  # fmt: skip
    for one, two in pairs:
        swap(one, two)
        for given in (NAME, f"{NAME}:{winner}", f"{NAME}:{other.name}"):
            world.refused(4, "robustness", "--ckpt", given, "--protocol", "fixed")
        swap(one, two)
    world.good("robustness", "--ckpt", NAME, "--protocol", "fixed")


def swap(one: Path, two: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def test_58_a_checkpoint_goes_while_it_is_read(world: World) -> None:
    """As `--keep-checkpoints` removes it: at once. Whoever reads has all of it, or says that it is not there."""
    from mcutune.domain.trial import LaneId
    from mcutune.search.artefacts import drop_checkpoints, write_checkpoints

    folder = first(world)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    expected = {name: t.tolist() for name, t in parse_tensors(files["model.safetensors"], folder).items()}
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            write_checkpoints(world.run, {LaneId("1", 0, 0): files})
            drop_checkpoints(world.run, "1", 0)

    writer = threading.Thread(target=churn)
    writer.start()
    read = refused = 0
    try:
        end = time.monotonic() + 200
        while time.monotonic() < end and (read < 20 or refused < 5):
            try:
                tensors, _ = read_checkpoint(folder)
            except UserError:
                refused += 1
                continue
            read += 1
            assert {name: t.tolist() for name, t in tensors.items()} == expected
    finally:
        stop.set()
        writer.join()
    assert read and refused
