"""What is done to many jobs at once, a user's retry of one, and the numbers of all."""

import asyncio

import pytest

from jobs_service import listing

PATHS = ["/api/v1/jobs/cancel", "/api/v1/jobs/retry"]


async def many(api, client, count):
    order = await api.order(client)
    return [await api.made("/api/v1/jobs", order) for _ in range(count)]


async def failed(api, job, code="model_failed"):
    await api.sent(1)  # admitted
    assert (await api.claim(job)).status_code == 200
    error = {"code": code, "message": "It gave up."}
    assert (await api.finish(job, "failed", error=error)).json()["status"] == "failed"


async def states(api, jobs):
    return [(await api.read(job))["status"] for job in jobs]


# --- retry of one


async def test_a_failed_job_begins_anew_once(api):
    job = await api.job()
    await failed(api, job)
    first = await api.post(f"/api/v1/jobs/{job['id']}/retry")
    assert first.status_code == 200
    assert (first.json()["status"], first.json()["series"], first.json()["error"]) == ("pending", 2, None)
    again = await api.post(f"/api/v1/jobs/{job['id']}/retry")
    assert (again.status_code, again.json()["series"]) == (200, 2), "a second click is no second retry"
    assert await api.kinds(job) == ["submitted", "claimed", "failed", "retried"]


async def test_a_job_that_is_alive_or_has_its_document_is_not_retried(api):
    job = await api.job()
    answer = await api.post(f"/api/v1/jobs/{job['id']}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_not_over")
    await api.claim(job)
    await api.finish(job)
    answer = await api.post(f"/api/v1/jobs/{job['id']}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_already_completed")


async def test_a_retry_is_for_who_sees_the_job_and_may_write(api, nobody):
    job = await api.job()
    path = f"/api/v1/jobs/{job['id']}/retry"
    assert (await api.http.post(path)).json()["code"] == "missing_token"
    assert (await api.post(path, user=api.as_user("viewer"))).json()["code"] == "insufficient_scope"
    assert (await api.post(path, user=api.bound(await api.client("Other")))).json()["code"] == "job_not_found"
    assert (await api.post(f"/api/v1/jobs/{nobody}/retry")).json()["code"] == "job_not_found"


# --- many


async def test_cancel_by_filter_and_the_second_click(api):
    client, other = await api.client(), await api.client("Other")
    ours, theirs = await many(api, client, 3), await many(api, other, 1)
    dry = await api.made(PATHS[0], {"client_id": client["id"], "dry_run": True})
    assert dry == {"matched": 3, "changed": 0, "complete": True}
    assert await states(api, ours) == ["pending"] * 3
    done = await api.made(PATHS[0], {"client_id": client["id"]})
    assert done == {"matched": 3, "changed": 3, "complete": True}
    assert await states(api, ours + theirs) == ["cancelled"] * 3 + ["pending"]
    assert await api.made(PATHS[0], {"client_id": client["id"]}) == {"matched": 0, "changed": 0, "complete": True}


async def test_a_processing_job_is_asked_to_cancel_once(api):
    [job] = await many(api, None, 1)
    await api.claim(job)
    selection = {"status": ["processing"]}
    assert (await api.made(PATHS[0], selection))["changed"] == 1
    assert await api.made(PATHS[0], selection) == {"matched": 1, "changed": 0, "complete": True}


async def test_retry_by_filter(api):
    client = await api.client()
    jobs = await many(api, client, 3)
    await failed(api, jobs[0], "model_failed")
    await failed(api, jobs[1], "facts_missing")
    assert (await api.made(PATHS[1], {"error_code": "model_*"}))["changed"] == 1
    assert await states(api, jobs) == ["pending", "failed", "pending"]
    await api.post(f"/api/v1/jobs/{jobs[2]['id']}/cancel")
    assert (await api.made(PATHS[1], {"status": ["cancelled", "completed"]}))["changed"] == 1
    assert await states(api, jobs) == ["pending", "failed", "pending"]
    assert await api.made(PATHS[1], {"status": ["completed"]}) == {"matched": 0, "changed": 0, "complete": True}


@pytest.mark.parametrize("path", PATHS)
async def test_by_ids_only_what_one_sees(api, path, nobody):
    ours, theirs = await api.client("Ours"), await api.client("Theirs")
    jobs = [*(await many(api, ours, 2)), *(await many(api, theirs, 1))]
    if path.endswith("retry"):
        assert (await api.made(PATHS[0], {"ids": [job["id"] for job in jobs]}))["changed"] == 3
    ids = [jobs[0]["id"], jobs[0]["id"], jobs[2]["id"], nobody]
    done = await api.made(path, {"ids": ids}, user=api.bound(ours))
    assert done == {"matched": 1, "changed": 1, "complete": True}
    before, after = ("pending", "cancelled") if path.endswith("cancel") else ("cancelled", "pending")
    assert await states(api, jobs) == [after, before, before]


@pytest.mark.parametrize("path", PATHS)
async def test_a_bound_user_reaches_nobody_elses_jobs_by_filter(api, path):
    ours, theirs = await api.client("Ours"), await api.client("Theirs")
    jobs = [*(await many(api, ours, 1)), *(await many(api, theirs, 1))]
    if path.endswith("retry"):
        await api.made(PATHS[0], {"ids": [job["id"] for job in jobs]})
    user = api.bound(ours)
    for selection in ({"client_id": theirs["id"]}, {"prospect_id": jobs[1]["prospect_id"]}):
        assert (await api.made(path, selection, user=user))["matched"] == 0
    assert (await api.made(path, {"job_type": "value_proposition"}, user=user))["changed"] == 1
    assert len(set(await states(api, jobs))) == 2


