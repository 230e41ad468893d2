"""What workers do: claim, progress, finish; each in order, twice, late and at once."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from jobs_service import jobs


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


# --- claim


async def test_claim_gives_all_that_a_worker_needs(api):
    client = await api.client("Acme")
    job = await api.job(client)
    before = count("triton_job_queue_wait_seconds_count")
    answer = await api.claim(job)
    assert answer.status_code == 200
    claimed = answer.json()
    assert (claimed["job_id"], claimed["attempt"], claimed["max_attempts"]) == (job["id"], 1, 3)
    assert (claimed["client_name"], claimed["prospect_name"]) == ("Acme", "A health plan")
    assert claimed["value_proposition"] == api.content
    assert claimed["lease_seconds"] == 30
    assert claimed["request_id"] == job["request_id"]
    known = await api.read(job)
    assert (known["status"], known["attempt"]) == ("processing", 1)
    assert known["started_at"] is not None
    assert await api.kinds(job) == ["submitted", "claimed"]
    assert count("triton_job_queue_wait_seconds_count") == before + 1


async def test_fifty_claims_at_once_give_the_job_to_one(api):
    job = await api.job()
    answers = await asyncio.gather(*(api.claim(job) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 49
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"job_not_claimable"}
    assert (await api.read(job))["attempt"] == 1


async def test_claim_of_what_is_not_due_or_not_there(api, nobody):
    job = await api.job()
    api.sql("UPDATE generation_jobs SET run_after = now() + interval '1 minute'")
    for it in (job, {"id": nobody}):
        answer = await api.claim(it)
        assert (answer.status_code, answer.json()["code"]) == (409, "job_not_claimable")


async def test_a_cancelled_jobs_message_finds_nothing_to_claim(api):
    job = await api.job()
    await api.post(f"/api/v1/jobs/{job['id']}/cancel")
    assert (await api.claim(job)).status_code == 409
    assert (await api.read(job))["status"] == "cancelled"


async def test_a_worker_is_bound_to_no_client(api):
    client = await api.client()
    job = await api.job(client)
    bound = api.as_user("service", client_id=job["client_id"])
    answer = await api.claim(job, user=bound)
    assert (answer.status_code, answer.json()["code"]) == (403, "staff_only")


@pytest.mark.parametrize("body", [{}, {"worker": ""}, {"worker": "a\x00"}, {"worker": "w", "pid": 7}])
async def test_a_claim_that_is_none_is_refused(api, body):
    job = await api.job()
    answer = await api.post(f"/internal/v1/jobs/{job['id']}/claim", body, user=api.worker)
    assert answer.status_code == 422
    assert (await api.read(job))["status"] == "pending"


# --- progress


async def test_progress_is_seen_and_renews_the_lease(api):
    job = await api.job()
    await api.claim(job)
    api.let_lease_end(job)
    answer = await api.progress(job, progress=40, stage="writing", message="first draft")
    assert (answer.status_code, answer.json()) == (200, {"cancelled": False})
    known = await api.read(job)
    assert (known["progress"], known["stage"]) == (40, "writing")
    [left] = api.sql("SELECT extract(epoch FROM lease_expires_at - now()) AS seconds FROM generation_jobs")
    assert 25 < left["seconds"] <= 30


async def test_progress_never_goes_back(api):
    job = await api.job()
    await api.claim(job)
    await api.progress(job, progress=70, stage="writing")
    await api.progress(job, progress=50, stage="modelling")
    known = await api.read(job)
    assert (known["progress"], known["stage"]) == (70, "writing")


async def test_a_report_without_news_makes_no_event(api):
    job = await api.job()
    await api.claim(job)
    for _ in range(3):
        await api.progress(job, progress=10)
    await api.progress(job, progress=5, message="late")
    await api.progress(job, progress=10, stage="modelling")
    await api.progress(job, progress=10, stage="modelling", message="still at it")
    assert await api.kinds(job) == ["submitted", "claimed", "progress", "progress", "progress"]


@pytest.mark.parametrize("change", [{"progress": 101}, {"progress": -1}, {"stage": "dreaming"}, {"message": "x" * 501}])
async def test_progress_that_is_none_is_refused(api, change):
    job = await api.job()
    await api.claim(job)
    assert (await api.progress(job, **change)).status_code == 422


async def test_text_that_cannot_be_stored_is_refused(api):
    job = await api.job()
    await api.claim(job)
    answer = await api.progress(job, message="a\x00b")
    assert (answer.status_code, answer.json()["code"]) == (422, "text_not_storable")
    document = api.document | {"title": "a\x00b"}
    answer = await api.finish(job, document=document)
    assert (answer.status_code, answer.json()["code"]) == (422, "text_not_storable")
    assert (await api.read(job))["status"] == "processing"


@pytest.mark.parametrize("attempt", [-(10**30), -1, 0, 2, 10**30])
async def test_an_attempt_that_was_never_made_is_stale(api, attempt):
    job = await api.job()
    await api.claim(job)
    for answer in (
        await api.progress(job, attempt=attempt),
        await api.finish(job, attempt=attempt),
        await api.finish(job, "failed", attempt=attempt, retryable=True),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "stale_attempt")


async def test_another_attempts_progress_is_stale(api):
    job = await api.job()
    assert (await api.progress(job)).json()["code"] == "stale_attempt"
    await api.claim(job)
    for attempt in (0, 2):
        answer = await api.progress(job, attempt=attempt)
        assert (answer.status_code, answer.json()["code"]) == (409, "stale_attempt")
    assert (await api.read(job))["progress"] == 0


async def test_progress_and_finish_of_a_job_that_is_not_there(api, nobody):
    for answer in (await api.progress({"id": nobody}), await api.finish({"id": nobody})):
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


# --- finish


async def test_a_completed_job_has_a_document(api):
    job = await api.job()
    await api.claim(job)
    before = count("triton_jobs_completed_total"), count("triton_job_duration_seconds_count")
    answer = await api.finish(job)
    assert answer.status_code == 200
    known = await api.read(job)
    assert answer.json() == {"status": "completed", "document_id": known["document_id"]}
    assert (known["status"], known["progress"], known["error"]) == ("completed", 100, None)
    assert known["finished_at"] is not None
    document = (await api.get(f"/api/v1/documents/{known['document_id']}")).json()
    assert (document["job_id"], document["client_id"]) == (job["id"], job["client_id"])
    assert await api.kinds(job) == ["submitted", "claimed", "completed"]
    assert (count("triton_jobs_completed_total"), count("triton_job_duration_seconds_count")) == (
        before[0] + 1,
        before[1] + 1,
    )


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled", "released"])
async def test_the_same_finish_again_gets_the_same_answer(api, outcome):
    job = await api.job()
    await api.claim(job)
    first = await api.finish(job, outcome)
    seen = await api.kinds(job)
    answers = await asyncio.gather(*(api.finish(job, outcome) for _ in range(5)))
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, first.json())] * 5
    assert await api.kinds(job) == seen
    assert len(api.sql("SELECT id FROM documents")) == (1 if outcome == "completed" else 0)


async def test_ten_finishes_at_once_make_one_document(api):
    job = await api.job()
    await api.claim(job)
    answers = await asyncio.gather(*(api.finish(job) for _ in range(10)))
    assert len({answer.text for answer in answers}) == 1
    assert len(api.sql("SELECT id FROM documents")) == 1
    assert (await api.kinds(job)).count("completed") == 1


async def test_a_failure_for_good(api):
    job = await api.job()
    await api.claim(job)
    before = count("triton_jobs_failed_total", code="model_failed")
    answer = await api.finish(job, "failed")
    assert answer.json() == {"status": "failed", "document_id": None}
    known = await api.read(job)
    assert (known["error"]["code"], known["error"]["attempt"]) == ("model_failed", 1)
    assert count("triton_jobs_failed_total", code="model_failed") == before + 1


async def test_a_failure_that_may_pass_is_tried_again_until_attempts_run_out(api):
    job = await api.job()
    for attempt in (1, 2):
        assert (await api.claim(job)).json()["attempt"] == attempt
        await api.progress(job, attempt=attempt, progress=60)
        answer = await api.finish(job, "failed", attempt=attempt, retryable=True)
        assert answer.json()["status"] == "pending"
        known = await api.read(job)
        assert (known["status"], known["progress"], known["stage"]) == ("pending", 0, None)
        assert known["error"]["attempt"] == attempt
        assert (await api.claim(job)).status_code == 409, "not due yet"
        [wait] = api.sql("SELECT extract(epoch FROM run_after - now()) AS seconds FROM generation_jobs")
        assert 2.5 * 2 ** (attempt - 1) - 2 < wait["seconds"] <= 7.5 * 2 ** (attempt - 1)
        api.make_due(job)
    await api.claim(job)
    assert (await api.read(job))["error"] is None
    assert (await api.finish(job, "failed", attempt=3, retryable=True)).json()["status"] == "failed"
    assert (await api.kinds(job)).count("retrying") == 2


async def test_a_released_job_is_sent_at_once_and_loses_no_attempt(api):
    job = await api.job()
    await api.sent(1)
    await api.claim(job)
    assert (await api.finish(job, "released")).json()["status"] == "pending"
    assert await api.sent(2) == [(2, job["id"])] * 2
    claimed = (await api.claim(job)).json()
    assert (claimed["attempt"], claimed["max_attempts"]) == (2, 4)


async def test_an_older_attempts_finish_is_stale_and_changes_nothing(api):
    job = await api.job()
    await api.claim(job)
    await api.finish(job, "released")
    assert (await api.finish(job)).json()["code"] == "stale_attempt", "another outcome than the first"
    await api.claim(job)
    for outcome in ("completed", "failed", "cancelled", "released"):
        answer = await api.finish(job, outcome)
        assert (answer.status_code, answer.json()["code"]) == (409, "stale_attempt")
    assert (await api.finish(job, attempt=2)).json()["status"] == "completed"
    assert (await api.finish(job, "failed", attempt=2)).status_code == 409
    assert (await api.read(job))["status"] == "completed"


@pytest.mark.parametrize(
    "body",
    [
        {"outcome": "completed"},
        {"outcome": "failed"},
        {"outcome": "lost"},
        {"outcome": "released", "error": {"code": "x", "message": ""}},
        {"outcome": "failed", "error": {"code": "Not A Code", "message": ""}},
    ],
)
async def test_a_finish_that_is_none_is_refused(api, body):
    job = await api.job()
    await api.claim(job)
    answer = await api.post(f"/internal/v1/jobs/{job['id']}/finish", {"attempt": 1} | body, user=api.worker)
    assert answer.status_code == 422


async def test_a_job_may_be_released_for_a_while(api):
    """As when analytics-service is busy: the job is due later, and no attempt is used up."""
    job = await api.job()
    await api.claim(job)
    assert (await api.finish(job, "released", retry_after_seconds=90)).json()["status"] == "pending"
    [wait] = api.sql("SELECT extract(epoch FROM run_after - now()) AS seconds FROM generation_jobs")
    assert 80 < wait["seconds"] <= 90
    assert (await api.claim(job)).json()["code"] == "job_not_claimable"
    api.make_due(job)
    claimed = (await api.claim(job)).json()
    assert claimed["max_attempts"] - claimed["attempt"] == 2


async def test_an_error_that_the_policy_calls_permanent_is_not_tried_again(api, app):
    policy = app.state.settings.policies.value_proposition
    app.state.settings.policies.value_proposition = policy.model_copy(update={"permanent": frozenset({"model_failed"})})
    job = await api.job()
    await api.claim(job)
    assert (await api.finish(job, "failed", retryable=True)).json()["status"] == "failed"


async def test_a_claim_whose_answer_was_lost_is_the_same_claim_when_repeated(api, nobody):
    job = await api.job()
    mine = {"worker": "w1", "task_id": "t1", "claim_id": nobody}
    path = f"/internal/v1/jobs/{job['id']}/claim"
    first = await api.post(path, mine, user=api.worker)
    again = await api.post(path, mine, user=api.worker)
    assert (again.status_code, again.json()) == (200, first.json())
    for other in (mine | {"claim_id": job["id"]}, mine | {"claim_id": None}):
        assert (await api.post(path, other, user=api.worker)).status_code == 409
    assert await api.kinds(job) == ["submitted", "claimed"]
    await api.finish(job, "released")
    assert (await api.post(path, mine, user=api.worker)).json()["attempt"] == 2, "a new attempt, not the old one"


# --- retry by a user


@pytest.mark.parametrize("ended", ["failed", "cancelled"])
async def test_a_job_that_did_not_make_it_can_be_begun_anew(api, ended):
    job = await api.job()
    await api.claim(job)
    await api.finish(job, ended)
    path = f"/api/v1/jobs/{job['id']}/retry"
    answer = await api.post(path)
    known = answer.json()
    assert (answer.status_code, known["status"], known["series"], known["progress"]) == (200, "pending", 2, 0)
    assert (known["attempt"], known["max_attempts"]) == (1, 4), "attempts go on counting, and there are three more"
    assert [known[key] for key in ("error", "started_at", "finished_at", "deadline_at", "cancel_requested_at")] == [
        None
    ] * 5
    assert (await api.post(path)).json() == known, "a second click"
    assert (await api.finish(job)).json()["code"] == "stale_attempt", "of the first series"
    assert (await api.claim(job)).json()["attempt"] == 2
    assert (await api.finish(job, attempt=2)).json()["status"] == "completed"
    assert await api.kinds(job) == ["submitted", "claimed", ended, "retried", "claimed", "completed"]
    refused = await api.post(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "job_already_completed")


async def test_only_a_job_that_is_over_can_be_begun_anew(api, app, nobody):
    job = await api.job()
    path = f"/api/v1/jobs/{job['id']}/retry"
    assert (await api.post(path)).json()["code"] == "job_not_over"
    await api.post(f"/api/v1/jobs/{job['id']}/cancel")
    app.state.backlog._limit = 0
    app.state.backlog.added(UUID(job["client_id"]))
    full = await api.post(path)
    assert (full.status_code, full.json()["code"]) == (429, "queue_full")
    assert (await api.post(f"/api/v1/jobs/{nobody}/retry")).json()["code"] == "job_not_found"


# --- cancel


async def test_a_pending_job_is_cancelled_at_once(api):
    job = await api.job()
    before = count("triton_jobs_cancelled_total")
    answer = await api.post(f"/api/v1/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert answer.json()["finished_at"] is not None
    assert (await api.post(f"/api/v1/jobs/{job['id']}/cancel")).json() == answer.json()
    assert await api.kinds(job) == ["submitted", "cancelled"]
    assert count("triton_jobs_cancelled_total") == before + 1


async def test_a_job_at_work_is_cancelled_by_its_workers_next_report(api):
    job = await api.job()
    await api.claim(job)
    answer = await api.post(f"/api/v1/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "processing")
    assert answer.json()["cancel_requested_at"] is not None
    assert (await api.post(f"/api/v1/jobs/{job['id']}/cancel")).json() == answer.json()
    assert (await api.progress(job, progress=50)).json() == {"cancelled": True}
    assert (await api.read(job))["status"] == "cancelled"
    assert (await api.progress(job, progress=60)).json() == {"cancelled": True}
    assert (await api.finish(job, "cancelled")).json() == {"status": "cancelled", "document_id": None}
    assert (await api.finish(job)).json()["code"] == "stale_attempt"
    assert await api.kinds(job) == ["submitted", "claimed", "cancel_requested", "cancelled"]


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled", "released"])
async def test_whatever_the_worker_says_a_job_asked_to_cancel_ends_cancelled(api, outcome):
    job = await api.job()
    await api.claim(job)
    await api.post(f"/api/v1/jobs/{job['id']}/cancel")
    for _ in range(2):
        answer = await api.finish(job, outcome, **({"retryable": True} if outcome == "failed" else {}))
        assert (answer.status_code, answer.json()) == (200, {"status": "cancelled", "document_id": None})
    assert api.sql("SELECT id FROM documents") == []


async def test_a_job_that_is_over_cannot_be_cancelled(api):
    job = await api.job()
    await api.claim(job)
    await api.finish(job)
    answer = await api.post(f"/api/v1/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_already_finished")
    assert (await api.read(job))["status"] == "completed"


async def test_cancel_of_a_job_that_is_not_there(api, nobody):
    assert (await api.post(f"/api/v1/jobs/{nobody}/cancel")).json()["code"] == "job_not_found"


# --- many calls in one request


async def test_many_calls_in_one_request_are_answered_each_as_by_its_own_route(api, nobody):
    fresh, claimed, cancelled = await api.job(), await api.job(), await api.job()
    await api.claim(claimed)
    await api.claim(cancelled)
    await api.post(f"/api/v1/jobs/{cancelled['id']}/cancel")
    report = {"attempt": 1, "progress": 10, "stage": "collecting"}
    answer = await api.calls(
        {"call": "claim", "job_id": fresh["id"], "body": {"worker": "w1"}, "request_id": "r1"},
        {"call": "progress", "job_id": cancelled["id"], "body": report},
        {
            "call": "finish",
            "job_id": claimed["id"],
            "body": {"attempt": 1, "outcome": "completed", "document": api.document},
        },
        {"call": "claim", "job_id": claimed["id"], "body": {"worker": "w2"}},
        {"call": "progress", "job_id": nobody, "body": report},
    )
    assert answer.status_code == 200
    answers = answer.json()["answers"]
    assert [one["status"] for one in answers] == [200, 200, 200, 409, 404]
    assert answers[0]["body"]["job_id"] == fresh["id"]
    assert answers[1]["body"] == {"cancelled": True}
    assert answers[2]["body"]["status"] == "completed"
    assert [one["problem"]["code"] for one in answers[3:]] == ["job_not_claimable", "job_not_found"]
    assert [(await api.read(job))["status"] for job in (fresh, claimed, cancelled)] == [
        *("processing", "completed", "cancelled")
    ]


async def test_a_call_that_crashes_takes_no_other_along(api, monkeypatch):
    good, bad = await api.job(), await api.job()
    ours = jobs.claim

    async def crashing(database: Any, backlog: Any, job_id: UUID, *arguments: Any, **options: Any) -> Any:
        if str(job_id) == bad["id"]:
            raise RuntimeError("a secret")
        return await ours(database, backlog, job_id, *arguments, **options)

    monkeypatch.setattr(jobs, "claim", crashing)
    answer = await api.calls(*({"call": "claim", "job_id": job["id"], "body": {"worker": "w1"}} for job in (bad, good)))
    crashed, claimed = answer.json()["answers"]
    assert (crashed["status"], crashed["problem"]["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert (claimed["status"], claimed["body"]["job_id"]) == (200, good["id"])


async def test_calls_that_are_none_are_refused(api, nobody):
    assert (await api.calls()).status_code == 422
    assert (await api.calls({"call": "dance", "job_id": nobody, "body": {}})).status_code == 422
    assert (await api.calls(*[{"call": "claim", "job_id": nobody, "body": {"worker": "w"}}] * 101)).status_code == 422
