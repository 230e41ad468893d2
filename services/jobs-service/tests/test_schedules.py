"""Schedules: their API, and what fires them. Time passes by moving next_run_at back: Postgres' clock decides."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from loguru import logger
from uuid_utils.compat import uuid7

from jobs_service import cron, firing, schedules
from jobs_service.backlog import Backlog
from jobs_service.main import build
from jobs_service.settings import Policies
from jobs_service.statements import LARGEST_BATCH
from triton_common.db import Database, DatabaseUnavailable
from triton_common.testing import eventually

PATH = "/api/v1/schedules"
STOP_HERE = """CREATE FUNCTION stop_here() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN new; END $$"""
STOPPED = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND NOT granted"


async def plan(api, client=None, **changes):
    """The body of a schedule's creation."""
    return (
        {"name": "Every morning", "cron": "0 6 * * *", "timezone": "America/New_York"}
        | await api.order(client)
        | changes
    )


async def scheduled(api, client=None, **changes):
    return await api.made(PATH, await plan(api, client, **changes))


async def read(api, schedule):
    return (await api.get(f"{PATH}/{schedule['id']}")).json()


def make_due(api, schedule, ago="1 second"):
    """Its next run was due so long ago, as if nobody had fired since."""
    api.sql(
        "UPDATE schedules SET next_run_at = date_trunc('second', now()) - %(ago)s::interval WHERE id = %(id)s",
        ago=ago,
        id=schedule["id"],
    )


async def jobs_of(api, schedule):
    """Its jobs, oldest run first."""
    items = (await api.get("/api/v1/jobs", params={"limit": 200, "client_id": schedule["client_id"]})).json()["items"]
    return sorted(
        (job for job in items if job["schedule_id"] == schedule["id"]), key=lambda job: job["scheduled_for"] or ""
    )


@pytest.fixture
def fire(api, app):
    async def turn():
        await firing.fire(app.state.database, app.state.backlog, policies=Policies())

    return turn


# --- the API


async def test_create_answers_201_and_when_it_runs(api):
    body = await plan(api, parameters={"horizon_months": 24}, priority="low", time_limit_seconds=600)
    answer = await api.post(PATH, body)
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["Location"] == f"{PATH}/{made['id']}"
    assert {key: made[key] for key in body} == body
    assert (made["missed_runs"], made["overlap"], made["enabled"]) == ("one", "allow", True)
    assert [made[key] for key in ("last_run_at", "last_job_id", "last_error")] == [None] * 3
    assert made["next_run_at"] == made["next_runs"][0]["at"]
    assert len(made["next_runs"]) == 5
    for run in made["next_runs"]:
        assert run["at"].endswith("Z")
        assert run["local"][10:] in ("T06:00:00-05:00", "T06:00:00-04:00")
        assert datetime.fromisoformat(run["local"]) == datetime.fromisoformat(run["at"])
    assert await read(api, made) == made


async def test_a_schedule_is_of_its_prospects_client(api):
    client = await api.client()
    made = await scheduled(api, client)
    assert made["client_id"] == client["id"]
    assert api.sql("SELECT created_by FROM schedules")[0]["created_by"] == made["created_by"]


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"cron": "0 6 * *"}, "cron", "five fields are needed, not 4"),
        ({"cron": "6"}, "cron", "five fields are needed, not 1"),
        ({"cron": "0 25 * * *"}, "cron", "the hour '25' is not valid: 0 to 23"),
        ({"cron": "0 0 31 2 *"}, "cron", "never fires"),
        ({"cron": "@reboot"}, "cron", "@reboot is not one of"),
        ({"cron": "{0} * * * *"}, "cron", "the minute '{0}'"),
        ({"cron": ""}, "cron", ""),
        ({"cron": "0," * 200 + "0 * * * *"}, "cron", ""),
        ({"cron": "0\x00 * * * *"}, "cron", ""),
        ({"cron": None}, "cron", ""),
        ({"timezone": "Mars/Olympus"}, "timezone", "no timezone's name"),
        ({"timezone": "../etc/passwd"}, "timezone", ""),
        ({"timezone": ""}, "timezone", ""),
        ({"missed_runs": "some"}, "missed_runs", ""),
        ({"overlap": "queue"}, "overlap", ""),
        ({"priority": "urgent"}, "priority", ""),
        ({"time_limit_seconds": 9}, "time_limit_seconds", ""),
        ({"job_type": "poem"}, "job_type", ""),
        ({"parameters": {"horizon_months": 25}}, "parameters.horizon_months", ""),
        ({"name": ""}, "name", ""),
        ({"next_run_at": "2026-01-01T00:00:00Z"}, "next_run_at", ""),
    ],
)
async def test_what_is_not_valid_is_named(api, changes, field, said):
    answer = await api.post(PATH, await plan(api) | changes)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    [detail] = answer.json()["details"]
    assert detail["field"] == f"body.{field}"
    assert said in detail["issue"]
    assert api.sql("SELECT id FROM schedules") == []


