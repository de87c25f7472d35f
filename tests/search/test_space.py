"""Search spaces: what is refused, what is hashed, and that every value lands where it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcutune.errors import BadInput, Problems
from mcutune.search.space import Parameter, Rungs, difference
from mcutune.search.space_file import load_space, parse_budget
from mcutune.shipped import shipped_names

GOOD = """\
question: does it load?
parameters:
  rank: {role: scientific, low: 1, high: 16, log: true}
  beta: {role: nuisance, low: 1e-6, high: 1, log: true}
fixed: {epochs: 9}
trials: 20
seeds: 2
"""


def space(tmp_path: Path, text: str, **given: Any) -> Any:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_space(str(path), **given)


def problems(tmp_path: Path, text: str) -> str:
    with pytest.raises(Problems) as caught:
        space(tmp_path, text)
    return str(caught.value)


def test_a_good_space(tmp_path: Path) -> None:
    found = space(tmp_path, GOOD)
    assert [p.name for p in found.parameters] == ["beta", "rank"]
    assert [p.integer for p in found.parameters] == [False, True]
    assert (found.trials, found.seeds, found.lag, found.max_rank) == (20, 2, 5, 16)
    assert found.default.epochs == 9 and found.default.rank == 4
    assert found.configuration({"rank": 2}).rank == 2


@pytest.mark.parametrize("name", shipped_names("search_spaces"))
def test_shipped_spaces_load_and_say_what_they_ask(name: str) -> None:
    found = load_space(name)
    assert found.question.endswith((".", "?")) and found.cost


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rnak: {role: nuisance, values: [2]}", ":2: parameters.rnak: not a training setting, did you mean 'rank'"),
        ("rank: {role: scientific, low: 4, high: 2}", "parameters.rank.low: must be below high (4 >= 2)"),
        ("rank: {role: scientific, low: 2, high: 2}", "must be below high"),
        ("beta: {role: scientific, low: 0, high: 1, log: true}", "parameters.beta.low: must be above 0 with log"),
        ("rank: {role: scientific, low: 1, high: 9, step: 0}", "parameters.rank.step: must be a whole number above 0"),
        ("rank: {role: scientific, low: 1, high: 9, step: 1.5}", "rank.step: must be a whole number above 0"),
        ("rank: {role: scientific, low: 1, high: 9, step: 3}", "the last value would be 7"),
        ("rank: {role: scientific, low: 1, high: 9, step: 2, log: true}", "does not go with log"),
        ("rank: {role: scientific, values: []}", "is empty"),
        ("rank: {role: scientific, values: [2, 2]}", "listed twice"),
        ("rank: {role: scientific, values: [2], low: 1}", "parameters.rank.low: does not go with `values`"),
        ("rank: {role: scientific, values: [2, 0.5]}", "parameters.rank.values.1"),
        ("rank: {role: scientific, values: [2, no]}", "'no'"),
        ("rank: {role: scientific, low: 0, high: 5}", "greater than or equal to 1"),
        ("rank: {role: scientific, low: 1, high: 500}", "less than or equal to 256"),
        ("rank: {role: scientific, low: 1}", "needs either `values`, or `low` and `high`"),
        ("rank: {low: 1, high: 2}", "parameters.rank.role: Field required"),
        ("rank: {role: scientific, low: 1, high: 2, setp: 1}", "did you mean 'step'"),
        ("fusion: {role: scientific, low: 1, high: 2}", "is not a number; list its `values`"),
        ("fusion: {role: scientific, values: [adaptiv]}", "'adaptive'"),
        ("epochs: {role: scientific, values: [3, 4]}", "is also in `fixed`"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    text = f"parameters:\n  {line}\nfixed: {{epochs: 3}}\ntrials: 4\n"
    assert words in problems(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trials: 0", "greater than or equal to 1"),
        ("seeds: 0", "greater than or equal to 1"),
        ("objective: avg", "objective 'avg' does not exist"),
        ("objective: {cvar: 2}", "cvar needs a share"),
        ("budget: soon", "is not a time"),
        ("sampler: tpo", "'tpe'"),
        ("rungs: {first: 0}", "rungs"),
        ("rungs: {first: 2, eta: 1}", "rungs"),
        ("combinations: [audio, audio]", "listed twice"),
        ("sampler: grid", "the grid needs `values`"),
        ("fixed: {epochs: 0}", "fixed.epochs"),
        ("fixed: {epohcs: 3}", "did you mean 'epochs'"),
        ("tirals: 4", "mine.yaml:8: tirals: unknown key, did you mean 'trials'?"),
    ],
)
def test_a_wrong_rule_is_named(tmp_path: Path, line: str, words: str) -> None:
    key = line.split(":")[0] + ":"
    kept = [old for old in GOOD.splitlines() if not old.startswith(key)]
    assert words in problems(tmp_path, "\n".join([*kept, line]))


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    text = (
        "parameters:\n  rnak: {role: scientific, values: [1]}\n  beta: {role: nuisance, low: 3, high: 1}\nbudget: x\n"
    )
    assert problems(tmp_path, text).count("\n") == 4


def test_the_hash_ignores_order_and_where_the_search_stops(tmp_path: Path) -> None:
    same = GOOD.replace("fixed: {epochs: 9}\n", "") + "lag: 5\nfixed: {epochs: 9}\nbudget: 2h\ncost: x\n"
    lines = same.splitlines()
    lines[2], lines[3] = lines[3], lines[2]
    assert space(tmp_path, "\n".join(lines), trials=50).hash == space(tmp_path, GOOD).hash
    for changed in (
        GOOD.replace("high: 16", "high: 8"), GOOD.replace("seeds: 2", "seeds: 3"), GOOD.replace("9}", "8}"),
        GOOD + "lag: 1\n", GOOD + "search_seed: 1\n", GOOD + "objective: worst\n", GOOD + "rungs: {first: 3}\n",
        GOOD + "sampler: qmc\n", GOOD + "metric: wa\n", GOOD.replace("nuisance", "scientific"),
    ):  # fmt: skip
        assert space(tmp_path, changed).hash != space(tmp_path, GOOD).hash, changed


def test_a_space_without_scouts_is_the_search_it_was_before_there_were_any(tmp_path: Path) -> None:
    found = space(tmp_path, GOOD + "rungs: {first: 3, eta: 3}\n")
    assert found.canonical()["rungs"] == {"first": 3, "eta": 3}
    scouted = space(tmp_path, GOOD + "rungs: {first: 3, eta: 3, scouts: 8}\n")
    assert scouted.rungs == Rungs(3, 3, 8) and scouted.hash != found.hash
    assert Rungs(**scouted.canonical()["rungs"]) == scouted.rungs


@pytest.mark.parametrize(
    ("rungs", "words"),
    [
        ("{first: 3, scouts: 3}", "mine.yaml:8: rungs.scouts: Input should be greater than or equal to 4"),
        ("{first: 3, scouts: 20}", "mine.yaml:8: rungs.scouts: must be below trials (20)"),
        ("{first: 3, scout: 8}", "did you mean 'scouts'"),
    ],
)
def test_wrong_scouts_are_named(tmp_path: Path, rungs: str, words: str) -> None:
    assert words in problems(tmp_path, GOOD + f"rungs: {rungs}\n")


def test_the_difference_names_what_changed(tmp_path: Path) -> None:
    old = space(tmp_path, GOOD).canonical()
    new = space(tmp_path, GOOD.replace("high: 16", "high: 8") + "rungs: {first: 3}\n").canonical()
    assert difference(old, new) == ["parameters.rank.high: 16 -> 8", "rungs: absent -> {'first': 3, 'eta': 3}"]


def test_overrides_are_checked_like_the_file(tmp_path: Path) -> None:
    assert space(tmp_path, GOOD, objective="cvar(0.5)", trials=7).objective.alpha == 0.5
    with pytest.raises(BadInput, match="^--trials"):
        space(tmp_path, GOOD, trials=0)


def test_configurations_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('[{"rank": 2, "beta": 0.1}, {"rank": 8}]')
    found = space(tmp_path, "configurations: list.json\n")
    assert found.trials == 3 and found.explicit[1] == {"rank": 8} and found.max_rank == 8
    (tmp_path / "list.json").write_text('[{"rnak": 2}, {"rank": 0}]')
    text = problems(tmp_path, "configurations: list.json\n")
    assert "list.json:1: 0.rnak" in text and "list.json:1: 1.rank" in text
    (tmp_path / "list.json").write_text("3")
    with pytest.raises(BadInput, match="a list of configurations"):
        space(tmp_path, "configurations: list.json\n")


def test_an_unknown_space_names_the_shipped_ones() -> None:
    with pytest.raises(BadInput, match="ranks"):
        load_space("rnaks")


def test_budgets() -> None:
    assert parse_budget("90s").seconds == 90 and parse_budget("1.5 h").seconds == 5400
    assert parse_budget("2gpu-h").gpu and parse_budget("1d").seconds == 86400


def test_rungs_below_the_budget() -> None:
    assert Rungs(3, 3).below(30) == (3, 9, 27)
    assert Rungs(3, 3).below(27) == (3, 9)
    assert Rungs(3, 3).below(3) == ()


parameters = st.one_of(
    st.sets(st.integers(1, 99), min_size=1, max_size=9).map(lambda v: Parameter("x", "nuisance", tuple(sorted(v)))),
    st.builds(
        lambda low, width, log: Parameter("x", "nuisance", (), low, low + width, log, None, True),
        st.integers(1, 50), st.integers(1, 50), st.booleans(),
    ),
    st.builds(
        lambda low, factor, log: Parameter("x", "nuisance", (), low, low * factor, log),
        st.floats(1e-9, 1e3), st.floats(1.5, 1e6), st.booleans(),
    ),
    st.builds(
        lambda low, step, count: Parameter("x", "nuisance", (), low, low + step * count, False, step),
        st.floats(0, 10), st.floats(0.01, 3), st.integers(1, 20),
    ),
)  # fmt: skip


@given(parameters, st.floats(0, 1, exclude_max=True))
@settings(deadline=None)
def test_places_and_values_agree(parameter: Parameter, u: float) -> None:
    value = parameter.at(u)
    assert parameter.contains(value)
    again = parameter.at(min(max(parameter.place(value), 0.0), 1 - 1e-12))
    assert again == pytest.approx(value, rel=1e-9)


@given(parameters)
@settings(deadline=None)
def test_both_ends_are_reached(parameter: Parameter) -> None:
    first, last = parameter.at(0.0), parameter.at(1 - 2**-53)
    low, high = (parameter.values[0], parameter.values[-1]) if parameter.values else (parameter.low, parameter.high)
    assert first == pytest.approx(low) and last == pytest.approx(high)
    if len(set(parameter.values)) != 1:
        assert parameter.boundary(first) == "low" and parameter.boundary(last) == "high"


@pytest.mark.parametrize(
    ("fixed", "parameters", "keys"),
    [
        ("encoder: trained, encoder_width: 32, epochs: 2", "draw: {role: nuisance, values: [row, dialogue]}",
         ("draw", "encoder_width")),
        ("width: 64, encoder_width: 32", "heads: {role: nuisance, values: [1, 2]}", ("heads", "width")),
        ("encoder: trained, width: 64", "rank: {role: scientific, values: [1, 2]}", ()),
        ("width: 64, encoder_width: 32", "encoder: {role: scientific, values: [frozen, trained]}", ()),
        ("encoder: trained, depth: 2", "encoder_width: {role: scientific, values: [16, 32]}", ("encoder_width",)),
    ],
)  # fmt: skip
def test_settings_that_no_trial_reads(tmp_path: Path, fixed: str, parameters: str, keys: tuple[str, ...]) -> None:
    found = space(tmp_path, f"fixed: {{{fixed}}}\nparameters:\n  {parameters}\ntrials: 2\n")
    assert found.without_effect == keys


@pytest.mark.parametrize("name", ["quick", "ranks", "beta", "dpft", "sensors", "full"])
def test_every_setting_of_a_shipped_space_is_read(name: str) -> None:
    assert load_space(name).without_effect == ()
