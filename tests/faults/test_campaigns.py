"""CI's share of the campaigns of bench/chaos: the same code, few faults. `make chaos` runs them whole."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.chaos import crashes, durability, engine, flips, mutants, poison, traced
from bench.chaos.ways import ways
from tests.faults import corpus

SEED = 20
pytestmark = pytest.mark.durable
needs_strace = pytest.mark.skipif(not traced.available(), reason="strace is not here")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path / "home"))


def test_killed_at_random_instants(tmp_path: Path) -> None:
    found = engine.campaign(tmp_path, SEED, kills=25)
    assert found.problems == [] and found.kills >= 20


@needs_strace
def test_02_a_search_killed_at_system_calls(tmp_path: Path) -> None:
    found = engine.at_every_call(tmp_path, SEED, most=25)
    assert found.problems == [] and found.kills >= 15


@needs_strace
@pytest.mark.parametrize("way", ways(), ids=lambda way: way.name)
def test_02_ways_to_the_disk(tmp_path: Path, way: crashes.Way) -> None:
    """A commit at every system call that it makes, the others at some."""
    found = crashes.campaign(tmp_path, SEED, most=None if way.name == "ledger, a commit" else 3, chosen=(way,))
    assert found.problems == [] and found.faults.total() > 3


def test_flipped_bits(tmp_path: Path) -> None:
    found = flips.campaign(tmp_path, SEED, flips=280)
    assert found.problems == [] and len(found.by_kind) >= 13
    assert found.counts["refused"] > 150


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("poison")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(corpus.CANARY, str(folder / "canary"))
        yield folder


@pytest.mark.parametrize("sample", corpus.files(), ids=lambda sample: f"{sample.kind}-{sample.name}")
def test_the_corpus_as_it_is(canary: Path, sample: corpus.Sample) -> None:
    came, _ = poison.judged(canary, sample, sample.content)
    hostile = sample.name.split(".")[0] in ("gadget", "tag", "bomb", "deep", "huge", "giant", "length", "many")
    expected = "read" if not hostile else "refused"
    assert came == expected or (sample.name == "gadget.npy" and came == "refused")
    assert not (canary / "canary").exists()


@given(data=st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_input(canary: Path, data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(corpus.files()))
    content = poison.mutated(sample.content, sample.words, random.Random(data.draw(st.integers(0, 2**32))))
    came, _ = poison.judged(canary, sample, content)
    assert came in ("read", "refused")
    assert not (canary / "canary").exists()


def test_a_reader_that_runs_code_is_seen(canary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    monkeypatch.setitem(poison.READERS, "pickle", lambda path, sound: str(pickle.loads(path.read_bytes())))
    gadget = next(one for one in corpus.files() if one.name == "gadget.pkl")
    came, _ = poison.judged(canary, gadget, gadget.content)
    assert came.startswith("run: os.system") and (canary / "canary").exists()
    (canary / "canary").unlink()


@pytest.mark.long  # also in `make chaos`
@needs_strace
@pytest.mark.parametrize("mutant", mutants.mutants(), ids=lambda mutant: mutant.name)
def test_an_engine_with_a_mistake_is_caught(tmp_path: Path, mutant: mutants.Mutant) -> None:
    (caught,) = mutants.campaign(tmp_path, SEED, (mutant,))
    assert caught.found and not caught.failed, caught


@needs_strace
def test_a_sound_engine_syncs_what_it_acknowledges(tmp_path: Path) -> None:
    assert mutants.cutting(tmp_path / "run", SEED) == []


def test_durability_is_measured(tmp_path: Path) -> None:
    (row,) = durability.rows(tmp_path, SEED, 3, True)
    assert row.value is not None
