"""Renews the leases of all jobs of a worker: a thread for all of them, as a thread costs more than a short job."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Any

from loguru import logger

from agent_runner.attempts import Attempt
from agent_runner.calls import Calls
from triton_common.errors import AppError, Unavailable


class Heart:
    """Renews leases until it is closed, whatever goes wrong with one of them."""

    def __init__(self, calls: Calls) -> None:
        """The thread starts with the first job. `calls` are its own: renewals wait behind no claim and no document."""
        self._calls = calls
        self._changed = threading.Condition()
        self._attempts: set[Attempt] = set()
        self._wakes_at = inf
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, attempt: Attempt) -> None:
        """Renew its lease from now on."""
        with self._changed:
            self._attempts.add(attempt)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()
            elif attempt.renew_at < self._wakes_at:
                self._changed.notify()

    def discard(self, attempt: Attempt) -> None:
        """Renew it no more."""
        with self._changed:
            self._attempts.discard(attempt)

    def close(self) -> None:
        """End the thread, soon."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while due := self._due():
            self._renew(due)

    def _due(self) -> list[Attempt]:
        """Those whose lease is to be renewed now, once there are some; none when we are closed."""
        with self._changed:
            while not self._closed:
                now = monotonic()
                if due := [attempt for attempt in self._attempts if attempt.renew_at <= now]:
                    return due
                self._wakes_at = min((attempt.renew_at for attempt in self._attempts), default=inf)
                self._changed.wait(None if self._wakes_at == inf else self._wakes_at - now)
        return []

    def _renew(self, due: list[Attempt]) -> None:
        renewals: list[tuple[Attempt, Any]] = []
        for attempt in due:
            with _going_on():
                if call := attempt.renewal():
                    renewals.append((attempt, call))
        answers: list[dict[str, Any] | AppError] = [Unavailable("jobs-service was not asked.")] * len(renewals)
        with _going_on():
            answers = self._calls.make_all([call for _, call in renewals])
        for (attempt, _), answer in zip(renewals, answers, strict=True):
            with _going_on():
                attempt.renewed(answer)


@contextmanager
def _going_on() -> Iterator[None]:
    """What nobody foresaw is logged, and the thread lives: without it every job would lose its lease."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  see above
        logger.opt(exception=error).error("leases could not be renewed")
