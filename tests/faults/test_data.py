"""Section E: bad data is refused whole, before memory is taken or a trial is trained."""

from __future__ import annotations

import csv
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mcutune.data.importers import read_parquet
from mcutune.data.parquet import _answer
from mcutune.errors import BadInput
from tests.data import test_catalog, test_importers, test_label_pickle, test_layout, test_npy
from tests.data.test_importers import ARRAYS, ROLES
from tests.faults.conftest import World
from tests.search.kill import forked


def test_46_a_label_pickle_with_a_gadget(fresh: World, tmp_path: Path) -> None:
    for gadget in (_Gadget(os.system, f"touch {tmp_path / 'owned'}"), _Gadget(eval, "1")):
        path = test_label_pickle._write(tmp_path / "labels.pkl", ({"a": gadget}, *test_label_pickle.IEMOCAP[1:]))
        with pytest.raises(BadInput, match="posix|nt|builtins"):
            test_label_pickle.read_label_pickle(path)
    assert not (tmp_path / "owned").exists()


class _Gadget:
    def __init__(self, call: Callable[..., Any], argument: str) -> None:
        self._call, self._argument = call, argument

    def __reduce__(self) -> Any:
        return self._call, (self._argument,)


def test_47_the_label_pickles_of_the_literature(tmp_path: Path) -> None:
    """Their forms, opcode by opcode; the files themselves may not be shipped."""
    test_label_pickle.test_the_form_of_iemocap(tmp_path)
    for number, protocol in test_label_pickle.FORMS[1::3]:
        test_label_pickle.test_the_form_of_mosi_with_the_four_numpy_names(tmp_path, number, protocol)


BOMBS: dict[str, bytes] = {
    "memo": b"\x80\x02]" + b"".join(b"r" + n.to_bytes(4, "little") for n in range(1 << 31, (1 << 31) + 200)) + b".",
    "doubling": b"\x80\x02]q\x00" + b"".join(b"(h\x00h\x00eh\x00" for _ in range(60)) + b".",
}


@pytest.mark.parametrize("name", [*BOMBS, *test_label_pickle.BOMBS])
def test_48_pickle_bombs(tmp_path: Path, name: str) -> None:
    if name in test_label_pickle.BOMBS:
        test_label_pickle.test_bombs_end_within_their_limits(tmp_path, name)
        return
    with pytest.raises(BadInput) as caught:
        test_label_pickle.read_label_pickle(test_label_pickle._write(tmp_path / "bomb.pkl", BOMBS[name]))
    assert "\n" not in str(caught.value)


def test_48_a_large_file_is_not_even_opened(tmp_path: Path) -> None:
    test_label_pickle.test_a_large_file_is_not_even_opened(tmp_path)


@pytest.mark.parametrize("name", test_npy.HOSTILE)
@pytest.mark.parametrize("container", ["npy", "npz", "npz compressed"])
def test_49_hostile_arrays(name: str, container: str, tmp_path: Path) -> None:
    test_npy.test_hostile_arrays_are_refused_in_one_line(name, container, tmp_path)


