"""kombu's transport for Redis, which tells when Redis last answered: whether a worker consumes, not only lives."""

from math import inf
from queue import Empty
from time import monotonic
from typing import Any

from kombu.transport import redis

_at = -inf


def last_heard() -> float:
    """When Redis last answered this process, a worker that waits for messages, with one or with none; by the monotonic
    clock. It answers each second, but is not asked while every thread is busy."""
    return _at


class _Channel(redis.Channel):
    def _brpop_read(self, **options: Any) -> Any:
        global _at  # noqa: PLW0603  one worker a process
        try:
            came = super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except Empty:
            _at = monotonic()
            raise
        _at = monotonic()
        return came


class Transport(redis.Transport):
    """In place of kombu's own."""

    Channel = _Channel
