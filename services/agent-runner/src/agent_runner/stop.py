"""How a job is told to stop while one of its threads waits for something slow."""

import contextvars
import threading
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

T = TypeVar("T")

Reason = Literal["cancelled", "released", "lost"]
"""Somebody cancelled the job; this worker shuts down; the lease is another worker's now."""


class Stopped(Exception):
    """Raised in the job's thread once it is told to stop."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(reason)


class Stop:
    """One job's stop signal. Any thread may set it; the job's thread waits through it and so ends at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reason: Reason | None = None

    def set(self, reason: Reason) -> None:
        """Tell the job to stop. The first reason stands."""
        with self._changed:
            self._reason = self._reason or reason
            self._changed.notify_all()

    @property
    def reason(self) -> Reason | None:
        """Why to stop; None to go on."""
        return self._reason

    def check(self) -> None:
        """Raise Stopped once told to."""
        if self._reason:
            raise Stopped(self._reason)

    def wait(self, seconds: float) -> None:
        """Pause. Raises Stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._reason, seconds)
        self.check()

    def gather(self, calls: Sequence[Callable[[], T]], *, timeout: float) -> list[T]:
        """Every call's answer, in order, each made in a thread of its own.

        Raises the first error of a call, TimeoutError after `timeout` seconds, or Stopped. A call that still runs then
        is left to end by its own timeout, and its answer dropped: nothing interrupts a thread that waits for a socket.
        """
        answers: dict[int, T] = {}
        errors: list[BaseException] = []

        def make(position: int, call: Callable[[], T]) -> None:
            try:
                answer = call()
            except BaseException as error:  # noqa: BLE001  it is raised in the waiting thread
                with self._changed:
                    errors.append(error)
                    self._changed.notify_all()
            else:
                with self._changed:
                    answers[position] = answer
                    self._changed.notify_all()

        for position, call in enumerate(calls):
            # daemon: a model that never answers must not keep the process from ending
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(make, position, call), daemon=True).start()
        with self._changed:
            done = self._changed.wait_for(lambda: self._reason or errors or len(answers) == len(calls), timeout)
        self.check()
        if errors:
            raise errors[0]
        if not done:
            raise TimeoutError
        return [answers[position] for position in range(len(calls))]
