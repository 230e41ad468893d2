"""What happens to jobs when nobody asks: leases end, workers are lost, time limits pass."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from prometheus_client import REGISTRY

from jobs_service import jobs, sweeps
from jobs_service.backlog import Backlog
from jobs_service.statements import connected
from triton_common.db import Database

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
async def sweep(app, api):
    """One turn of the sweep, with the first lease long over."""

    async def turn(not_before=LONG_AGO):
        await sweeps.sweep(app.state.database, app.state.backlog, not_before=not_before)

    return turn


async def test_a_silent_workers_job_goes_to_another_attempt(api, sweep):
    job = await api.job()
    await api.claim(job)
    await api.progress(job, progress=60)
    await sweep()
    assert (await api.read(job))["status"] == "processing", "its lease is not over"
    api.let_lease_end(job)
    await sweep()
    known = await api.read(job)
    assert (known["status"], known["attempt"], known["progress"]) == ("pending", 1, 0)
    for late in (await api.progress(job), await api.finish(job), await api.finish(job, "released")):
        assert (late.status_code, late.json()["code"]) == (409, "stale_attempt")
    api.make_due(job)
    assert (await api.claim(job)).json()["attempt"] == 2
    assert (await api.finish(job)).json()["code"] == "stale_attempt"
    assert (await api.finish(job, attempt=2)).json()["status"] == "completed"
    assert await api.kinds(job) == ["submitted", "claimed", "progress", "lease_lost", "claimed", "completed"]


async def test_a_job_whose_worker_is_lost_every_time_fails(api, sweep):
    job = await api.job()
    for attempt in (1, 2, 3):
        api.make_due(job)
        assert (await api.claim(job)).json()["attempt"] == attempt
        api.let_lease_end(job)
        await sweep()
    known = await api.read(job)
    assert (known["status"], known["error"]["code"], known["error"]["attempt"]) == ("failed", "worker_lost", 3)
    assert (await api.claim(job)).status_code == 409
    await sweep()
    assert await api.read(job) == known


async def test_jobs_of_a_dead_worker_begin_again_apart(api, sweep):
    """One of them may have killed it."""
    order = await api.order()
    for job in [await api.made("/api/v1/jobs", order) for _ in range(6)]:
        await api.claim(job)
        api.let_lease_end(job)
    await sweep()
    waits = [
        row["seconds"]
        for row in api.sql("SELECT extract(epoch FROM run_after - now()) AS seconds FROM generation_jobs")
    ]
    assert len(set(waits)) == 6
    assert all(-1 < wait <= 2 for wait in waits)


async def test_no_lease_ends_in_the_first_lease_after_a_start(api, app, sweep):
    job = await api.job()
    await api.claim(job)
    api.let_lease_end(job)
    await sweep(await jobs.now(app.state.database) + timedelta(seconds=30))
    assert (await api.read(job))["status"] == "processing"
    assert (await api.progress(job, progress=50)).json() == {"cancelled": False}


async def test_two_sweeps_at_once_count_one_attempt(api, app, sweep):
    made = [await api.job() for _ in range(5)]
    for job in made:
        await api.claim(job)
        api.let_lease_end(job)
    await asyncio.gather(sweep(), sweep(), sweep())
    for job in made:
        assert await api.kinds(job) == ["submitted", "claimed", "lease_lost"]


@pytest.mark.parametrize("passed", ["cancel_requested_at = now() - interval '9.1 seconds'", "lease_expires_at = now()"])
async def test_a_cancelled_jobs_silent_worker_is_not_waited_for(api, sweep, passed):
    job = await api.job()
    await api.claim(job)
    await api.post(f"/api/v1/jobs/{job['id']}/cancel")
    await sweep()
    assert (await api.read(job))["status"] == "processing"
    api.sql(f"UPDATE generation_jobs SET {passed}")
    await sweep(datetime.now(UTC) + timedelta(hours=1))  # in the first lease too
    assert (await api.read(job))["status"] == "cancelled"
    assert (await api.progress(job)).json() == {"cancelled": True}
    assert (await api.finish(job)).status_code == 409
    assert (await api.read(job))["status"] == "cancelled"


def multiply(api, times):
    """So many pending jobs more, like the one there is."""
    api.sql(
        """INSERT INTO generation_jobs (id, job_type, client_id, prospect_id, value_proposition_id, created_by,
             request_id, max_attempts)
           SELECT uuidv7(), job_type, client_id, prospect_id, value_proposition_id, created_by, '', 3
           FROM generation_jobs, generate_series(1, %(times)s)""",
        times=times,
    )


async def test_a_crash_of_all_workers_is_mended_in_one_sweep(api, sweep):
    await api.job()
    multiply(api, 600)
    api.sql("UPDATE generation_jobs SET status = 'processing', attempt = 1, lease_expires_at = now()")
    await sweep()
    assert api.sql("SELECT status, count(*) AS jobs FROM generation_jobs GROUP BY status") == [
        {"status": "pending", "jobs": 601}
    ]


async def test_a_job_over_its_time_limit_fails_and_its_worker_hears_of_it(api, sweep):
    job = await api.made("/api/v1/jobs", await api.order(time_limit_seconds=60))
    assert (job["time_limit_seconds"], job["deadline_at"]) == (60, None), "it counts from the first start"
    await api.claim(job)
    known = await api.read(job)
    started, deadline = (datetime.fromisoformat(known[key]) for key in ("started_at", "deadline_at"))
    assert deadline - started == timedelta(seconds=60)
    await sweep()
    assert (await api.read(job))["status"] == "processing"
    api.sql("UPDATE generation_jobs SET deadline_at = now()")
    await sweep()
    known = await api.read(job)
    assert (known["status"], known["error"]["code"], known["error"]["attempt"]) == ("failed", "timed_out", 1)
    for late in (await api.progress(job), await api.finish(job)):
        assert (late.status_code, late.json()["code"]) == (409, "stale_attempt")


async def test_a_time_limit_holds_between_two_attempts_and_not_before_the_first(api, sweep):
    waiting, between = await api.job(), await api.job()
    await api.claim(between)
    await api.finish(between, "failed", retryable=True)
    api.sql("UPDATE generation_jobs SET deadline_at = now() WHERE deadline_at IS NOT NULL")
    await sweep()
    assert [(await api.read(job))["status"] for job in (waiting, between)] == ["pending", "failed"]


async def test_a_cancelled_job_over_its_time_limit_ends_cancelled(api, sweep):
    job = await api.job()
    await api.claim(job)
    await api.post(f"/api/v1/jobs/{job['id']}/cancel")
    api.sql("UPDATE generation_jobs SET deadline_at = now()")
    await sweep()
    assert (await api.read(job))["status"] == "processing"
    assert (await api.progress(job)).json() == {"cancelled": True}


async def test_metrics_tell_how_long_the_oldest_job_waits(api, sweep):
    await sweep()
    assert REGISTRY.get_sample_value("triton_oldest_pending_job_age_seconds") == 0
    await api.job()
    api.sql("UPDATE generation_jobs SET run_after = now() - interval '90 seconds'")
    await sweep()
    assert REGISTRY.get_sample_value("triton_jobs_pending") == 1
    assert REGISTRY.get_sample_value("triton_oldest_pending_job_age_seconds") == pytest.approx(90, abs=5)


async def test_keys_older_than_a_day_are_purged(api, sweep):
    order = await api.order()
    for key in ("old", "young"):
        await api.post("/api/v1/jobs", order, headers={"Idempotency-Key": key})
    api.sql("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'old'")
    await sweep()
    assert [row["key"] for row in api.sql("SELECT key FROM idempotency_keys")] == ["young"]


async def test_a_sweep_purges_a_bounded_number_of_keys_and_waits_for_none(postgres_url):
    with psycopg.connect(postgres_url, autocommit=True) as here, psycopg.connect(postgres_url) as another_process:
        here.execute("""
            INSERT INTO idempotency_keys (caller, key, fingerprint, created_at)
            SELECT 'c', n::text, 'f', now() - interval '2 days' - n * interval '1 s' FROM generate_series(1, 1500) AS n
            """)
        another_process.execute("SELECT FROM idempotency_keys ORDER BY created_at LIMIT 100 FOR UPDATE")
        async with Database.connect(postgres_url, pool_size=2) as database:
            for left in (500, 100):
                await sweeps.sweep(database, Backlog(limit=1), not_before=LONG_AGO)
                assert here.execute("SELECT count(*) FROM idempotency_keys").fetchone() == (left,)
            another_process.rollback()
            await sweeps.sweep(database, Backlog(limit=1), not_before=LONG_AGO)
        assert here.execute("SELECT count(*) FROM idempotency_keys").fetchone() == (0,)


# --- the loop around it


class Turns(Backlog):
    """Lets a test wait for a sweep's end."""

    def __init__(self):
        super().__init__(limit=1)
        self.taken = asyncio.Event()

    def counted(self, _):
        self.taken.set()


