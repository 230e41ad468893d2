"""A real worker while its Redis is away: it takes messages again soon after Redis is back, and loses no job."""

import asyncio
import signal
import time

import examples
import pytest
from platform_standin import Platform, Row
from worker_process import Start

from triton_common.messages import RunJob
from triton_common.queue.base import QueueUnavailable
from triton_common.queue.celery import CeleryTaskQueue
from triton_common.testing import Wire

RECOVERY = 15.0  # seconds; measured: 5 after a kill, 1 after silence, 7 behind a half-open connection


@pytest.fixture
async def queue(redis_url: str):
    async with CeleryTaskQueue(redis_url) as queue:
        yield queue


async def taken(queue: CeleryTaskQueue, row: Row, *, within: float) -> None:
    """Until a worker has taken the job, whose message goes out each second."""
    began = time.monotonic()
    while not row.claims:
        assert time.monotonic() - began < within, "no worker took the job in time"
        try:
            await queue.send([RunJob(job_id=row.job.job_id)])
        except QueueUnavailable:
            continue
        await asyncio.sleep(1)


async def works(platform: Platform, queue: CeleryTaskQueue) -> None:
    """Until a worker has done a job."""
    row = platform.add(examples.job())
    await taken(queue, row, within=30)
    platform.wait(lambda: row.status == "completed")


async def test_after_a_kill_and_a_restart(platform: Platform, start: Start, queue: CeleryTaskQueue, redis_server):
    start()
    await works(platform, queue)

    redis_server._process.send_signal(signal.SIGKILL)
    redis_server.stop()
    await asyncio.sleep(3)  # the worker finds nobody, several times
    redis_server.start()

    await taken(queue, platform.add(examples.job()), within=RECOVERY)


async def test_after_ten_seconds_of_silence(platform: Platform, start: Start, queue: CeleryTaskQueue, redis_server):
    start()
    await works(platform, queue)

    redis_server._process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(10)
    redis_server._process.send_signal(signal.SIGCONT)

    await taken(queue, platform.add(examples.job()), within=RECOVERY)


async def test_after_its_connections_went_half_open(
    platform: Platform, start: Start, queue: CeleryTaskQueue, redis_server
):
    wire = Wire(redis_server.port)
    start(TASK_QUEUE_URL=redis_server.url.replace(f":{redis_server.port}", f":{wire.port}"))
    await works(platform, queue)

    wire.cut()
    wire.mend()  # for new connections: those that the worker has stay deaf

    await taken(queue, platform.add(examples.job()), within=RECOVERY)
    wire.close()


async def test_after_a_time_in_which_new_connections_were_deaf_too(
    platform: Platform, start: Start, queue: CeleryTaskQueue, redis_server
):
    wire = Wire(redis_server.port)
    start(TASK_QUEUE_URL=redis_server.url.replace(f":{redis_server.port}", f":{wire.port}"))
    await works(platform, queue)

    wire.cut()
    await asyncio.sleep(12)
    wire.mend()

    await taken(queue, platform.add(examples.job()), within=RECOVERY)
    wire.close()
