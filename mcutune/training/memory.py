"""How much memory a device has left, what a piece of work takes of it, and whether an error says that it ran out."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path

import torch

_CGROUPS = (  # folder, limit and use of the control group that bounds a container: version 2, version 1
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take on a device.

    On a CPU without a bound of its own (training/device.py) it is one CPU's share of what the machine has free: every
    CPU may have a pack.
    """
    if device.type == "cuda":
        return _free_on_gpu(device)
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    available = min([_field(Path("/proc/meminfo"), "MemAvailable"), *_left_in_container()])
    if soft != resource.RLIM_INFINITY:
        return max(0, min(soft - _status("VmData"), available))
    return available // len(os.sched_getaffinity(0))


def _free_on_gpu(device: torch.device) -> int:
    """What the driver has free, within this process's share, and what torch holds without using it."""
    reserved = torch.cuda.memory_reserved(device)
    free, total = torch.cuda.mem_get_info(device)
    share = torch.cuda.get_per_process_memory_fraction(device)
    return max(0, min(free, int(share * total) - reserved)) + reserved - torch.cuda.memory_allocated(device)


def _left_in_container() -> list[int]:
    """Bytes, if a control group bounds this process. Cached files do not count: the kernel gives them up."""
    for folder, limit, use in _CGROUPS:
        with contextlib.suppress(OSError, ValueError, StopIteration):  # no such control group, or `max`
            left = int((Path(folder) / limit).read_text()) - int((Path(folder) / use).read_text())
            stat = (Path(folder) / "memory.stat").read_text().splitlines()
            cached = next(int(line.split()[1]) for line in stat if line.startswith("inactive_file "))
            return [max(0, left + cached)]
    return []


class Peak:
    """The most memory that is in use at once from here on, above what is in use now."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self._base = torch.cuda.memory_allocated(device)
            return
        with contextlib.suppress(AttributeError, OSError):  # else what was freed before is taken again unseen
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):  # else the peak is that of the process's whole life
            Path("/proc/self/clear_refs").write_text("5")
        self._base, self._before = _status("VmRSS"), _status("VmHWM")

    def taken(self) -> int:
        """Bytes. On a CPU 0 where the process did not have to grow for it."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._base
        peak = _status("VmHWM")
        return max(0, peak - self._base) if peak > self._before else 0


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch has no class of its own for that on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


def _status(name: str) -> int:
    return _field(Path("/proc/self/status"), name)


def _field(path: Path, name: str) -> int:
    """A field of /proc in bytes."""
    lines = path.read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
