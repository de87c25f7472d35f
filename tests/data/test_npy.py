"""Numpy files that lie are refused in one line that names the file, before memory is taken; sound ones are read."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcutune.data.npy import NpzSource, read_npy
from mcutune.errors import BadInput


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def _with_header(header: str, data: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    size = (len(header) if length is None else length).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode("latin1") + data


def _described(descr: str, shape: str, data: bytes = b"") -> bytes:
    return _with_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n", data)


GOOD = _npy(np.ones((3, 2)))
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a .npy"),
    "text": (b"hello, this is not an array", "not a .npy"),
    "zip": (b"PK\x03\x04" + bytes(100), "not a .npy"),
    "object": (_npy(np.array([{}, None], dtype=object)), "pickles"),
    "structured": (_npy(np.zeros(2, dtype=[("a", "f4")])), "plain numbers"),
    "object in a structure": (_described("[('a', '|O')]", "(1,)", bytes(8)), "plain numbers"),
    "complex": (_npy(np.zeros(2, complex)), "plain numbers"),
    "time": (_npy(np.zeros(2, "M8[s]")), "plain numbers"),
    "long double": (_npy(np.zeros(2, np.longdouble)), "plain numbers"),
    "80 bytes for 32 GiB": (_described("'<f8'", "(4294967296,)", bytes(8)), "claims 34,359,738,368 bytes"),
    "2 ** 200 elements": (_described("'<f8'", f"({2**200},)"), "claims"),
    "negative size": (_described("'<f8'", "(-1,)", bytes(8)), "not valid"),
    "size as text": (_described("'<f8'", "('1',)", bytes(8)), "not valid"),
    "size as bool": (_described("'<f8'", "(True,)", bytes(8)), "not valid"),
    "size without a tuple": (_described("'<f8'", "3", bytes(24)), "not valid"),
    "3 GiB header": (_with_header("{", version=2, length=3 << 30), "header of 3,221,225,472 bytes"),
    "nested header": (_with_header("(" * 5000), "not valid"),
    "header that calls": (_with_header("__import__('os').system('touch marker')"), "not valid"),
    "no dictionary": (_with_header("[1, 2]"), "not valid"),
    "missing key": (_with_header("{'descr': '<f8', 'shape': (1,)}"), "not valid"),
    "unknown type": (_described("'<q9'", "(1,)", bytes(9)), "not valid"),
    "short data": (GOOD[:-5], "bytes of data"),
    "long data": (GOOD + b"x", "bytes of data"),
    "text beyond Unicode": (_described("'<U1'", "(1,)", b"\xff\xff\xff\xff"), "Unicode"),
    "lone surrogate": (_described("'<U1'", "(1,)", b"\x00\xd8\x00\x00"), "Unicode"),
    "version 3": (b"\x93NUMPY\x03\x00" + GOOD[8:], "not a .npy"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("container", ["npy", "npz", "npz compressed"])
def test_hostile_arrays_are_refused_in_one_line(name: str, container: str, tmp_path: Path) -> None:
    content, message = HOSTILE[name]
    path = tmp_path / f"data.{container[:3]}"
    if container == "npy":
        path.write_bytes(content)
        read: Callable[[], object] = lambda: read_npy(path)  # noqa: E731
    else:
        kind = zipfile.ZIP_DEFLATED if "compressed" in container else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", kind) as archive:
            archive.writestr("audio.npy", content)
        read = lambda: NpzSource(path).read("audio")  # noqa: E731
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match=message) as raised:
            read()
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    assert container == "npy" or "audio" in str(raised.value)
    assert not Path("marker").exists()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(["a", "ünï", ""]),
        np.array([b"x", b"yz"]),
        np.float16([1.5, -2]),
        np.array(True),
        np.zeros((0, 3), np.float32),
    ],
)
def test_sound_arrays_are_read_as_numpy_reads_them(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", a=array)
    for values in (read_npy(tmp_path / "a.npy"), NpzSource(tmp_path / "a.npz").read("a")):
        np.testing.assert_array_equal(values, array)
        assert values.dtype == array.dtype.newbyteorder("=")


def test_archives_of_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../etc/x.csv", "1")
    with pytest.raises(BadInput, match="unpack it yourself"):
        NpzSource(path)


def test_repeated_keys_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        NpzSource(tmp_path / "none.npz")
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.npy", GOOD)
        archive.writestr("a.npy", GOOD)
    with pytest.raises(BadInput, match="repeated"):
        NpzSource(tmp_path / "twice.npz")


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_npz_never_gives_another_exception(
    place: float, bit: int, cut: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    np.savez_compressed(path, a=np.arange(50.0), b=np.array(["x", "y"]))
    content = bytearray(path.read_bytes())
    position = int(place * (len(content) - 1))
    content[position] ^= 1 << bit
    path.write_bytes(content[:position] if cut else content)
    try:
        source = NpzSource(path)
        values = {key: source.read(key) for key in source.keys}
    except BadInput:
        return
    for found in values.values():  # a bit that means nothing, or one in a name: the data is as it was
        assert np.array_equal(found, np.arange(50.0)) or np.array_equal(found, ["x", "y"])
