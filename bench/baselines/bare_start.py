"""The bare start that any search on Ray pays: ray.init, a Tuner with one trial, a TorchTrainer with one worker in it.

    python -m bench.baselines.bare_start

Prints when (seconds, epoch) the train loop began, as a JSON object.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mcutune.cluster.private import environment, new_token, private_folder

# Only what keeps Ray on this machine and quiet; none of the settings with which mcutune makes it faster.
_SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}


@contextmanager
def plain_ray(**settings: str) -> Iterator[Path]:
    """A fresh Ray of this process with 2 CPUs, in a folder of its own that is removed; ended at the end."""
    values = {**_SETTINGS, **settings}
    with private_folder() as folder, environment({**values, "RAY_AUTH_TOKEN_PATH": str(new_token(folder))}):
        import ray

        ray.init("local", num_cpus=2, _temp_dir=str(folder / "r"), log_to_driver=False, logging_level=logging.CRITICAL)
        try:
            yield folder
        finally:
            ray.shutdown()


def loop(config: dict[str, Any]) -> None:
    Path(config["times"]).write_text(str(time.time()), encoding="utf-8")


def driver(config: dict[str, Any]) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    TorchTrainer(
        loop,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="bare", storage_path=config["storage"]),
    ).fit()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mcutune-bare-") as scratch, plain_ray() as folder:
        from ray import tune

        logging.getLogger("ray").setLevel(logging.CRITICAL)
        times = Path(scratch) / "times"
        tune.Tuner(
            tune.with_resources(driver, {"CPU": 1}),
            param_space={"times": str(times), "storage": str(folder / "train")},
            run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
        ).fit()
        print(json.dumps({"loop": float(times.read_text(encoding="utf-8"))}))


if __name__ == "__main__":
    main()
