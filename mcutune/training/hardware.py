"""What torch sees on this machine: its GPUs, and what its CPU can multiply."""

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


def bfloat16_is_slow() -> bool:
    """Whether this machine's CPU has no products in bfloat16, so that they cost no less than in float32.

    They are computed all the same (model/precision.py).
    """
    from mcutune.model.precision import multiplies_bfloat16

    return not multiplies_bfloat16()
