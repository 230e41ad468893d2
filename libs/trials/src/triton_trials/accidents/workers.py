"""Accidents of workers: they are killed, stopped, frozen, poisoned, or have a wrong clock."""

import asyncio
from collections import Counter
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import Final

from triton_trials.history import Ending
from triton_trials.load import BUSY, Size, load, more_workers, replaced, supervised
from triton_trials.trial import Trial

KILLS: Final = "kills its worker"  # as worker.py reads it
ATTEMPTS: Final = 3  # jobs-service's default
HOUR: Final = 3600


async def workers_killed(trial: Trial, size: Size) -> None:
    """SIGKILL workers at random, with all that they do."""
    trial.demands.happened.add("lease_lost")
    async with load(trial, size.jobs):
        for _ in range(size.times):
            worker = trial.dice.choice(trial.platform.workers)
            await trial.until_working(worker)
            await replaced(worker, SIGKILL)


async def workers_stopped(trial: Trial, size: Size) -> None:
    """SIGTERM workers: what they do is finished or handed back, and waits for no lease."""
    trial.demands.forbidden.add("lease_lost")
    trial.demands.happened.add("released")
    longest = 0.0
    async with load(trial, size.jobs, work="300-500 ms", slower=4):  # longer than a stopping worker's grace
        for number in range(size.times + 1):
            worker = trial.platform.workers[number % len(trial.platform.workers)]
            await trial.until_working(worker, jobs=BUSY)
            worker.tell(SIGTERM)
            longest = max(longest, await worker.ended())
            await worker.start()
    trial.note = f"a worker ended within {longest:.1f} s"


async def finish_delayed(trial: Trial, size: Size) -> None:
    """SIGSTOP a worker past its leases: its jobs are done by another, and its own late answers are refused."""
    rounds = (size.times + 1) // 2
    trial.demands.happened.add("lease_lost")
    trial.demands.late_answers = rounds
    for _ in range(3):
        await trial.add_client("600-900 ms, deaf")
    worker = trial.platform.workers[0]
    for _ in range(rounds):
        submitting = asyncio.create_task(trial.submit(size.jobs, rate=100))
        await trial.until_working(worker, jobs=BUSY)
        async with trial.accident():
            worker.tell(SIGSTOP)
            await trial.until_lost(worker)
            await trial.until_retaken(BUSY // 2)  # a late answer meets the attempt that it must not end
            worker.tell(SIGCONT)
        await submitting
        await trial.until_over()
        await trial.until_answered()


async def clocks_skewed(trial: Trial, size: Size) -> None:
    """One worker's wall clock is an hour ahead, another's an hour behind: nobody asks them."""
    trial.demands.forbidden.add("lease_lost")
    trial.demands.skew = HOUR
    skews = ({"TRIALS_CLOCK_SKEW": str(seconds)} for seconds in (HOUR, -HOUR))
    async with more_workers(trial.platform, *skews) as workers, load(trial, size.jobs, slower=1):
        for worker in workers:
            await trial.until_working(worker)


async def worker_poisoned(trial: Trial, size: Size) -> None:
    """One job kills each worker that takes it: it fails after its attempts, and the others do not."""
    poison = await trial.add_client(KILLS, ends=Ending("failed", error="worker_lost", attempts=ATTEMPTS))
    async with supervised(trial.platform.workers) as restarted, load(trial, size.jobs):
        await trial.submit(1, poison)
    trial.note = f"{len(restarted)} workers started again"
    trial.demand(len(restarted) == ATTEMPTS, f"not {ATTEMPTS} workers died: {dict(Counter(restarted))}")
