"""One trial at a time, as Ray's documentation shows it: Ray Tune with OptunaSearch, and a TorchTrainer a trial.

    python -m bench.baselines.tune_trials HOME DATASET SPACE TRIALS

Every trial trains one lane by mcutune's own engine (a pack of one), with the first TRIALS configurations that a space
names. Two trials run at once on 2 CPUs. Trained encoders are shared through a folder: only trials that find none there
train one, so the first two do.

Where the documentation leaves a choice, the faster one is taken: a trial takes no CPU beside its worker's; metrics are
reported once, at the end, with the checkpoint (a report every epoch, as in its example, waits for Train's poll each
time); and that poll comes after 0.25 s instead of 2.

Prints one JSON object, with a list of {settings, score, begun, encoders, ended}, one a trial: when (seconds, epoch) its
train loop began and ended, and the seconds in which it trained encoders.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from bench.baselines.bare_start import plain_ray
from mcutune.domain.pack import PackStart
from mcutune.domain.trial import LaneEpoch, LaneFailure, LaneId, LaneOrder, LaneResult, Orders, Verdict
from mcutune.search.artefacts import EncoderCache
from mcutune.search.space import Space

AT_ONCE = 2


class OneLane:
    """The other side of training.loop.run_pack (domain.pack.Client): one lane to its end, then nothing."""

    def __init__(self, start: PackStart, order: LaneOrder, data: Any, cache: EncoderCache) -> None:
        self._start, self._order, self._data, self._cache = start, order, data, cache
        self._waiting = [order]
        self.scores: list[tuple[float, ...]] = []
        self.result: LaneResult | None = None
        self._asked = 0.0
        self.encoders = 0.0

    def join(self, pack: str, capacity: int, node: str, device: str) -> PackStart | None:
        return self._start if self.result is None else None

    def advance(
        self, pack: str, epochs: list[LaneEpoch], failures: list[LaneFailure], results: list[LaneResult], free: int
    ) -> Orders:
        if failures:
            raise RuntimeError(f"{self._order.configuration} failed: {failures[0].message}")
        self.scores += [said.scores for said in epochs]
        self.result = results[0] if results else None
        start, self._waiting = tuple(self._waiting), []
        ended = len(self.scores) >= self._order.epochs
        verdicts = {said.lane: Verdict.FINISH if ended else Verdict.CONTINUE for said in epochs}
        return Orders(verdicts, start, done=self.result is not None)

    def fold_data(self, fold: str) -> Any:
        return self._data

    def encoder(self, key: str, pack: str) -> dict[str, bytes] | Literal["train", "wait"]:
        self._asked = time.time()
        return self._cache.get(key, pack)

    def put_encoder(self, key: str, files: dict[str, bytes]) -> None:
        self.encoders = time.time() - self._asked
        self._cache.put(key, files)


def loop(config: dict[str, Any]) -> None:
    """The train loop of a trial: one lane, then its score and its checkpoint."""
    import ray.train

    from mcutune.data.table import open_table
    from mcutune.data.views import fold_data
    from mcutune.domain.objective import scalar
    from mcutune.training.loop import run_pack

    begun = time.time()
    space: Space = config["space"]
    data = fold_data(open_table(Path(config["table"]), verify=False), config["fold"])
    configuration = space.configuration(config["settings"])
    combinations = tuple(range(2 ** len(data.modalities) - 1))
    start = PackStart(
        data.fold, configuration.shape(), space.max_rank, space.search_seed, "ua", combinations, "mean", data.modalities
    )
    order = LaneOrder(LaneId(data.fold, 0, 0), 1, configuration.model_dump(), configuration.epochs)
    client = OneLane(start, order, data, EncoderCache(Path(config["encoders"]), alive=lambda pack: False))
    run_pack(client, pack="alone", capacity=1, node="here", device="cpu")
    assert client.result is not None
    values = [scalar(scores, combinations, data.modalities, "mean", "ua") for scores in client.scores]
    metrics = {"score": max(values), "begun": begun, "encoders": client.encoders, "ended": time.time()}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in client.result.files.items():
            (Path(folder) / name).write_bytes(content)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def driver(config: dict[str, Any], common: dict[str, Any]) -> None:
    """A Tune trial: its TorchTrainer, whose metrics go on to Tune."""
    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    callback: Any = TuneReportCallback
    TorchTrainer(
        loop,
        train_loop_config={**common, "settings": config},
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(
            name=f"trial-{tune.get_context().get_trial_id()}",
            storage_path=common["storage"],
            callbacks=[callback()],
        ),
    ).fit()


def _searcher(points: list[dict[str, Any]]) -> Any:
    """OptunaSearch over the parameters of the points, which it tries first."""
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from ray.tune.search.optuna import OptunaSearch

    space: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(sorted({point[name] for point in points})) for name in points[0]
    }
    return OptunaSearch(space=space, metric="score", mode="max", points_to_evaluate=points, seed=0)


def points_of(space: Space) -> list[dict[str, Any]]:
    """The configurations of a space that names them, trial 0's first; all with the same keys."""
    default = {name: getattr(space.default, name) for name in space.explicit[0]}
    return [default, *space.explicit]


def search(home: Path, dataset: str, space: Space, trials: int) -> dict[str, Any]:
    """Run the search; what each trial said."""
    with plain_ray(RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.25") as folder:
        from ray import tune

        logging.getLogger("ray").setLevel(logging.CRITICAL)
        common = {
            "space": space, "table": str(home / "datasets" / dataset), "fold": "1",
            "encoders": str(folder / "encoders"), "storage": str(folder / "train"),
        }  # fmt: skip
        resources = {"CPU": 0, "node:__internal_head__": 0.001}
        results: Any = tune.Tuner(
            tune.with_resources(tune.with_parameters(driver, common=common), resources),
            tune_config=tune.TuneConfig(
                search_alg=_searcher(points_of(space)[:trials]), num_samples=trials, max_concurrent_trials=AT_ONCE
            ),
            run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
        ).fit()
        keys = ("score", "begun", "encoders", "ended")
        said = [{"settings": one.config, **{key: one.metrics[key] for key in keys}} for one in results]
        return {"trials": said}


def main(home: str, dataset: str, space: str, trials: str) -> None:
    from mcutune.search.space_file import load_space

    print(json.dumps(search(Path(home), dataset, load_space(space), int(trials))))


if __name__ == "__main__":
    main(*sys.argv[1:])