async def test_what_a_schedule_needs_must_be_there(api, nobody):
    client, other = await api.client(), await api.client("Other")
    body, foreign = await plan(api, client), await plan(api, other)
    for change, status, code in (
        ({"prospect_id": nobody}, 404, "prospect_not_found"),
        ({"value_proposition_id": nobody}, 404, "value_proposition_not_found"),
        ({"value_proposition_id": foreign["value_proposition_id"]}, 422, "different_clients"),
    ):
        answer = await api.post(PATH, body | change)
        assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("noun", "field", "code"),
    [
        ("clients", "client_id", "client_archived"),
        ("prospects", "prospect_id", "prospect_archived"),
        ("value-propositions", "value_proposition_id", "value_proposition_archived"),
    ],
)
async def test_the_archived_gets_no_schedule(api, noun, field, code):
    client = await api.client()
    body = await plan(api, client)
    await api.post(f"/api/v1/{noun}/{(body | {'client_id': client['id']})[field]}/archive")
    answer = await api.post(PATH, body)
    assert (answer.status_code, answer.json()["code"]) == (409, code)


async def test_a_second_click_creates_no_second_schedule(api):
    body = await plan(api)
    first = await api.post(PATH, body, headers={"Idempotency-Key": "k"})
    again = await api.post(PATH, body, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()) == (201, first.json())
    other = await api.post(PATH, body | {"name": "Other"}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(api.sql("SELECT id FROM schedules")) == 1


async def test_a_client_has_a_hundred_schedules_at_most_however_fast_they_come(api, monkeypatch):
    monkeypatch.setattr(schedules, "MOST_PER_CLIENT", 3)
    body = await plan(api)
    answers = await asyncio.gather(*(api.post(PATH, body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"too_many_schedules"}
    assert (await api.post(PATH, await plan(api))).status_code == 201, "another client's are not counted"


async def test_list_by_client_prospect_and_whether_enabled_in_pages(api):
    client = await api.client()
    made = [await scheduled(api, client, enabled=number != 1) for number in range(3)]
    foreign = await scheduled(api)

    async def ids(**params):
        page = (await api.get(PATH, params=params)).json()
        return [item["id"] for item in page["items"]], page["next_cursor"]

    newest = [made[2]["id"], made[1]["id"], made[0]["id"]]
    assert (await ids())[0] == [foreign["id"], *newest]
    assert (await ids(client_id=client["id"]))[0] == newest
    assert (await ids(prospect_id=made[1]["prospect_id"]))[0] == [made[1]["id"]]
    assert (await ids(enabled=False))[0] == [made[1]["id"]]
    assert (await ids(enabled=True, client_id=client["id"]))[0] == [made[2]["id"], made[0]["id"]]
    first, cursor = await ids(client_id=client["id"], limit=2)
    assert first == newest[:2]
    assert await ids(client_id=client["id"], limit=2, cursor=cursor) == (newest[2:], None)
    assert (await api.get(PATH, params={"cursor": "x"})).json()["code"] == "invalid_cursor"
    answer = await api.get(PATH, params={"clientid": client["id"]})
    assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "query.clientid")


async def test_a_change_leaves_the_rest_and_plans_anew_only_when_the_plan_changes(api):
    made = await scheduled(api)
    answer = await api.call("PATCH", f"{PATH}/{made['id']}", json={"name": "Renamed", "priority": "high"})
    assert answer.status_code == 200
    changed = answer.json()
    assert changed == made | {"name": "Renamed", "priority": "high", "updated_at": changed["updated_at"]}
    make_due(api, made, ago="10 seconds")
    due = await read(api, made)
    for change in (
        {"missed_runs": "all"},
        {"enabled": True},
        {"parameters": {"horizon_months": 24}},
        {"overlap": "skip"},
    ):
        kept = (await api.call("PATCH", f"{PATH}/{made['id']}", json=change)).json()
        assert kept["next_run_at"] == due["next_run_at"], "a run that is due must not be lost"
    for change in ({"cron": "30 7 * * *"}, {"timezone": "Europe/Berlin"}):
        moved = (await api.call("PATCH", f"{PATH}/{made['id']}", json=change)).json()
        assert datetime.fromisoformat(moved["next_run_at"]) > datetime.now(UTC) - timedelta(seconds=5)
        assert moved["next_runs"][0]["local"][11:16] == "07:30"


@pytest.mark.parametrize(
    "change",
    [{}, {"cron": None}, {"cron": "x"}, {"cron": "0 0 30 2 *"}, {"timezone": "x"}, {"prospect_id": str(uuid7())}],
)
async def test_a_change_that_makes_no_sense_is_refused(api, change):
    made = await scheduled(api)
    answer = await api.call("PATCH", f"{PATH}/{made['id']}", json=change)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert await read(api, made) == made


async def test_a_schedule_that_is_switched_off_fires_nothing_and_misses_nothing(api, fire):
    made = await scheduled(api, missed_runs="all", cron="* * * * *")
    make_due(api, made, ago="1 hour")
    off = (await api.call("PATCH", f"{PATH}/{made['id']}", json={"enabled": False})).json()
    assert (off["enabled"], off["next_run_at"], off["next_runs"]) == (False, None, [])
    await fire()
    on = (await api.call("PATCH", f"{PATH}/{made['id']}", json={"enabled": True})).json()
    assert datetime.fromisoformat(on["next_run_at"]) > datetime.fromisoformat(on["updated_at"])
    assert await jobs_of(api, made) == []


async def test_deleted_schedules_are_gone_and_their_jobs_stay(api, fire):
    made = await scheduled(api)
    make_due(api, made)
    await fire()
    [job] = await jobs_of(api, made)
    assert (await api.call("DELETE", f"{PATH}/{made['id']}")).status_code == 204
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/run")):
        answer = await api.call(method, f"{PATH}/{made['id']}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "schedule_not_found")
    assert await api.read(job) == job
    found = (await api.get("/api/v1/jobs", params={"schedule_id": made["id"]})).json()["items"]
    assert [one["id"] for one in found] == [job["id"]]
    await fire()


async def test_deleting_a_schedule_waits_for_no_job_of_it(api, postgres_url):
    """They may be tens of thousands, and locked by what moves them."""
    made = await scheduled(api)
    await api.post(f"{PATH}/{made['id']}/run")
    with psycopg.connect(postgres_url) as mover:
        mover.execute("SELECT FROM generation_jobs FOR UPDATE")
        async with asyncio.timeout(10):
            assert (await api.call("DELETE", f"{PATH}/{made['id']}")).status_code == 204


async def test_jobs_have_the_time_limit_of_their_schedule_or_the_usual_one(api, fire):
    made = await scheduled(api, time_limit_seconds=600)
    make_due(api, made)
    await fire()
    changed = await api.call("PATCH", f"{PATH}/{made['id']}", json={"time_limit_seconds": None})
    assert changed.json()["time_limit_seconds"] is None
    make_due(api, made)
    await fire()
    by_hand = (await api.post(f"{PATH}/{made['id']}/run")).json()
    assert {job["time_limit_seconds"] for job in await jobs_of(api, made)} == {600, 1800}
    assert by_hand["time_limit_seconds"] == 1800


async def test_run_submits_a_job_beside_the_plan(api):
    made = await scheduled(api, parameters={"horizon_months": 24}, priority="high", enabled=False)
    answer = await api.post(f"{PATH}/{made['id']}/run", headers={"Idempotency-Key": "k", "X-Request-ID": "by-hand-1"})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/api/v1/jobs/{job['id']}"
    assert (job["status"], job["schedule_id"], job["scheduled_for"]) == ("pending", made["id"], None)
    assert (job["parameters"], job["priority"], job["request_id"]) == ({"horizon_months": 24}, "high", "by-hand-1")
    assert await api.kinds(job) == ["submitted"]
    again = await api.post(f"{PATH}/{made['id']}/run", headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()) == (202, job)
    second = (await api.post(f"{PATH}/{made['id']}/run")).json()
    assert second["id"] != job["id"]
    known = await read(api, made)
    assert (known["last_job_id"], known["next_run_at"], known["enabled"]) == (second["id"], None, False)


async def test_run_for_an_archived_prospect_is_refused(api):
    made = await scheduled(api)
    await api.post(f"/api/v1/prospects/{made['prospect_id']}/archive")
    answer = await api.post(f"{PATH}/{made['id']}/run")
    assert (answer.status_code, answer.json()["code"]) == (409, "prospect_archived")
    assert (await read(api, made))["last_job_id"] is None


# --- who may


def calls(schedule, body):
    path = f"{PATH}/{schedule['id']}"
    return [
        ("POST", PATH, body, "jobs:write"),
        ("GET", PATH, None, "jobs:read"),
        ("GET", path, None, "jobs:read"),
        ("PATCH", path, {"name": "x"}, "jobs:write"),
        ("POST", f"{path}/run", None, "jobs:write"),
        ("DELETE", path, None, "jobs:write"),
    ]


async def test_who_may_do_what(api, as_user):
    body = await plan(api)
    made = await api.made(PATH, body)
    for method, path, json, scope in calls(made, body):
        anonymous = await api.call(method, path, user={"Authorization": ""}, json=json)
        assert (anonymous.status_code, anonymous.json()["code"]) == (401, "missing_token")
        others = as_user("admin", scopes={"prospects:write", "jobs:read" if scope == "jobs:write" else "jobs:write"})
        refused = await api.call(method, path, user=others, json=json)
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
        assert (await api.call(method, path, user=as_user("admin", scopes={scope}), json=json)).is_success


async def test_another_clients_schedules_do_not_exist(api):
    ours, other = await api.client("Ours"), await api.client("Other")
    body = await plan(api, other)
    foreign, user = await api.made(PATH, body), api.bound(ours)
    for method, path, json, _ in calls(foreign, body):
        answer = await api.call(method, path, user=user, json=json)
        if method == "GET" and path == PATH:
            assert answer.json()["items"] == []
            continue
        assert answer.status_code == 404
    assert (await read(api, foreign)) == foreign
    assert api.sql("SELECT id FROM generation_jobs") == []


# --- firing


async def test_a_due_schedule_submits_its_job(api, app, fire):
    made = await scheduled(api, parameters={"horizon_months": 24}, priority="high")
    make_due(api, made)
    lines = []
    sink = logger.add(lambda message: lines.append(message.record), level="INFO")
    try:
        await fire()
        await fire()
    finally:
        logger.remove(sink)
    [job] = await jobs_of(api, made)
    known = await read(api, made)
    assert (job["schedule_id"], job["status"], job["created_by"]) == (made["id"], "pending", made["created_by"])
    assert (job["parameters"], job["priority"]) == ({"horizon_months": 24}, "high")
    assert await api.kinds(job) == ["submitted"]
    assert (known["last_job_id"], known["last_error"]) == (job["id"], None)
    assert known["next_run_at"] == made["next_run_at"]
    assert known["updated_at"] == made["updated_at"]
    assert known["last_run_at"] >= job["scheduled_for"]
    [line] = [line for line in lines if line["message"] == "schedule fired"]
    assert line["extra"]["schedule_id"] == made["id"]
    assert (line["extra"]["job_id"], line["extra"]["request_id"]) == (job["id"], job["request_id"])
    assert len(job["request_id"]) >= 8


async def until(condition):
    """What the condition answers, once it is true; nothing tells of it."""
    async with asyncio.timeout(20):
        while not (answer := await condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return answer


@pytest.fixture
async def each_second(settings, running):
    """A second process, whose seconds are short."""
    async with running(build(settings.model_copy(update={"sweep_interval": timedelta(milliseconds=20)}))):
        yield


@pytest.mark.usefixtures("each_second")
async def test_what_is_due_fires_by_itself(api):
    made = await scheduled(api)
    make_due(api, made)
    assert len(await until(lambda: jobs_of(api, made))) == 1


async def test_what_is_due_fires_though_a_turn_failed(api, app, monkeypatch):
    real, failures = firing.fire, [DatabaseUnavailable(), OSError("a bug")]

    async def fails_twice(*args, **options):
        if failures:
            raise failures.pop()
        await real(*args, **options)

    monkeypatch.setattr(firing, "fire", fails_twice)
    made = await scheduled(api)
    make_due(api, made)
    interval = timedelta(milliseconds=1)
    turns = firing.keep_firing(app.state.database, app.state.backlog, interval=interval, policies=Policies())
    task = asyncio.create_task(turns)
    try:
        assert len(await until(lambda: jobs_of(api, made))) == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.usefixtures("each_second")
async def test_no_time_limit_waits_for_schedules(api, postgres_url):
    """Nor a lease, nor a cancel: what ends jobs is beside what fires."""
    made, job = await scheduled(api), await api.job()
    api.sql(STOP_HERE)
    api.sql(
        "CREATE TRIGGER stop_here BEFORE UPDATE OF last_run_at ON schedules FOR EACH ROW EXECUTE FUNCTION stop_here()"
    )
    with psycopg.connect(postgres_url, autocommit=True) as gate:
        gate.execute("SELECT pg_advisory_lock(1)")
        make_due(api, made)
        await asyncio.to_thread(eventually, lambda: api.sql(STOPPED))
        api.sql("UPDATE generation_jobs SET deadline_at = now() WHERE id = %(id)s", id=job["id"])

        async def over():
            return (await api.read(job))["status"] == "failed"

        await until(over)
        assert await jobs_of(api, made) == [], "it is still firing"
    assert len(await until(lambda: jobs_of(api, made))) == 1


async def test_a_scheduled_job_makes_its_document(api, fire):
    """The way of a user: create, wait, watch, read."""
    made = await scheduled(api, cron="@hourly", timezone="Europe/Berlin")
    make_due(api, made)
    await fire()
    job_id = (await read(api, made))["last_job_id"]
    job = (await api.get(f"/api/v1/jobs/{job_id}")).json()
    api.make_due(job)
    assert (await api.claim(job)).json()["prospect_id"] == made["prospect_id"]
    assert (await api.finish(job)).json()["status"] == "completed"
    [document] = (await api.get("/api/v1/documents", params={"job_id": job_id})).json()["items"]
    assert document["prospect_id"] == made["prospect_id"]


async def test_several_schedulers_fire_once(api, app, postgres_url):
    client = await api.client()
    made = [await scheduled(api, client) for _ in range(6)]
    for schedule in made:
        make_due(api, schedule)
    async with Database.connect(postgres_url) as other:
        backlog = Backlog(limit=10_000)
        fired = await asyncio.gather(
            *(firing.fire_batch(database, backlog, policies=Policies()) for database in (app.state.database, other) * 4)
        )
    assert sum(fired) == 6
    for schedule in made:
        assert len(await jobs_of(api, schedule)) == 1


def dying_scheduler(database_url):
    """A process that fires, and stops between the insert and the commit: there a trigger waits for a lock of ours."""
    script = f"""
import asyncio
from jobs_service import firing
from jobs_service.backlog import Backlog
from jobs_service.settings import Policies
from triton_common.db import Database

async def main():
    async with Database.connect({database_url!r}) as database:
        await firing.fire_batch(database, Backlog(limit=100), policies=Policies())

asyncio.run(main())
"""
    return subprocess.Popen([sys.executable, "-c", script])


async def test_a_scheduler_that_is_killed_in_the_middle_has_fired_nothing(api, fire, postgres_url):
    made = await scheduled(api)
    make_due(api, made)
    api.sql(STOP_HERE)
    api.sql("CREATE TRIGGER stop_here BEFORE UPDATE ON schedules FOR EACH ROW EXECUTE FUNCTION stop_here()")
    with psycopg.connect(postgres_url, autocommit=True) as gate:
        gate.execute("SELECT pg_advisory_lock(1)")
        scheduler = dying_scheduler(postgres_url)
        try:
            await asyncio.to_thread(eventually, lambda: api.sql(STOPPED), within=60)
            await fire()  # what another has locked is its own, and nobody waits for it
            assert await jobs_of(api, made) == []
        finally:
            scheduler.kill()
            scheduler.wait()
    api.sql("DROP TRIGGER stop_here ON schedules")  # waits until the dead one's transaction is over
    assert await jobs_of(api, made) == [], "its insert was never committed"
    await fire()
    await fire()
    assert len(await jobs_of(api, made)) == 1


async def test_the_same_run_is_not_made_twice_when_the_clock_is_set_back(api, fire):
    made = await scheduled(api)
    make_due(api, made)
    [due] = api.sql("SELECT next_run_at FROM schedules")
    for _ in range(2):
        api.sql("UPDATE schedules SET next_run_at = %(next_run_at)s", **due)
        await fire()
    assert len(await jobs_of(api, made)) == 1
    assert (await read(api, made))["next_run_at"] == made["next_run_at"], "and it goes on"


# --- runs that nobody could fire in time


async def test_one_job_for_all_that_was_missed(api, fire):
    made = await scheduled(api, cron="* * * * *")
    make_due(api, made, ago="3 days")
    await fire()
    [job] = await jobs_of(api, made)
    known = await read(api, made)
    late = datetime.fromisoformat(known["last_run_at"]) - datetime.fromisoformat(job["scheduled_for"])
    assert timedelta(0) <= late < timedelta(minutes=1), "it is for the last of them"
    assert known["last_error"] is None
    assert datetime.fromisoformat(known["next_run_at"]) > datetime.fromisoformat(known["last_run_at"])


async def test_skip_makes_no_job_for_what_was_missed(api, fire):
    made = await scheduled(api, missed_runs="skip")
    make_due(api, made, ago="2 minutes")
    [due] = api.sql("SELECT next_run_at FROM schedules")
    await fire()
    known = await read(api, made)
    assert (await jobs_of(api, made), known["last_run_at"], known["last_job_id"]) == ([], None, None)
    assert known["last_error"]["code"] == "runs_missed"
    assert due["next_run_at"].isoformat() in known["last_error"]["message"]
    assert known["next_run_at"] == made["next_run_at"]
    make_due(api, made, ago="30 seconds")
    await fire()
    assert len(await jobs_of(api, made)) == 1, "a sweep may be late"
    assert (await read(api, made))["last_error"] is None


async def test_skip_fires_the_run_of_this_minute_and_notes_those_before(api, fire):
    made = await scheduled(api, missed_runs="skip", cron="* * * * *")
    make_due(api, made, ago="1 hour")
    await fire()
    assert len(await jobs_of(api, made)) == 1
    assert (await read(api, made))["last_error"]["code"] == "runs_missed"


async def test_all_makes_a_job_for_each(api, fire):
    made = await scheduled(api, missed_runs="all", cron="* * * * *", timezone="Asia/Kolkata")
    api.sql("UPDATE schedules SET next_run_at = date_trunc('minute', now()) - interval '9 minutes'")
    [due] = api.sql("SELECT next_run_at FROM schedules")
    await fire()
    jobs = await jobs_of(api, made)
    runs = [datetime.fromisoformat(job["scheduled_for"]) for job in jobs]
    assert len(runs) in (10, 11)  # a minute may end meanwhile
    assert runs == [due["next_run_at"] + timedelta(minutes=minute) for minute in range(len(runs))]
    assert len({job["request_id"] for job in jobs}) == 1
    known = await read(api, made)
    assert (known["last_job_id"], known["last_error"]) == (jobs[-1]["id"], None)


async def test_all_makes_a_hundred_at_most_the_newest(api, fire):
    made = await scheduled(api, missed_runs="all", cron="* * * * *")
    make_due(api, made, ago="1 year")
    await fire()
    jobs = await jobs_of(api, made)
    assert len(jobs) == 100
    known = await read(api, made)
    late = datetime.fromisoformat(known["last_run_at"]) - datetime.fromisoformat(jobs[-1]["scheduled_for"])
    assert timedelta(0) <= late < timedelta(minutes=1)
    assert known["last_error"]["code"] == "runs_missed"


# --- runs that make no job


@pytest.mark.parametrize(
    ("noun", "field", "code"),
    [
        ("clients", "client_id", "client_archived"),
        ("prospects", "prospect_id", "prospect_archived"),
        ("value-propositions", "value_proposition_id", "value_proposition_archived"),
    ],
)
async def test_the_archived_gets_no_job_and_the_schedule_says_so_and_goes_on(api, fire, noun, field, code):
    made, well = await scheduled(api), await scheduled(api)
    await api.post(f"/api/v1/{noun}/{made[field]}/archive")
    for schedule in (made, well):
        make_due(api, schedule)
    await fire()
    known = await read(api, made)
    assert (known["last_error"]["code"], known["last_job_id"], known["enabled"]) == (code, None, True)
    assert known["next_run_at"] == made["next_run_at"], "it tries next time, not at once"
    assert await jobs_of(api, made) == []
    assert len(await jobs_of(api, well)) == 1, "what fires with it is not hurt"
    api.sql(f"UPDATE {noun.replace('-', '_')} SET archived_at = NULL")
    make_due(api, made, ago="2 seconds")
    await fire()
    assert len(await jobs_of(api, made)) == 1
    assert (await read(api, made))["last_error"] is None


async def test_a_client_with_a_full_queue_misses_the_run(api, app):
    made = await scheduled(api)
    make_due(api, made)
    full = Backlog(limit=1)
    full.added(api.sql("SELECT client_id FROM schedules")[0]["client_id"])
    assert await firing.fire_batch(app.state.database, full, policies=Policies()) == 1
    known = await read(api, made)
    assert (known["last_error"]["code"], known["next_run_at"]) == ("queue_full", made["next_run_at"])
    assert await jobs_of(api, made) == []


async def test_overlap_skip_leaves_a_run_out_while_the_last_job_is_alive(api, fire):
    made = await scheduled(api, overlap="skip", missed_runs="all", cron="* * * * *")
    make_due(api, made, ago="1 hour")
    await fire()
    [job] = await jobs_of(api, made)
    make_due(api, made, ago="2 seconds")
    await fire()
    known = await read(api, made)
    assert (known["last_error"]["code"], known["last_job_id"]) == ("last_job_alive", job["id"])
    await api.post(f"/api/v1/jobs/{job['id']}/cancel")
    make_due(api, made)
    await fire()
    assert len(await jobs_of(api, made)) == 2
    assert (await read(api, made))["last_error"] is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("timezone = 'Europe/Bonn'", "timezone"),
        ("cron = '0 0 31 2 *'", "never fires"),
        ('parameters = \'{"colour": "red"}\'', "colour"),
    ],
)
async def test_a_schedule_that_is_valid_no_more_is_switched_off_and_says_why(api, fire, change, said):
    made, well = await scheduled(api), await scheduled(api)
    for schedule in (made, well):
        make_due(api, schedule)
    api.sql(f"UPDATE schedules SET {change} WHERE id = '{made['id']}'")
    await fire()
    known = await read(api, made)
    assert (known["enabled"], known["next_run_at"], known["next_runs"]) == (False, None, [])
    assert known["last_error"]["code"] == "schedule_invalid"
    assert said in known["last_error"]["message"]
    assert "http" not in known["last_error"]["message"]
    assert "\n" not in known["last_error"]["message"]
    assert len(await jobs_of(api, well)) == 1
    mended = {"timezone": "Europe/Berlin", "cron": "@daily", "parameters": {}, "enabled": True}
    answer = await api.call("PATCH", f"{PATH}/{made['id']}", json=mended)
    assert (answer.json()["enabled"], answer.json()["last_error"]) == (True, None)


async def test_a_schedule_with_a_timezone_that_is_no_more_can_be_read_changed_and_mended(api):
    made = await scheduled(api)
    api.sql("UPDATE schedules SET timezone = 'Europe/Bonn'")
    path = f"{PATH}/{made['id']}"
    known = await read(api, made)
    assert (known["timezone"], known["next_run_at"], known["next_runs"]) == ("Europe/Bonn", made["next_run_at"], [])
    assert (await api.call("PATCH", path, json={"name": "Renamed"})).json()["name"] == "Renamed"
    refused = await api.call("PATCH", path, json={"cron": "30 7 * * *"})
    assert (refused.status_code, refused.json()["code"]) == (409, "schedule_invalid")
    assert "timezone" in refused.json()["message"]
    assert (await read(api, made))["cron"] == made["cron"]
    mended = await api.call("PATCH", path, json={"timezone": "Europe/Berlin"})
    assert (mended.status_code, len(mended.json()["next_runs"])) == (200, 5)


async def test_run_with_parameters_of_another_release_is_refused_in_words(api):
    made = await scheduled(api)
    api.sql("""UPDATE schedules SET parameters = '{"colour": "red"}'""")
    refused = await api.post(f"{PATH}/{made['id']}/run")
    assert (refused.status_code, refused.json()["code"]) == (409, "schedule_invalid")
    assert refused.json()["message"] == "parameters.colour: Extra inputs are not permitted"


async def test_an_error_that_nobody_foresaw_stops_no_other_schedule(api, fire, monkeypatch):
    bad, well = await scheduled(api, cron="7 6 * * *"), await scheduled(api)
    make_due(api, bad, ago="1 hour")
    make_due(api, well)
    real = cron.due

    def fails(expression, *args, **options):
        if expression == bad["cron"]:
            raise RuntimeError("secret detail")
        return real(expression, *args, **options)

    monkeypatch.setattr(cron, "due", fails)
    await fire()
    assert len(await jobs_of(api, well)) == 1
    known = await read(api, bad)
    assert (known["last_error"]["code"], known["enabled"]) == ("internal_error", False)
    assert "secret" not in known["last_error"]["message"]


async def test_what_postgres_refuses_for_one_schedule_stops_no_other(api, fire):
    bad, well = await scheduled(api, missed_runs="all", cron="* * * * *"), await scheduled(api)
    make_due(api, bad, ago="150 seconds")
    make_due(api, well)
    api.sql(f"ALTER TABLE generation_jobs ADD CONSTRAINT none_of_it CHECK (schedule_id <> '{bad['id']}')")
    await fire()
    assert len(await jobs_of(api, well)) == 1
    known = await read(api, bad)
    assert (known["last_error"]["code"], known["enabled"], known["last_job_id"]) == ("internal_error", True, None)
    api.sql("ALTER TABLE generation_jobs DROP CONSTRAINT none_of_it")
    make_due(api, bad)
    await fire()
    assert len(await jobs_of(api, bad)) == 1, "it goes on with its next run"


# --- many at once


def multiply(api, times):
    """So many schedules more, like the one there is, each due a second before the last."""
    columns = (
        "client_id, prospect_id, value_proposition_id, name, job_type, created_by, cron, timezone, missed_runs, "
        "overlap, enabled"
    )
    api.sql(
        f"""INSERT INTO schedules (id, next_run_at, {columns})
        SELECT uuidv7(), next_run_at - make_interval(secs => n), {columns}
        FROM schedules, generate_series(1, {times}) AS n"""
    )


def due(api):
    return api.sql("SELECT count(*) AS due FROM schedules WHERE next_run_at <= now()")[0]["due"]


async def test_many_due_schedules_are_drained_those_that_wait_longest_first_and_none_twice(api, app, fire):
    made = await scheduled(api)
    make_due(api, made)
    multiply(api, 2 * firing.BATCH)
    make_due(api, made, ago="1 day")
    assert await firing.fire_batch(app.state.database, app.state.backlog, policies=Policies()) == firing.BATCH
    assert (await read(api, made))["last_job_id"] is not None
    assert due(api) == firing.BATCH + 1
    await fire()
    assert due(api) == 0
    [total] = api.sql("SELECT count(*) AS jobs, count(DISTINCT schedule_id) AS schedules FROM generation_jobs")
    assert (total["jobs"], total["schedules"]) == (2 * firing.BATCH + 1, 2 * firing.BATCH + 1)


async def test_what_was_missed_comes_in_small_statements_and_short_transactions(api, app, fire):
    """A client's schedules of each minute, after a day without jobs-service: a hundred jobs of each."""
    made = await scheduled(api, missed_runs="all", cron="* * * * *")
    make_due(api, made, ago="1 day")
    multiply(api, 11)
    api.sql("CREATE TABLE inserts (jobs int)")
    api.sql("""CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO inserts SELECT count(*) FROM added; RETURN NULL; END $$""")
    api.sql("""CREATE TRIGGER note AFTER INSERT ON generation_jobs REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION note()""")
    assert await firing.fire_batch(app.state.database, app.state.backlog, policies=Policies()) == 10
    assert api.sql("SELECT count(*) AS jobs FROM generation_jobs")[0]["jobs"] == firing.MOST_JOBS
    assert due(api) == 2, "they are next"
    await fire()
    assert due(api) == 0
    [total] = api.sql("SELECT count(*) AS jobs, count(DISTINCT schedule_id) AS schedules FROM generation_jobs")
    assert (total["jobs"], total["schedules"]) == (1200, 12)
    assert api.sql("SELECT max(jobs) AS most FROM inserts")[0]["most"] <= LARGEST_BATCH
