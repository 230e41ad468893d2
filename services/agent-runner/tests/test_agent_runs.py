"""Runs as they are kept: written by a worker, read through the API, ended and deleted by the sweep."""

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import examples
import psycopg
import pytest
from bedrock_standin import THROTTLED, Bedrock
from platform_standin import Platform
from pydantic import SecretStr
from uuid_utils.compat import uuid7

from agent_runner import main, recorder, runs, sweeps
from agent_runner.budget import Price
from agent_runner.meter import Call
from agent_runner.recorder import Recorder
from agent_runner.records import RunRecord
from agent_runner.settings import Settings
from triton_common.db import Database
from triton_common.errors import NotFound
from triton_common.messages import RunJob
from triton_common.queue.celery import CeleryTaskQueue
from triton_common.testing import eventually, free_port

MODEL = "bedrock:example.model-v1:0"
RUNS = "/api/v1/agents/runs"


@pytest.fixture
def kept(postgres_url):
    """What a statement answers."""

    def ask(statement: str, *values):
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            found = connection.execute(statement.encode(), values)
            return found.fetchall() if found.description else []

    return ask


@pytest.fixture
async def http(running, postgres_url, redis_url):
    async with running(
        main.build(Settings(database_url=SecretStr(postgres_url), task_queue_url=SecretStr(redis_url)))
    ) as http:
        yield http


@pytest.fixture
def record(postgres_url):
    """Keeps a run, and waits until it is written."""
    writer = Recorder(postgres_url)

    def keep(**different) -> RunRecord:
        run = made(**different)
        writer.keep(run)
        eventually(lambda: not writer._waiting and not writer._writing)
        return run

    yield keep
    writer.close()


def made(**different) -> RunRecord:
    known = {
        "agent": "population_analyst",
        "model": MODEL,
        "prompt_version": "1",
        "job_id": uuid4(),
        "client_id": uuid4(),
        "attempt": 1,
        "worker": "worker-1",
        "request_id": "request-1",
        "trace_id": "0" * 32,
        "ends_by": datetime.now(UTC) + timedelta(minutes=5),
        "currency": "USD",
    }
    return RunRecord(**(known | different))


def read_fact() -> None:
    raise NotFound("The fact is not there.")


def ended(**different) -> RunRecord:
    return made(**({"status": "completed", "seconds": 1.5} | different))


