"""Ten thousand submits, claims, repeated claims, reports, ends, cancels, retries, lost leases, passed time limits,
doubled messages and restarts, in any order, make legal moves only."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from jobs_service import jobs, sweeps
from jobs_service.backlog import Backlog
from jobs_service.jobs import JobNotClaimable
from jobs_service.schemas.jobs import JobCreate
from jobs_service.settings import JobPolicy, Policies
from triton_common.auth import Principal
from triton_common.db import Database
from triton_common.errors import AppError
from triton_common.schemas import JobClaim, JobFinish, JobProgress

LEGAL = {
    ("pending", "processing"),
    ("pending", "cancelled"),
    ("processing", "pending"),
    ("processing", "completed"),
    ("processing", "failed"),
    ("processing", "cancelled"),
    ("pending", "failed"),  # over its time limit
    ("failed", "pending"),  # retried by a user
    ("cancelled", "pending"),
}
FINAL = {"completed", "failed", "cancelled"}
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
NOT_SOON = datetime(2100, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=30)
AN_HOUR = timedelta(hours=1)
POLICIES = Policies(value_proposition=JobPolicy(max_attempts=2, retry_delay=timedelta(seconds=1)))
IN_FLIGHT = 2  # jobs of a client at once
OPERATIONS = 10_000
WHICH = st.integers(0, 3)
DOCUMENT = {"title": "t", "model": "offline:template", "currency": "USD", "sections": [], "facts": []}
BY_CHANCE = f"status = 'pending' AND attempt > 0 AND run_after NOT IN ('{LONG_AGO}', '{NOT_SOON}')"
STATE = f"""
SELECT id, status, attempt, max_attempts, series, progress, error, claim_id, document_id, event_seq, deadline_at,
  cancel_requested_at, job::text AS whole, {BY_CHANCE} AS is_due_by_chance,
  ARRAY(SELECT seq FROM job_events WHERE job_id = job.id ORDER BY seq) AS seqs,
  ARRAY(SELECT kind::text FROM job_events WHERE job_id = job.id ORDER BY seq) AS kinds,
  ARRAY(SELECT status::text FROM job_events WHERE job_id = job.id ORDER BY seq) AS states,
  ARRAY(SELECT id FROM documents WHERE job_id = job.id) AS documents
