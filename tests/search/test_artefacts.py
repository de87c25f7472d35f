"""Folders that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mcutune.domain.trial import LaneId
from mcutune.errors import BadInput, Damaged
from mcutune.files import read_json, sha256
from mcutune.search.artefacts import (
    EncoderCache,
    checkpoint_folder,
    sweep,
    write_checkpoints,
    write_folder,
    write_folders,
)

FILES = {"model.safetensors": b"weights", "checkpoint.json": b"{}"}


def test_a_checkpoint_lies_where_it_belongs_with_its_hashes(tmp_path: Path) -> None:
    lane = LaneId("Ses01", 7, 2)
    assert write_checkpoints(tmp_path, {lane: FILES}) == {lane: (sha256(b"weights"), sha256(b"{}"))}
    folder = tmp_path / "checkpoints/Ses01/7/2"
    assert checkpoint_folder(tmp_path, lane) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


@pytest.mark.durable
def test_files_are_synced_before_the_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def sync(file: int) -> None:
        happened.append("sync " + Path(f"/proc/self/fd/{file}").readlink().suffix)
        real_sync(file)

    def rename(*names: Any, **options: Any) -> None:
        happened.append("rename")
        real_rename(*names, **options)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", rename)
    write_folder(tmp_path / "target", FILES)
    assert happened == ["sync .safetensors", "sync .json", "sync .part", "rename", "sync "]


@pytest.mark.durable
def test_many_folders_are_synced_as_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of what is inside before any has its name, all of the folders above after that; a parent of several once."""
    happened: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def sync(file: int) -> None:
        real_sync(file)
        happened.append(str(Path(f"/proc/self/fd/{file}").readlink().relative_to(tmp_path)))

    def rename(*names: Any, **options: Any) -> None:
        real_rename(*names, **options)
        happened.append("rename")

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", rename)
    write_folders({tmp_path / "all" / str(trial) / "0": FILES for trial in range(20)})
    inside, outside = happened[:60], happened[80:]
    assert all(".part" in path for path in inside) and len(set(inside)) == 60
    assert happened[60:80] == ["rename"] * 20
    assert sorted(outside) == sorted([".", "all", *(f"all/{trial}" for trial in range(20))])


@pytest.mark.parametrize("fault", ["fsync", "rename"])
def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    write_folder(tmp_path / "target", {"a": b"old"})
    with monkeypatch.context() as patch:
        patch.setattr(os, fault, fail)
        with pytest.raises(OSError, match="No space"):
            write_folder(tmp_path / "target", FILES)
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "a"]


def test_a_folder_from_before_a_crash_is_replaced(tmp_path: Path) -> None:
    write_folder(tmp_path / "target", {"a": b"old", "b": b"old"})
    write_folder(tmp_path / "target", {"a": b"new"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "target").iterdir()} == {"a": b"new"}


def test_what_a_crash_left_is_swept(tmp_path: Path) -> None:
    write_checkpoints(tmp_path, {LaneId("1", 0, 0): FILES})
    (tmp_path / "checkpoints/1/0/.1.abc.part").mkdir()
    sweep(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints/1/0").iterdir()] == ["0"]


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden"])
def test_file_names_are_strict(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput):
        write_folder(tmp_path / "target", {name: b""})


@pytest.mark.parametrize("key", ["../up", "", "a" * 80, "a.b"])
def test_encoder_keys_are_strict(tmp_path: Path, key: str) -> None:
    with pytest.raises(BadInput):
        EncoderCache(tmp_path, lambda pack: True).get(key, "a")


def test_an_encoder_in_the_cache_stays_as_it_is(tmp_path: Path) -> None:
    cache = EncoderCache(tmp_path, lambda pack: True)
    cache.put("abc", {"w": b"first"})
    cache.put("abc", {"w": b"second"})
    assert cache.get("abc", "a") == {"w": b"first"}


def test_a_pack_that_does_something_else_gives_its_lease_back(tmp_path: Path) -> None:
    cache = EncoderCache(tmp_path, lambda pack: True)
    assert cache.get("abc", "a") == "train"
    assert cache.get("abc", "b") == "wait"
    cache.release("b")
    assert cache.get("abc", "b") == "wait"
    cache.release("a")  # out of memory in training it, or no room to store it
    assert not cache.is_training("a")
    assert cache.get("abc", "b") == "train"


@pytest.mark.parametrize(
    "text", ['{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": "\\ud800"}', '{"\\udfff": 1}']
)
def test_json_that_nobody_can_hash_is_damaged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(Damaged, match="not valid JSON"):
        read_json(path)
    path.write_text('{"a": 1e-3, "b": "\\u00e4\\ud83d\\ude00"}')
    assert read_json(path) == {"a": 1e-3, "b": "ä😀"}