def test_the_migrations_go_up_down_and_up_and_match_the_table(postgres_url, member_folder, kept):
    def alembic(*command: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "alembic", *command],
            cwd=member_folder,
            env=os.environ | {"DATABASE_URL": postgres_url},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    alembic("downgrade", "base")
    assert kept("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [("alembic_version",)]
    alembic("upgrade", "head")
    assert "No new upgrade operations detected" in alembic("check")


def test_a_jobs_runs_are_kept_with_their_calls_and_their_cost(
    platform: Platform, worker_with, bedrock: Bedrock, postgres_url, kept
):
    prices = {MODEL: Price(input=Decimal(3), output=Decimal(15))}
    worker = worker_with(model=MODEL, database_url=SecretStr(postgres_url), prices=prices)
    row = platform.add(examples.job())
    bedrock.say(THROTTLED, "prose")

    assert runs.run(worker, row.job.job_id, name="worker-1", task_id=None) == "completed"
    worker.close()

    analyst, writer = kept("SELECT agent, status, calls, input_tokens, cost, worker FROM agent_runs ORDER BY id")
    assert (analyst[0], writer[0], analyst[1], analyst[5]) == (
        *("population_analyst", "proposal_writer", "completed", "worker-1"),
    )
    assert [(call["outcome"], call["reason"]) for call in analyst[2]] == [
        *[("failed", "ThrottlingException"), ("answered", "invalid_output"), ("answered", "")]
    ]
    assert [fault["code"] for fault in analyst[2][1]["faults"]] == ["json_missing"]
    assert (analyst[3], analyst[4]) == (200, Decimal("0.001200"))
    assert "prose" not in str(analyst)  # what a model answers is not kept


def test_without_a_database_a_job_is_done_all_the_same(platform: Platform, worker_with):
    worker = worker_with(database_url=SecretStr(f"postgresql://127.0.0.1:{free_port()}/agents"))
    row = platform.add(examples.job())

    assert runs.run(worker, row.job.job_id, name="worker-1", task_id=None) == "completed"
    worker.recorder.close(patience=0.05)


def test_records_wait_for_postgres_and_are_all_written(postgres_server, postgres_url, kept, monkeypatch):
    monkeypatch.setattr(recorder, "PAUSE", 0.01)
    writer, count = Recorder(postgres_url), 150
    postgres_server.stop()
    try:
        for _ in range(count):
            writer.keep(ended())
    finally:
        postgres_server.start()
    writer.close(patience=20)

    assert kept("SELECT count(*) FROM agent_runs") == [(count,)]


def test_records_beyond_the_most_that_may_wait_are_lost_and_said_so(monkeypatch, logged):
    monkeypatch.setattr(recorder, "MOST", 2)
    writer = Recorder(f"postgresql://127.0.0.1:{free_port()}/agents")
    monkeypatch.setattr(writer, "_run", threading.Event().wait)
    for _ in range(3):
        writer.keep(ended())

    assert len(writer._waiting) == 2
    said = "a record of a run is lost: too many wait for Postgres"
    assert [line["message"] for line in logged].count(said) == 1


def test_a_record_that_cannot_be_written_keeps_no_other_from_it(postgres_url, kept, logged):
    writer = Recorder(postgres_url)
    writer.keep(ended(status="unheard of"))
    eventually(lambda: any(line["message"] == "records of runs are not taken" for line in logged))
    writer.keep(ended())
    writer.close()

    assert kept("SELECT status FROM agent_runs") == [("completed",)]


def test_what_is_over_stays_as_it_is(record, kept):
    run = record(status="completed", seconds=1.0)
    late = made(id=run.id)

    record(**vars(late))

    assert kept("SELECT status FROM agent_runs") == [("completed",)]


async def test_runs_are_listed_newest_first_and_filtered(http, as_user, record):
    first, second = record(), record(status="completed", seconds=2.0, agent="proposal_writer")

    async def listed(**params):
        return (await http.get(RUNS, headers=as_user("viewer"), params=params)).json()

    everything = await listed()
    assert [run["id"] for run in everything["items"]] == [str(second.id), str(first.id)]
    assert (everything["items"][0]["seconds"], everything["items"][0]["cost"]) == (2.0, None)
    page = await listed(limit=1)
    assert [run["id"] for run in (await listed(limit=1, cursor=page["next_cursor"]))["items"]] == [str(first.id)]
    for chosen in ({"status": "running"}, {"job_id": str(first.job_id)}, {"agent": "population_analyst"}):
        assert [run["id"] for run in (await listed(**chosen))["items"]] == [str(first.id)]
    assert (await listed(job_id=str(uuid4())))["items"] == []


async def test_somebody_of_a_client_sees_its_runs_alone(http, as_user, record):
    ours, theirs = record(), record()
    headers = as_user("admin", client_id=ours.client_id)

    assert [run["id"] for run in (await http.get(RUNS, headers=headers)).json()["items"]] == [str(ours.id)]
    assert (await http.get(RUNS, headers=headers, params={"job_id": str(theirs.job_id)})).json()["items"] == []
    assert (await http.get(f"{RUNS}/{ours.id}", headers=headers)).status_code == 200
    missed = await http.get(f"{RUNS}/{theirs.id}", headers=headers)
    assert (missed.status_code, missed.json()["code"]) == (404, "agent_run_not_found")


async def test_a_run_has_its_calls_and_for_admins_where_it_failed(http, as_user, record):
    run = made(seconds=3.0)
    try:
        read_fact()
    except NotFound as error:
        run.fail(error)
    run.calls = [Call(model=MODEL, began_at=datetime.now(UTC), outcome="answered", cost=Decimal("0.0003"))]
    record(**vars(run))

    async def seen(**who):
        return (await http.get(f"{RUNS}/{run.id}", headers=as_user(**who))).json()

    told = await seen(role="admin")
    assert (told["error"]["code"], told["error"]["message"]) == ("not_found", "The fact is not there.")
    assert "test_agent_runs.py" in told["error"]["traceback"]
    assert (told["calls"][0]["outcome"], told["calls"][0]["cost"]) == ("answered", "0.000300")
    assert (await seen(role="editor"))["error"]["traceback"] is None
    assert (await seen(role="admin", client_id=run.client_id))["error"]["traceback"] is None


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"{RUNS}/{uuid7()}", 404, "agent_run_not_found"),
        (f"{RUNS}/none", 422, "validation_failed"),
        (f"{RUNS}?cursor=none", 400, "invalid_cursor"),
        (f"{RUNS}?client=01a207cb", 422, "validation_failed"),
        (f"{RUNS}?limit=201", 422, "validation_failed"),
        (f"{RUNS}?status=well", 422, "validation_failed"),
        (f"{RUNS}?status=lost&status=failed", 422, "validation_failed"),
    ],
)
async def test_what_is_not_there_and_not_understood(http, as_user, path, status, code):
    answer = await http.get(path, headers=as_user("viewer"))
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize("path", [RUNS, f"{RUNS}/{uuid7()}"])
async def test_runs_are_for_readers(http, as_user, path):
    assert (await http.get(path)).status_code == 401
    assert (await http.get(path, headers=as_user("service"))).status_code == 403


