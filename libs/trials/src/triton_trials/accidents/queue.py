"""Crowds: a client that fills its queue, and who comes first when many wait."""

import asyncio
from collections.abc import Mapping
from uuid import UUID

from triton_trials.load import THREADS, Size
from triton_trials.submissions import Submission
from triton_trials.trial import Trial


async def queue_filled(trial: Trial, size: Size) -> None:
    """A client submits more than it may have waiting: 429 with Retry-After, and all is accepted in the end."""
    service = trial.platform.add_service(JOBS_MAX_PENDING_PER_CLIENT=str(size.jobs // 2))
    try:
        await service.ready()
        trial.entrances = lambda: [trial.platform.address(service)]
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
    trial.demand(told >= 1, f"Retry-After of an answer 429 was {told}")


async def first_job(trial: Trial, size: Size) -> None:
    """One client has a thousand jobs; another's first is started within one job's time."""
    crowd, other = await trial.add_client("200-300 ms"), await trial.add_client("200-300 ms")
    await trial.submit(size.crowd, crowd)
    [first] = await trial.submit(1, other)
    await trial.until_over()
    await overtook(trial, first, among=size.crowd)


async def priorities(trial: Trial, size: Size) -> None:
    """A client has a thousand jobs: one more of high priority comes before them, one of low priority after."""
    crowd = await trial.add_client("200-300 ms")
    await trial.submit(size.crowd // 2, crowd)
    [low] = await trial.submit(1, crowd, priority="low")
    await trial.submit(size.crowd // 2, crowd)
    [high] = await trial.submit(1, crowd, priority="high")
    await trial.until_over()
    claims = await overtook(trial, high, among=size.crowd)
    assert low.job_id is not None  # else submitting had failed
    later = sum(at > claims[low.job_id] for at in claims.values())
    trial.demand(later <= THREADS, f"{later} jobs were started after one of low priority: {low.job_id}")


async def overtook(trial: Trial, submission: Submission, *, among: int) -> Mapping[UUID, float]:
    """No more jobs were started between a job's submission and its start than there are threads, though a quarter of
    `among` still waited. Answers all starts."""
    claims = await trial.claims()
    assert submission.job_id is not None  # else submitting had failed
    started = claims[submission.job_id]
    between = sum(submission.sent < at < started for at in claims.values())
    behind = sum(at > started for at in claims.values())
    trial.note = f"started after {started - submission.sent:.2f} s, {between} others before it, {behind} behind"
    trial.demand(between <= THREADS, f"{between} jobs were started before {submission.job_id}")
    trial.demand(behind > among / 4, f"only {behind} jobs still waited for {submission.job_id} to overtake")
    return claims
