"""Label pickles: the known forms load, and nothing that a pickle names is ever run."""

from __future__ import annotations

import os
import pickle
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcutune.data import label_pickle
from mcutune.data.label_pickle import read_label_pickle
from mcutune.errors import BadInput

IEMOCAP = (
    {"Ses01F_impro01": ["Ses01F_impro01_F000", "Ses01F_impro01_M000"], "Ses02M_script01": ["Ses02M_script01_F000"]},
    {"Ses01F_impro01": [0, 3], "Ses02M_script01": [-1]},
    {"Ses01F_impro01": ["F", "M"], "Ses02M_script01": ["F"]},
    {"Ses01F_impro01": ["hello", "=cmd()"], "Ses02M_script01": ["x"]},
    {"Ses01F_impro01"},
    {"Ses02M_script01"},
)


def mosi(number: Any) -> tuple[Any, ...]:
    """A label file of seven, its labels made by `number`."""
    ids = {f"video{v}": [f"video{v}_{u}" for u in range(3)] for v in range(3)}
    labels = {name: [number(v - 0.5 + u) for u in range(3)] for v, name in enumerate(ids)}
    empty = {name: ["", "", ""] for name in ids}
    return ids, labels, empty, empty, ["video0"], ["video1"], ["video2"]


def _write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
    return path


def test_the_form_of_iemocap(tmp_path: Path) -> None:
    content = read_label_pickle(_write(tmp_path / "l.pkl", IEMOCAP))
    assert [dialogue.name for dialogue in content.dialogues] == ["Ses01F_impro01", "Ses02M_script01"]
    assert content.dialogues[0].labels == (0, 3) and content.dialogues[0].speakers == ("F", "M")
    assert content.parts == {"train": ("Ses01F_impro01",), "test": ("Ses02M_script01",)}


# Protocol 2 of Python 3 and arrays in protocol 5 need a fifth name; real files have neither.
FORMS = [(float, 2), (np.float64, 3), (np.float64, 4), (np.float64, 5), (np.float32, 4), (np.int64, 4)]
FORMS += [(lambda x: np.array([x]), protocol) for protocol in (3, 4)]


@pytest.mark.parametrize(("number", "protocol"), FORMS)
def test_the_form_of_mosi_with_the_four_numpy_names(tmp_path: Path, number: Any, protocol: int) -> None:
    content = read_label_pickle(_write(tmp_path / "l.pkl", mosi(number), protocol))
    assert content.parts["validation"] == ("video1",)
    for v, dialogue in enumerate(content.dialogues):
        np.testing.assert_allclose(dialogue.labels, [float(np.ravel(number(v - 0.5 + u))[0]) for u in range(3)])


