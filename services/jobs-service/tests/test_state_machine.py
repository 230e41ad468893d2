"""Any order of submits, claims, reports, ends, cancels, retries, lost leases, passed time limits and doubled messages
makes legal moves only."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

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

from jobs_service import jobs
from jobs_service.backlog import Backlog
from jobs_service.jobs import JobNotClaimable
from jobs_service.schemas import JobCreate
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
LEASE = timedelta(seconds=30)
POLICIES = Policies(value_proposition=JobPolicy(max_attempts=2, retry_delay=timedelta(seconds=1)))
IN_FLIGHT = 2  # jobs of a client at once
WHICH = st.integers(0, 3)
DOCUMENT = {"title": "t", "model": "offline:template", "currency": "USD", "sections": [], "facts": []}
ADMIN = Principal(subject="somebody", role="admin", scopes=frozenset(), token_id="", expires_at=0, token="")


def machine(  # noqa: C901  rules are small, but many
    loop: asyncio.Runner, database: Database, looking: psycopg.Connection[dict[str, Any]]
) -> type[RuleBasedStateMachine]:
    class Jobs(RuleBasedStateMachine):
        """The rules called as routes and sweeps call them, beside a history of claims that is kept on its own."""

        def __init__(self) -> None:
            super().__init__()
            self.loop, self.database = loop, database
            self.backlog = Backlog(limit=1000)
            self.claims: dict[UUID, list[int]] = {}
            self.held: list[tuple[UUID, int]] = []
            self.seen: dict[UUID, dict[str, Any]] = {}
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

        def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
            cursor = looking.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

        def call(self, coroutine: Any) -> Any:
            """The answer, or the error's code."""
            try:
                return self.loop.run(coroutine)
            except AppError as error:
                return error.code

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
                        self.database,
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

            async def both() -> list[Any]:
                claims = [
                    jobs.claim(self.database, self.backlog, job, JobClaim(worker="w"), lease=LEASE) for _ in range(2)
                ]
                return await asyncio.gather(*claims, return_exceptions=True)

            won = [answer.attempt for answer in self.loop.run(both()) if not isinstance(answer, JobNotClaimable)]
            assert len(won) <= 1
            self.claims[job] += won
            self.held += [(job, attempt) for attempt in won]

        @rule(which=WHICH, progress=st.integers(0, 100), stage=st.sampled_from(["collecting", "writing"]))
        def report(self, which: int, progress: int, stage: str) -> None:
            job, attempt = self.attempt(which)
            before = self.state(job)
            body = JobProgress.model_validate({"attempt": attempt, "progress": progress, "stage": stage})
            answer = self.call(jobs.progress(self.database, job, body, lease=LEASE))
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
            job, attempt = self.attempt(which)
            before = self.state(job)
            body = {"attempt": attempt, "outcome": outcome, "retryable": retryable}
            body |= {"document": DOCUMENT} if outcome == "completed" else {}
            body |= {"error": {"code": "e", "message": "m"}} if outcome == "failed" else {}
            said = JobFinish.model_validate(body)

            def say() -> Any:
                return self.call(jobs.finish(self.database, self.backlog, job, said, policies=POLICIES))

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
            answer = self.call(jobs.cancel(self.database, job, principal=ADMIN))
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
            self.call(jobs.expire(self.database, not_before=LONG_AGO))
            assert self.state(job)["status"] != "processing"

        @rule(which=WHICH)
        def time_limit_passes(self, which: int) -> None:
            job = self.job(which)
            before = self.state(job)
            self.sql("UPDATE generation_jobs SET deadline_at = now() WHERE id = %s AND deadline_at IS NOT NULL", job)
            self.call(jobs.expire(self.database, not_before=LONG_AGO))
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
            answer = self.call(jobs.retry(self.database, self.backlog, job, principal=ADMIN, policies=POLICIES))
            after = self.state(job)
            if before["status"] in ("failed", "cancelled"):
                assert (after["status"], after["series"]) == ("pending", before["series"] + 1)
                assert after["max_attempts"] - after["attempt"] == POLICIES.value_proposition.max_attempts
                self.seen.pop(job, None)
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
            self.sql("UPDATE generation_jobs SET run_after = now() WHERE id = %s", job)
            for admitted in self.call(jobs.admit(self.database, per_client=IN_FLIGHT)):
                assert self.state(admitted.message.job_id)["status"] == "pending"

        # --- what must always be true

        def job(self, which: int) -> UUID:
            """The newest for 0, and so on."""
            return list(self.claims)[-1 - which % len(self.claims)]

        def attempt(self, which: int) -> tuple[UUID, int]:
            """Of those that a worker was ever given, the newest for 0."""
            return self.held[-1 - which % len(self.held)]

        def state(self, job: UUID) -> dict[str, Any]:
            return self.sql("SELECT * FROM generation_jobs WHERE id = %s", job)[0]

        @invariant()
        def events_tell_a_legal_story(self) -> None:
            for job, claims in self.claims.items():
                row = self.state(job)
                events = self.sql("SELECT seq, kind, status FROM job_events WHERE job_id = %s ORDER BY seq", job)
                assert [event["seq"] for event in events] == list(range(1, row["event_seq"] + 1))
                states = [event["status"] for event in events]
                moved = {pair for pair in pairwise(states) if pair[0] != pair[1]}
                assert moved <= LEGAL
                assert states[-1] == row["status"]
                for event, after in pairwise(events):
                    assert event["status"] not in FINAL or after["kind"] == "retried", "else a final state is the last"
                assert claims == list(range(1, len(claims) + 1)), "one more with each claim"
                assert row["attempt"] == len(claims) == sum(event["kind"] == "claimed" for event in events)
                documents = self.sql("SELECT id FROM documents WHERE job_id = %s", job)
                assert [document["id"] for document in documents] == (
                    [row["document_id"]] if row["status"] == "completed" else []
                )

        @invariant()
        def final_states_change_by_a_users_retry_alone(self) -> None:
            for job in self.claims:
                row = self.state(job)
                if job in self.seen:
                    assert row == self.seen[job] | {key: row[key] for key in ("run_after", "deadline_at")}
                elif row["status"] in FINAL:
                    self.seen[job] = row

    return Jobs


def test_any_order_of_things_makes_legal_moves_only(postgres_url):
    connecting = Database.connect(postgres_url, pool_size=2)
    with (
        asyncio.Runner() as loop,
        psycopg.connect(postgres_url, autocommit=True, row_factory=dict_row) as looking,
    ):
        database = loop.run(connecting.__aenter__())
        try:
            run_state_machine_as_test(
                machine(loop, database, looking),
                settings=settings(
                    max_examples=80,
                    stateful_step_count=40,
                    deadline=None,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                ),
            )
        finally:
            loop.run(connecting.__aexit__(None, None, None))
