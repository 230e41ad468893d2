"""The worker: a real process on a real Redis, and its tasks one by one."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import examples
import httpx2
import pytest
from platform_standin import Platform, Row
from worker_process import Start, WorkerProcess

from agent_runner import worker as worker_module
from triton_common.messages import Ping, RunJob
from triton_common.queue.base import TaskStatus
from triton_common.queue.celery import CeleryTaskQueue
from triton_common.testing import free_port


@pytest.fixture
async def queue(redis_url: str):
    async with CeleryTaskQueue(redis_url) as queue:
        yield queue


def over(row: Row) -> Callable[[], bool]:
    return lambda: row.status in ("completed", "failed", "cancelled")


async def test_a_job_sent_twice_is_run_once(platform: Platform, start: Start, queue: CeleryTaskQueue):
    worker = start()
    row = platform.add(examples.job())
    message = RunJob(job_id=row.job.job_id, request_id="request-1")

    await queue.send([message])
    platform.wait(over(row))
    await queue.send([message])
    platform.wait(lambda: platform.calls["claim"] == 2)

    worker.says("job is not to be had")
    assert row.status == "completed"
    assert len(row.claims) == len(row.finishes) == 1
    assert row.claims[0].task_id
    assert row.claims[0].worker.startswith("celery@")
    [line] = [line for line in worker.output if "job ended" in line]
    for field in (f'"job_id":"{row.job.job_id}"', '"task_name":"agent_runner.run_job"', '"request_id":"request-1"'):
        assert field in line


async def test_many_messages_of_one_job_run_it_once(platform: Platform, start: Start, queue: CeleryTaskQueue):
    start()
    row = platform.add(examples.job())

    await queue.send([RunJob(job_id=row.job.job_id)] * 20)
    platform.wait(lambda: over(row)() and platform.calls["claim"] == 20)

    assert len(row.claims) == len(row.finishes) == 1


async def test_ping_is_answered_each_time(start: Start, queue: CeleryTaskQueue):
    worker = start()

    for _ in range(2):
        [task] = await queue.send([Ping()])
        worker.says(f"{task}] succeeded")
        assert await queue.status(task) is TaskStatus.COMPLETED


async def test_a_killed_workers_job_is_done_by_the_next_attempt(
    platform: Platform, start: Start, queue: CeleryTaskQueue
):
    row = platform.add(examples.job())
    platform.gate.clear()
    first = start()
    await queue.send([RunJob(job_id=row.job.job_id)])
    platform.wait(lambda: row.reports)

    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    platform.gate.set()
    platform.sweep(row)  # what jobs-service does when the lease ends
    start()
    await queue.send([RunJob(job_id=row.job.job_id)])
    platform.wait(over(row))

    assert row.status == "completed"
    assert [finish.attempt for finish in row.finishes] == [2]
    assert row.document


async def test_sigterm_releases_a_job_that_takes_longer_than_the_grace(
    platform: Platform, start: Start, queue: CeleryTaskQueue
):
    worker = start()
    row = platform.add(examples.job())
    platform.gate.clear()
    await queue.send([RunJob(job_id=row.job.job_id)])
    platform.wait(lambda: row.reports)

    worker.send_signal(signal.SIGTERM)
    platform.wait(lambda: row.finishes)

    assert row.finishes[0].outcome == "released"
    assert row.status == "pending"
    assert worker.wait() == 0


async def test_sigterm_lets_a_job_end_within_the_grace(platform: Platform, start: Start, queue: CeleryTaskQueue):
    worker = start(AGENT_SHUTDOWN_GRACE="PT60S")
    row = platform.add(examples.job())
    platform.gate.clear()
    await queue.send([RunJob(job_id=row.job.job_id)])
    platform.wait(lambda: row.reports)

    worker.send_signal(signal.SIGTERM)
    worker.says("Warm shutdown")
    platform.gate.set()

    assert worker.wait() == 0
    assert row.status == "completed"


async def test_a_worker_takes_jobs_again_after_a_restart_of_redis(
    platform: Platform, start: Start, queue: CeleryTaskQueue, redis_server
):
    worker = start()
    row = platform.add(examples.job())

    redis_server.stop()
    worker.says("Connection to broker lost")
    redis_server.start()
    await queue.send([RunJob(job_id=row.job.job_id)])
    platform.wait(over(row))

    assert row.status == "completed"


async def test_metrics_are_served_on_the_port_of_the_settings(platform: Platform, start: Start, queue: CeleryTaskQueue):
    port = free_port()
    start(AGENT_METRICS_PORT=str(port))
    row = platform.add(examples.job())
    await queue.send([RunJob(job_id=row.job.job_id)])
    platform.wait(over(row))

    text = httpx2.get(f"http://127.0.0.1:{port}/metrics").text

    for agent in ("population_analyst", "proposal_writer"):
        series = f'triton_agent_runs_total{{agent="{agent}",model="offline:template",outcome="completed"}} 1.0'
        assert series in text
    for name in ("triton_agent_run_duration_seconds", "triton_agent_retries_total", "triton_agent_tokens_total"):
        assert f"# TYPE {name}" in text


def test_a_worker_with_a_wrong_model_does_not_start(platform: Platform, start: Start):
    worker = WorkerProcess({"PATH": os.environ["PATH"], "TASK_QUEUE_URL": "redis://127.0.0.1:1", "AGENT_MODEL": "gpt"})

    assert worker.wait() != 0
    worker.stop()
    assert "AGENT_MODEL must be offline:template" in "".join(worker.output)


def test_importing_the_worker_is_light():
    """Agno and boto3 take a second and a hundred megabytes; only a model needs them."""
    heavy = "print([name for name in ('agno', 'boto3', 'openai') if name in sys.modules], threading.active_count())"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, threading, agent_runner.worker; {heavy}"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "[] 1"


@contextmanager
def started(monkeypatch: pytest.MonkeyPatch, settings) -> Iterator[None]:
    monkeypatch.setattr(worker_module, "settings", settings)
    worker_module._start()
    try:
        yield
    finally:
        worker_module._stop()
        monkeypatch.setattr(worker_module, "_worker", None)


def test_the_tasks_in_this_process(platform: Platform, settings, monkeypatch):
    row = platform.add(examples.job())
    port = free_port()

    with started(monkeypatch, settings.model_copy(update={"metrics_port": port})):
        for _ in range(2):
            worker_module.run_job.apply(kwargs=RunJob(job_id=row.job.job_id).model_dump(mode="json")).get()
        assert worker_module.ping.apply(kwargs=Ping().model_dump(mode="json")).get() == "pong"
        worker_module._drain()
        other = platform.add(examples.job())
        worker_module.run_job.apply(kwargs={"job_id": str(other.job.job_id), "of_a_newer_sender": 1}).get()

    assert (row.status, len(row.finishes)) == ("completed", 1)
    assert other.status == "pending"


def test_signals_before_the_start_are_harmless(monkeypatch):
    monkeypatch.setattr(worker_module, "_worker", None)

    worker_module._drain()
    worker_module._stop()


def test_a_wrong_model_stops_the_start(settings, monkeypatch):
    with (
        pytest.raises(SystemExit, match="AGENT_MODEL"),
        started(monkeypatch, settings.model_copy(update={"model": "gpt"})),
    ):
        pass
