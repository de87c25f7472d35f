"""Section D: bad configuration is refused with file, line and what is valid, before anything is made."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mcutune import strict_yaml
from mcutune.errors import BadInput
from mcutune.files import read_json
from mcutune.search.space_file import load_space
from tests.cli.test_commands import NAMES
from tests.faults.conftest import SEARCH, SPACE, World


def space(world: World, text: str) -> str:
    """The error of a search over this space."""
    (world.home / "bad.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    err = world.refused(2, "search", "--space", "bad.yaml", "--data", "small", "--place", "process")
    assert not (world.home / "runs").exists()
    return err


def of_beta(domain: str) -> str:
    return f"parameters:\n  beta: {{role: scientific, {domain}}}\ntrials: 2\n"


def test_35_a_number_without_a_point_is_a_number(fresh: World) -> None:
    path = fresh.home / "s.yaml"
    path.write_text(SPACE.replace("learning_rate: 1e-3", "learning_rate: 1e-3, weight_decay: 1E-5"))
    default = load_space(str(path)).default
    assert (default.learning_rate, default.weight_decay) == (0.001, 0.00001)


@pytest.mark.parametrize("word", ["no", "on", "1:30", "017", "0x1F", "1_000"])
def test_36_words_that_yaml_once_took_for_numbers(fresh: World, word: str) -> None:
    assert f"'{word}'" in space(fresh, of_beta(f"low: {word}, high: 2000"))
    assert "trials" in space(fresh, of_beta("low: 1, high: 2").replace("trials: 2", f"trials: {word}"))


def test_37_a_key_twice(fresh: World) -> None:
    err = space(fresh, "trials: 2\n" + of_beta("low: 1, high: 2"))
    assert "bad.yaml:4" in err and "line 1" in err


def test_38_a_misspelt_key(fresh: World) -> None:
    err = space(fresh, "parameters:\n  rnak: {role: scientific, values: [1]}\ntrials: 2\n")
    assert "bad.yaml:2" in err and "did you mean 'rank'" in err


@pytest.mark.parametrize(
    ("domain", "word"),
    [
        ("low: 2, high: 1", "low"), ("low: 0, high: 1, log: true", "above 0"), ("low: -1, high: 1, log: true", "above"),
        ("low: 0, high: 1, step: 0", "step"), ("values: []", "empty"), ("low: .nan, high: 1", ".nan"),
        ("low: 0, high: .inf", ".inf"), ("low: 0, high: 1e400", "1e400"), ("low: 0", "high"), ("values: [1, x]", "x"),
        ("low: 0, high: 1, values: [1]", "values"), ("low: 1, high: 2, log: maybe", "log"),
    ],
)  # fmt: skip
def test_39_domains_that_cannot_be(fresh: World, domain: str, word: str) -> None:
    err = space(fresh, of_beta(domain))
    assert "bad.yaml:2" in err and word in err


def test_40_alias_bombs(fresh: World) -> None:
    letters = "abcdefghijklmnop"
    lines = [f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip(letters, letters[1:], strict=False)]
    merges = [f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 9)}]}}" for a, b in zip(letters, letters[1:], strict=False)]
    for bomb in (["a: &a [x]", *lines], ["a: &a {x: 1}", *merges]):
        start = time.process_time()
        with pytest.raises(BadInput, match="anchor"):
            strict_yaml.load("\n".join(bomb))
        assert time.process_time() - start < 0.1
        assert "anchor" in space(fresh, "\n".join(bomb))


@pytest.mark.parametrize(
    "text",
    ["[" * 3000, "{a: " * 3000, "a: " + "9" * 200_000, "a: " + "9" * 2_000_000,
     "".join(f"k{n}: 1\n" for n in range(100_000)), "? " * 3000],
    ids=["lists", "maps", "digits", "2 MB", "1 MB flat", "keys"],
)  # fmt: skip
def test_41_too_deep_too_long_too_large(fresh: World, text: str) -> None:
    start = time.process_time()
    space(fresh, text)
    assert time.process_time() - start < 2.0


def test_42_python_tags(fresh: World) -> None:
    marker = fresh.home / "owned"
    for tag in (f"!!python/object/apply:os.system ['touch {marker}']", "!!python/name:os.system", "!!binary aGk="):
        assert "tag" in space(fresh, f"parameters: {tag}\n")
    assert not marker.exists()


@pytest.mark.parametrize("name", [*NAMES, "a\0b", "con/../x", "a b", "é"], ids=ascii)
def test_43_names_that_leave_the_folder(fresh: World, name: str) -> None:
    before = sorted(fresh.home.parent.iterdir())
    for command in ((*SEARCH, f"--name={name}"), (*SEARCH, f"--fork={name}"), ("status", "--", name)):
        fresh.refused(2, *command)
    assert sorted(fresh.home.parent.iterdir()) == before and not (fresh.home / "runs").exists()


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("high: 1e-1", "high: 1.0", "parameters.beta.high: 0.1 -> 1.0"),
        ("  rank: {role: scientific, values: [1, 2, 4]}\n", "", "parameters.rank"),
        ("seeds: 2", "seeds: 3", "seeds: 2 -> 3"),
    ],
)
def test_44_another_space_under_the_same_name(world: World, old: str, new: str, difference: str) -> None:
    (world.home / "tiny.yaml").write_text(SPACE.replace(old, new))
    err = world.refused(2, *SEARCH)
    assert difference in err and "--fork" in err
    world.good(*SEARCH, "--fork", "child", "--trials", "2")


def test_45_code_data_or_a_library_changed(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mcutune.search import coordinator, run_folder
    from tests.search.simulate import data_of

    make().close()
    other = SimpleNamespace(**{**vars(data_of("1")), "table_hash": "other"})
    monkeypatch.setattr("tests.search.simulate.data_of", lambda fold: other)
    monkeypatch.setattr(coordinator.agree.__globals__["platform"], "python_version", lambda: "9.9")
    monkeypatch.setattr(run_folder, "code_hash", lambda: "f" * 64)
    with pytest.raises(BadInput) as caught:
        make()
    for word in ("data.table_hash: table -> other", "versions.python", "versions.code", "--accept-change"):
        assert word in str(caught.value)
    client = make(accept_change=True)
    manifest = read_json(client.plan.folder / "manifest.json")
    assert len(manifest["accepted"]) == 3 and manifest["versions"]["code"] == "f" * 64


def test_45_the_hash_of_the_code_is_of_what_decides_results(tmp_path: Path) -> None:
    from mcutune.search.run_folder import code_hash

    package = tmp_path / "mcutune"
    for name in ("model/lora.py", "cli/app.py", "training/defaults.yaml"):
        (package / name).parent.mkdir(parents=True)
        (package / name).write_text("one")
    of = code_hash.__wrapped__  # without its memory
    before = of(package)
    (package / "cli/app.py").write_text("two")
    assert of(package) == before
    (package / "model/lora.py").write_text("two")
    assert of(package) != before
