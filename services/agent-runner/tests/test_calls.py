"""Calls of many threads in few requests, over real HTTP to the stand-in."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import examples
import pytest
from fastapi import Response
from platform_standin import Platform, Row

from agent_runner import calls as module
from agent_runner.calls import Call
from agent_runner.runs import Worker
from triton_common.errors import AppError, Conflict, Unavailable
from triton_common.logging import log_context
from triton_common.schemas import ClaimCall, JobClaim


def claim(row: Row) -> Call:
    return ClaimCall(job_id=row.job.job_id, body=JobClaim(worker="worker-1", claim_id=uuid4()))


def test_calls_made_while_requests_are_under_way_leave_in_one(platform: Platform, worker: Worker):
    rows = [platform.add(examples.job(job_id=uuid4())) for _ in range(12)]
    go_on = threading.Event()
    platform.hooks["calls"] = lambda: go_on.wait(20)  # the first requests are held by the stand-in's event loop

    with ThreadPoolExecutor(len(rows)) as threads:
        answers = [threads.submit(worker.calls.make, claim(row)) for row in rows]
        while len(worker.calls._waiting) < len(rows) - module.REQUESTS:  # nothing tells that the others wait
            pass
        go_on.set()
        claimed = {answer.result()["job_id"] for answer in answers}

    assert claimed == {str(row.job.job_id) for row in rows}
    assert platform.calls["calls"] == module.REQUESTS + 1


def test_each_call_has_its_own_answer_and_its_own_place_in_the_logs(platform: Platform, worker: Worker):
    there, gone = platform.add(examples.job()), Row(examples.job(job_id=uuid4()))

    with log_context(request_id="request-1"):
        claimed, refused = worker.calls.make_all([claim(there), claim(gone)])

    assert isinstance(claimed, dict)
    assert claimed["job_id"] == str(there.job.job_id)
    assert isinstance(refused, AppError)
    assert (refused.status, refused.code) == (404, "job_not_found")
    with pytest.raises(Conflict):
        worker.calls.make(claim(there))


def test_a_document_that_is_large_goes_alone(platform: Platform, worker: Worker, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_BYTES", 1)
    rows = [platform.add(examples.job(job_id=uuid4())) for _ in range(3)]

    assert len(worker.calls.make_all([claim(row) for row in rows])) == 3
    assert platform.calls["calls"] == 3


def test_a_call_that_is_not_understood_costs_the_others_nothing(answering):
    good, bad = Row(examples.job(job_id=uuid4())), Row(examples.job(job_id=uuid4()))

    def answer(calls: list[dict[str, Any]]) -> Response:
        if any(call["job_id"] == str(bad.job.job_id) for call in calls):
            return Response(status_code=422)
        return Response('{"answers":[' + ",".join(['{"status":200,"body":{"is":"good"}}'] * len(calls)) + "]}")

    calls = answering(answer)
    first, refused, last = calls.make_all([claim(good), claim(bad), claim(good)])

    assert first == last == {"is": "good"}
    assert isinstance(refused, AppError)
    assert refused.status == 422


@pytest.mark.parametrize(
    "body",
    [
        *("", "[]", "no JSON", '{"answers":7}', '{"answers":[]}', '{"answers":[{}]}'),
        *('{"answers":[{"status":200,"body":[]}]}', '{"answers":[{"status":503,"problem":[]}]}'),
    ],
)
def test_an_answer_that_cannot_be_read_is_one_to_ask_for_again(answering, body: str):
    calls = answering(lambda _: Response(body))

    with pytest.raises(Unavailable):
        calls.make(claim(Row(examples.job())))
    assert not calls._under_way


def test_what_breaks_in_the_sending_thread_leaves_nobody_waiting(answering, monkeypatch):
    calls = answering(lambda _: Response(""))

    def broken(*_: object, **__: object) -> None:
        raise SystemExit

    monkeypatch.setattr(calls._service, "request", broken)
    with pytest.raises(SystemExit):
        calls.make(claim(Row(examples.job())))
    assert not calls._under_way


def test_what_nobody_foresaw_is_an_answer_to_ask_for_again(answering, monkeypatch, logged):
    calls = answering(lambda _: Response(""))

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(calls._service, "request", broken)
    with pytest.raises(Unavailable):
        calls.make(claim(Row(examples.job())))
    told = [line["exception"].type for line in logged if line["message"] == "jobs-service could not be asked"]
    assert told == [RuntimeError]


@pytest.mark.parametrize("status", [404, 409])
def test_a_refusal_of_the_request_is_none_of_its_calls(answering, status: int):
    calls = answering(lambda _: Response(status_code=status))

    with pytest.raises(Unavailable):
        calls.make(claim(Row(examples.job())))
