"""One case: clients of its own on a platform that is shared, jobs submitted to it, an accident, and the judgement."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any, Final, LiteralString
from uuid import UUID, uuid4

import psycopg

from triton_trials import history
from triton_trials.history import Account
from triton_trials.issuer import token_of
from triton_trials.platform import Part, Platform
from triton_trials.wire import Answer, NoAnswer, Wire, encode

PATIENCE: Final = 60.0  # seconds within which a submission is accepted, whatever happens
SLOWER: Final = 10  # times, once a case has its jobs: the accident is to hit work, however long it takes
PAUSE: Final = 0.05  # before a submission is repeated that got no answer, or a 5xx
LIVE: Final = "status IN ('pending', 'processing')"
WORKING: Final = "status = 'processing' AND worker LIKE '%%' || %s"

PROPOSITION: Final[dict[str, Any]] = {
    "summary": "A trial.",
    "programme": "Coaching.",
    "eligibility": [{"system": "icd10cm", "code": "E11*"}],
    "engagement": {"low": "0.1", "base": "0.2", "high": "0.3"},
    "effects": [
        {
            "driver": "total",
            "reduction": {"low": "0.1", "base": "0.2", "high": "0.3"},
            "evidence": "None: this is a trial.",
        }
    ],
    "fees": {"per_engaged_member_per_month": "40.00"},
}


class TrialFailed(Exception):
    """Something that the case waits for did not come to pass."""


@dataclass(frozen=True)
class Client:
    """A client with a prospect and something to sell to it: all that a job needs."""

    client_id: UUID
    prospect_id: UUID
    value_proposition_id: UUID
    ends: str = "completed"
    """How its jobs are to end."""


@dataclass
class Submission:
    """What the client knows of a job that it submitted."""

    client: Client
    sent: float
    """Unix time."""
    job_id: UUID | None = None
    seconds: float = 0.0
    """That the accepting answer took."""
    tries: int = 0
    statuses: list[int] = field(default_factory=list)
    """Of the answers before it; 0 for none."""
    retry_after: list[int] = field(default_factory=list)


@dataclass
class Verdict:
    """What a case came to. Times are seconds."""

    case: str
    jobs: int = 0
    attempts: int = 0
    refused: int = 0
    slowest: float | None = None
    """p99 of the POST answers during the accident."""
    resumed: float | None = None
    """The longest time from the accident's end on in which no new job was started."""
    retaken: float | None = None
    """From an attempt's last sign of life to the claim of the next, the longest."""
    over: float | None = None
    """From the accident's end until all is over."""
    note: str = ""
    violations: list[str] = field(default_factory=list)


