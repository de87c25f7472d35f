"""Which configuration trial k has: a pure function of (space, seed, k, results of trials below k − lag).

Nothing is remembered from one call to the next but what saves time: `Proposals` keeps an Optuna study between calls,
and gives what a study rebuilt from nothing gives (a test compares them). The only file of the search that knows Optuna.

Search spaces go to Optuna's distributions directly, never through Ray's, whose integer upper bound is exclusive.
Listed values become their index: ordered where they are ascending numbers, categories otherwise.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mcutune.domain.trial import State
from mcutune.search.space import Parameter, Space

if TYPE_CHECKING:
    import optuna

STARTUP = 10  # results before a model guides; until then the points of a Sobol sequence
WINDOW = 1000  # a model looks at the last so many results, and at up to BLOCK more
BLOCK = 500  # the window moves by whole blocks, so that a kept study seldom has to be built anew
LARGEST_GRID = 1_000_000

Values = dict[str, Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """A terminal trial as the sampler sees it. `rungs`: (epoch, score) pairs. `score`: only of a finished trial."""

    number: int
    values: Values
    state: State
    score: float | None = None
    rungs: tuple[tuple[int, float], ...] = ()


def proposal(space: Space, seed: int, k: int, results: Sequence[Result]) -> Values | None:
    """The values of trial k ≥ 1 over the fixed settings; None where grid or list have no more.

    `results` may hold any trials in any order; only those below k − lag are looked at.
    """
    return Proposals(space, seed).propose(k, results)


def looks_back(space: Space, k: int) -> bool:
    """Whether trial k's values depend on results at all; if not, it may start before any trial has ended."""
    return _guided(space) and k - space.lag >= STARTUP


def oldest_seen(space: Space, k: int) -> int:
    """The lowest trial whose result any proposal from trial k on may look at."""
    return _window(k - space.lag) if _guided(space) else space.trials


def _guided(space: Space) -> bool:
    return not space.explicit and space.sampler in ("tpe", "gp", "cmaes")


class Proposals:
    """The proposals of one study. `propose` gives the same as `proposal`, sooner when k ascends."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space = space
        self.seed = seed
        self._study: optuna.Study | None = None
        self._told: list[int] = []  # the numbers of the results in the study, in its order

    def propose(self, k: int, results: Sequence[Result]) -> Values | None:
        """The values of trial k, or None."""
        space = self.space
        if space.explicit:
            return dict(space.explicit[k - 1]) if k <= len(space.explicit) else None
        if space.sampler == "grid":
            return _grid_point(space, self.seed, k)
        if space.sampler == "qmc":
            return _sobol_point(space, self.seed, k)
        if space.sampler == "random":
            units = np.random.default_rng(_seed_of(self.seed, k)).random(len(space.parameters))
            return _values(space, units)
        known = visible(results, k - space.lag)
        guiding = [r for r in known if r.state is State.FINISHED or (r.rungs and space.sampler == "tpe")]
        if len(guiding) < STARTUP:
            return _sobol_point(space, self.seed, k)
        if space.sampler == "cmaes":
            return _cmaes_point(space, self.seed, k, known)
        return self._ask(k, known)

    def _ask(self, k: int, known: Sequence[Result]) -> Values:
        """TPE's or the Gaussian process's answer; the sampler is new for every k, seeded by (seed, k)."""
        numbers = [result.number for result in known]
        if self._study is None or self._told != numbers[: len(self._told)]:
            self._study, self._told = _empty_study(), []
        distributions = _distributions(self.space.parameters)
        for result in known[len(self._told) :]:
            if (trial := _frozen(self.space, result, distributions)) is not None:
                self._study.add_trial(trial)
            self._told.append(result.number)
        self._study.sampler = _sampler(self.space.sampler, _seed_of(self.seed, k), distributions)
        asked = self._study.ask(distributions)
        values = {p.name: _external(p, asked.params[p.name]) for p in self.space.parameters}
        self._study.tell(asked, state=_states()[State.FAILED])  # failures are ignored: the study stays as it was
        return values


def visible(results: Sequence[Result], below: int) -> list[Result]:
    """The results that trial `below + lag` may look at, ascending: those below, within the window."""
    start = _window(below)
    return sorted((r for r in results if start <= r.number < below), key=lambda r: r.number)


def _window(below: int) -> int:
    return max(0, below - WINDOW) // BLOCK * BLOCK


def _seed_of(seed: int, k: int) -> int:
    return int.from_bytes(hashlib.sha256(f"proposal {seed} {k}".encode()).digest()[:4])


def _values(space: Space, units: Floats) -> Values:
    return {p.name: p.at(float(u)) for p, u in zip(space.parameters, units, strict=True)}


def _sobol_point(space: Space, seed: int, k: int) -> Values:
    from scipy.stats import qmc

    sequence = qmc.Sobol(len(space.parameters), scramble=True, rng=np.random.default_rng(_seed_of(seed, 0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a count that is no power of two
        if k > 1:
            sequence.fast_forward(k - 1)
        return _values(space, sequence.random(1)[0])


@lru_cache(maxsize=4)
def _order(seed: int, size: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(_seed_of(seed, 0)).permutation(size)


def _grid_point(space: Space, seed: int, k: int) -> Values | None:
    """The k-th point of the grid in a shuffled order, so that a part of the grid is spread over all of it."""
    size = space.size
    assert size is not None
    if k > size:
        return None
    rest = int(_order(seed, size)[k - 1])
    values = {}
    for parameter in space.parameters:
        assert parameter.size is not None
        rest, index = divmod(rest, parameter.size)
        values[parameter.name] = parameter.nth(index)
    return values


def _cmaes_point(space: Space, seed: int, k: int, known: Sequence[Result]) -> Values:
    """CMA-ES over the numbers, told whole populations of finished trials in their order; the rest is random.

    Optuna keeps this sampler's state in its storage; here it is played again from the results, as purity asks.
    """
    from cmaes import CMA

    ordered = [p for p in space.parameters if p.ordinal or not p.values]
    units = np.random.default_rng(_seed_of(seed, k)).random(len(space.parameters))
    bounds = np.tile([0.0, 1.0], (len(ordered), 1))
    optimizer = CMA(mean=np.full(len(ordered), 0.5), sigma=0.25, bounds=bounds, seed=_seed_of(seed, k))
    finished = [r for r in known if r.score is not None and _inside(space, r.values)]
    size = optimizer.population_size
    for start in range(0, len(finished) - size + 1, size):
        batch = finished[start : start + size]
        points = [np.array([p.place(r.values[p.name]) for p in ordered]) for r in batch]
        optimizer.tell([(point, -_score(r)) for point, r in zip(points, batch, strict=True)])
    asked = dict(zip((p.name for p in ordered), np.clip(optimizer.ask(), 0.0, 1 - 1e-12), strict=True))
    return _values(space, np.array([asked.get(p.name, u) for p, u in zip(space.parameters, units, strict=True)]))


def _score(result: Result) -> float:
    assert result.score is not None
    return result.score


def _inside(space: Space, values: Values) -> bool:
    """Whether the values are ones that a proposal could have; trial 0's need not be."""
    return all(p.name in values and p.contains(values[p.name]) for p in space.parameters)


