"""What accidents happen to: jobs that are submitted and run meanwhile, on parts that are replaced and brought back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from signal import Signals
from typing import Final

from triton_trials.platform import Part, Platform
from triton_trials.trial import SLOWER, Trial

SERVICES: Final = 2
WORKERS: Final = 2
THREADS: Final = 8 * WORKERS  # in all, and the default limit of a client's jobs in flight
BUSY: Final = 6  # jobs at work at a worker of eight threads: enough that not all of them end in the next moment


@dataclass(frozen=True)
class Size:
    """How large a case is run."""

    jobs: int
    times: int = 1
    seconds: float = 10.0

    @property
    def crowd(self) -> int:
        """How many jobs stand before another."""
        return self.jobs * 5 // 2


LONG: Final = Size(jobs=400, times=5)
SHORT: Final = Size(jobs=40, seconds=2.0)


@asynccontextmanager
async def load(
    trial: Trial,
    jobs: int,
    *,
    work: str = "50-500 ms",
    clients: int = 3,
    rate: float = 100.0,
    slower: int = SLOWER,
) -> AsyncIterator[None]:
    """The accident happens inside, while jobs are submitted and run: so many, then `slower` times slower for as long as
    it lasts.

    Then all are waited for.
    """
    for _ in range(clients):
        await trial.add_client(work)
    over = asyncio.Event()
    submitting = asyncio.create_task(
        trial.submit(jobs, *trial.clients[-clients:], rate=rate, until=over, slower=slower)
    )
    try:
        async with trial.accident():
            yield
    finally:
        over.set()
        await submitting
        await trial.until_over()


async def replaced(part: Part, number: Signals) -> None:
    """End a part by a signal, and start it again."""
    await all_replaced([part], number)


async def all_replaced(parts: Sequence[Part], number: Signals) -> None:
    """End parts by a signal, all at once, and start them again."""
    for part in parts:
        part.tell(number)
    for part in parts:
        await part.ended()
        part.spawn()
    for part in parts:
        await part.ready()


@asynccontextmanager
async def more_workers(platform: Platform, *settings: Mapping[str, str]) -> AsyncIterator[list[Part]]:
    """Beside the platform's own workers, one with each of these settings."""
    usual = list(platform.workers)
    others = [platform.add_worker(**one) for one in settings]
    try:
        await asyncio.gather(*(worker.ready() for worker in others))
        yield others
    finally:
        for worker in others:
            worker.kill()
        platform.workers[:] = usual


@asynccontextmanager
async def others_instead(platform: Platform, settings: Callable[[], Mapping[str, str]]) -> AsyncIterator[None]:
    """In place of the platform's own jobs-services and workers as many with these settings."""
    usual = list(platform.services), list(platform.workers)
    others = [
        *(platform.add_service(**settings()) for _ in usual[0]),
        *(platform.add_worker(**settings()) for _ in usual[1]),
    ]
    try:
        await asyncio.gather(*(part.ready() for part in others))
        for part in (*usual[1], *usual[0]):
            await part.stop()
        platform.services[:], platform.workers[:] = others[: len(usual[0])], others[len(usual[0]) :]
        yield
    finally:
        for part in others:
            part.kill()
        platform.services[:], platform.workers[:] = usual
        for part in (*platform.services, *platform.workers):
            if not part.runs:
                await part.start()


@asynccontextmanager
async def supervised(parts: Sequence[Part]) -> AsyncIterator[list[str]]:
    """Parts that die are started again; answers the names of those that were."""
    restarted: list[str] = []

    async def revive() -> None:
        for part in parts:
            if not part.runs:
                part.kill()
                restarted.append(part.name)
                await part.start()

    async def watch() -> None:
        while True:
            await revive()
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    try:
        yield restarted
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        await revive()
