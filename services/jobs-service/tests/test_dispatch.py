"""Which jobs' messages are sent, in what order, and again when they were lost."""

import asyncio

import psycopg
import pytest
from uuid_utils.compat import uuid4

from jobs_service import jobs
from jobs_service.dispatch import Dispatcher
from jobs_service.moves import ADMISSION_LOCK
from triton_common.db import Database
from triton_common.queue.base import QueueUnavailable
from triton_common.queue.memory import MemoryTaskQueue
from triton_common.testing import eventually


class Queue(MemoryTaskQueue):
    """Refuses as often as it is told to, and can lose what it holds."""

    def __init__(self, *errors):
        super().__init__()
        self.errors = list(errors)
        self.life = str(uuid4())
        self.long = 0

    async def _push(self, task, tasks, *, queue, priority):
        if self.errors:
            raise self.errors.pop(0)
        await super()._push(task, tasks, queue=queue, priority=priority)

    async def incarnation(self):
        if self.errors:
            raise self.errors.pop(0)
        return self.life

    async def waiting(self, _):
        return self.long

    def take(self):
        """(lane, job) of each message, which are gone then."""
        sent = [(message.priority, message.payload["job_id"]) for message in self.sent]
        self.sent.clear()
        return sent


@pytest.fixture
async def queue(app, api):
    """A queue that the app does not send to; its own dispatcher is stopped."""
    for task in asyncio.all_tasks():
        if "Dispatcher.run" in repr(task.get_coro()):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    return Queue()


@pytest.fixture
def dispatcher(app, queue):
    return Dispatcher(app.state.database, queue, app.state.backlog, per_client=3)


async def submit(api, client, count, **changes):
    order = await api.order(client, **changes)
    return [(await api.made("/api/v1/jobs", order))["id"] for _ in range(count)]


async def test_a_clients_jobs_are_sent_up_to_its_limit_and_the_next_when_one_is_over(api, queue, dispatcher):
    jobs = await submit(api, await api.client(), 5)
    await dispatcher.admit()
    assert queue.take() == [(2, jobs[0]), (3, jobs[1]), (3, jobs[2])]
    await dispatcher.admit()
    assert queue.take() == []
    await api.claim({"id": jobs[0]})
    await dispatcher.admit()
    assert queue.take() == [], "one that is at work is in flight"
    await api.finish({"id": jobs[0]})
    await api.post(f"/api/v1/jobs/{jobs[1]}/cancel")
    await dispatcher.admit()
    assert queue.take() == [(3, jobs[3]), (3, jobs[4])]


async def test_a_clients_first_job_overtakes_anothers_many(api, queue, dispatcher):
    many = await submit(api, await api.client("Many"), 5)
    [first] = await submit(api, await api.client("One"), 1)
    await dispatcher.admit()
    assert sorted(queue.take()) == sorted([(2, many[0]), (2, first), (3, many[1]), (3, many[2])])


async def test_what_matters_more_goes_first_and_then_what_is_older(api, queue, dispatcher):
    client = await api.client()
    jobs = {name: await submit(api, client, 2, priority=name) for name in ("low", "normal", "high")}
    await dispatcher.admit()
    assert queue.take() == [(0, jobs["high"][0]), (1, jobs["high"][1]), (3, jobs["normal"][0])]


async def test_a_job_between_two_attempts_is_sent_when_it_is_due(api, queue, dispatcher):
    [job] = await submit(api, await api.client(), 1)
    await api.claim({"id": job})
    await api.finish({"id": job}, "failed", retryable=True)
    await dispatcher.admit()
    assert queue.take() == []
    api.sql("UPDATE generation_jobs SET run_after = now()")
    await dispatcher.admit()
    assert queue.take() == [(2, job)]


async def test_many_dispatchers_at_once_keep_the_limit(api, queue, app, postgres_url):
    await submit(api, await api.client(), 20)
    async with Database.connect(postgres_url, pool_size=8) as other:
        some = [Dispatcher(base, queue, app.state.backlog, per_client=3) for base in [app.state.database, other] * 4]
        await asyncio.gather(*(dispatcher.admit() for dispatcher in some))
    assert len(queue.take()) == 3


