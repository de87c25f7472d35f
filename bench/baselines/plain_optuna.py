"""Plain Optuna: `study.optimize` in one process, in memory, with an objective of nothing."""

from __future__ import annotations

import time

import optuna

from bench.nothing import value_of


def objective(trial: optuna.Trial) -> float:
    """The parameters of bench/spaces/nothing.yaml, and a score that costs nothing."""
    trial.suggest_int("rank", 0, 4)
    trial.suggest_float("beta", 1e-6, 1, log=True)
    trial.suggest_float("sensitivity", 0, 0.1)
    trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
    return value_of(sorted(trial.params.items()))


def milliseconds_a_trial(sampler: str, trials: int) -> float:
    """Mean over a study of so many trials; sampler: random, or tpe as Optuna's own default has it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = optuna.samplers.RandomSampler(0) if sampler == "random" else optuna.samplers.TPESampler(seed=0)
    study = optuna.create_study(direction="maximize", sampler=made)
    begun = time.perf_counter()
    study.optimize(objective, n_trials=trials)
    return 1000 * (time.perf_counter() - begun) / trials
