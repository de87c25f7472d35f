"""Plain numpy files, headers checked before any data is read: no pickles, no sizes that the data does not have."""

from __future__ import annotations

import ast
import contextlib
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from mcutune.data.columns import Array
from mcutune.data.hints import did_you_mean, shown
from mcutune.errors import BadInput

_MAGIC = b"\x93NUMPY"
_HEADER_LIMIT = 10_000  # bytes; a plain array's header has about 100
_DATA_LIMIT = 16 << 30  # bytes of one array
_MEMBERS_LIMIT = 10_000
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
_KINDS = "biufUS"  # booleans, numbers, text; not object, structured, complex, time


@dataclass(frozen=True)
class Header:
    """What an array's header says: its shape, type, memory order, and the bytes its data must have."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    data_bytes: int
    header_bytes: int


def read_header(stream: IO[bytes], what: str) -> Header:
    """The header at the stream's start. Raises BadInput, naming `what`, where it is not that of a plain array."""
    start = stream.read(8)
    if len(start) < 8 or start[:6] != _MAGIC or start[6] not in (1, 2):
        raise BadInput(f"{what} is not a .npy array")
    width, form = (2, "<H") if start[6] == 1 else (4, "<I")
    length = struct.unpack(form, stream.read(width).ljust(width, b"\0"))[0]
    if length > _HEADER_LIMIT:
        raise BadInput(f"{what} has a header of {length:,} bytes, more than the {_HEADER_LIMIT:,} allowed")
    try:
        header = ast.literal_eval(stream.read(length).decode("latin1").strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
        dtype = np.dtype(descr) if isinstance(descr, str) else np.dtype(object)
        sound = isinstance(fortran, bool) and all(type(size) is int and size >= 0 for size in shape)
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise BadInput(f"{what} has a header that is not valid") from None
    if dtype.kind not in _KINDS or (dtype.kind == "f" and dtype.itemsize > 8):
        raise BadInput(
            f"{what} holds {shown(descr)}, not plain numbers or text",
            hint="objects are pickles, which are never read; save it as a number or string type",
        )
    if not sound or not isinstance(shape, tuple) or len(shape) > 8:
        raise BadInput(f"{what} has a header that is not valid")
    size = math.prod(shape) * dtype.itemsize
    if size > _DATA_LIMIT:
        raise BadInput(f"{what} claims {size:,} bytes, more than the {_DATA_LIMIT:,} allowed")
    return Header(shape, dtype, fortran, size, 8 + width + length)


def _read_data(stream: IO[bytes], header: Header, total: int, what: str) -> Array:
    """The array after its header, in native byte order; `total`: bytes of the whole file or member."""
    if total != header.header_bytes + header.data_bytes:
        have = total - header.header_bytes
        raise BadInput(f"{what} has {have:,} bytes of data, its header says {header.data_bytes:,}")
    content = stream.read(header.data_bytes)
    if len(content) != header.data_bytes or stream.read(1):
        raise BadInput(f"{what} is cut short")
    values = np.frombuffer(content, header.dtype).reshape(header.shape, order="F" if header.fortran else "C")
    values = values.astype(header.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind == "U" and values.size and values.dtype.itemsize:
        points = np.ascontiguousarray(values).view(np.uint32)
        if points.max() > 0x10FFFF or ((points >= 0xD800) & (points <= 0xDFFF)).any():
            raise BadInput(f"{what} holds text that is not valid Unicode")
    return values


def read_npy(path: Path) -> Array:
    """The array of a .npy file. Raises BadInput naming the file."""
    what = shown(path, 200)
    try:
        with path.open("rb") as file:
            header = read_header(file, what)
            return _read_data(file, header, path.stat().st_size, what)
    except OSError as error:
        raise BadInput(f"{what} cannot be read: {error.strerror}") from None


class NpzSource:
    """The arrays of a .npz file by key, each checked and read when asked. Raises BadInput naming file and key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as archive:
            names = archive.namelist()
        if odd := [name for name in names if not name.endswith(".npy")]:
            raise BadInput(
                f"{self._name} is an archive of other files ({shown(odd[0])}), not a .npz",
                hint="archives are not accepted: unpack it yourself",
            )
        if len(names) > _MEMBERS_LIMIT or len(set(names)) != len(names):
            raise BadInput(f"{self._name} has too many or repeated keys")
        self.keys = tuple(name.removesuffix(".npy") for name in names)

    @property
    def _name(self) -> str:
        return shown(self.path, 200)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        """The archive; whatever a broken one raises becomes BadInput."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except FileNotFoundError:
            raise BadInput(f"{self._name} does not exist") from None
        except _BROKEN as error:
            raise BadInput(f"{self._name} is not a sound .npz: {shown(error, 120)}") from None

    def read(self, key: str) -> Array:
        """The array of that key."""
        if key not in self.keys:
            raise BadInput(f"{self._name} has no key {shown(key)!r}", hint=did_you_mean(key, self.keys))
        what = f"{self._name}: {shown(key)}"
        with self._opened() as archive:
            member = archive.getinfo(f"{key}.npy")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadInput(f"{what} is compressed in a way that is not accepted", hint="use numpy.savez_compressed")
            with archive.open(member) as stream:  # gives file_size bytes at most, and checks their CRC at the end
                header = read_header(stream, what)
                return _read_data(stream, header, member.file_size, what)
