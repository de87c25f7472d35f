"""The forerunner trains the encoders that the first pack will ask for, while that is still being started.

It speaks to the coordinator as a pack does, and is none: it holds no lane, and whatever becomes of it, packs train what
it has not brought.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch

from mcutune.domain.pack import PackStart
from mcutune.training.device import deterministic
from mcutune.training.encoder_stage import encoder_key, train_encoder
from mcutune.training.loop import shape_of
from mcutune.training.resident import resident


class Client(Protocol):
    """The coordinator as the forerunner sees it; the rest as domain.pack.Client has it."""

    def forerun(self, forerunner: str) -> tuple[PackStart, tuple[int, ...]] | None:
        """What the first pack will be given, and the seeds of its lanes; None where nothing is to be done."""

    def fold_data(self, fold: str) -> Any: ...

    def encoder(self, key: str, pack: str) -> dict[str, bytes] | Literal["train", "wait"]: ...

    def put_encoder(self, key: str, files: dict[str, bytes]) -> None: ...


def forerun(client: Client, name: str) -> None:
    """Train what nobody has trained or is training, in the order in which a pack asks: bits are those of a pack's."""
    deterministic()
    torch.set_num_threads(1)  # as Pack does
    found = client.forerun(name)
    if found is None:
        return
    start, seeds = found
    shape = shape_of(start)
    if shape.encoder != "frozen":
        return
    data = resident(client.fold_data(start.fold), shape, torch.device("cpu"))
    for seed in seeds:
        for m in range(len(start.modalities)):
            given = data, shape, start.search_seed, seed, m
            key = encoder_key(*given)
            if client.encoder(key, name) == "train":
                client.put_encoder(key, train_encoder(*given))
