"""A worker and answers of jobs-service that it cannot read, over real HTTP."""

import json
import threading
from collections import Counter
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import examples
import pytest
from fastapi import Response
from platform_standin import Platform

from agent_runner import attempts, runs
from agent_runner.attempts import Attempt
from agent_runner.calls import Calls
from agent_runner.heart import Heart
from agent_runner.runs import Worker
from triton_common.schemas import JobStage
from triton_common.testing import eventually


@pytest.fixture
def hold(stack: ExitStack):
    """Makes attempts at jobs, whose leases are renewed each 20 ms by one heart."""
    hearts: list[Heart] = []

    def make(calls: Calls, count: int) -> list[Attempt]:
        hearts.append(Heart(calls))
        stack.callback(hearts[-1].close)
        made = []
        for _ in range(count):
            job = examples.job(job_id=uuid4(), lease_seconds=0.06)
            made.append(stack.enter_context(Attempt(calls, hearts[-1], job)))
        return made

    return make


def answers(*bodies: Any) -> Response:
    return Response(json.dumps({"answers": [{"status": 200, "body": body} for body in bodies]}))


def test_leases_are_renewed_on_after_answers_that_cannot_be_read(answering, hold, logged):
    asked: Counter[str] = Counter()

    def answer(calls: list[dict[str, Any]]) -> Response:
        asked.update(call["job_id"] for call in calls)
        bodies: list[Any] = [{}, {"cancelled": "perhaps"}, {"cancelled": True}]
        return answers(*(bodies[min(asked[call["job_id"]], len(bodies)) - 1] for call in calls))

    held = hold(answering(answer), 2)

    for attempt in held:
        eventually(lambda attempt=attempt: attempt.stop.reason == "cancelled")
    told = [line for line in logged if line["message"] == "jobs-service's answer is not understood"]
    assert len(told) == 4
    assert [fault.field for fault in told[0]["extra"]["faults"]] == ["cancelled"]


def test_leases_are_renewed_on_after_what_nobody_foresaw(answering, hold, logged, monkeypatch):
    calls = answering(lambda calls: answers(*[{"cancelled": False}] * len(calls)))
    make_all, broke = calls.make_all, threading.Event()

    def break_once(made: Any) -> Any:
        if not broke.is_set():
            broke.set()
            raise RuntimeError
        return make_all(made)

    monkeypatch.setattr(calls, "make_all", break_once)
    held = hold(calls, 2)
    assert broke.wait(10)

    for attempt in held:
        before = attempt.renew_at
        attempt.report(50, JobStage.WRITING)
        eventually(lambda attempt=attempt, before=before: attempt.renew_at > before)
    assert [line["exception"].type for line in logged if line["message"] == "leases could not be renewed"] == [
        RuntimeError
    ]


@pytest.mark.parametrize("method", ["renewal", "renewed"])
def test_what_goes_wrong_with_one_lease_costs_no_other_its_own(answering, hold, logged, monkeypatch, method):
    renewed: Counter[str] = Counter()

    def answer(calls: list[dict[str, Any]]) -> Response:
        renewed.update(call["job_id"] for call in calls)
        return answers(*[{"cancelled": False}] * len(calls))

    broken, well = hold(answering(answer), 2)

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(broken, method, fail)
    before = renewed[str(well.job.job_id)]

    eventually(lambda: renewed[str(well.job.job_id)] > before + 3)
    assert any(line["message"] == "leases could not be renewed" for line in logged)
    monkeypatch.undo()


def test_renewals_wait_behind_no_other_call(worker: Worker):
    assert worker.heart._calls is not worker.calls


def test_a_job_that_cannot_be_read_has_failed_and_may_be_another_workers(platform: Platform, worker: Worker, logged):
    job = examples.job()
    unknown = job.value_proposition.model_copy(update={"currency": "cowries"})
    row = platform.add(job.model_copy(update={"value_proposition": unknown}))

    assert runs.run(worker, job.job_id, name="worker-1", task_id="task-1") == "not_claimed"

    [finish] = row.finishes
    assert finish.error is not None
    assert (row.status, finish.outcome, finish.retryable) == ("failed", "failed", True)
    assert (finish.error.code, finish.error.attempt) == ("job_not_understood", 1)
    assert [detail.field for detail in finish.error.details] == ["value_proposition.currency"]
    assert "cowries" not in finish.model_dump_json()
    assert "cowries" not in str(logged)


def test_a_claim_whose_answer_does_not_even_say_which_attempt_it_is_is_dropped(answering, logged):
    asked: list[Any] = []

    def answer(calls: list[dict[str, Any]]) -> Response:
        asked.extend(calls)
        return answers({})

    calls = answering(answer)
    claimed = attempts.claim(calls, Heart(calls), uuid4(), worker="w", task_id=None, draining=threading.Event())

    assert claimed is None
    assert [call["call"] for call in asked] == ["claim"]
    assert "the claimed job is not understood" in [line["message"] for line in logged]


def test_an_outcome_is_not_repeated_when_its_answer_cannot_be_read(answering, hold):
    asked: list[str] = []

    def answer(calls: list[dict[str, Any]]) -> Response:
        asked.extend(call["call"] for call in calls)
        return answers(*({"cancelled": False} if call["call"] == "progress" else {} for call in calls))

    [attempt] = hold(answering(answer), 1)

    assert attempt.finish("cancelled") is None
    assert asked.count("finish") == 1
