"""One case under way: clients of its own on a platform that is shared, jobs submitted to it, and what it waits for."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from math import inf
from operator import gt
from random import Random
from typing import Any, Final, LiteralString
from uuid import UUID, uuid4

import psycopg

from triton_trials.demands import Demands, first_claim
from triton_trials.history import COMPLETED, Account, Ending, in_vain, read_effects
from triton_trials.issuer import token_of
from triton_trials.platform import Part, Platform
from triton_trials.proxy import Address
from triton_trials.submissions import PROPOSITION, Client, Submission
from triton_trials.wire import Answer, NoAnswer, Wire, encode

PATIENCE: Final = 60.0  # seconds within which a submission is accepted, whatever happens
SLOWER: Final = 10  # times, once a case has its jobs: the accident is to hit work, however long it takes
PAUSE: Final = 0.05  # before a submission is repeated that got no answer, or a 5xx
LATE: Final = 5.0  # seconds that a worker gets for what it was at when it was frozen
GLANCE: Final = 0.05  # seconds between two looks at what a case waits for
LIVE: Final = "status IN ('pending', 'processing')"
HELD: Final = "status = 'processing' AND worker LIKE %s"
TAKEN: Final = """status = 'processing' AND EXISTS (
  SELECT FROM job_events AS event WHERE event.job_id = generation_jobs.id AND event.kind = 'claimed'
    AND event.at > to_timestamp(%s) AND event.data ->> 'worker' LIKE %s)"""


class TrialFailed(Exception):
    """Something that the case waits for did not come to pass."""


class Trial:
    """A case under way."""

    def __init__(self, name: str, platform: Platform, *, seed: int = 0) -> None:
        self.name = name
        self.platform = platform
        self.dice = Random(f"{seed}/{name}")
        self.headers = {"Authorization": f"Bearer {token_of('admin')}"}
        self.entrances: Callable[[], Sequence[Address]] = platform.addresses
        """Where jobs are submitted, in turn."""
        self.clients: list[Client] = []
        self.submissions: list[Submission] = []
        self.demands = Demands()
        self.note = ""
        self.violations: list[str] = []
        self.accidents: list[tuple[float, float]] = []

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """A call that must succeed."""
        wire = Wire(*self.platform.addresses()[0])
        try:
            answer = await wire.send(encode(method, f"/api/v1{path}", headers=self.headers, body=body))
        finally:
            wire.close()
        if answer.status >= 400:
            raise TrialFailed(f"{method} {path} answers {answer.status}: {answer.body.decode()}")
        return answer.json

    async def add_client(self, work: str = "50-500 ms", *, ends: Ending = COMPLETED) -> Client:
        """A client whose jobs are this work: see worker.py."""
        client_id = (await self.call("POST", "/clients", {"name": f"Trial {self.name}"}))["id"]
        prospect = await self.call("POST", "/prospects", {"client_id": client_id, "name": work})
        proposition = {"client_id": client_id, "name": "Coaching", "content": PROPOSITION}
        value_proposition = await self.call("POST", "/value-propositions", proposition)
        client = Client(UUID(client_id), UUID(prospect["id"]), UUID(value_proposition["id"]), ends)
        self.clients.append(client)
        return client

    def request(self, client: Client, *, key: str | None = None, **body: Any) -> bytes:
        """A submission as it goes over the wire."""
        content = {
            "job_type": "value_proposition",
            "prospect_id": str(client.prospect_id),
            "value_proposition_id": str(client.value_proposition_id),
            **body,
        }
        headers = self.headers | ({"Idempotency-Key": key} if key else {})
        return encode("POST", "/api/v1/jobs", headers=headers, body=content)

    async def submit(
        self,
        count: int,
        *clients: Client,
        rate: float = 200.0,
        until: asyncio.Event | None = None,
        slower: int = SLOWER,
        **body: Any,
    ) -> list[Submission]:
        """Submit `count` jobs of the clients in turn, at `rate` a second, and then more, `slower` times slower, until
        `until` is set.

        Each is sent again until it is accepted.
        """
        owners = clients or self.clients
        made: list[Submission] = []
        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                if number >= count and (until is None or until.is_set()):
                    break
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due += (1 if number < count else slower) / rate
                made.append(submission := Submission(owners[number % len(owners)], sent=time.time()))
                self.submissions.append(submission)
                group.create_task(self._submit(submission, number, **body))
        return made

    async def _submit(self, submission: Submission, number: int, **body: Any) -> None:
        request = self.request(submission.client, key=str(uuid4()), **body)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            entrances = self.entrances()
            wire = Wire(*entrances[(number + submission.tries) % len(entrances)])
            submission.tries += 1
            pause = PAUSE
            try:
                answer = await wire.send(request)
            except NoAnswer:
                submission.statuses.append(0)
            else:
                if answer.status == 202:
                    submission.job_id, submission.accepted = UUID(answer.json["id"]), time.time()
                    return
                pause = self._refused(submission, answer)
            finally:
                wire.close()
            await asyncio.sleep(pause)
        raise TrialFailed(f"a job was not accepted within {PATIENCE:.0f} s; answers were {submission.statuses}")

    def _refused(self, submission: Submission, answer: Answer) -> float:
        """How long to wait before the next try. Raises TrialFailed for a refusal for good."""
        submission.statuses.append(answer.status)
        retry_after = int(answer.header("Retry-After") or 0)
        if answer.status == 429:
            submission.retry_after.append(retry_after)
        elif answer.status == 503:
            submission.bare += retry_after < 1
        elif answer.status < 500 and answer.status != 409:  # 409: the same key's first request still runs
            raise TrialFailed(f"POST /jobs answers {answer.status}: {answer.body.decode()}")
        return max(PAUSE, float(retry_after))

    @asynccontextmanager
    async def accident(self) -> AsyncIterator[None]:
        """What happens inside is the accident; times to recover count from its end."""
        began = time.time()
        try:
            yield
        finally:
            self.accidents.append((began, time.time()))

    async def _count(self, condition: LiteralString, *parameters: object) -> int | None:
        """How many of the case's jobs are like that; None while Postgres is away."""
        try:
            return await asyncio.to_thread(self._ask, condition, *parameters)
        except psycopg.OperationalError:
            return None

    def _ask(self, condition: LiteralString, *parameters: object) -> int:
        ids = [client.client_id for client in self.clients]
        with psycopg.connect(self.platform.database_url, connect_timeout=2) as connection:
            row = connection.execute(
                f"SELECT count(*) FROM generation_jobs WHERE client_id = ANY (%s) AND {condition}",  # noqa: S608  our own words
                [ids, *parameters],
            ).fetchone()
        assert row is not None  # a count
        return int(row[0])

    async def account(self) -> Account:
        """The engine's own, of the case's jobs."""
        ids = [client.client_id for client in self.clients]
        return await asyncio.to_thread(Account.read, self.platform.database_url, ids)

    async def claims(self) -> dict[UUID, float]:
        """When each of the case's jobs was first claimed, in Unix time."""
        firsts = {job_id: first_claim(events) for job_id, events in (await self.account()).events.items()}
        return {job_id: at for job_id, at in firsts.items() if at is not None}

    def demand(self, holds: bool, sentence: str) -> None:
        """What the case sees for itself; the sentence says what is wrong when it does not hold."""
        if not holds:
            self.violations.append(sentence)

    async def until_refused(self) -> int:
        """Wait until a submission is answered 429; its Retry-After. Raises TrialFailed."""

        async def refusals() -> int:
            return sum(len(one.retry_after) for one in self.submissions)

        await self._until(refusals, lambda there: there > 0, "submissions were answered 429")
        return next(seconds for one in self.submissions for seconds in one.retry_after)

    async def until_working(self, worker: Part | None = None, *, jobs: int = 1) -> None:
        """Wait until so many jobs are at work that were claimed from now on, by that worker if one is given; what a
        dead one still holds is no work. Raises TrialFailed."""
        look = partial(self._count, TAKEN, time.time(), f"{worker.name if worker else '%'}@%")
        await self._until(look, lambda there: there >= jobs, f"jobs are at work, of {jobs} that are waited for")

    async def until_queued(self, jobs: int) -> None:
        """Wait until the messages of so many pending jobs are in Redis, where there are also some of jobs that another
        message has started. Raises TrialFailed."""

        async def needed() -> int | None:
            ids = await self.platform.messages.jobs()
            return await self._count("status = 'pending' AND id = ANY (%s)", list(ids))

        await self._until(needed, lambda there: there >= jobs, f"jobs have their message in Redis, not {jobs}")

    async def until_consumed(self) -> None:
        """Wait until Redis holds no message any more. Raises TrialFailed."""
        await self._until(self.platform.messages.waiting, lambda there: there == 0, "messages stay in Redis")

    async def until_lost(self, worker: Part) -> None:
        """Wait until the worker has no job any more: all were given to others. Raises TrialFailed."""
        look = partial(self._count, HELD, f"{worker.name}@%")
        await self._until(look, lambda there: there == 0, f"jobs are still held by {worker.name}")

    async def until_retaken(self, jobs: int) -> None:
        """Wait until so many jobs are in a later attempt than their first. Raises TrialFailed."""
        look = partial(self._count, "status = 'processing' AND attempt > 1")
        await self._until(look, lambda there: there >= jobs, f"jobs are in a later attempt, not {jobs}")

    async def until_answered(self) -> None:
        """Wait until each attempt that lost its lease has made its document after all. Whether is judged."""

        async def unanswered() -> int:
            account = await self.account()
            lost: int = sum(event["kind"] == "lease_lost" for events in account.events.values() for event in events)
            return lost - in_vain(read_effects(self.platform.effects), account)

        with suppress(TrialFailed):
            await self._until(unanswered, lambda there: there <= 0, "late answers", patience=LATE)

    async def until_over(self) -> None:
        """Wait until the case's jobs are over, or none of them ends any more. Whether they are is judged."""
        left = inf
        with suppress(TrialFailed):
            while left > 0:
                await asyncio.sleep(GLANCE)
                left = await self._until(partial(self._count, LIVE), partial(gt, left), "jobs do not end")

    async def _until(
        self,
        look: Callable[[], Awaitable[int | None]],
        holds: Callable[[int], bool],
        what: str,
        *,
        patience: float = PATIENCE,
    ) -> int:
        """Look until it holds; what was seen then. Raises TrialFailed."""
        deadline = time.monotonic() + patience
        while (there := await look()) is None or not holds(there):
            if time.monotonic() > deadline:
                raise TrialFailed(f"after {patience:.0f} s, {there} {what}")
            await asyncio.sleep(GLANCE)
        return there