FROM generation_jobs AS job WHERE id = ANY (%s)"""
ADMIN = Principal(subject="somebody", role="admin", scopes=frozenset(), token_id="", expires_at=0, token="")


@dataclass(frozen=True)
class Held:
    """An attempt that a worker was given."""

    job: UUID
    attempt: int
    claim: JobClaim


class Counted(Backlog):
    """Tells when a turn of the sweeps has counted it, and so has done all that may change a job."""

    def __init__(self) -> None:
        super().__init__(limit=1000)
        self.turned = asyncio.Event()

    def counted(self, pending: Mapping[UUID, int]) -> None:
        super().counted(pending)
        self.turned.set()


def machine(  # noqa: C901  rules are small, but many
    loop: asyncio.Runner, database: Database, looking: psycopg.Connection[dict[str, Any]]
) -> type[RuleBasedStateMachine]:
    class Jobs(RuleBasedStateMachine):
        """The rules called as routes and sweeps call them, beside a history of claims that is kept on its own."""

        operations = 0

        def __init__(self) -> None:
            super().__init__()
            self.backlog = Counted()
            self.sweeping: list[asyncio.Task[None]] = []
            self.claims: dict[UUID, list[int]] = {}
            self.held: list[Held] = []
            self.over: dict[UUID, dict[str, Any]] = {}
            self.rows: dict[UUID, dict[str, Any]] = {}
            self.sql("TRUNCATE clients CASCADE")
            client, self.prospect, self.proposition = uuid7(), uuid7(), uuid7()
            self.sql("INSERT INTO clients (id, name) VALUES (%s, 'c')", client)
            self.sql("INSERT INTO prospects (id, client_id, name) VALUES (%s, %s, 'p')", self.prospect, client)
            content = {
                "summary": "s",
                "programme": "p",
                "eligibility": [{"system": "icd10cm", "code": "E11*"}],
                "engagement": {"low": 0, "base": 0, "high": 1},
                "effects": [{"driver": "total", "reduction": {"low": 0, "base": 0, "high": 1}, "evidence": "e"}],
                "fees": {"per_engaged_member_per_month": "1"},
            }
            self.sql(
                "INSERT INTO value_propositions (id, client_id, name, content) VALUES (%s, %s, 'v', %s)",
                self.proposition,
                client,
                Jsonb(content),
            )

        def sql(self, statement: str, *values: Any) -> None:
            looking.execute(statement.encode(), values)

        def call(self, coroutine: Any, *, operations: int = 1) -> Any:
            """The answer, or the error's code. Afterwards `rows` are as they are then."""
            type(self).operations += operations
            try:
                answer = loop.run(coroutine)
            except AppError as error:
                answer = error.code
            self.look()
            if any(row["is_due_by_chance"] for row in self.rows.values()):  # then hypothesis could repeat nothing
                self.sql(f"UPDATE generation_jobs SET run_after = '{NOT_SOON}' WHERE {BY_CHANCE}")
                self.look()
            return answer

        def look(self) -> None:
            self.rows = {row["id"]: row for row in looking.execute(STATE, [list(self.claims)])}

        # --- what may happen

        @initialize()
        def begin(self) -> None:
            self.submit_two()

        @precondition(lambda self: all(self.state(job)["status"] in FINAL for job in self.claims))
        @rule()
        def go_on(self) -> None:
            self.submit_two()

        def submit_two(self) -> None:
            body = JobCreate(
                job_type="value_proposition", prospect_id=self.prospect, value_proposition_id=self.proposition
            )
            for _ in range(2):
                job = self.call(
                    jobs.submit(
                        database,
                        self.backlog,
                        principal=ADMIN,
                        body=body,
                        idempotency_key=None,
                        policies=POLICIES,
                    )
                )
                self.claims[job.id] = []
                self.claim_twice_at_once(job.id)

        @rule(which=WHICH)
        def claim(self, which: int) -> None:
            self.claim_twice_at_once(self.job(which))

        def claim_twice_at_once(self, job: UUID) -> None:
            """A job's message, delivered twice."""
            claims = [JobClaim(worker="w", claim_id=uuid4()) for _ in range(2)]

            async def both() -> list[Any]:
                made = [jobs.claim(database, self.backlog, job, claim, lease=LEASE) for claim in claims]
                return await asyncio.gather(*made, return_exceptions=True)

            answers = self.call(both(), operations=2)
            won = [
                Held(job, answer.attempt, claim)
                for claim, answer in zip(claims, answers, strict=True)
                if not isinstance(answer, JobNotClaimable)
            ]
            assert len(won) <= 1
            self.claims[job] += [held.attempt for held in won]
            self.held += won

        @rule(which=WHICH)
        def claim_again(self, which: int) -> None:
            """A claim whose answer was lost is repeated, sooner or later."""
            held = self.attempt(which)
            before = self.state(held.job)
            answer = self.call(jobs.claim(database, self.backlog, held.job, held.claim, lease=LEASE))
            after = self.state(held.job)
            ours = before["status"] == "processing" and before["claim_id"] == held.claim.claim_id
            if ours and before["cancel_requested_at"] is None:
                assert answer.attempt == before["attempt"]
                assert {**after, "whole": None} == {**before, "whole": None}, "the lease alone is another"
            elif answer == "job_not_claimable":
                assert after == before
            else:
                assert before["status"] == "pending"
                self.claims[held.job].append(answer.attempt)
                self.held.append(Held(held.job, answer.attempt, held.claim))

        @rule(which=WHICH, progress=st.integers(0, 100), stage=st.sampled_from(["collecting", "writing"]))
        def report(self, which: int, progress: int, stage: str) -> None:
            held = self.attempt(which)
            job, attempt = held.job, held.attempt
            before = self.state(job)
            body = JobProgress.model_validate({"attempt": attempt, "progress": progress, "stage": stage})
            answer = self.call(jobs.progress(database, job, body, lease=LEASE))
            after = self.state(job)
            if answer == "stale_attempt":
                assert after == before
                assert before["status"] != "processing" or before["attempt"] != attempt
            elif answer.cancelled:
                assert after["status"] == "cancelled"
            else:
                assert after["progress"] == max(before["progress"], progress)

        @rule(
            which=WHICH,
            outcome=st.sampled_from(["completed", "failed", "cancelled", "released"]),
            retryable=st.booleans(),
        )
        def finish(self, which: int, outcome: str, retryable: bool) -> None:
            held = self.attempt(which)
            job, attempt = held.job, held.attempt
            before = self.state(job)
            body = {"attempt": attempt, "outcome": outcome, "retryable": retryable}
            body |= {"document": DOCUMENT} if outcome == "completed" else {}
            body |= {"error": {"code": "e", "message": "m"}} if outcome == "failed" else {}
            said = JobFinish.model_validate(body)

            def say() -> Any:
                return self.call(jobs.finish(database, self.backlog, job, said, policies=POLICIES))

            first = say()
            after = self.state(job)
            assert say() == first, "the same finish gets the same answer"
            assert self.state(job) == after, "and changes nothing"
            if before["status"] != "processing" or before["attempt"] != attempt:
                assert after == before, "too late"
            elif before["cancel_requested_at"] is not None:
                assert after["status"] == "cancelled"
            if first != "stale_attempt":
                assert (first.status, first.document_id) == (after["status"], after["document_id"])
                assert after["attempt"] == attempt

        @rule(which=WHICH)
        def cancel(self, which: int) -> None:
            job = self.job(which)
            before = self.state(job)
            answer = self.call(jobs.cancel(database, job, principal=ADMIN))
            if before["status"] in ("completed", "failed"):
                assert answer == "job_already_finished" or before["cancel_requested_at"] is not None
            elif before["status"] == "pending":
                assert answer.status == "cancelled"

        @rule(which=WHICH)
        def lease_ends(self, which: int) -> None:
            job = self.job(which)
            self.sql(
                "UPDATE generation_jobs SET lease_expires_at = now() - interval '1 s'"
                " WHERE id = %s AND status = 'processing'",
                job,
            )
            self.call(jobs.expire(database, not_before=LONG_AGO))
            assert self.state(job)["status"] != "processing"

        @rule(which=WHICH)
        def the_service_restarts(self, which: int) -> None:
            """Its sweeps begin anew, and take no job from a worker that could not report meanwhile."""
            job = self.job(which)
            before = self.rows
            lease_ends_in = (
                "UPDATE generation_jobs SET lease_expires_at = now() + %s"
                " WHERE id = %s AND status = 'processing' AND cancel_requested_at IS NULL"
            )
            self.sql(lease_ends_in, -LEASE, job)
            self.backlog = Counted()
            self.stop_sweeping()

            async def first_turn() -> None:
                sweeping = sweeps.run(database, self.backlog, interval=AN_HOUR, lease=LEASE)
                self.sweeping.append(asyncio.create_task(sweeping))
                await self.backlog.turned.wait()

            self.call(first_turn())
            self.sql(lease_ends_in, LEASE, job)
            self.look()
            for job, row in self.rows.items():
                assert row["status"] == before[job]["status"]

        def stop_sweeping(self) -> None:
            while self.sweeping:
                self.sweeping.pop().cancel()

        def teardown(self) -> None:
            self.stop_sweeping()

        @rule(which=WHICH)
        def time_limit_passes(self, which: int) -> None:
            job = self.job(which)
            before = self.state(job)
            self.sql(
                "UPDATE generation_jobs SET deadline_at = now()"
                " WHERE id = %s AND deadline_at IS NOT NULL AND status IN ('pending', 'processing')",
                job,
            )
            self.call(jobs.expire(database, not_before=LONG_AGO))
            after = self.state(job)
            started = before["status"] in ("pending", "processing") and before["deadline_at"] is not None
            if started and before["cancel_requested_at"] is None:
                assert (after["status"], after["error"]["code"]) == ("failed", "timed_out")
            else:
                assert after["status"] == before["status"]

        @rule(which=WHICH)
        def retry(self, which: int) -> None:
            job = self.job(which)
            before = self.state(job)
            answer = self.call(jobs.retry(database, self.backlog, job, principal=ADMIN, policies=POLICIES))
            after = self.state(job)
            if before["status"] in ("failed", "cancelled"):
                assert (after["status"], after["series"]) == ("pending", before["series"] + 1)
                assert after["max_attempts"] - after["attempt"] == POLICIES.value_proposition.max_attempts
                self.over.pop(job, None)
            else:
                assert after == before
                alive = before["status"] in ("pending", "processing")
                assert (
                    answer.series > 1
                    if alive and before["series"] > 1
                    else answer in ("job_not_over", "job_already_completed")
                )

        @rule(which=WHICH)
        def becomes_due(self, which: int) -> None:
            job = self.job(which)
            self.sql("UPDATE generation_jobs SET run_after = %s WHERE id = %s AND status = 'pending'", LONG_AGO, job)
            for admitted in self.call(jobs.admit(database, per_client=IN_FLIGHT)):
                assert self.state(admitted.message.job_id)["status"] == "pending"

        # --- what must always be true

        def job(self, which: int) -> UUID:
            """The newest for 0, and so on."""
            return list(self.claims)[-1 - which % len(self.claims)]

        def attempt(self, which: int) -> Held:
            """Of those that a worker was ever given, the newest for 0."""
            return self.held[-1 - which % len(self.held)]

        def state(self, job: UUID) -> dict[str, Any]:
            return self.rows[job]

        @invariant()
        def events_tell_a_legal_story(self) -> None:
            for job, claims in self.claims.items():
                row = self.rows[job]
                states, kinds = row["states"], row["kinds"]
                assert row["seqs"] == list(range(1, row["event_seq"] + 1))
                assert {pair for pair in pairwise(states) if pair[0] != pair[1]} <= LEGAL
                assert states[-1] == row["status"]
                for state, following in zip(states, kinds[1:], strict=False):
                    assert state not in FINAL or following == "retried", "else a final state is the last"
                assert claims == list(range(1, len(claims) + 1)), "one more with each claim"
                assert row["attempt"] == len(claims) == kinds.count("claimed")
                assert row["documents"] == ([row["document_id"]] if row["status"] == "completed" else [])

        @invariant()
        def final_states_change_by_a_users_retry_alone(self) -> None:
            for job, row in self.rows.items():
                if job in self.over:
                    assert row == self.over[job]
                elif row["status"] in FINAL:
                    self.over[job] = row

    return Jobs


def test_any_order_of_things_makes_legal_moves_only(postgres_url):
    connecting = Database.connect(postgres_url, pool_size=2)
    with (
        asyncio.Runner() as loop,
        psycopg.connect(postgres_url, autocommit=True, row_factory=dict_row) as looking,
    ):
        database = loop.run(connecting.__aenter__())
        try:
            jobs_of_all_kinds = machine(loop, database, looking)
            run_state_machine_as_test(
                jobs_of_all_kinds,
                settings=settings(
                    max_examples=150,
                    stateful_step_count=60,
                    deadline=None,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                ),
            )
        finally:
            loop.run(connecting.__aexit__(None, None, None))
    assert jobs_of_all_kinds.operations >= OPERATIONS