def _distributions(parameters: Sequence[Parameter]) -> dict[str, optuna.distributions.BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, optuna.distributions.BaseDistribution] = {}
    for p in parameters:
        if p.ordinal:
            found[p.name] = IntDistribution(0, len(p.values) - 1)
        elif p.values:
            found[p.name] = CategoricalDistribution(range(len(p.values)))
        elif p.integer:
            found[p.name] = IntDistribution(int(p.low), int(p.high), log=p.log, step=int(p.step or 1))
        elif p.step:
            found[p.name] = IntDistribution(0, (p.size or 1) - 1)
        else:
            found[p.name] = FloatDistribution(p.low, p.high, log=p.log)
    return found


def _internal(parameter: Parameter, value: Any) -> Any:
    """What Optuna is told: a value as it is, or its number where values are listed or float steps counted."""
    if parameter.values:
        return parameter.values.index(value)
    if parameter.step and not parameter.integer:
        return round((value - parameter.low) / parameter.step)
    return value


def _external(parameter: Parameter, told: Any) -> Any:
    counted = parameter.values or (parameter.step and not parameter.integer)
    return parameter.nth(told) if counted else told


def _frozen(
    space: Space, result: Result, distributions: dict[str, optuna.distributions.BaseDistribution]
) -> optuna.trial.FrozenTrial | None:
    """The result as Optuna keeps it; None for trial 0 where its values lie outside the space."""
    from optuna.trial import create_trial

    if not _inside(space, result.values):
        return None
    if result.state is State.PRUNED and not result.rungs:
        return None
    return create_trial(
        state=_states()[result.state],
        value=result.score if result.state is State.FINISHED else None,
        params={p.name: _internal(p, result.values[p.name]) for p in space.parameters},
        distributions=distributions,
        intermediate_values=dict(result.rungs),
    )


def _states() -> dict[State, optuna.trial.TrialState]:
    from optuna.trial import TrialState

    return {State.FINISHED: TrialState.COMPLETE, State.PRUNED: TrialState.PRUNED, State.FAILED: TrialState.FAIL}


def _empty_study() -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize")


def _sampler(
    name: str, seed: int, distributions: dict[str, optuna.distributions.BaseDistribution]
) -> optuna.samplers.BaseSampler:
    """A new sampler. It is told the search space, which it would else infer from all trials at every proposal."""
    from optuna.samplers import GPSampler, TPESampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ExperimentalWarning
        if name == "gp":
            return GPSampler(seed=seed, n_startup_trials=STARTUP)
        sampler = TPESampler(seed=seed, multivariate=True, constant_liar=False, n_startup_trials=STARTUP)
    sampler.infer_relative_search_space = lambda study, trial: distributions  # type: ignore[method-assign]
    return sampler
