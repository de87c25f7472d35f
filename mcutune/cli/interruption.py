"""Ctrl-C, SIGTERM and SIGHUP end a command within ten seconds. Imported before all else: keep it light.

Python raises KeyboardInterrupt where the program happens to be, and there are places where that is lost: a library that
is being loaded makes an ImportError of it or goes on without a part, a finaliser prints it and goes on. So nothing is
raised there, but as soon as that place is left; what a library swallows all the same is raised again; and what hears
nothing is left as a kill would leave it, which every file here survives.
"""

from __future__ import annotations

import _thread
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOPPED, HINT = "stopped", "the same command continues where it was"
EXIT = 6
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SOON = 0.05  # seconds until it is tried again
_DEAF = 2.0  # seconds that a place may be deaf; libraries take that long to load on a machine that is busy
_AGAIN, _LEAVE = 4.0, 7.0  # seconds until what was raised is raised again, and until no more is waited for
# Python drops what is raised in the callbacks of these, and in finalisers.
_DEAF_FILES = ("<frozen importlib", "weakref.py", "_weakrefset.py")


class Ending:
    """What a command knows of its end. `code`: its exit code, once that is known; what comes then is not heard."""

    def __init__(self) -> None:
        self.asked = False
        self.code: int | None = None
        self._raised = False
        self._closed = False
        self._main = _thread.get_ident()
        self._before = {one: signal.signal(one, self._received) for one in SIGNALS if _heard(one)}

    def close(self) -> None:
        """Give the signals back to who had them."""
        self._closed = True
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.asked = True
            with suppress(RuntimeError):  # while Python winds up no thread can start, and none is needed
                _thread.start_new_thread(self._insist, (number,))
        if self.code is None and not _deaf(frame):
            self._raised = True
            raise KeyboardInterrupt

    def _insist(self, number: int) -> None:
        """Send the signal again until it has been raised, and once more where that went unheard; then leave."""
        start, again = time.monotonic(), True
        while (late := time.monotonic() - start) < (_LEAVE if self._raised else _DEAF):
            time.sleep(_SOON)
            if self._closed:
                return
            # Whoever has the signals now is told, also of what was raised: it would not have come so far.
            mine = signal.getsignal(number) == self._received
            if self.code is None and (not mine or not self._raised or (again and late > _AGAIN)):
                again = not self._raised
                signal.pthread_kill(self._main, number)
            if not mine:
                return
        self._leave()

    def _leave(self) -> None:
        if self.code is None:
            os.write(2, f"error: {STOPPED} ({HINT})\n".encode())
        os._exit(EXIT if self.code is None else self.code)


def _heard(number: int) -> bool:
    """Not where nohup has it ignored. A shell has Ctrl-C ignored by what a script runs in the background; it is heeded
    all the same, since `kill -INT` is how such a script stops it, and a command that is stopped continues."""
    return number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN


def _deaf(frame: FrameType | None) -> bool:
    """Whether what is raised here may be lost: a module is being imported, or a finaliser or its like runs."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or any(name in code.co_filename for name in _DEAF_FILES):
            return True
        frame = frame.f_back
    return False


@contextmanager
def heeded() -> Iterator[Ending | None]:
    """While open, the signals end the command. None outside the main thread, where Python delivers none."""
    try:
        ending = Ending()
    except ValueError:
        yield None
        return
    try:
        yield ending
    finally:
        ending.close()
