"""What a process that trains a pack fixes before it starts: threads, memory, the device."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import torch


def deterministic() -> None:
    """Have torch compute the same bits again."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads what it has not written; with this, every new tensor would be filled first.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def prepare(*, threads: int, gpus: float = 0.0, memory: int | None = None) -> str:
    """Fix torch's threads, so that results do not depend on how many packs share a machine; returns the device's name.

    gpus: of this process; below 1 its share of the GPU's memory is bounded by it. memory: bytes that may be allocated
    on the CPU, None for no bound; it is not set beside a GPU, whose driver maps more than it uses.
    """
    torch.set_num_threads(threads)
    if gpus:
        if gpus < 1:
            torch.cuda.set_per_process_memory_fraction(gpus)
        return f"cuda:{torch.cuda.current_device()}"
    if memory is not None:
        bound_memory(memory)
    return "cpu"


def bound_memory(count: int) -> None:
    """Let an allocation beyond `count` bytes above today's use fail in this process, before the kernel kills it.

    Private memory only (RLIMIT_DATA): Ray's shared object store is mapped, and does not count.
    """
    used = 0
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        used = 1024 * int(next(line for line in lines if line.startswith("VmData")).split()[1])
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = used + count
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
