"""Readiness: what it says with a worker, without one, behind long jobs, and without Redis."""

import asyncio
import threading
import time

import pytest
from pydantic import SecretStr

from agent_runner import health, main
from agent_runner.health import WorkerWatch
from agent_runner.settings import Settings
from triton_common.app import Degraded
from triton_common.messages import Ping
from triton_common.queue.base import TaskStatus
from triton_common.queue.memory import MemoryTaskQueue
from triton_common.testing import free_port

NO_WORKER = {"status": "degraded", "message": "no worker answers; jobs wait"}


def told(answer, dependency: str) -> dict:
    found = answer.json()["dependencies"][dependency]
    return {name: found[name] for name in ("status", "message")}


async def ready(http, *, within: float = 30):
    """The first answer that says ok."""
    deadline = time.monotonic() + within
    while (answer := await http.get("/health/ready")).json()["status"] != "ok":
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(0.05)
    return answer


@pytest.fixture
async def http(running, redis_url, postgres_url):
    settings = Settings(task_queue_url=SecretStr(redis_url), database_url=SecretStr(postgres_url))
    async with running(main.build(settings)) as http:
        yield http


@pytest.fixture
def impatient(monkeypatch):
    """Answers count for a moment only."""
    monkeypatch.setattr(health, "GOOD_FOR", 0.2)


async def test_a_worker_that_takes_messages_is_seen(http, start):
    start()
    answer = await ready(http)
    assert answer.status_code == 200
    assert told(answer, "worker") == told(answer, "task_queue") == {"status": "ok", "message": None}


async def test_without_a_worker_it_is_degraded_within_a_second(http):
    started = time.monotonic()
    answer = await http.get("/health/ready")
    assert time.monotonic() - started < 1
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert told(answer, "worker") == NO_WORKER
    assert told(answer, "task_queue")["status"] == "ok"

    started = time.monotonic()
    answer = await http.get("/health/ready")
    assert time.monotonic() - started < 0.3, "only the first waits"
    assert told(answer, "worker") == NO_WORKER


async def test_a_worker_that_dies_is_missed_and_its_successor_seen(http, start, impatient):
    first = start()
    await ready(http)
    first.stop()
    await asyncio.sleep(0.3)
    assert told(await http.get("/health/ready"), "worker") == NO_WORKER
    start()
    await ready(http)


async def test_without_redis_it_is_degraded(running, postgres_url):
    url = SecretStr(f"redis://127.0.0.1:{free_port()}/0")
    settings = Settings(task_queue_url=url, database_url=SecretStr(postgres_url))
    async with running(main.build(settings)) as http:
        answer = await http.get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert told(answer, "task_queue")["status"] == "degraded"
    assert told(answer, "worker") == NO_WORKER


async def test_without_postgres_it_is_degraded(running, redis_url):
    url = SecretStr(f"postgresql://127.0.0.1:{free_port()}/agents")
    async with running(main.build(Settings(task_queue_url=SecretStr(redis_url), database_url=url))) as http:
        answer = await http.get("/health/ready")
    assert answer.status_code == 200
    assert told(answer, "postgres") == {"status": "degraded", "message": "runs cannot be listed; jobs run all the same"}


@pytest.fixture
async def watched():
    """A queue, whoever works on it, and who watches them."""
    async with MemoryTaskQueue() as queue:
        watch = WorkerWatch(queue)
        yield queue, watch
        await watch.close()


async def asked(watch: WorkerWatch, times: int) -> list[BaseException | None]:
    return await asyncio.gather(*(watch.check() for _ in range(times)), return_exceptions=True)


async def test_many_who_ask_send_one_ping_which_waits_its_turn(watched, monkeypatch):
    monkeypatch.setattr(health, "PATIENCE", 0.1)
    queue, watch = watched
    job_is_over = threading.Event()
    queue.register(Ping.name, lambda **_: job_is_over.wait(10))
    for _ in range(3):
        assert {type(answer) for answer in await asked(watch, 50)} == {Degraded}
    job_is_over.set()
    await asyncio.sleep(health.LONGEST_PAUSE + 0.1)
    assert await asked(watch, 50) == [None] * 50
    assert [sent.task for sent in queue.sent] == [Ping.name], "one was sent, and its answer is remembered"


async def test_a_ping_that_was_lost_is_taken_back_and_another_sent(watched, monkeypatch):
    monkeypatch.setattr(health, "PATIENCE", 0.1)
    monkeypatch.setattr(health, "GIVEN_UP", 0.2)
    queue, watch = watched
    await asked(watch, 1)
    await asyncio.sleep(0.6)
    await asked(watch, 1)
    first, second = (sent.task_id for sent in queue.sent)
    assert await queue.status(first) is TaskStatus.CANCELLED
    assert await queue.status(second) is TaskStatus.PENDING
