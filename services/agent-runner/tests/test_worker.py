"""The worker: a real process on a real Redis, and its tasks one by one."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import examples
import httpx2
import pytest
import redis
import yaml
from platform_standin import Platform, Row
from worker_process import Start, WorkerProcess

from agent_runner import worker as worker_module
from agent_runner.collecting import queries
from triton_common.messages import Ping, RunJob
from triton_common.queue.base import TaskStatus
from triton_common.queue.celery import CeleryTaskQueue, lane
from triton_common.testing import eventually, free_port


@pytest.fixture
async def queue(redis_url: str):
    async with CeleryTaskQueue(redis_url) as queue:
        yield queue


def test_compose_lets_a_worker_have_all_its_threads():
    compose = yaml.safe_load((Path(__file__).parents[3] / "compose/docker-compose.yml").read_text())
    jobs = worker_module.app.conf.worker_concurrency
    threads = jobs * (1 + len(queries(examples.job())))

    # as many again for calls that nobody waits for any longer, and for the worker's own
    assert compose["services"]["agent-worker"]["pids_limit"] >= 2 * threads


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


async def test_many_messages_of_one_job_run_it_once(platform: Platform, start: Start, queue: CeleryTaskQueue):
    start()
    row = platform.add(examples.job())

    await queue.send([RunJob(job_id=row.job.job_id)] * 20)
    platform.wait(lambda: over(row)() and platform.calls["claim"] == 20)

    assert len(row.claims) == len(row.finishes) == 1


async def answered(queue: CeleryTaskQueue, task: str) -> None:
    deadline = time.monotonic() + 30
    while await queue.status(task) is not TaskStatus.COMPLETED:
        assert time.monotonic() < deadline, "no worker answers"
        await asyncio.sleep(0.02)


async def test_a_ping_is_answered_each_time_and_alone_leaves_a_result_which_expires(
    platform: Platform, start: Start, queue: CeleryTaskQueue, redis_url: str
):
    start()
    row = platform.add(examples.job())
    [job] = await queue.send([RunJob(job_id=row.job.job_id)])

    for _ in range(2):
        [task] = await queue.send([Ping()])
        await answered(queue, task)
    platform.wait(over(row))

    with redis.Redis.from_url(redis_url) as admin:
        assert 0 < admin.ttl(f"celery-task-meta-{task}") <= 3600
        assert not admin.exists(f"celery-task-meta-{job}")


async def test_urgent_jobs_and_pings_overtake_what_waits(platform: Platform, start: Start, queue: CeleryTaskQueue):
    start()
    platform.gate.clear()
    running = [platform.add(examples.job()) for _ in range(4)]  # as many as the worker has threads
    await queue.send([RunJob(job_id=row.job.job_id) for row in running])
    platform.wait(lambda: all(row.reports for row in running))
    waiting = {priority: [platform.add(examples.job()) for _ in range(3)] for priority in (5, 3, 0, 4, 1, 2)}
    for priority, rows in waiting.items():
        await queue.send([RunJob(job_id=row.job.job_id) for row in rows], priority=priority)
    [ping] = await queue.send([Ping()])

    platform.gate.set()
    await answered(queue, ping)
    platform.wait(lambda: all(over(row)() for row in platform.rows.values()))

    assert not [row for row in waiting[5] if platform.order.index(row.job.job_id) < 4 + 9]
    assert max(platform.order.index(row.job.job_id) for row in waiting[0]) < 4 + 3 + 4  # four threads claim at a time


def fields(line: str) -> dict[str, object]:
    """Of a log line in JSON; {} for what is none of ours."""
    return json.loads(line) if line.startswith("{") else {}


async def test_every_line_on_a_job_names_it_its_request_and_its_task(
    platform: Platform, start: Start, queue: CeleryTaskQueue
):
    worker = start()
    row = platform.add(examples.job(request_id="request-1", lease_seconds=0.15))  # renewed every 50 ms
    platform.trouble.update(progress=5, finish=1)
    platform.gate.clear()

    await queue.send([RunJob(job_id=row.job.job_id, request_id="request-1")])
    platform.wait(lambda: platform.calls["progress"] > 5)  # most of them by the thread that renews the lease
    platform.gate.set()
    platform.wait(over(row))
    worker.says("job ended")
    worker.stop()

    lines = [fields(line) for line in worker.output]
    of_the_job = [line for line in lines if line.get("job_id")]
    assert {"job claimed", "job ended"} <= {line["message"] for line in of_the_job}
    in_danger = [line for line in lines if line.get("message") == "progress could not be reported"]
    assert [(line.get("job_id"), line.get("attempt")) for line in in_danger] == [(str(row.job.job_id), "1")] * 5
    for line in of_the_job:
        assert (line["job_id"], line["request_id"]) == (str(row.job.job_id), "request-1")
        assert line["task_name"] == "agent_runner.run_job"
    others = "".join(str(line) for line in lines if not line.get("job_id"))
    assert "run_job[" not in others, "Celery's own lines on tasks name no job"


@pytest.mark.parametrize("group", [False, True])
async def test_sigterm_releases_all_jobs_that_take_longer_than_the_grace(
    platform: Platform, start: Start, queue: CeleryTaskQueue, group: bool
):
    worker = start()
    platform.gate.clear()
    rows = [platform.add(examples.job()) for _ in range(4)]
    await queue.send([RunJob(job_id=row.job.job_id) for row in rows])
    platform.wait(lambda: all(row.reports for row in rows))
    waiting = platform.add(examples.job())
    await queue.send([RunJob(job_id=waiting.job.job_id)])

    worker.send_signal(signal.SIGTERM, group=group)

    assert worker.wait() == 0
    assert [[finish.outcome for finish in row.finishes] for row in rows] == [["released"]] * 4
    assert not waiting.claims
    platform.gate.set()
    start()
    platform.wait(over(waiting))  # its message waited for another worker


async def test_sigterm_ends_a_worker_that_cannot_reach_jobs_service(
    platform: Platform, start: Start, queue: CeleryTaskQueue
):
    worker = start(AGENT_SHUTDOWN_GRACE="PT1S")
    platform.gate.clear()
    rows = [platform.add(examples.job()) for _ in range(3)]
    await queue.send([RunJob(job_id=row.job.job_id) for row in rows])
    platform.wait(lambda: all(row.reports for row in rows))
    platform.trouble.update(dict.fromkeys(("claim", "progress", "finish"), 1_000_000))
    await queue.send([RunJob(job_id=platform.add(examples.job()).job.job_id)])
    platform.wait(lambda: platform.calls["claim"] > len(rows))

    worker.send_signal(signal.SIGTERM)

    assert worker.wait() == 0
    assert not [finish for row in rows for finish in row.finishes]


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_workers_wall_clock_does_not_matter(
    platform: Platform, start: Start, queue: CeleryTaskQueue, tmp_path: Path, hours: int
):
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "true = time.time\n"
        f"time.time = lambda: true() + {hours} * 3600\n"
        f"time.time_ns = lambda: int((true() + {hours} * 3600) * 1e9)\n"
        "print('the clock is wrong')\n"
    )
    worker = start(PYTHONPATH=str(tmp_path))
    worker.says("the clock is wrong")
    row = platform.add(examples.job(lease_seconds=0.3))
    platform.gate.clear()
    await queue.send([RunJob(job_id=row.job.job_id)])
    platform.wait(lambda: len(row.reports) > 4)  # the lease is renewed, ten times a second
    [ping] = await queue.send([Ping()])
    await answered(queue, ping)

    platform.gate.set()
    platform.wait(over(row))
    assert row.status == "completed"

    left = platform.add(examples.job())
    platform.gate.clear()
    await queue.send([RunJob(job_id=left.job.job_id)])
    platform.wait(lambda: left.reports)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert [finish.outcome for finish in left.finishes] == ["released"]


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
    for name in (
        "triton_agent_run_duration_seconds",
        "triton_agent_retries_total",
        "triton_agent_tokens_total",
        "triton_agent_cost_total",
    ):
        assert f"# TYPE {name}" in text
    assert 'celery_tasks_total{state="success",task="agent_runner.run_job"}' in text
    assert "celery_worker_threads 4.0" in text


async def test_a_worker_is_ready_while_redis_answers_it(platform: Platform, start: Start, redis_url: str):
    port = free_port()
    start(AGENT_METRICS_PORT=str(port))

    def silence() -> float:
        answer = httpx2.get(f"http://127.0.0.1:{port}/health/ready")
        assert answer.status_code == 200
        return answer.json()["silence_seconds"]

    eventually(lambda: silence() < 2, within=30)
    with redis.Redis.from_url(redis_url) as admin:
        admin.client_pause(8000)  # which also keeps an UNPAUSE waiting
    eventually(lambda: silence() > 3, within=10)  # alive, and not consuming
    eventually(lambda: silence() < 2, within=30)


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


async def test_a_message_that_comes_while_the_worker_drains_goes_back_to_its_lane(
    platform: Platform, settings, monkeypatch, redis_url: str
):
    row = platform.add(examples.job())
    message = RunJob(job_id=row.job.job_id, request_id="request-1").model_dump(mode="json")
    monkeypatch.setattr(worker_module.app.conf, "broker_url", redis_url)
    worker_module.app._after_fork()  # forget connections to another Redis

    with started(monkeypatch, settings):
        worker_module._drain()
        worker_module.run_job.apply(kwargs=message, task_id="task-1", priority=3).get()
        worker_module.app._after_fork()

    with redis.Redis.from_url(redis_url) as admin:
        [sent] = admin.lrange(lane(RunJob.queue, 3), 0, -1)
    assert json.loads(sent)["headers"]["id"] == "task-1"
    assert json.loads(base64.b64decode(json.loads(sent)["body"]))[1] == message
    assert row.status == "pending"


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
