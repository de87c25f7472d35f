"""Errors that a person reads: one line, a remedy, an exit code (ARCHITECTURE.md lists the codes)."""

from __future__ import annotations


class UserError(Exception):
    """A foreseen failure: what, where (file, key), what is valid, how to mend, in one line."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = " ".join(message.split())
        self.hint = " ".join(hint.split()) if hint else None

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword arguments do not survive Ray's pickling otherwise.
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(kind: type[UserError], message: str, hint: str | None) -> UserError:
    return kind(message, hint=hint)


class NoResult(UserError):
    """The work ended without a usable result, for example because every trial failed."""

    exit_code = 1


class BadInput(UserError):
    """A file, key, option or name that cannot be used as given."""

    exit_code = 2


class Busy(UserError):
    """Another process holds the run."""

    exit_code = 3


class Damaged(UserError):
    """State on disk is not what was written; nothing more was written."""

    exit_code = 4


class NoResources(UserError):
    """The place has too few CPUs, GPUs, memory or disk for the request."""

    exit_code = 5


class Stopped(UserError):
    """Stopped by a signal or by request; the same command continues."""

    exit_code = 6


class CheckFailed(UserError):
    """A gate or a self-check of the evaluator failed."""

    exit_code = 7


class Inconclusive(UserError):
    """The data cannot decide the question asked of a gate."""

    exit_code = 8


class Problems(BadInput):
    """Several problems of one input, all reported at once, one a line."""

    def __init__(self, message: str, *, hint: str | None = None, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  - {problem}" for problem in self.problems)])

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_problems, (self.message, self.hint, self.problems)


def _rebuild_problems(message: str, hint: str | None, problems: tuple[str, ...]) -> Problems:
    return Problems(message, hint=hint, problems=problems)