@pytest.mark.parametrize("path", PATHS)
async def test_batches_up_to_a_bound_and_then_the_rest(api, path, monkeypatch):
    jobs = await many(api, None, 5)
    client = {"client_id": jobs[0]["client_id"]}
    if path.endswith("retry"):
        await api.made(PATHS[0], {"ids": [job["id"] for job in jobs]})
    monkeypatch.setattr(listing, "BATCH", 2)
    monkeypatch.setattr(listing, "MOST_AT_ONCE", 4)
    assert await api.made(path, client) == {"matched": 4, "changed": 4, "complete": False}
    assert await api.made(path, client) == {"matched": 1, "changed": 1, "complete": True}
    assert await api.made(path, client) == {"matched": 0, "changed": 0, "complete": True}


@pytest.mark.parametrize("path", PATHS)
async def test_many_calls_at_once_change_each_job_once(api, path):
    jobs = await many(api, None, 12)
    if path.endswith("retry"):
        await api.made(PATHS[0], {"ids": [job["id"] for job in jobs]})
    selection = {"client_id": jobs[0]["client_id"]}
    answers = await asyncio.gather(*(api.made(path, selection) for _ in range(6)))
    assert sum(answer["changed"] for answer in answers) == 12
    kind = "cancelled" if path.endswith("cancel") else "retried"
    assert [(await api.kinds(job)).count(kind) for job in jobs] == [1] * 12


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"dry_run": True}, "body"),
        ({"status": None}, "body"),
        ({"ids": ["01a203da-534a-74b5-8492-c8a337331194"], "status": ["failed"]}, "body"),
        ({"ids": []}, "body.ids"),
        ({"ids": ["x"]}, "body.ids.0"),
        ({"status": []}, "body.status"),
        ({"state": "failed"}, "body.state"),
    ],
)
async def test_a_selection_without_a_condition_is_refused(api, path, body, field):
    answer = await api.post(path, body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [detail["field"] for detail in answer.json()["details"]] == [field]


@pytest.mark.parametrize("path", PATHS)
async def test_who_may_change_many(api, path):
    assert (await api.http.post(path, json={"status": ["failed"]})).json()["code"] == "missing_token"
    answer = await api.post(path, {"status": ["failed"]}, user=api.as_user("viewer"))
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


# --- numbers


async def numbers(api, **options):
    answer = await api.get("/api/v1/jobs/stats", **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_misspelt_condition_is_not_taken_for_everybodys_numbers(api, nobody):
    answer = await api.get("/api/v1/jobs/stats", params={"clientid": nobody})
    assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "query.clientid")


async def test_numbers_of_nothing(api):
    found = await numbers(api)
    assert found["counts"] == dict.fromkeys(("pending", "processing", "completed", "failed", "cancelled"), 0)
    assert found["oldest_pending_seconds"] is None
    assert [window["window_seconds"] for window in found["throughput"]] == [60, 300, 3600]
    assert all(window["completed_per_minute"] == 0 for window in found["throughput"])


async def test_numbers_follow_what_happens(api):
    jobs = await many(api, None, 6)
    for job in jobs[:4]:
        await api.claim(job)
    await api.finish(jobs[0])
    await api.finish(jobs[1])
    await api.finish(jobs[2], "failed")
    await api.post(f"/api/v1/jobs/{jobs[4]['id']}/cancel")
    api.sql(
        "UPDATE generation_jobs SET finished_at = now() - interval '10 minutes' WHERE id = %(id)s", id=jobs[0]["id"]
    )
    for _ in range(2):  # the second time, what is settled is remembered
        found = await numbers(api)
        assert found["counts"] == {"pending": 1, "processing": 1, "completed": 2, "failed": 1, "cancelled": 1}
        assert 0 <= found["oldest_pending_seconds"] < 60
        for window, completed in zip(found["throughput"], (1, 1, 2), strict=True):
            assert (window["completed"], window["failed"], window["cancelled"]) == (completed, 1, 1)
            assert window["completed_per_minute"] == completed * 60 / window["window_seconds"]
    await api.finish(jobs[3])
    await api.post(f"/api/v1/jobs/{jobs[2]['id']}/retry")
    for _ in range(2):
        found = await numbers(api)
        assert found["counts"] == {"pending": 2, "processing": 0, "completed": 3, "failed": 0, "cancelled": 1}


async def test_a_job_that_is_not_due_does_not_wait_yet(api):
    job = await api.job()
    api.sql("UPDATE generation_jobs SET run_after = now() + interval '1 hour' WHERE id = %(id)s", id=job["id"])
    found = await numbers(api)
    assert (found["counts"]["pending"], found["oldest_pending_seconds"]) == (1, None)


async def test_numbers_of_a_client_and_of_who_is_bound_to_one(api):
    ours, theirs = await api.client("Ours"), await api.client("Theirs")
    await many(api, ours, 1)
    await many(api, theirs, 2)
    assert (await numbers(api))["counts"]["pending"] == 3
    assert (await numbers(api, params={"client_id": theirs["id"]}))["counts"]["pending"] == 2
    user = api.bound(ours, "viewer")
    assert (await numbers(api, user=user))["counts"]["pending"] == 1
    assert (await numbers(api, user=user, params={"client_id": theirs["id"]}))["counts"]["pending"] == 0


async def test_who_may_see_numbers(api):
    assert (await api.http.get("/api/v1/jobs/stats")).status_code == 401
    answer = await api.get("/api/v1/jobs/stats", user=api.as_user(scopes={"jobs:write"}))
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