async def test_the_loop_survives_a_database_that_is_away(postgres_url, monkeypatch):
    starts, real_now = [], jobs.now
    troubles = [OSError("a bug"), None, None]

    async def now(database):
        starts.append(1)
        if trouble := troubles.pop(0) if troubles else None:
            raise trouble
        if len(starts) == 2:
            async with connected(database) as connection:  # what a dead server looks like
                await connection.close()
                await connection.execute("SELECT 1")
        return await real_now(database)

    monkeypatch.setattr(jobs, "now", now)
    backlog = Turns()
    async with Database.connect(postgres_url) as database:
        loop = asyncio.create_task(
            sweeps.run(
                database,
                backlog,
                interval=timedelta(milliseconds=1),
                lease=timedelta(seconds=30),
            )
        )
        async with asyncio.timeout(10):
            await backlog.taken.wait()
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
    assert len(starts) >= 3, "once more after each failure"


async def test_after_a_pause_workers_get_a_lease_to_report(api, app, monkeypatch):
    """The process, or Postgres, was frozen for longer than a lease: nobody could report."""
    job = await api.job()
    await api.claim(job)
    api.let_lease_end(job)
    times, turns = [timedelta(0), timedelta(seconds=1), timedelta(minutes=2), timedelta(minutes=2, seconds=1)], []

    async def now(_):
        if len(turns) == len(times):
            raise asyncio.CancelledError
        return LONG_AGO + times[len(turns)]

    async def sweep(*_, not_before):
        turns.append(not_before - LONG_AGO)

    monkeypatch.setattr(jobs, "now", now)
    monkeypatch.setattr(sweeps, "sweep", sweep)
    with pytest.raises(asyncio.CancelledError):
        await sweeps.run(
            app.state.database,
            app.state.backlog,
            interval=timedelta(milliseconds=1),
            lease=timedelta(seconds=30),
        )
    assert [turn.total_seconds() for turn in turns] == [30, 30, 150, 150]
