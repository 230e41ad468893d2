"""Jobs and a real Redis: dead, frozen, emptied."""

import asyncio
import base64
import json
import signal
from datetime import timedelta

import pytest
import redis.asyncio

from jobs_service.main import build
from jobs_service.settings import Settings


@pytest.fixture
def settings(postgres_url, redis_url):
    return Settings(
        database_url=postgres_url,
        task_queue_url=redis_url,
        sweep_interval=timedelta(milliseconds=50),
        log_level="ERROR",
    )


@pytest.fixture
def app(settings):
    return build(settings)


@pytest.fixture
async def sent(redis_url):
    """Waits until the queue holds a message for each of these jobs."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:

        async def jobs(*wanted):
            async with asyncio.timeout(20):
                while True:
                    try:
                        lanes = [key async for key in client.scan_iter("agent-runner*", _type="list")]
                        messages = [message for lane in lanes for message in await client.lrange(lane, 0, -1)]
                    except redis.RedisError:
                        messages = []
                    bodies = [json.loads(base64.b64decode(json.loads(message)["body"])) for message in messages]
                    found = {kwargs["job_id"] for _, kwargs, _ in bodies}
                    if {job["id"] for job in wanted} <= found:
                        return found
                    await asyncio.sleep(0.02)

        yield jobs


async def test_a_job_is_in_the_queue_soon_after_its_answer(api, sent):
    job = await api.job()
    assert await sent(job) == {job["id"]}


async def test_redis_down_at_submit_and_back_later(api, sent, redis_server):
    order = await api.order()
    redis_server.stop()
    try:
        jobs = [await api.made("/api/v1/jobs", order) for _ in range(5)]
        ready = await api.http.get("/health/ready")
        assert ready.status_code == 200
        assert ready.json()["dependencies"]["redis"]["status"] == "degraded"
    finally:
        redis_server.start()
    await sent(*jobs)


@pytest.fixture
def endless_patience(monkeypatch):
    """Who waits for Redis waits until it answers."""
    monkeypatch.setattr("triton_common.queue.celery.SEND_TIMEOUT", 3600)


async def test_a_frozen_redis_delays_no_answer(endless_patience, api, sent, redis_server):
    order = await api.order()
    redis_server._process.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(60):
            jobs = [await api.made("/api/v1/jobs", order) for _ in range(12)]
        assert (await api.http.get("/health/ready")).json()["dependencies"]["redis"]["status"] == "degraded"
    finally:
        redis_server._process.send_signal(signal.SIGCONT)
    await sent(*jobs)


async def test_an_emptied_redis_gets_every_pending_job_again(api, sent, redis_url):
    order = await api.order()
    jobs = [await api.made("/api/v1/jobs", order) for _ in range(10)]
    await sent(*jobs)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.flushall()
    await sent(*jobs)
