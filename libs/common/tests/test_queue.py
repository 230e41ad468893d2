"""All task queues under one contract, and Celery's with a real worker on a real Redis."""

import asyncio
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from uuid import uuid4

import kombu.transport.redis
import pytest
import pytest_asyncio
import redis
from fastapi import FastAPI
from kombu.asynchronous.hub import Hub
from sqlite_queue import SqliteTaskQueue, SqliteWorker, empty

from triton_common.app import Degraded
from triton_common.messages import AuditEvent, Message, Ping, RunJob
from triton_common.queue.base import PRIORITIES, QueueUnavailable, TaskQueue, TaskStatus
from triton_common.queue.celery import INCARNATION, CeleryTaskQueue, Threads, celery_app, lane
from triton_common.queue.factory import create_task_queue, task_queue
from triton_common.queue.memory import MemoryTaskQueue
from triton_common.testing import WORKSPACE, Wire, eventually, free_port

JOB_ID = "0198c0de-0000-7000-8000-000000000000"
WORKER = """
import os
import time
from pathlib import Path
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

@app.task(name="contract.wait", ignore_result=False)
def wait(path):
    while not Path(path).exists():
        time.sleep(0.01)
"""


class Subject:
    """A queue under the contract; its worker has one thread, which echoes into a file, fails, or waits for a file."""

    def __init__(self, queue: TaskQueue, folder: Path, lose: Callable[[], None]) -> None:
        self.queue = queue
        self.lose = lose
        self._said = folder / "said"
        self._said.write_text("")
        self._folder = folder

    async def reaches(self, task_id: str, status: TaskStatus) -> None:
        deadline = time.monotonic() + 60
        while await self.queue.status(task_id) is not status:
            assert time.monotonic() < deadline, await self.queue.status(task_id)
            await asyncio.sleep(0.01)

    def said(self) -> list[str]:
        return self._said.read_text().split()

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """The worker does something else meanwhile."""
        gate = self._folder / f"gate-{uuid4()}"
        task_id = await self.queue.enqueue("contract.wait", {"path": str(gate)}, queue="contract")
        await self.reaches(task_id, TaskStatus.PROCESSING)
        yield
        gate.touch()


def functions(folder: Path) -> dict[str, Callable[..., None]]:
    """What the worker of WORKER does, for queues whose workers are threads."""

    def echo(text: str) -> None:
        with (folder / "said").open("a") as file:
            file.write(text + "\n")

    def fail(text: str) -> None:
        raise ValueError(text)

    def wait(path: str) -> None:
        while not Path(path).exists():
            time.sleep(0.01)

    return {"contract.echo": echo, "contract.fail": fail, "contract.wait": wait}


