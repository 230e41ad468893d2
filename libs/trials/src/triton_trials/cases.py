"""The accidents. Each case takes a trial on a running platform and leaves the platform as it found it.

What must hold after any of them is judged in `history.py`; what more must hold of one of them stands in it.

A case has a size: how many jobs, and how long or how often the accident.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from signal import SIGCONT, SIGINT, SIGKILL, SIGQUIT, SIGSTOP, SIGTERM, Signals
from typing import Final
from uuid import UUID

from triton_trials.doubling import Doubling
from triton_trials.platform import Part, Platform
from triton_trials.proxy import Proxy
from triton_trials.trial import Submission, Trial

SERVICES: Final = 2
WORKERS: Final = 2
THREADS: Final = 8 * WORKERS  # in all, and the default limit of a client's jobs in flight
KILLS: Final = "kills its worker"  # as worker.py reads it

CASES: Final[dict[str, "Case"]] = {}


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


@dataclass(frozen=True)
class Case:
    """An accident: its name, what it does, and how."""

    name: str
    run: Callable[[Trial, Size], Awaitable[None]]

    @property
    def what(self) -> str:
        """In a sentence."""
        return (self.run.__doc__ or "").split("\n")[0]


def case(run: Callable[[Trial, Size], Awaitable[None]]) -> Callable[[Trial, Size], Awaitable[None]]:
    """Make a function a case, under its name."""
    name = run.__name__.replace("_", "-")
    CASES[name] = Case(name, run)
    return run


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
async def load(trial: Trial, jobs: int, *, clients: int = 3, rate: float = 100.0) -> AsyncIterator[None]:
    """The accident happens inside, while jobs are submitted and run: so many at least, and for as long as it lasts.

    Then all are waited for.
    """
    for _ in range(clients):
        await trial.add_client()
    over = asyncio.Event()
    submitting = asyncio.create_task(trial.submit(jobs, *trial.clients[-clients:], rate=rate, until=over))
    try:
        async with trial.accident():
            yield
    finally:
        over.set()
        await submitting
    await trial.until_over()


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
        platform.workers = usual


@asynccontextmanager
async def supervised(parts: Sequence[Part]) -> AsyncIterator[None]:
    """Parts that die are started again."""

    async def watch() -> None:
        while True:
            for part in parts:
                if not part.runs:
                    part.kill()
                    await part.start()
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        for part in parts:
            if not part.runs:
                await part.start()


@case
async def workers_killed(trial: Trial, size: Size) -> None:
    """SIGKILL workers at random, with all that they do."""
    async with load(trial, size.jobs):
        for _ in range(size.times):
            await trial.until_working()
            await replaced(random.choice(trial.platform.workers), SIGKILL)


@case
async def workers_stopped(trial: Trial, size: Size) -> None:
    """SIGTERM workers: what they do is finished or handed back, and waits for no lease."""
    trial.forbidden.add("lease_lost")
    longest = 0.0
    async with load(trial, size.jobs):
        for number in range(size.times + 1):
            await trial.until_working()
            worker = trial.platform.workers[number % len(trial.platform.workers)]
            worker.tell(SIGTERM)
            longest = max(longest, await worker.ended())
            await worker.start()
    trial.note = f"a worker ended within {longest:.1f} s"


@case
async def redis_flushed(trial: Trial, size: Size) -> None:
    """FLUSHALL: every message is gone."""
    async with load(trial, size.jobs):
        for _ in range(size.times):
            await trial.until_waiting()
            await trial.platform.flush()


@case
async def redis_frozen(trial: Trial, size: Size) -> None:
    """SIGSTOP Redis for a while: no answer waits for it, and workers consume again when it is back."""
    async with load(trial, size.jobs):
        await trial.until_working()
        trial.platform.redis.tell(SIGSTOP)
        await asyncio.sleep(size.seconds)
        trial.platform.redis.tell(SIGCONT)


@case
async def redis_killed(trial: Trial, size: Size) -> None:
    """SIGKILL Redis and start it again without what it had written down."""
    async with load(trial, size.jobs):
        await trial.until_waiting()
        trial.platform.redis.kill()
        trial.platform.forget_messages()
        await asyncio.sleep(size.seconds / 3)
        await trial.platform.redis.start()


@case
async def redis_half_open(trial: Trial, size: Size) -> None:
    """Every connection of the workers to Redis dies without a word; new ones work."""
    platform = trial.platform
    async with Proxy(lambda: [platform.redis_address]) as link:
        settings = {"TASK_QUEUE_URL": platform.redis_url_at(link.port)}
        async with more_workers(platform, settings, settings):
            for worker in platform.workers[:WORKERS]:
                await worker.stop()
            async with load(trial, size.jobs):
                await trial.until_working()
                link.forget()
        for worker in platform.workers:
            await worker.start()


@case
async def postgres_restarted(trial: Trial, size: Size) -> None:
    """Restart Postgres, fast and immediate."""
    async with load(trial, size.jobs):
        for _ in range((size.times + 1) // 2):
            for number in (SIGINT, SIGQUIT):
                await trial.until_working()
                await replaced(trial.platform.postgres, number)


@case
async def services_stopped(trial: Trial, size: Size) -> None:
    """SIGTERM and SIGKILL jobs-service, one process after the other, then all at once."""
    services = trial.platform.services
    async with load(trial, size.jobs):
        for number in range(size.times):
            await replaced(services[number % len(services)], (SIGTERM, SIGKILL)[number % 2])
        await all_replaced(services, SIGKILL)


@case
async def messages_doubled(trial: Trial, size: Size) -> None:
    """Every message is delivered twice."""
    async with Doubling(trial.platform.redis_url, trial.platform.redis_address) as doubling:
        async with load(trial, size.jobs):
            await trial.until_working()
        trial.note = f"{doubling.messages} messages doubled"
        if doubling.messages < size.jobs:
            trial.violations.append(f"only {doubling.messages} messages were doubled")


@case
async def finish_delayed(trial: Trial, size: Size) -> None:
    """SIGSTOP a worker past its leases: its jobs are done by another, and its own late answers are refused."""
    for _ in range(3):
        await trial.add_client("50-500 ms, deaf")
    worker = trial.platform.workers[0]
    for _ in range((size.times + 1) // 2):
        submitting = asyncio.create_task(trial.submit(size.jobs, rate=100))
        await trial.until_working(worker)
        async with trial.accident():
            worker.tell(SIGSTOP)
            await trial.until_lost(worker)
            worker.tell(SIGCONT)
        await submitting
        await trial.until_over()


@case
async def clocks_skewed(trial: Trial, size: Size) -> None:
    """One worker's clock is an hour ahead, another's an hour behind: nobody asks them."""
    trial.forbidden.add("lease_lost")
    hour = {"TRIALS_CLOCK_SKEW": "3600"}, {"TRIALS_CLOCK_SKEW": "-3600"}
    async with more_workers(trial.platform, *hour) as workers, load(trial, size.jobs):
        for worker in workers:
            await trial.until_working(worker)


@case
async def link_cut(trial: Trial, size: Size) -> None:
    """Between workers and jobs-service all is cut, then nothing passes, then a fifth of the answers is lost."""
    link = trial.platform.proxy
    async with load(trial, size.jobs):
        await trial.until_working()
        link.refuses = True
        link.cut()
        await asyncio.sleep(size.seconds / 3)
        link.refuses = False
        await trial.until_working()
        link.stall()
        await asyncio.sleep(size.seconds / 3)
        link.flow()
        link.lose = 0.2
        await asyncio.sleep(size.seconds / 3)
        link.lose = 0.0
        trial.note = f"{link.lost} answers lost"


@case
async def worker_poisoned(trial: Trial, size: Size) -> None:
    """One job kills each worker that takes it: it fails after its attempts, and the others do not."""
    poison = await trial.add_client(KILLS, ends="failed")
    async with supervised(trial.platform.workers), load(trial, size.jobs):
        await trial.submit(1, poison)


@case
async def queue_filled(trial: Trial, size: Size) -> None:
    """A client submits more than it may have waiting: 429 with Retry-After, and all is accepted in the end."""
    service = trial.platform.add_service(JOBS_MAX_PENDING_PER_CLIENT=str(size.jobs // 2))
    try:
        await service.ready()
        trial.entrances = [service]
        await trial.add_client("1000 ms")
        async with trial.accident():
            refused = asyncio.Event()
            submitting = asyncio.create_task(trial.submit(size.jobs, rate=300, until=refused))
            told = await trial.until_refused()
            refused.set()
        await submitting
    finally:
        service.kill()
        trial.platform.services.remove(service)
    await trial.until_over()
    trial.note = f"Retry-After: {told}"
    if told < 1:
        trial.violations.append(f"Retry-After of an answer 429 was {told}")


@case
async def first_job(trial: Trial, size: Size) -> None:
    """One client has a thousand jobs; another's first is started within one job's time."""
    crowd, other = await trial.add_client("200-300 ms"), await trial.add_client("200-300 ms")
    await trial.submit(size.crowd, crowd)
    [first] = await trial.submit(1, other)
    await trial.until_over()
    await overtook(trial, first)


@case
async def priorities(trial: Trial, size: Size) -> None:
    """A client has a thousand jobs: one more of high priority comes before them, one of low priority after."""
    crowd = await trial.add_client("200-300 ms")
    await trial.submit(size.crowd, crowd)
    [low] = await trial.submit(1, crowd, priority="low")
    [high] = await trial.submit(1, crowd, priority="high")
    await trial.until_over()
    claims = await overtook(trial, high)
    if (later := sum(at > claims[low.job_id] for at in claims.values())) > THREADS:
        trial.violations.append(f"{later} jobs were started after one of low priority: {low.job_id}")


async def overtook(trial: Trial, submission: Submission) -> Mapping[UUID | None, float]:
    """No more jobs were started between a job's submission and its start than there are threads. Answers all starts."""
    claims = await trial.claims()
    started = claims[submission.job_id]
    between = sum(submission.sent < at < started for at in claims.values())
    trial.note = f"started after {started - submission.sent:.2f} s, {between} others before it"
    if between > THREADS:
        trial.violations.append(f"{between} jobs were started before {submission.job_id}")
    return claims


@case
async def all_at_random(trial: Trial, size: Size) -> None:
    """Now this, now that, for a while."""
    platform = trial.platform
    end = time.monotonic() + 2 * size.seconds

    async def freeze(part: Part) -> None:
        part.tell(SIGSTOP)
        await asyncio.sleep(random.uniform(0.1, size.seconds / 2))
        part.tell(SIGCONT)

    async with load(trial, size.jobs):
        while time.monotonic() < end:
            match random.randrange(7):
                case 0:
                    await replaced(random.choice(platform.workers), SIGKILL)
                case 1:
                    await replaced(random.choice(platform.workers), SIGTERM)
                case 2:
                    await platform.flush()
                case 3:
                    await replaced(random.choice(platform.services), SIGKILL)
                case 4:
                    await replaced(platform.postgres, SIGQUIT)
                case 5:
                    await freeze(random.choice([*platform.workers, *platform.services, platform.redis]))
                case _:
                    platform.proxy.cut()
