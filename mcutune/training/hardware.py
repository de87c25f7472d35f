"""The GPUs that torch sees on this machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A GPU. `memory`: bytes."""

    name: str
    memory: int


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that this process may use, in torch's order."""
    import torch

    properties = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return tuple(Gpu(str(one.name), int(one.total_memory)) for one in properties)