async def test_a_large_backlog_is_sent_at_once_when_it_may_be(api, queue, app):
    [job] = await submit(api, await api.client(), 1)
    api.sql(
        """INSERT INTO generation_jobs (id, job_type, client_id, prospect_id, value_proposition_id, created_by,
             request_id, max_attempts)
           SELECT uuidv7(), job_type, client_id, prospect_id, value_proposition_id, created_by, '', 3
           FROM generation_jobs, generate_series(1, 1200)"""
    )
    dispatcher = Dispatcher(app.state.database, queue, app.state.backlog, per_client=5000)
    await dispatcher.admit()
    sent = queue.take()
    assert (len(sent), len({job for _, job in sent}), sent[0]) == (1201, 1201, (2, job))
    await dispatcher.resend()
    assert len({job for _, job in queue.take()}) == 1201, "to a queue it has not seen before"


async def test_a_job_nobody_claims_is_sent_again_ever_more_seldom(api, queue, dispatcher):
    [job] = await submit(api, await api.client(), 1)
    await dispatcher.resend()  # the queue is known from now on
    await dispatcher.admit()
    await dispatcher.resend()
    assert queue.take() == [(2, job)], "sent lately"
    waits = []
    for _ in range(6):
        api.sql("UPDATE generation_jobs SET dispatch_at = now()")
        await dispatcher.resend()
        [row] = api.sql("SELECT extract(epoch FROM dispatch_at - now()) AS seconds FROM generation_jobs")
        waits.append(round(float(row["seconds"])))
    assert waits == [2, 4, 8, 10, 10, 10]
    assert [sent for _, sent in queue.take()] == [job] * 6


async def test_a_message_that_waits_behind_others_is_not_sent_again(api, queue, dispatcher):
    await submit(api, await api.client(), 3)
    await dispatcher.resend()
    await dispatcher.admit()
    queue.take()
    api.sql("UPDATE generation_jobs SET dispatch_at = now()")
    queue.long = 3
    await dispatcher.resend()
    assert queue.take() == []
    queue.long = 2
    await dispatcher.resend()
    assert queue.take() == [], "one may be on its way to a worker"
    await dispatcher.resend()
    assert len(queue.take()) == 3, "which of them was lost, nobody knows"


async def test_messages_that_are_there_twice_hide_a_lost_one_for_a_while_only(api, queue, dispatcher):
    await submit(api, await api.client(), 1)
    await dispatcher.resend()
    await dispatcher.admit()
    queue.take()
    queue.long = 100
    for late, sent in (("39 s", 0), ("41 s", 1), ("79 s", 0), ("81 s", 1)):
        api.sql(f"UPDATE generation_jobs SET dispatch_at = now() - interval '{late}'")
        await dispatcher.resend()
        assert len(queue.take()) == sent, late


async def test_a_queue_that_lost_its_memory_gets_every_message_again_at_once(api, queue, dispatcher):
    jobs = await submit(api, await api.client(), 4)
    await dispatcher.resend()
    await dispatcher.admit()
    await api.claim({"id": jobs[0]})
    queue.take()
    queue.life = "another"
    await dispatcher.resend()
    assert sorted(job for _, job in queue.take()) == sorted(jobs[1:3]), "not what is at work, nor what is not admitted"
    await dispatcher.resend()
    assert queue.take() == []


async def test_messages_the_queue_refused_are_due_at_once(api, queue, dispatcher):
    [job] = await submit(api, await api.client(), 1)
    await dispatcher.resend()
    queue.errors = [QueueUnavailable()]
    await dispatcher.admit()
    assert queue.take() == []
    queue.errors = [QueueUnavailable()]
    await dispatcher.resend()
    assert queue.take() == []
    await dispatcher.resend()
    assert [sent for _, sent in queue.take()] == [job]


async def test_the_dispatcher_goes_on_after_an_error(api, queue, dispatcher):
    queue.errors = [RuntimeError("a bug"), QueueUnavailable()]
    running = asyncio.create_task(dispatcher.run())
    jobs = await submit(api, await api.client(), 2)
    async with asyncio.timeout(10):
        while {message.payload["job_id"] for message in queue.sent} != set(jobs):  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_process_that_is_frozen_while_it_admits_holds_up_no_other(api, app, queue, postgres_url):
    [job] = await submit(api, await api.client(), 1)
    locks = "SELECT granted FROM pg_locks WHERE locktype = 'advisory'"
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [ADMISSION_LOCK])
        admitting = asyncio.create_task(jobs.admit(app.state.database, per_client=1))
        await asyncio.to_thread(eventually, lambda: {"granted": False} in api.sql(locks))
        other.execute("SELECT pg_advisory_unlock(%s)", [ADMISSION_LOCK])
        eventually(lambda: api.sql(locks) == [])  # this process does nothing else meanwhile
    assert [str(admitted.message.job_id) for admitted in await admitting] == [job]
