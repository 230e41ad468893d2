"""Postgres stopped and started, and the migrations that build its tables."""

import asyncio
import os
import subprocess
import sys

import psycopg
import pytest
from loguru import logger
from psycopg.errors import CheckViolation
from pydantic import SecretStr

from jobs_service import statements
from jobs_service.main import build
from triton_common.testing import free_port


async def test_the_service_recovers_when_postgres_restarts(impatient, api, postgres_server):
    job, other = await api.job(), await api.job()
    await asyncio.gather(*(api.read(job) for _ in range(20)))  # so that the pool holds several connections
    postgres_server.stop()
    try:
        reading = [f"/api/v1/jobs/{job['id']}", "/api/v1/jobs", f"/api/v1/jobs/{job['id']}"]
        for answer in [await api.get(path) for path in reading]:
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            assert answer.headers["Retry-After"] == "1"
        assert (await api.http.get("/health/ready")).status_code == 503
        assert (await api.http.get("/health/live")).status_code == 200
    finally:
        postgres_server.start()
    async with asyncio.timeout(20):
        while (await api.http.get("/health/ready")).status_code != 200:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.05)
        while (await api.claim(job)).status_code == 503:  # noqa: ASYNC110  same
            await asyncio.sleep(0.05)
    assert (await api.finish(job)).json()["status"] == "completed"
    assert (await api.read(other))["status"] == "pending"


async def test_a_quick_restart_is_not_noticed_by_what_may_be_repeated(api, postgres_server):
    job = await api.job()
    order = await api.order()
    await asyncio.gather(*(api.read(job) for _ in range(20)))
    postgres_server.stop()
    postgres_server.start()
    assert (await api.get(f"/api/v1/jobs/{job['id']}")).status_code == 200
    assert (await api.post("/api/v1/jobs", order)).status_code == 202
    assert (await api.claim(job)).status_code == 200
    assert (await api.finish(job)).status_code == 200


async def test_a_submit_that_was_stored_but_not_answered_is_answered_by_its_repetition(api, monkeypatch):
    """The connection dies after the commit: the same statement runs again, and finds its own row."""
    order, real_fetch, calls = await api.order(), statements.fetch, []

    async def fetch(connection, statement, values):
        found = await real_fetch(connection, statement, values)
        calls.append(1)
        if len(calls) == 1:
            await connection.close()
            raise psycopg.OperationalError("the server closed the connection unexpectedly")
        return found

    monkeypatch.setattr(statements, "fetch", fetch)
    answer = await api.post("/api/v1/jobs", order)
    assert answer.status_code == 202
    assert [row["id"] for row in api.sql("SELECT id::text FROM generation_jobs")] == [answer.json()["id"]]
    assert await api.kinds(answer.json()) == ["submitted"]


async def test_a_postgres_that_is_too_old_is_named_by_log_and_readiness(app, running, monkeypatch):
    monkeypatch.setattr(statements, "OLDEST_POSTGRES", 99)
    logged = []
    sink = logger.add(lambda message: logged.append(message.record["message"]), level="WARNING")
    try:
        async with running(app) as http:
            async with asyncio.timeout(10):
                while "this Postgres is too old for jobs-service" not in logged:  # noqa: ASYNC110  nothing tells of it
                    await asyncio.sleep(0.02)
            ready = await http.get("/health/ready")
    finally:
        logger.remove(sink)
    assert ready.status_code == 503
    known = ready.json()["dependencies"]["postgres"]
    assert (known["status"], known["message"]) == ("down", "jobs-service needs Postgres 99 or newer; this is 18.")


async def test_the_service_starts_without_postgres(settings, running):
    nowhere = SecretStr(f"postgresql://triton@127.0.0.1:{free_port()}/jobs")
    async with running(build(settings.model_copy(update={"database_url": nowhere}))) as http:
        assert (await http.get("/health/live")).status_code == 200
        ready = await http.get("/health/ready")
    assert (ready.status_code, ready.json()["dependencies"]["postgres"]["status"]) == (503, "down")


async def test_a_start_without_database_url_ends_with_its_name(settings, running):
    app = build(settings.model_copy(update={"database_url": SecretStr("")}))
    with pytest.raises(ValueError, match="DATABASE_URL must begin with"):
        async with running(app):
            pass


@pytest.mark.parametrize(
    "change",
    [
        "status = 'done'",
        "status = 'completed'",
        "status = 'processing'",
        "finished_at = now()",
        "lease_expires_at = now()",
        "progress = 101",
        "attempt = 4",
        "status = 'failed', finished_at = now()",
        "cancel_requested_at = now()",
    ],
)
async def test_the_database_refuses_a_row_that_makes_no_sense(api, change):
    await api.job()
    with pytest.raises(CheckViolation):
        api.sql(f"UPDATE generation_jobs SET {change}")


def test_migrations_go_up_down_and_up_and_agree_with_the_models(postgres_url, member_folder):
    def alembic(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=member_folder,
            env=os.environ | {"DATABASE_URL": postgres_url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def tables():
        with psycopg.connect(postgres_url) as connection:
            found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            return {name for (name,) in found} - {"alembic_version"}

    built = tables()
    assert len(built) == 10
    alembic("downgrade", "base")
    assert tables() == set()
    alembic("upgrade", "head")
    assert tables() == built
    assert "No new upgrade operations detected" in alembic("check")