class Trial:
    """A case under way."""

    def __init__(self, name: str, platform: Platform) -> None:
        self.name = name
        self.platform = platform
        self.headers = {"Authorization": f"Bearer {token_of('admin')}"}
        self.entrances = platform.services
        """The jobs-services that jobs are submitted to, in turn."""
        self.clients: list[Client] = []
        self.submissions: list[Submission] = []
        self.forbidden: set[str] = set()
        """Kinds of events that none of the jobs may have."""
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

    async def add_client(self, work: str = "50-500 ms", *, ends: str = "completed") -> Client:
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
        self, count: int, *clients: Client, rate: float = 200.0, until: asyncio.Event | None = None, **body: Any
    ) -> list[Submission]:
        """Submit `count` jobs of the clients in turn, at `rate` a second, and then more, at less, until `until` is set.

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
                due += 1 / rate if number < count else SLOWER / rate
                made.append(submission := Submission(owners[number % len(owners)], sent=time.time()))
                self.submissions.append(submission)
                group.create_task(self._submit(submission, number, **body))
        return made

    async def _submit(self, submission: Submission, number: int, **body: Any) -> None:
        request = self.request(submission.client, key=str(uuid4()), **body)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            entrance = self.entrances[(number + submission.tries) % len(self.entrances)]
            wire = Wire(*self.platform.address(entrance))
            submission.tries += 1
            pause = PAUSE
            try:
                answer = await wire.send(request)
            except NoAnswer:
                submission.statuses.append(0)
            else:
                if answer.status == 202:
                    submission.job_id, submission.seconds = UUID(answer.json["id"]), answer.seconds
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

    async def claims(self) -> dict[UUID | None, float]:
        """When each of the case's jobs was first claimed, in Unix time."""
        ids = [client.client_id for client in self.clients]
        account = await asyncio.to_thread(Account.read, self.platform.database_url, ids)
        return {
            job_id: next(event["at"].timestamp() for event in events if event["kind"] == "claimed")
            for job_id, events in account.events.items()
        }

    async def until_refused(self) -> int:
        """Wait until a submission is answered 429; its Retry-After. Raises TrialFailed."""
        deadline = time.monotonic() + PATIENCE
        while not (told := [seconds for one in self.submissions for seconds in one.retry_after]):
            if time.monotonic() > deadline:
                raise TrialFailed(f"no submission was answered 429 within {PATIENCE:.0f} s")
            await asyncio.sleep(0.03)
        return told[0]

    async def until_working(self, worker: Part | None = None) -> None:
        """Wait until jobs of the case are at work, at that worker if one is given. Raises TrialFailed."""
        await self._until(lambda there: there > 0, WORKING, f"{worker.name if worker else ''}@%")

    async def until_waiting(self) -> None:
        """Wait until jobs of the case wait for a worker. Raises TrialFailed."""
        await self._until(lambda there: there > 0, "status = 'pending'")

    async def until_lost(self, worker: Part) -> None:
        """Wait until the worker has no job any more: all were given to others. Raises TrialFailed."""
        await self._until(lambda there: there == 0, WORKING, f"{worker.name}@%")

    async def until_over(self) -> None:
        """Wait until the case's jobs are over. Whether they are is judged."""
        with suppress(TrialFailed):
            await self._until(lambda there: there == 0, LIVE)

    async def _until(self, holds: Callable[[int], bool], condition: LiteralString, *parameters: object) -> None:
        deadline = time.monotonic() + PATIENCE
        while (there := await self._count(condition, *parameters)) is None or not holds(there):
            if time.monotonic() > deadline:
                raise TrialFailed(f"{there} jobs are such that {condition}, and stayed so for {PATIENCE:.0f} s")
            await asyncio.sleep(0.03)

    def judge(self) -> Verdict:
        """Compare the engine's account with the history that others kept."""
        account = Account.read(self.platform.database_url, [client.client_id for client in self.clients])
        effects = history.read_effects(self.platform.effects)
        accepted = [one.job_id for one in self.submissions if one.job_id is not None]
        verdict = Verdict(
            self.name,
            jobs=len(accepted),
            attempts=sum(job["attempt"] for job in account.jobs.values()),
            refused=history.refused(effects, account),
            note=self.note,
            violations=self.violations
            + history.violations(
                accepted,
                effects,
                account,
                ends={client.client_id: client.ends for client in self.clients},
                forbidden=self.forbidden,
            ),
        )
        if self.accidents:
            self._time(verdict, account)
        return verdict

    def _time(self, verdict: Verdict, account: Account) -> None:
        ended = self.accidents[-1][1]
        starts = [ended]
        retaken: list[float] = []
        for events in account.events.values():
            sign = 0.0  # of life of the attempt before
            for event in events:
                at = event["at"].timestamp()
                if event["kind"] == "claimed":
                    if event["seq"] > 2:
                        retaken.append(at - sign)
                    elif at > ended:
                        starts.append(at)
                if event["kind"] != "lease_lost":
                    sign = at
        verdict.resumed = max((later - at for at, later in itertools.pairwise(sorted(starts))), default=None)
        verdict.retaken = max(retaken, default=None)
        over = [job["finished_at"].timestamp() - ended for job in account.jobs.values() if job["finished_at"]]
        verdict.over = max(0.0, max(over, default=0.0))
        during = [
            one.seconds for one in self.submissions if any(start <= one.sent <= end for start, end in self.accidents)
        ]
        if len(during) > 1:
            verdict.slowest = quantiles(during, n=100, method="inclusive")[-1]
