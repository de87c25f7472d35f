"""How many operations an epoch takes: those of its matrix products and attention, as torch counts them."""

from __future__ import annotations

from torch.utils.flop_counter import FlopCounterMode

from mcutune.training.lane import Lane
from mcutune.training.pack import Pack


def operations(pack: Pack, lanes: list[Lane], steps: int) -> float:
    """Of an epoch that ends after so many steps, with its evaluation."""
    with FlopCounterMode(display=False) as counter:
        pack.epoch(lanes, most_steps=steps)
    return float(counter.get_total_flops())