@pytest.mark.parametrize("spelling", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_spellings_of_numpy_and_whole_arrays(tmp_path: Path, spelling: bytes) -> None:
    values = mosi(float)
    arrays = {name: np.array(labels, np.float32) for name, labels in values[1].items()}
    content = pickle.dumps((values[0], arrays, *values[2:]), protocol=3)
    content = content.replace(b"numpy._core.multiarray", spelling)
    assert spelling in content
    assert read_label_pickle(_write(tmp_path / "l.pkl", content)).dialogues[1].labels == (0.5, 1.5, 2.5)


def test_arrays_of_text(tmp_path: Path) -> None:
    """Names and parts as numpy arrays, of Unicode or of bytes."""
    ids, labels, speakers, sentences, *parts = mosi(float)
    ids = {name: np.array(names) for name, names in ids.items()}
    speakers = {name: np.array([b"F", b"", b"M"]) for name in speakers}
    content = (ids, labels, speakers, sentences, *(np.array(part) for part in parts))
    found = read_label_pickle(_write(tmp_path / "l.pkl", content))
    assert found.dialogues[1].utterances == ("video1_0", "video1_1", "video1_2") and found.parts["test"] == ("video2",)
    assert found.dialogues[1].speakers == ("F", "", "M")


def test_python_2_scalars(tmp_path: Path) -> None:
    """Protocol 2 as Python 2 wrote it: the bytes of a number are a str."""
    number = struct.pack("<d", 1.25)
    dtype = b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    scalar = b"cnumpy.core.multiarray\nscalar\n" + dtype + b"U\x08" + number + b"\x86R"
    one = b"}U\x01v]"
    ids, labels, text = one + b"U\x03v_1as", one + scalar + b"as", one + b"U\x00as"
    content = b"\x80\x02(" + ids + labels + text + text + b"]U\x01va" + b"]" + b"]" + b"t."
    assert read_label_pickle(_write(tmp_path / "l.pkl", content)).dialogues[0].labels == (1.25,)


class _Gadget:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def _gadgets(marker: Path) -> dict[str, bytes]:
    touch = f"touch {marker}"
    return {
        "os.system": pickle.dumps(_Gadget(os.system, touch)),
        "eval in a label": pickle.dumps(
            (*IEMOCAP[:1], {"a": [_Gadget(eval, f"open({str(marker)!r}, 'w')")]}, *IEMOCAP[2:])
        ),
        "open": pickle.dumps(_Gadget(open, str(marker), "w")),
        "numpy.load": pickle.dumps(_Gadget(np.load, str(marker))),
        "dotted attribute": b"\x80\x04\x8c\x05numpy\x94\x8c\x0bdtype.mro\x94\x93.",
        "numpy.f2py exec": b"cnumpy.testing._private.utils\nrunstring\n(S'x=1'\n}tR.",
        "os.system, protocol 0": f"cos\nsystem\n(S'{touch}'\ntR.".encode(),
        "reduce through getattr": f"cbuiltins\ngetattr\n(cos\nsystem\nS'__call__'\ntR(S'{touch}'\ntR.".encode(),
        "object array": pickle.dumps((*IEMOCAP[:1], {"a": np.array([{}], dtype=object)}, *IEMOCAP[2:]), protocol=3),
        "extension registry": b"\x80\x02\x82\x01.",
        "persistent id": b"\x80\x02U\x01xQ.",
    }


@pytest.mark.parametrize("name", list(_gadgets(Path("x"))))
def test_gadgets_are_refused_and_do_not_run(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(BadInput, match="refused|not a plain number or text|not a sound pickle") as raised:
        read_label_pickle(_write(tmp_path / "l.pkl", _gadgets(marker)[name]))
    assert not marker.exists() and "\n" not in str(raised.value)
    if name == "os.system":
        assert "posix.system" in str(raised.value)


def test_stand_ins_are_checked_too(tmp_path: Path) -> None:
    """A REDUCE on the allowed names with anything but what numpy writes is refused, not decoded."""
    for call in (b"(K\x01tR", b"(tR", b"(U\x02O8tR", b"(U\x03V99tR", b"(U\x02U0tR", b"(U\x02f8tRK\x07b"):
        content = b"\x80\x02cnumpy\ndtype\n" + call + b"."
        with pytest.raises(BadInput):
            read_label_pickle(_write(tmp_path / "l.pkl", content))
    with pytest.raises(BadInput):
        read_label_pickle(_write(tmp_path / "l.pkl", b"\x80\x02cnumpy.core.multiarray\nscalar\n(K\x01K\x01tR."))


BOMBS: dict[str, tuple[bytes, str]] = {
    "1 TiB of bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.", "not a sound pickle"),
    "memo index": (b"\x80\x04Nr\xff\xff\xff\x7f.", "needs more than 1,024 MiB"),
    "too many instructions": (b"\x80\x04" + b"N0" * 1_500_001 + b"N.", "more than 3,000,000 instructions"),
    "nested lists": (b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".", "not a label file"),
    "truncated": (pickle.dumps(IEMOCAP)[:-40], "not a sound pickle"),
    "empty": (b"", "not a sound pickle"),
    "no pickle": (b"hello", "not a sound pickle"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_within_their_limits(tmp_path: Path, name: str) -> None:
    content, message = BOMBS[name]
    start = time.monotonic()
    with pytest.raises(BadInput, match=message) as raised:
        read_label_pickle(_write(tmp_path / "l.pkl", content))
    assert time.monotonic() - start < 30 and "\n" not in str(raised.value)


def test_a_reply_that_would_explode_is_refused(tmp_path: Path) -> None:
    """Dialogues that share one list of utterances: a small file, a reply of gigabytes."""
    shared = ["u"] * 2000
    ids = dict.fromkeys((f"d{n}" for n in range(20_000)), shared)
    with pytest.raises(BadInput, match="more than 1,000,000 utterances"):
        read_label_pickle(_write(tmp_path / "l.pkl", (ids, ids, ids, ids, [], [])))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "tuple of 6"),
        ((*IEMOCAP[:1], {}, *IEMOCAP[2:]), "unequal numbers.*Ses01F"),
        (({1: ["x"]}, *IEMOCAP[1:]), "by the name"),
        (({"a": "text"}, {"a": [1]}, {"a": ["F"]}, {}, [], []), "place of a dialogue"),
        (({"a": ["x"]}, {"a": ["one"]}, {"a": ["F"]}, {}, [], []), "place of a label"),
        (({"a": ["x"]}, {"a": [1]}, {"a": ["F"]}, {}, 7, []), "place of names"),
    ],
)
def test_other_structures_are_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_label_pickle(_write(tmp_path / "l.pkl", content))


def test_a_large_file_is_not_even_opened(tmp_path: Path) -> None:
    with (tmp_path / "l.pkl").open("wb") as file:
        file.truncate(label_pickle._FILE_LIMIT + 1)
    with pytest.raises(BadInput, match="MiB"):
        read_label_pickle(tmp_path / "l.pkl")
    with pytest.raises(BadInput, match="does not exist"):
        read_label_pickle(tmp_path / "none.pkl")
