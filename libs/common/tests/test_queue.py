"""All task queues under one contract, and Celery's with a stock worker on a real Redis."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlite_queue import SqliteTaskQueue, SqliteWorker

from triton_common.messages import Message, Ping, RunJob
from triton_common.queue.base import QueueUnavailable, TaskStatus
from triton_common.queue.celery import CeleryTaskQueue
from triton_common.queue.factory import create_task_queue, task_queue
from triton_common.queue.memory import MemoryTaskQueue
from triton_common.testing import eventually, free_port

WORKER = """
import os
from triton_common.queue.celery import celery_app

app = celery_app(os.environ["TASK_QUEUE_URL"], name="contract")

@app.task(name="contract.echo", ignore_result=False)
def echo(text):
    with open(os.environ["CONTRACT_FILE"], "a") as file:
        file.write(text + "\\n")
    return text

@app.task(name="contract.fail", ignore_result=False)
def fail(text):
    raise ValueError(text)
"""


@pytest.fixture(scope="module")
def worker(redis_server, tmp_path_factory):
    """A stock Celery worker with the shared settings; answers the file its echo task writes."""
    folder = tmp_path_factory.mktemp("worker")
    (folder / "contract_worker.py").write_text(WORKER)
    said = folder / "said"
    said.touch()
    process = subprocess.Popen(
        [sys.executable, *shlex.split("-m celery -A contract_worker worker -Q contract -P threads -c 1 -l warning")],
        cwd=folder,
        env=os.environ | {"TASK_QUEUE_URL": redis_server.url, "CONTRACT_FILE": str(said)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield said
    process.terminate()
    process.wait(20)


@pytest_asyncio.fixture(params=["memory", "celery", "sqlite"])
async def queue_and_said(request, redis_server, tmp_path):
    """A queue with somebody who echoes and somebody who fails; and the file that the echo writes."""
    if request.param == "celery":
        said = request.getfixturevalue("worker")
        said.write_text("")
        async with create_task_queue(redis_server.url) as queue:
            assert isinstance(queue, CeleryTaskQueue)
            yield queue, said
        return
    said = tmp_path / "said"
    said.touch()

    def echo(text):
        with said.open("a") as file:
            file.write(text + "\n")

    def fail(text):
        raise ValueError(text)

    if request.param == "sqlite":
        tasks = {"contract.echo": echo, "contract.fail": fail}
        worker = SqliteWorker(tmp_path / "queue", queue="contract", tasks=tasks)
        worker.start()
        async with SqliteTaskQueue(tmp_path / "queue") as queue:
            yield queue, said
        worker.stopped.set()
        worker.join(20)
        return
    async with create_task_queue("memory://") as queue:
        assert isinstance(queue, MemoryTaskQueue)
        queue.register("contract.echo", echo)
        queue.register("contract.fail", fail)
        yield queue, said


async def reaches(queue, task_id, status):
    deadline = time.monotonic() + 30
    while await queue.status(task_id) != status:
        assert time.monotonic() < deadline, await queue.status(task_id)
        await asyncio.sleep(0.01)


async def test_task_runs_with_its_payload(queue_and_said):
    queue, said = queue_and_said
    task_id = await queue.enqueue("contract.echo", {"text": "héllo"}, queue="contract")
    await reaches(queue, task_id, TaskStatus.COMPLETED)
    assert said.read_text() == "héllo\n"


async def test_tasks_of_one_call_all_run_once(queue_and_said):
    queue, said = queue_and_said
    payloads = [(f"batch-{number}", {"text": str(number)}) for number in range(20)]
    ids = await queue.enqueue_many("contract.echo", payloads, queue="contract")
    assert ids == [f"batch-{number}" for number in range(20)]
    for task_id in ids:
        await reaches(queue, task_id, TaskStatus.COMPLETED)
    assert sorted(said.read_text().split(), key=int) == [str(number) for number in range(20)]


async def test_task_that_raises_is_failed(queue_and_said):
    queue, _ = queue_and_said
    task_id = await queue.enqueue("contract.fail", {"text": "no"}, queue="contract")
    await reaches(queue, task_id, TaskStatus.FAILED)


async def test_unknown_task_is_pending_and_nothing_sends_nothing(queue_and_said):
    queue, said = queue_and_said
    assert await queue.status("nobody-knows") is TaskStatus.PENDING
    assert await queue.enqueue_many("contract.echo", [], queue="contract") == []
    assert await queue.send([]) == []
    await queue.ping()
    assert said.read_text() == ""


async def test_the_third_queue_says_that_it_cannot_be_reached_and_cancels(tmp_path):
    async with SqliteTaskQueue(tmp_path) as queue:
        with pytest.raises(QueueUnavailable):
            await queue.ping()
    async with SqliteTaskQueue(tmp_path / "queue") as queue:
        task_id = await queue.enqueue("t", {}, queue="q")
        await queue.cancel(task_id)
        assert await queue.status(task_id) is TaskStatus.CANCELLED


async def test_cancelled_task_does_not_start():
    async with MemoryTaskQueue() as queue:
        ran = []
        queue.register("t", lambda: ran.append(1))
        task_id = await queue.enqueue("t", {}, queue="q")
        await queue.cancel(task_id)
        assert await queue.status(task_id) is TaskStatus.CANCELLED
    assert ran == []


async def test_cancel_reaches_celery_workers(worker, redis_server):
    async with create_task_queue(redis_server.url) as queue:
        await queue.cancel("some-task")
        done = await queue.enqueue("contract.echo", {"text": "still here"}, queue="contract")
        await reaches(queue, done, TaskStatus.COMPLETED)


async def test_messages_go_out_under_their_name():
    async with MemoryTaskQueue() as queue:
        job_id = "0198c0de-0000-7000-8000-000000000000"
        await queue.send([RunJob(job_id=job_id, request_id="r-12345678")])
        [(where, task, _, payload)] = queue.sent
    assert (where, task) == ("agent-runner", "agent_runner.run_job")
    assert payload == {"job_id": job_id, "request_id": "r-12345678", "traceparent": ""}


async def test_dead_redis_is_told_in_bounded_time():
    async with create_task_queue(f"redis://127.0.0.1:{free_port()}/0") as queue:
        for call in (
            queue.ping(),
            queue.enqueue("t", {}, queue="q"),
            queue.status("x"),
        ):
            started = time.monotonic()
            with pytest.raises(QueueUnavailable):
                await call
            assert time.monotonic() - started < 30


async def test_frozen_redis_is_told_in_bounded_time(redis_server, redis_url):
    async with create_task_queue(redis_url) as queue:
        await queue.ping()
        redis_server._process.send_signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            with pytest.raises(QueueUnavailable):
                await queue.enqueue("t", {}, queue="q")
            assert time.monotonic() - started < 10
        finally:
            redis_server._process.send_signal(signal.SIGCONT)
        await queue.ping()


async def test_readiness_asks_the_queue():
    app = FastAPI()
    app.state.queue = MemoryTaskQueue()
    await task_queue(app)
    app.state.queue = create_task_queue(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(QueueUnavailable):
        await task_queue(app)
    await app.state.queue.close()


def test_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="redis:// or memory://, not amqp://"):
        create_task_queue("amqp://localhost")


def test_message_of_a_newer_sender_is_read():
    job_id = "0198c0de-0000-7000-8000-000000000000"
    assert str(RunJob.model_validate({"job_id": job_id, "colour": "red"}).job_id) == job_id


GOLDEN = {
    RunJob: {
        "job_id": "0198c0de-0000-7000-8000-000000000000",
        "request_id": "0198c0de-req",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    },
    Ping: {
        "request_id": "0198c0de-req",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    },
}


def test_every_message_has_its_golden_form():
    assert set(Message.__subclasses__()) == set(GOLDEN)
    for message, golden in GOLDEN.items():
        assert message.model_validate(golden).model_dump(mode="json") == golden
    assert (RunJob.name, RunJob.queue) == ("agent_runner.run_job", "agent-runner")
    assert (Ping.name, Ping.queue) == ("agent_runner.ping", "agent-runner")


def test_condition_that_never_holds_fails_the_test():
    with pytest.raises(AssertionError, match="did not come to pass"):
        eventually(lambda: False, within=0)
