"""Signals of a long command: the first asks it to stop, the second ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from mcutune.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While open, SIGINT, SIGTERM and SIGHUP set `asked`, and the second one raises Stopped where the program is.

    Outside the main thread Python delivers no signals: nothing is changed there.
    """

    def __init__(self) -> None:
        self.asked = False
        self.twice = False
        self._before: dict[signal.Signals, Callable[..., Any] | int | None] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            heard = [one for one in _SIGNALS if one != signal.SIGHUP or not nohup]
            self._before = {number: signal.signal(number, self._received) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.twice = True
            # What follows is only clean-up; a third signal ends even that.
            signal.signal(number, signal.SIG_DFL)
            raise Stopped("stopped at once", hint="the same command continues")
        self.asked = True