@pytest.fixture(scope="module")
def celery_worker(redis_server, tmp_path_factory):
    """A Celery worker with the shared settings; answers the folder of the file its echo task writes."""
    folder = tmp_path_factory.mktemp("worker")
    (folder / "contract_worker.py").write_text(WORKER)
    command = "-m celery -A contract_worker worker -Q contract -c 1 -l warning --without-gossip --without-mingle"
    process = subprocess.Popen(
        [sys.executable, *shlex.split(command)],
        cwd=folder,
        env=os.environ | {"TASK_QUEUE_URL": redis_server.url, "CONTRACT_FILE": str(folder / "said")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield folder
    process.terminate()
    process.wait(20)


@pytest_asyncio.fixture(params=["memory", "celery", "sqlite"])
async def subject(request, redis_server, tmp_path):
    """Each implementation in turn."""
    match request.param:
        case "celery":
            folder = request.getfixturevalue("celery_worker")
            async with create_task_queue(redis_server.url) as queue:
                assert isinstance(queue, CeleryTaskQueue)
                with redis.Redis.from_url(redis_server.url) as admin:
                    yield Subject(queue, folder, admin.flushall)
        case "sqlite":
            path = tmp_path / "queue"
            worker = SqliteWorker(path, queue="contract", tasks=functions(tmp_path))
            worker.start()
            async with SqliteTaskQueue(path) as queue:
                yield Subject(queue, tmp_path, lambda: empty(path))
            worker.stopped.set()
            worker.join(20)
        case "memory":
            async with create_task_queue("memory://") as queue:
                assert isinstance(queue, MemoryTaskQueue)
                for task, function in functions(tmp_path).items():
                    queue.register(task, function)
                yield Subject(queue, tmp_path, queue.lose)


async def test_task_runs_with_its_payload(subject):
    task_id = await subject.queue.enqueue("contract.echo", {"text": "héllo"}, queue="contract")
    await subject.reaches(task_id, TaskStatus.COMPLETED)
    assert subject.said() == ["héllo"]


async def test_tasks_of_one_call_all_run_once_in_their_order(subject):
    payloads = [(f"batch-{number}", {"text": str(number)}) for number in range(20)]
    ids = await subject.queue.enqueue_many("contract.echo", payloads, queue="contract")
    assert ids == [f"batch-{number}" for number in range(20)]
    for task_id in ids:
        await subject.reaches(task_id, TaskStatus.COMPLETED)
    assert subject.said() == [str(number) for number in range(20)]


async def test_lower_priorities_go_first_and_older_ones_within_one(subject):
    async with subject.busy():
        for priority in (9, 1, 0, 5, 4, 2, 0, 8, 3, 7, 6, 1):
            await subject.queue.enqueue_many(
                "contract.echo",
                [(None, {"text": f"{priority}-a"}), (None, {"text": f"{priority}-b"})],
                queue="contract",
                priority=priority,
            )
        last = await subject.queue.enqueue("contract.echo", {"text": "9-c"}, queue="contract", priority=9)
    await subject.reaches(last, TaskStatus.COMPLETED)
    twice = [f"{priority}-{letter}" for priority in (0, 1) for letter in "abab"]
    assert subject.said() == [*twice, *(f"{p}-{letter}" for p in range(2, 10) for letter in "ab"), "9-c"]


async def test_a_call_sends_all_or_none(subject):
    for payload, priority, error in (({"text": {1, 2}}, 0, TypeError), ({"text": "good"}, 10, ValueError)):
        with pytest.raises(error):
            await subject.queue.enqueue_many(
                "contract.echo", [(None, {"text": "good"}), (None, payload)], queue="contract", priority=priority
            )
    last = await subject.queue.enqueue("contract.echo", {"text": "only"}, queue="contract", priority=9)
    await subject.reaches(last, TaskStatus.COMPLETED)
    assert subject.said() == ["only"]


async def test_a_task_that_raises_is_failed(subject):
    task_id = await subject.queue.enqueue("contract.fail", {"text": "no"}, queue="contract")
    await subject.reaches(task_id, TaskStatus.FAILED)


async def test_unknown_task_is_pending_and_nothing_sends_nothing(subject):
    assert await subject.queue.status("nobody-knows") is TaskStatus.PENDING
    assert await subject.queue.enqueue_many("contract.echo", [], queue="contract") == []
    assert await subject.queue.send([]) == []
    await subject.queue.ping()
    assert subject.said() == []


async def test_a_cancelled_task_does_not_start(subject):
    async with subject.busy():
        cancelled = await subject.queue.enqueue("contract.echo", {"text": "no"}, queue="contract")
        await subject.queue.cancel(cancelled)
        last = await subject.queue.enqueue("contract.echo", {"text": "yes"}, queue="contract")
    await subject.reaches(last, TaskStatus.COMPLETED)
    assert await subject.queue.status(cancelled) is TaskStatus.CANCELLED
    assert subject.said() == ["yes"]


async def test_the_incarnation_changes_when_the_queue_has_lost_what_it_held(subject):
    before = await subject.queue.incarnation()
    assert await subject.queue.incarnation() == before
    async with subject.busy():
        await subject.queue.enqueue("contract.echo", {"text": "lost"}, queue="contract")
        subject.lose()
        after = await subject.queue.incarnation()
        assert after != before
    assert await subject.queue.incarnation() == after
    assert subject.said() == []


async def test_a_queue_knows_how_many_tasks_wait_in_it(subject):
    assert await subject.queue.waiting("contract") == 0
    async with subject.busy():
        for priority in (0, 5, 5):
            await subject.queue.enqueue("contract.echo", {"text": "x"}, queue="contract", priority=priority)
        assert await subject.queue.waiting("contract") == 3
        assert await subject.queue.waiting("another") == 0
        subject.lose()
        assert await subject.queue.waiting("contract") == 0


async def test_a_restart_of_redis_is_another_incarnation_even_with_a_snapshot(redis_server, redis_url):
    async with create_task_queue(redis_url) as queue:
        before = await queue.incarnation()
        with redis.Redis.from_url(redis_url) as admin:
            admin.save()
        redis_server.stop()
        redis_server.start()
        with redis.Redis.from_url(redis_url) as admin:
            admin.set(INCARNATION, before.partition(":")[2])
        assert await queue.incarnation() != before


async def test_two_senders_see_the_same_incarnation(redis_url):
    async with create_task_queue(redis_url) as one, create_task_queue(redis_url) as other:
        assert len(set(await asyncio.gather(*(queue.incarnation() for queue in (one, other) * 5)))) == 1


@pytest_asyncio.fixture(
    params=["celery, dead", "celery, frozen", "celery, half-open", "sqlite, a folder", "sqlite, locked"]
)
async def unreachable(request, redis_server, tmp_path):
    """A queue that cannot be reached; those on a living server were reached before."""
    kind = request.param
    if kind == "celery, dead":
        async with create_task_queue(f"redis://127.0.0.1:{free_port()}/0") as queue:
            yield queue
    elif kind == "celery, frozen":
        async with create_task_queue(redis_server.url) as queue:
            await queue.ping()
            redis_server._process.send_signal(signal.SIGSTOP)
            yield queue
            redis_server._process.send_signal(signal.SIGCONT)
            await queue.ping()
    elif kind == "celery, half-open":
        wire = Wire(redis_server.port)
        async with create_task_queue(redis_server.url.replace(f":{redis_server.port}", f":{wire.port}")) as queue:
            await queue.ping()
            wire.cut()
            yield queue
            wire.mend()
            await queue.ping()
        wire.close()
    elif kind == "sqlite, a folder":
        async with SqliteTaskQueue(tmp_path) as queue:
            yield queue
    else:
        async with SqliteTaskQueue(tmp_path / "queue") as queue:
            await queue.ping()
            with closing(sqlite3.connect(tmp_path / "queue")) as locked:
                locked.execute("BEGIN EXCLUSIVE")
                yield queue
            await queue.ping()


async def test_a_queue_that_cannot_be_reached_says_so_in_bounded_time(unreachable):
    async with asyncio.timeout(30):
        answers = await asyncio.gather(
            unreachable.enqueue("t", {}, queue="q"),
            unreachable.enqueue_many("t", [(None, {})] * 3, queue="q", priority=5),
            unreachable.send([Ping()]),
            unreachable.status("x"),
            unreachable.cancel("x"),
            unreachable.ping(),
            unreachable.incarnation(),
            unreachable.waiting("q"),
            return_exceptions=True,
        )
    assert [type(answer) for answer in answers] == [QueueUnavailable] * 8


def test_a_lane_is_the_list_that_kombu_reads():
    channel = kombu.transport.redis.Channel.__new__(kombu.transport.redis.Channel)  # without a connection
    options = celery_app("redis://", name="x").conf.broker_transport_options
    channel.priority_steps, channel.sep = options["priority_steps"], options["sep"]
    for priority in PRIORITIES:
        assert channel._q_for_pri("agent-runner", priority) == lane("agent-runner", priority)


def test_a_worker_wakes_when_a_thread_has_become_free():
    hub, pool = Hub(), Threads(limit=1)
    nothing = [lambda: None, (), {}, lambda _: None]
    pool.on_apply(*nothing).get()  # before the worker has an event loop
    pool.register_with_event_loop(hub)
    hub.call_later(60, pytest.fail, "the event loop slept until its next timer")
    loop = hub.create_loop()
    next(loop)
    running = pool.on_apply(*nothing)
    next(loop)
    assert running.f.done()
    pool.on_stop()
    hub.close()


def test_a_worker_looks_for_redis_every_three_seconds_however_long_it_is_away():
    pauses = []

    def note(error: Exception, pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == 4:
            raise KeyboardInterrupt

    app = celery_app(f"redis://127.0.0.1:{free_port()}/0", name="x")
    with app.connection_for_read() as connection, pytest.raises(KeyboardInterrupt):
        connection.ensure_connection(note)
    assert pauses == [1, 2, 3, 3]


async def test_only_ids_are_shown_of_a_payload(redis_url):
    async with create_task_queue(redis_url) as queue:
        [task_id] = await queue.send([RunJob(job_id=JOB_ID, request_id="r-12345678", traceparent="secret")], priority=3)
    with redis.Redis.from_url(redis_url) as admin:
        [message] = admin.lrange(lane("agent-runner", 3), 0, -1)
    headers = json.loads(message)["headers"]
    assert headers["id"] == task_id
    assert headers["kwargsrepr"] == f"{{'request_id': 'r-12345678', 'job_id': '{JOB_ID}'}}"
    assert headers["argsrepr"] == "()"


def test_nothing_but_json_is_accepted_and_jobs_leave_no_results():
    conf = celery_app("redis://", name="x").conf
    assert conf.accept_content == conf.result_accept_content == ["json"]
    assert conf.task_ignore_result


async def test_messages_go_out_under_their_name():
    async with MemoryTaskQueue() as queue:
        await queue.send([RunJob(job_id=JOB_ID, request_id="r-12345678")], priority=4)
        [sent] = queue.sent
    assert (sent.queue, sent.task, sent.priority) == ("agent-runner", "agent_runner.run_job", 4)
    assert sent.payload == {"job_id": JOB_ID, "request_id": "r-12345678", "traceparent": ""}


async def test_a_queue_in_memory_remembers_a_bounded_number_of_tasks(monkeypatch):
    monkeypatch.setattr("triton_common.queue.memory.KEPT", 3)
    async with MemoryTaskQueue() as queue:
        queue.register("runs", lambda: None)
        for task in ("runs", "lies"):
            ids = await queue.enqueue_many(task, [(None, {})] * 5, queue="q")
        await queue.close()
        assert [sent.task_id for sent in queue.sent] == ids[-3:]
        assert len(queue._status) == 3
    assert set(queue._status.values()) == {TaskStatus.COMPLETED}


async def test_readiness_asks_the_queue():
    app = FastAPI()
    app.state.queue = MemoryTaskQueue()
    await task_queue(app)
    app.state.queue = create_task_queue(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(Degraded):
        await task_queue(app)
    await app.state.queue.close()


def test_the_instructions_for_a_third_queue_name_all_that_it_must_implement():
    decision = (WORKSPACE / "docs/adr/003-task-queue.md").read_text()
    instructions = decision.partition("**To add a third**")[2]
    [named] = re.findall(r"the (\w+) abstract methods \(([^)]*)\)", instructions)
    abstract = TaskQueue.__abstractmethods__
    assert named[0] == "seven"
    assert len(abstract) == 7
    assert set(re.findall(r"`(\w+)`", named[1])) == abstract


def test_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="redis:// or memory://, not amqp://"):
        create_task_queue("amqp://localhost")


def test_message_of_a_newer_sender_is_read():
    assert str(RunJob.model_validate({"job_id": JOB_ID, "colour": "red"}).job_id) == JOB_ID


SENT = {"request_id": "0198c0de-req", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
GOLDEN = {
    RunJob: {"job_id": JOB_ID, **SENT},
    Ping: SENT,
    AuditEvent: {
        "id": "0198c0de-0000-7000-8000-000000000001",
        "at": "2026-11-23T02:45:01.721896Z",
        "source": "jobs-service",
        "actor_kind": "api_key",
        "actor_id": "0198c0de-0000-7000-8000-000000000002",
        "action": "document.exported",
        "object_kind": "document",
        "object_id": "0198c0de-0000-7000-8000-000000000003",
        "client_id": "0198c0de-0000-7000-8000-000000000004",
        "address": "192.0.2.7",
        "outcome": "succeeded",
        "details": {"format": "html"},
        **SENT,
    },
}


def test_every_message_has_its_golden_form():
    assert set(Message.__subclasses__()) == set(GOLDEN)
    for message, golden in GOLDEN.items():
        assert message.model_validate(golden).model_dump(mode="json") == golden
    assert (RunJob.name, RunJob.queue) == ("agent_runner.run_job", "agent-runner")
    assert (Ping.name, Ping.queue) == ("agent_runner.ping", "agent-runner")
    assert (AuditEvent.name, AuditEvent.queue) == ("audit.event", "triton:audit")


def test_condition_that_never_holds_fails_the_test():
    with pytest.raises(AssertionError, match="did not come to pass"):
        eventually(lambda: False, within=0)