async def test_without_postgres_503(http, as_user, postgres_server):
    postgres_server.stop()
    try:
        assert (await http.get(RUNS, headers=as_user("viewer"))).status_code == 503
        assert (await http.get("/api/v1/agents", headers=as_user("viewer"))).status_code == 200
    finally:
        postgres_server.start()


async def test_the_sweep_ends_runs_that_lost_their_worker_and_deletes_old_ones(record, postgres_url, kept):
    gone = record(ends_by=datetime.now(UTC) - timedelta(seconds=1))
    runs_on, over = record(), record(status="completed", seconds=1.0)
    old = record(status="completed", seconds=1.0)
    kept("UPDATE agent_runs SET created_at = now() - interval '91 days' WHERE id = %s", old.id)

    async with Database.connect(postgres_url) as database:
        await sweeps.sweep(database, kept=timedelta(days=90))

    found = dict(kept("SELECT id, status FROM agent_runs"))
    assert found == {gone.id: "lost", runs_on.id: "running", over.id: "completed"}
    record(**vars(made(id=gone.id, status="completed", seconds=9.0)))  # it was only late
    assert kept("SELECT status FROM agent_runs WHERE id = %s", gone.id) == [("completed",)]


async def test_a_sweep_without_postgres_is_tried_again(postgres_server, postgres_url, logged, monkeypatch):
    monkeypatch.setattr(sweeps, "INTERVAL", 0.01)
    swept = 0

    async def sweep(database: Database, *, kept: timedelta) -> None:
        nonlocal swept
        swept += 1
        if swept == 3:
            raise KeyboardInterrupt
        raise sweeps.DatabaseUnavailable

    monkeypatch.setattr(sweeps, "sweep", sweep)
    async with Database.connect(postgres_url) as database:
        with pytest.raises(KeyboardInterrupt):
            await sweeps.run(database, kept=timedelta(days=1))
    assert [line["message"] for line in logged].count("runs could not be swept") == 2


async def test_the_length_of_the_queue_is_a_metric(redis_url: str):
    length = sweeps.QUEUE_LENGTH.labels(RunJob.queue)

    async def counted(url: str, *jobs: RunJob) -> float:
        async with CeleryTaskQueue(url) as queue:
            await queue.send(jobs)
            await sweeps.count_messages(queue)
        return length._value.get()

    assert await counted(redis_url, RunJob(job_id=uuid7()), RunJob(job_id=uuid7())) == 2
    assert await counted(f"redis://127.0.0.1:{free_port()}/0") == -1
