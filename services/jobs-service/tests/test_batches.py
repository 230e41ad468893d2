"""Calls that go together in one statement: each is answered for itself."""

import asyncio
import json

import psycopg
import pytest

from jobs_service import moves, statements
from jobs_service.statements import batched, rows
from triton_common.db import DatabaseUnavailable


@pytest.fixture
def batches(monkeypatch):
    """How many calls each run of a statement had."""
    sizes, real = [], statements.rows

    async def counted(database, statement, values):
        if "calls" in values:
            sizes.append(len(json.loads(values["calls"])))
        return await real(database, statement, values)

    monkeypatch.setattr(statements, "rows", counted)
    return sizes


async def test_what_comes_while_a_statement_runs_goes_together_in_the_next(api, batches):
    order = await api.order()
    batches.clear()
    answers = await asyncio.gather(*(api.post("/api/v1/jobs", order) for _ in range(150)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 150
    assert sum(batches) == 150
    assert len(batches) < 50


async def test_one_call_that_cannot_be_stored_hurts_no_other(api):
    order = await api.order()
    jobs = [await api.made("/api/v1/jobs", order) for _ in range(8)]
    await asyncio.gather(*(api.claim(job) for job in jobs))
    bad = api.document | {"title": "a\x00b"}
    answers = await asyncio.gather(
        *(api.finish(job, document=bad if number == 3 else api.document) for number, job in enumerate(jobs))
    )
    assert [answer.status_code for answer in answers] == [200] * 3 + [422] + [200] * 4
    assert answers[3].json()["code"] == "text_not_storable"
    assert (await api.read(jobs[3]))["status"] == "processing"
    assert (await api.finish(jobs[3])).status_code == 200


async def test_reads_of_one_job_share_an_answer_and_moves_of_one_job_do_not(api, app, batches):
    job = await api.job()
    batches.clear()
    answers = await asyncio.gather(*(api.read(job) for _ in range(50)))
    assert [answer["id"] for answer in answers] == [job["id"]] * 50
    assert max(batches) == 1
    assert len(batches) < 20
    claims = await asyncio.gather(*(api.claim(job) for _ in range(5)))
    assert sorted(answer.status_code for answer in claims) == [200, 409, 409, 409, 409]


async def test_a_call_whose_request_is_gone_leaves_the_others(api, app):
    jobs = [await api.job() for _ in range(3)]
    calls = [
        asyncio.create_task(batched(app.state.database, moves.CANCEL, {"id": job["id"], "see": None})) for job in jobs
    ]
    await asyncio.sleep(0)
    calls[2].cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert [answer["status"] for answer in done[:2]] == ["cancelled"] * 2
    assert isinstance(done[2], asyncio.CancelledError)


async def test_without_a_database_every_call_hears_of_it(impatient, api, app, postgres_server):
    job = await api.job()
    postgres_server.stop()
    try:
        calls = (batched(app.state.database, moves.CANCEL, {"id": job["id"], "see": None}) for _ in range(3))
        answers = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        postgres_server.start()
    assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 3
    async with asyncio.timeout(20):
        while (await api.http.get("/health/ready")).status_code != 200:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.05)


async def test_every_statement_says_what_it_does_to_postgres(app, api):
    """One that Postgres cannot plan is found here, not in the middle of a night."""
    await api.job()
    for name, statement in vars(moves).items():
        if name.isupper() and not name.startswith("_") and isinstance(statement, str) and "%(calls)s" in statement:
            assert await rows(app.state.database, f"EXPLAIN {statement}", {"calls": "[]"}), name


async def test_a_job_is_found_by_its_id_however_many_wait_and_whatever_postgres_knows_of_them(app, api):
    await api.job()
    api.sql(
        """INSERT INTO generation_jobs (id, job_type, client_id, prospect_id, value_proposition_id, created_by,
             request_id, max_attempts)
           SELECT uuidv7(), job_type, client_id, prospect_id, value_proposition_id, created_by, '', 3
           FROM generation_jobs, generate_series(1, 2000)"""
    )
    for statement in (moves.CLAIM, moves.PROGRESS, moves.COMPLETE, moves.CANCEL, moves.READ):
        plan = await rows(app.state.database, f"EXPLAIN {statement}", {"calls": "[]"})
        text = "\n".join(line["QUERY PLAN"] for line in plan)
        found = [line for line in text.splitlines() if "on generation_jobs" in line and "Update" not in line]
        assert found, text
        assert all("pk_generation_jobs" in line for line in found), text


async def test_a_locked_job_holds_up_no_other(api, postgres_url):
    jobs = [await api.job() for _ in range(4)]
    with psycopg.connect(postgres_url) as somebody:
        somebody.execute("SELECT FROM generation_jobs WHERE id = %s FOR UPDATE", [jobs[1]["id"]])
        answers = await asyncio.gather(*(api.claim(job) for job in jobs))
    assert [answer.status_code for answer in answers] == [200, 503, 200, 200]
    assert (await api.claim(jobs[1])).status_code == 200


async def test_a_database_that_falls_silent_is_given_up(api, app, monkeypatch):
    """As behind a connection that is half open, which nothing else ends."""
    monkeypatch.setattr(statements, "SILENCE", 0.3)
    async with asyncio.timeout(30):
        with pytest.raises(DatabaseUnavailable):
            await rows(app.state.database, "SELECT pg_sleep(60)", {})
    assert (await api.job())["status"] == "pending"
