"""The cases, in the order in which they run.

Each takes a trial on a running platform and leaves the platform as it found it. What must hold after any of them is
judged in `history.py`, what one of them demands beside that in `demands.py`; a case's size says how many jobs it has,
and how long or how often the accident.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from triton_trials.accidents import queue, redis, services, together, workers
from triton_trials.load import Size
from triton_trials.trial import Trial


@dataclass(frozen=True)
class Case:
    """An accident: its name, what it does, and how."""

    name: str
    run: Callable[[Trial, Size], Awaitable[None]]

    @property
    def what(self) -> str:
        """In a sentence."""
        return (self.run.__doc__ or "").split("\n")[0]


CASES: Final[dict[str, Case]] = {
    name: Case(name, run)
    for run in (
        workers.workers_killed,
        workers.workers_stopped,
        redis.redis_flushed,
        redis.redis_frozen,
        redis.redis_killed,
        redis.redis_half_open,
        services.postgres_restarted,
        services.services_stopped,
        redis.messages_doubled,
        workers.finish_delayed,
        workers.clocks_skewed,
        services.link_cut,
        workers.worker_poisoned,
        queue.queue_filled,
        queue.first_job,
        queue.priorities,
        together.all_at_random,
    )
    if (name := run.__name__.replace("_", "-"))
}
