"""Flower, as README.md says to start it, beside a real worker: what it shows through its API."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import examples
import httpx2
import pytest
from platform_standin import Platform
from worker_process import Start

from triton_common.messages import RunJob
from triton_common.queue.celery import CeleryTaskQueue
from triton_common.testing import eventually, free_port


@pytest.fixture
def flower(redis_url: str) -> Iterator[httpx2.Client]:
    """Its API."""
    port = free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "celery", "-A", "agent_runner.worker", "flower"),
            *("--address=127.0.0.1", f"--port={port}"),
        ],
        env=os.environ | {"TASK_QUEUE_URL": redis_url, "FLOWER_UNAUTHENTICATED_API": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}/api") as http:

        def is_up() -> bool:
            try:
                return http.get("/workers").is_success
            except httpx2.TransportError:
                return False

        eventually(is_up, within=60)
        yield http
    process.terminate()
    process.wait(20)


async def test_flower_shows_the_worker_and_which_job_a_task_is_for(
    platform: Platform, start: Start, flower: httpx2.Client, redis_url: str
):
    worker = start()
    worker.says("Events of group {task} enabled by remote")  # Flower asks every five seconds
    row = platform.add(examples.job())

    [name] = eventually(lambda: flower.get("/workers", params={"refresh": "true"}).json(), within=60)
    async with CeleryTaskQueue(redis_url) as queue:
        [task_id] = await queue.send([RunJob(job_id=row.job.job_id, request_id="request-1")], priority=2)

    def shown() -> dict[str, Any] | None:
        task = flower.get("/tasks").json().get(task_id)
        return task if task and task["state"] == "SUCCESS" else None

    task = eventually(shown, within=60)
    assert (task["name"], task["worker"]) == (RunJob.name, name)
    assert task["kwargs"] == f"{{'request_id': 'request-1', 'job_id': '{row.job.job_id}'}}"
    assert task["runtime"] > 0
    known = flower.get("/workers", params={"refresh": "true"}).json()[name]
    assert [queue["name"] for queue in known["active_queues"]] == [RunJob.queue]
    assert RunJob.name in known["registered"]
