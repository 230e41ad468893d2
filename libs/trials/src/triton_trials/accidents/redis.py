"""Accidents of Redis: it loses its messages, doubles them, stands still, dies, or is at the end of a dead connection.

In each of them messages wait when it happens, and some of those that go are needed.
"""

import asyncio
import time
from signal import SIGCONT, SIGSTOP
from typing import Final

from triton_trials.demands import Loss
from triton_trials.doubling import Doubling
from triton_trials.load import THREADS, WORKERS, Size, load, others_instead
from triton_trials.proxy import Proxy
from triton_trials.trial import Trial

FILLING: Final = 4 * THREADS  # jobs, submitted faster than they are done: messages wait in Redis


async def redis_flushed(trial: Trial, size: Size) -> None:
    """FLUSHALL: every message is gone."""
    trial.demands.resumes = True
    async with load(trial, max(size.jobs, FILLING), rate=200, slower=2):
        for _ in range(size.times):
            await trial.until_queued(THREADS)
            lost, now = await trial.platform.messages.flush(), time.time()
            trial.demands.losses.append(Loss(lost, at=now, back=now))


async def redis_frozen(trial: Trial, size: Size) -> None:
    """SIGSTOP Redis for a while: no answer waits for it, and workers consume again when it is back."""
    trial.demands.resumes = True
    async with load(trial, max(size.jobs, FILLING), rate=200, slower=8):
        await trial.until_queued(THREADS)
        began = time.time()
        trial.platform.redis.tell(SIGSTOP)
        await asyncio.sleep(size.seconds)
        trial.demands.away.append((began, time.time()))
        trial.platform.redis.tell(SIGCONT)


async def redis_killed(trial: Trial, size: Size) -> None:
    """SIGKILL Redis and start it again without what it had written down."""
    trial.demands.resumes = True
    async with load(trial, max(size.jobs, FILLING), rate=200, slower=8):
        await trial.until_queued(THREADS)
        lost = await trial.platform.messages.jobs()
        trial.platform.redis.kill()
        began = time.time()
        trial.platform.forget_messages()
        await asyncio.sleep(size.seconds)
        trial.demands.away.append((began, time.time()))
        await trial.platform.redis.start()
        trial.demands.losses.append(Loss(lost, at=began, back=time.time()))


async def redis_half_open(trial: Trial, size: Size) -> None:
    """Every connection to Redis, the workers' and jobs-service's, dies without a word; new ones work."""
    trial.demands.resumes = True
    platform = trial.platform
    async with (
        Proxy(lambda: [platform.redis_address]) as link,
        others_instead(platform, lambda: {"TASK_QUEUE_URL": platform.redis_url_at(link.port)}),
        load(trial, size.jobs),
    ):
        await trial.until_working()
        link.forget()
    trial.note = f"{link.broken} connections half open"
    trial.demand(link.broken > WORKERS, f"only {link.broken} connections were left half open")


async def messages_doubled(trial: Trial, size: Size) -> None:
    """Every message is delivered twice."""
    async with Doubling(trial.platform.redis_url, trial.platform.redis_address) as doubling:
        async with load(trial, size.jobs):
            await trial.until_working()
        await trial.until_consumed()
        trial.note = f"{doubling.messages} messages doubled"
        trial.demand(doubling.messages >= size.jobs, f"only {doubling.messages} messages were doubled")