@pytest.mark.parametrize("change", [{"audio": ARRAYS["audio"][:-1]}, {"audio": ARRAYS["audio"].astype(str)}])
def test_49_arrays_of_another_length_or_type(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    with pytest.raises(BadInput, match="audio"):
        test_importers.import_npz(test_importers._npz(tmp_path, **change), "talks", ROLES, home=tmp_path)


def parquet(path: Path, **columns: Any) -> Path:
    content = {"x": ARRAYS["session"], "text": [f"row {n}" for n in range(len(ARRAYS["session"]))], **columns}
    pq.write_table(pa.table(content), path, write_page_checksum=True, use_dictionary=False)
    return path


def test_50_flipped_and_cut_parquet(tmp_path: Path) -> None:
    """By the function that the reader's child runs, in forks of this process: some flips abort the library."""
    content, rng = parquet(tmp_path / "good.parquet").read_bytes(), np.random.default_rng(0)
    bad = tmp_path / "bad.parquet"
    heads = [4, 5, 20, 157]  # where the two pages begin and say how many rows they have
    for place in [*heads, *rng.integers(4, len(content), 20)]:
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        bad.write_bytes(changed)
        _, status = os.waitpid(forked(lambda: _other_rows(bad, tmp_path / "out.npz")), 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"byte {place}: other rows came back"
    for cut in (0, 4, 50, len(content) // 2, len(content) - 1):
        bad.write_bytes(content[:cut])
        with pytest.raises(BadInput, match="not a sound Parquet"):
            _answer({"path": str(bad), "wanted": ("x",), "to": str(tmp_path / "out.npz")})


def _other_rows(path: Path, beside: Path) -> None:
    """Fails where columns come back that are not those written; a column may be refused or be missing."""
    good = {"x": ARRAYS["session"], "text": np.array([f"row {n}" for n in range(len(ARRAYS["session"]))])}
    try:
        answer = _answer({"path": str(path), "wanted": tuple(good), "to": str(beside)})
    except BadInput:
        return
    with np.load(beside) as found:
        for key, number in answer["read"].items():
            assert np.array_equal(found[str(number)], good[key])


class _Foreign(pa.ExtensionType):
    def __init__(self) -> None:
        super().__init__(pa.int64(), "somebody.elses")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"cos\nsystem\n(S'touch owned'\ntR."

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> _Foreign:
        raise AssertionError("it was asked")


def test_50_extension_types_and_a_real_child(tmp_path: Path) -> None:
    foreign = pa.ExtensionArray.from_storage(_Foreign(), pa.array(ARRAYS["session"]))
    path = parquet(tmp_path / "data.parquet", **{"words": ARRAYS["words"].tolist(), "y": foreign})
    with pytest.raises(BadInput, match="y|extension"):
        read_parquet(path, ROLES)
    assert not Path("owned").exists()


def test_51_data_that_does_not_fit_together(tmp_path: Path) -> None:
    test_catalog.test_every_finding_is_reported_at_once()
    test_catalog.test_a_group_in_train_and_test_is_an_error_in_train_and_validation_it_is_not()
    test_importers.test_the_audit_refuses_leaks_and_repeated_ids_together(tmp_path)
    test_layout.test_missing_utterances_are_absent_and_listed(tmp_path)


def test_52_archives_are_not_data(fresh: World) -> None:
    with zipfile.ZipFile(fresh.home / "x.zip", "w") as archive:
        archive.writestr("../../escaped", "x")
    with tarfile.open(fresh.home / "x.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO())
    for name in ("x.zip", "x.tar.gz"):
        for target in (name, f"disguised-{name}.npz"):
            (fresh.home / target).write_bytes((fresh.home / name).read_bytes())
            err = fresh.refused(
                2, "data", "import", "npz", target, "--name", "mine", "--modality", "a", "--label", "l"
            )  # fmt: skip
            assert target[:9] in err
    assert "unpack" in fresh.refused(
        2, "data", "import", "npz", "x.zip", "--name", "m", "--modality", "a", "--label", "l"
    )  # fmt: skip
    assert not (fresh.home.parent / "escaped").exists() and not (fresh.home.parents[1] / "escaped").exists()


HOSTILE = ["\x1b[2Jred", "\x1b]0;owned\x07", "a\u202egnp.exe", "=cmd()", "+1+cmd", "-2+3", "@SUM(1)", "\u2066x", "a\rb"]


def test_53_hostile_text_from_data(fresh: World) -> None:
    """As names of classes: shown in the terminal, the page and the exported tables, obeyed nowhere."""
    classes = len(HOSTILE)
    rows = 30 * classes
    random = np.random.default_rng(0)
    label = np.arange(rows) % classes
    centre = random.normal(size=(classes, 6)) * 2
    np.savez(
        fresh.home / "x.npz", audio=(centre[label] + random.normal(size=(rows, 6))).astype("f4"), label=label,
        text=random.normal(size=(rows, 3)).astype("f4"), names=np.array(HOSTILE), session=np.arange(rows) // 9 % 5,
        speaker=np.arange(rows) // 9 % 15,
    )  # fmt: skip
    columns = ["--label", "label", "--label-names", "names", "--fold", "session", "--speaker", "speaker"]
    fresh.good(
        "data", "import", "npz", "x.npz", "--name", "evil", "--modality", "audio", "--modality", "text", *columns
    )
    search = ("search", "--space", "tiny.yaml", "--data", "evil", "--place", "process", "--plain", "--trials", "2")
    shown = [fresh.good(*command) for command in (("data", "list"), ("data", "check"), search)]
    shown.append(fresh.good("robustness", "--ckpt", "tiny-evil", "--protocol", "fixed"))
    for text in shown:
        assert all(character.isprintable() or character == "\n" for character in text), ascii(text)
    page = (fresh.home / "runs/tiny-evil/robustness/report.html").read_text(encoding="utf-8")
    assert not set("\x1b\x07\u202e\u2066\r") & set(page)
    for path in fresh.home.rglob("*.csv"):
        for row in csv.reader(path.read_text(encoding="utf-8").splitlines()):
            assert not any(cell[:1] in "=+-@" and not _is_number(cell) for cell in row if cell), row


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
