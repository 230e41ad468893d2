"""Submitting, reading and listing jobs."""

import asyncio
import json
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg
import pytest
from prometheus_client import REGISTRY

from jobs_service import sweeps
from jobs_service.backlog import Backlog


async def test_submit_answers_202_with_a_pending_job(api):
    order = await api.order(parameters={"horizon_months": 24})
    answer = await api.post("/api/v1/jobs", order, headers={"X-Request-ID": "request-of-ours"})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/api/v1/jobs/{job['id']}"
    assert {key: job[key] for key in order} == order
    assert (job["status"], job["progress"], job["attempt"], job["max_attempts"]) == ("pending", 0, 0, 3)
    assert [job[key] for key in ("stage", "error", "document_id", "started_at", "finished_at")] == [None] * 5
    assert job["request_id"] == "request-of-ours"
    assert await api.read(job) == job
    assert await api.kinds(job) == ["submitted"]


async def test_submit_sends_the_message_after_the_commit(api, app):
    job = await api.job()
    await api.sent(1)
    [message] = app.state.queue.sent
    assert (message.queue, message.task) == ("agent-runner", "agent_runner.run_job")
    assert (message.payload["job_id"], message.payload["request_id"]) == (job["id"], job["request_id"])


async def test_submit_counts_the_job(api):
    def created() -> float:
        return REGISTRY.get_sample_value("triton_jobs_created_total", {"job_type": "value_proposition"}) or 0.0

    before = created()
    await api.job()
    assert created() == before + 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"job_type": "poem"}, "body.job_type"),
        ({"job_type": None}, "body.job_type"),
        ({"prospect_id": "x"}, "body.prospect_id"),
        ({"value_proposition_id": 7}, "body.value_proposition_id"),
        ({"parameters": []}, "body.parameters"),
        ({"parameters": {"horizon_months": 30}}, "body.parameters.horizon_months"),
        ({"parameters": {"horizon_months": "24"}}, "body.parameters.horizon_months"),
        ({"parameters": {"horizon_month": 24}}, "body.parameters.horizon_month"),
        ({"parameters": {"a\x00b": 1}}, "body.parameters.a\x00b"),
        ({"colour": "blue"}, "body.colour"),
    ],
)
async def test_a_field_that_is_not_valid_is_named(api, changes, field):
    answer = await api.post("/api/v1/jobs", await api.order() | changes)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [detail["field"] for detail in answer.json()["details"]] == [field]


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ('{"x": NaN}', ".x"),
        ('{"x": 1e999}', ".x"),
        ('{"x": "\\ud800"}', ".x"),
        ('{"x": ' + "[" * 40 + "]" * 40 + "}", ".x"),
        ('{"\\ud800": 1}', ""),
        ('{"horizon_months": NaN}', ".horizon_months"),
        ('{"horizon_months": "\\ud800"}', ".horizon_months"),
    ],
)
async def test_parameters_are_refused_whatever_they_hold(api, parameters, field):
    order = json.dumps(await api.order(parameters="HERE")).replace('"HERE"', parameters)
    answer = await api.call(
        "POST", "/api/v1/jobs", content=order.encode(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.json()["details"][0]["field"] == f"body.parameters{field}"


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"job_type": ' + b"1" * 5000 + b"}"])
async def test_a_body_that_no_parser_takes_is_malformed(api, body):
    answer = await api.call("POST", "/api/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "malformed_json")


async def test_every_parameter_that_is_not_valid_is_named(api):
    answer = await api.post("/api/v1/jobs", await api.order(parameters={"horizon_months": 0, "colour": "red"}))
    assert answer.status_code == 422
    fields = {detail["field"] for detail in answer.json()["details"]}
    assert fields == {"body.parameters.horizon_months", "body.parameters.colour"}
    assert api.sql("SELECT id FROM generation_jobs") == []


async def test_parameters_are_kept_as_they_were_sent(api):
    job = await api.job()
    assert (job["parameters"], (await api.claim(job)).json()["parameters"]) == ({}, {})


async def test_one_bad_submission_among_a_hundred_hurts_nobody_else(api):
    good = await api.order()
    bad = good | {"parameters": {"horizon_months": 7}}
    answers = await asyncio.gather(*(api.post("/api/v1/jobs", bad if number == 50 else good) for number in range(100)))
    assert sorted(answer.status_code for answer in answers) == [202] * 99 + [422]


async def test_submit_for_what_is_not_there(api, nobody):
    order = await api.order()
    for field, code in (("prospect_id", "prospect_not_found"), ("value_proposition_id", "value_proposition_not_found")):
        answer = await api.post("/api/v1/jobs", order | {field: nobody})
        assert (answer.status_code, answer.json()["code"]) == (404, code)


async def test_submit_across_two_clients(api):
    ours, other = await api.client("Ours"), await api.client("Other")
    order, foreign = await api.order(ours), await api.order(other)
    mixed = order | {"value_proposition_id": foreign["value_proposition_id"]}
    by_staff = await api.post("/api/v1/jobs", mixed)
    assert (by_staff.status_code, by_staff.json()["code"]) == (422, "different_clients")
    user = api.bound(ours)
    hidden = await api.post("/api/v1/jobs", mixed, user=user)
    assert (hidden.status_code, hidden.json()["code"]) == (404, "value_proposition_not_found")
    hidden = await api.post("/api/v1/jobs", foreign, user=user)
    assert (hidden.status_code, hidden.json()["code"]) == (404, "prospect_not_found")
    assert (await api.post("/api/v1/jobs", order, user=user)).status_code == 202
    assert len(api.sql("SELECT id FROM generation_jobs")) == 1


@pytest.mark.parametrize(
    ("noun", "field", "code"),
    [
        ("clients", None, "client_archived"),
        ("prospects", "prospect_id", "prospect_archived"),
        ("value-propositions", "value_proposition_id", "value_proposition_archived"),
    ],
)
async def test_archived_things_take_no_new_job(api, noun, field, code):
    client = await api.client()
    order = await api.order(client)
    await api.post(f"/api/v1/{noun}/{order[field] if field else client['id']}/archive")
    answer = await api.post("/api/v1/jobs", order)
    assert (answer.status_code, answer.json()["code"]) == (409, code)


async def test_a_client_with_too_many_waiting_jobs_waits_and_others_do_not(api, app):
    ours, other = await api.client("Ours"), await api.client("Other")
    order, key = await api.order(ours), {"Idempotency-Key": "abc"}
    app.state.backlog._limit = 3
    made = [await api.made("/api/v1/jobs", order) for _ in range(3)]
    for headers in ({}, key):
        answer = await api.post("/api/v1/jobs", order, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
        assert answer.headers["Retry-After"] == "5"
    assert (await api.post("/api/v1/jobs", await api.order(other))).status_code == 202
    await api.post(f"/api/v1/jobs/{made[0]['id']}/cancel")
    await sweeps.sweep(app.state.database, app.state.backlog, not_before=datetime.now(UTC))
    assert (await api.post("/api/v1/jobs", order, headers=key)).status_code == 202, "a refusal gives the key back"


def test_what_is_submitted_while_rows_are_counted_counts():
    backlog, client = Backlog(limit=1), uuid4()
    backlog.counting()
    backlog.added(client)
    backlog.counted({})
    assert backlog.full_clients == [client]
    backlog.counting()
    backlog.claimed(client)
    backlog.counted({client: 1})
    assert backlog.full_clients == []


# --- Idempotency-Key


async def test_the_same_key_and_body_gets_the_first_answer(api):
    order = await api.order()
    key = {"Idempotency-Key": "abc"}
    first = await api.post("/api/v1/jobs", order, headers=key)
    await api.claim(first.json())
    again = await api.post("/api/v1/jobs", dict(reversed(order.items())), headers=key)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["Location"] == first.headers["Location"]
    assert len(api.sql("SELECT id FROM generation_jobs")) == 1


async def test_the_same_key_with_another_body_is_refused(api):
    order = await api.order()
    await api.post("/api/v1/jobs", order, headers={"Idempotency-Key": "abc"})
    other = await api.post(
        "/api/v1/jobs", order | {"parameters": {"horizon_months": 24}}, headers={"Idempotency-Key": "abc"}
    )
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_key_is_its_callers(api):
    order = await api.order()
    key = {"Idempotency-Key": "abc"}
    mine = await api.post("/api/v1/jobs", order, headers=key)
    theirs = await api.post("/api/v1/jobs", order, headers=key, user=api.as_user("editor"))
    assert mine.json()["id"] != theirs.json()["id"]


async def test_somebody_moved_to_another_client_does_not_get_the_first_ones_answer(api, nobody):
    first, second = await api.client("First"), await api.client("Second")
    key = {"Idempotency-Key": "abc"}

    async def propose(client):
        somebody = api.as_user("editor", client_id=UUID(client["id"]), sub=nobody)
        body = {"client_id": first["id"], "name": "Coaching", "content": api.content}
        return await api.post("/api/v1/value-propositions", body, headers=key, user=somebody)

    assert [(await propose(first)).status_code for _ in range(2)] == [201, 201]
    assert (await propose(second)).status_code == 404
    assert len(api.sql("SELECT id FROM value_propositions")) == 1


async def test_twenty_at_once_with_one_key_make_one_job(api):
    order = await api.order()
    key = {"Idempotency-Key": "abc"}
    answers = await asyncio.gather(*(api.post("/api/v1/jobs", order, headers=key) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(api.sql("SELECT id FROM generation_jobs")) == 1


async def test_while_the_first_request_runs_its_key_is_in_use(api, postgres_url):
    order = await api.order()
    key = {"Idempotency-Key": "abc"}
    job = await api.post("/api/v1/jobs", order, headers=key)
    api.sql("DELETE FROM idempotency_keys")
    [subject] = {row["created_by"] for row in api.sql("SELECT created_by FROM generation_jobs")}
    with psycopg.connect(postgres_url) as first:  # a request that takes its time to commit
        first.execute("INSERT INTO idempotency_keys (caller, key, fingerprint) VALUES (%s, 'abc', 'x')", [subject])
        answer = await api.post("/api/v1/jobs", order, headers=key)
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_in_use")
        assert answer.headers["Retry-After"] == "1"
        first.rollback()
    again = await api.post("/api/v1/jobs", order, headers=key)
    assert again.status_code == 202
    assert again.json()["id"] != job.json()["id"]


async def test_a_refused_request_gives_its_key_back(api, nobody):
    order = await api.order()
    key = {"Idempotency-Key": "abc"}
    refused = await api.post("/api/v1/jobs", order | {"prospect_id": nobody}, headers=key)
    assert refused.status_code == 404
    assert (await api.post("/api/v1/jobs", order, headers=key)).status_code == 202


async def test_a_key_is_free_again_after_a_day(api):
    order = await api.order()
    key = {"Idempotency-Key": "abc"}
    first = await api.post("/api/v1/jobs", order, headers=key)
    api.sql("UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'")
    other = await api.post("/api/v1/jobs", order | {"parameters": {"horizon_months": 24}}, headers=key)
    assert other.status_code == 202
    assert other.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "t\u00e9l\u00e9"])
async def test_a_key_that_is_none_is_refused(api, key):
    answer = await api.post("/api/v1/jobs", await api.order(), headers={"Idempotency-Key": key.encode()})
    assert answer.status_code == 422


# --- reading


async def test_list_is_filtered_and_newest_first(api):
    ours, other = await api.client("Ours"), await api.client("Other")
    jobs = [await api.job(client) for client in (ours, ours, other)]
    await api.claim(jobs[0])

    async def ids(**params):
        return [job["id"] for job in (await api.get("/api/v1/jobs", params=params)).json()["items"]]

    newest_first = [job["id"] for job in reversed(jobs)]
    assert await ids() == newest_first
    assert await ids(status="processing") == [jobs[0]["id"]]
    assert await ids(status=["processing", "pending"]) == newest_first
    assert await ids(client_id=other["id"]) == [jobs[2]["id"]]
    assert await ids(prospect_id=jobs[1]["prospect_id"]) == [jobs[1]["id"]]
    assert (await api.get("/api/v1/jobs", params={"status": "done"})).status_code == 422
    page = (await api.get("/api/v1/jobs", params={"limit": 2})).json()
    rest = (await api.get("/api/v1/jobs", params={"cursor": page["next_cursor"]})).json()
    assert [job["id"] for job in page["items"] + rest["items"]] == newest_first
    assert rest["next_cursor"] is None


async def test_read_a_job_that_is_not_there(api, nobody):
    answer = await api.get(f"/api/v1/jobs/{nobody}")
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    assert (await api.get("/api/v1/jobs/7")).status_code == 422


async def test_another_clients_jobs_do_not_exist(api):
    ours, other = await api.client("Ours"), await api.client("Other")
    mine, theirs = await api.job(ours), await api.job(other)
    user = api.bound(ours)
    path = f"/api/v1/jobs/{theirs['id']}"
    for method, url in (("GET", path), ("POST", f"{path}/cancel"), ("GET", f"{path}/events")):
        answer = await api.call(method, url, user=user)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    listed = (await api.get("/api/v1/jobs", user=user)).json()
    assert [job["id"] for job in listed["items"]] == [mine["id"]]
    assert (await api.get("/api/v1/jobs", user=user, params={"client_id": other["id"]})).json()["items"] == []
    assert (await api.read(theirs))["status"] == "pending"


async def test_who_may_do_what(api, nobody):
    calls = [
        ("POST", "/api/v1/jobs", "jobs:write"),
        ("GET", "/api/v1/jobs", "jobs:read"),
        ("GET", f"/api/v1/jobs/{nobody}", "jobs:read"),
        ("POST", f"/api/v1/jobs/{nobody}/cancel", "jobs:write"),
        ("GET", f"/api/v1/jobs/{nobody}/events", "jobs:read"),
        ("GET", "/api/v1/documents", "documents:read"),
        ("GET", f"/api/v1/documents/{nobody}", "documents:read"),
        ("POST", f"/internal/v1/jobs/{nobody}/claim", "jobs:work"),
        ("POST", f"/internal/v1/jobs/{nobody}/progress", "jobs:work"),
        ("POST", f"/internal/v1/jobs/{nobody}/finish", "jobs:work"),
    ]
    everything = {"jobs:read", "jobs:write", "jobs:work", "documents:read"}
    order = await api.order()
    for method, path, scope in calls:
        anonymous = await api.http.request(method, path, json=order)
        assert (anonymous.status_code, anonymous.json()["code"]) == (401, "missing_token"), path
        refused = await api.call(method, path, user=api.as_user(scopes=everything - {scope}), json=order)
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope"), path
