"""A job's events: the history over HTTP, and streams through a real server, which alone shows what arrives when."""

import asyncio
import json
import os
import resource
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from joserfc.jwk import KeySet

from jobs_service.events import stream as events_of
from jobs_service.main import build
from jobs_service.routes import jobs as job_routes
from jobs_service.settings import Settings
from triton_common.api_keys import ApiKeys
from triton_common.auth import ApiKeyInvalid, KeysUnavailable, TokenVerifier
from triton_common.revocations import Kind, Revocation
from triton_common.testing import AUDIENCE, ISSUER, KEY, free_port

STREAM = {"Accept": "text/event-stream"}
FIELDS = {"seq", "at", "kind", "status", "progress", "stage", "message"}


# --- history


async def test_history_is_oldest_first_in_pages(api):
    job = await api.job()
    await api.claim(job)
    await api.progress(job, progress=30, message="reading")
    await api.finish(job)
    path = f"/api/v1/jobs/{job['id']}/events"
    everything = (await api.get(path)).json()
    assert [event["seq"] for event in everything["items"]] == [1, 2, 3, 4]
    assert set(everything["items"][0]) == FIELDS
    third = everything["items"][2]
    assert (third["kind"], third["status"], third["progress"]) == ("progress", "processing", 30)
    assert (third["stage"], third["message"]) == ("collecting", "reading")
    page = (await api.get(path, params={"limit": 3})).json()
    rest = (await api.get(path, params={"limit": 3, "cursor": page["next_cursor"]})).json()
    assert page["items"] + rest["items"] == everything["items"]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize("cursor", ["x", "WzEsICJ4Il0", "WzEsICI5OTk5OTk5OTk5Il0", "WzEsICItMSJd"])
async def test_a_cursor_of_nobodys_is_a_bad_request(api, cursor):
    job = await api.job()
    answer = await api.get(f"/api/v1/jobs/{job['id']}/events", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def test_events_of_a_job_that_is_not_there(api, nobody):
    for headers in ({}, STREAM):
        answer = await api.get(f"/api/v1/jobs/{nobody}/events", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


# --- streams


@pytest.fixture
def settings(postgres_url):
    """Two connections, for any number of streams."""
    return Settings(
        database_url=postgres_url,
        task_queue_url="memory://",
        sweep_interval=timedelta(hours=1),
        stream_heartbeat=timedelta(milliseconds=100),
        pool_size=2,
        log_level="ERROR",
    )


@pytest.fixture
def app(settings):
    return build(settings)


@pytest.fixture
def served(settings, serving):
    """A second app on the same database, in a real server: a stream follows what another process does."""
    other = build(settings)
    with serving(other) as url:
        yield other, url


@asynccontextmanager
async def streaming(url, job, user, **headers):
    """Blocks of a stream, as lists of lines, as they arrive."""
    async with (
        httpx2.AsyncClient(base_url=url, timeout=10) as http,
        http.stream("GET", f"/api/v1/jobs/{job['id']}/events", headers=user | STREAM | headers) as answer,
    ):

        async def blocks():
            lines = []
            async for line in answer.aiter_lines():
                if line:
                    lines.append(line)
                elif lines:
                    yield lines
                    lines = []

        yield answer, blocks()


async def events(blocks, count=None):
    """The next events of a stream: all up to its end, or as many as asked for."""
    found = []
    async for lines in blocks:
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        if fields:
            event = json.loads(fields["data"])
            assert fields["id"] == str(event["seq"])
            found.append(event)
            if len(found) == count:
                break
    return found


async def test_a_stream_tells_what_happens_when_it_happens_and_ends_with_the_job(api, served):
    job = await api.job()
    async with streaming(served[1], job, api.admin) as (answer, blocks):
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        assert [event["kind"] for event in await events(blocks, 1)] == ["submitted"]
        await api.claim(job)
        assert [event["kind"] for event in await events(blocks, 1)] == ["claimed"]
        await api.progress(job, progress=30, message="reading")
        [event] = await events(blocks, 1)
        assert (event["progress"], event["stage"], event["message"]) == (30, "collecting", "reading")
        assert set(event) == FIELDS
        await api.finish(job)
        assert [event["kind"] for event in await events(blocks)] == ["completed"], "and the stream is over"


async def test_a_stream_resumes_after_the_last_event_id_without_a_gap(api, served):
    job = await api.job()
    await api.claim(job)
    async with streaming(served[1], job, api.admin) as (_, blocks):
        last = (await events(blocks, 2))[-1]["seq"]
    for progress in (10, 20, 30):
        await api.progress(job, progress=progress)
    async with streaming(served[1], job, api.admin, **{"Last-Event-ID": str(last)}) as (_, blocks):
        assert [event["seq"] for event in await events(blocks, 2)] == [3, 4]
        await api.finish(job)
        assert [event["seq"] for event in await events(blocks)] == [5, 6]


async def test_a_stream_of_a_job_that_is_over(api, served):
    job = await api.job()
    await api.post(f"/api/v1/jobs/{job['id']}/cancel")
    async with streaming(served[1], job, api.admin) as (_, blocks):
        assert [event["kind"] for event in await events(blocks)] == ["submitted", "cancelled"]
    for last in ("2", "9999"):
        async with streaming(served[1], job, api.admin, **{"Last-Event-ID": last}) as (answer, _):
            assert answer.status_code == 204, "which tells a browser to stop"


async def test_a_last_event_id_ahead_of_the_job_misses_nothing(api, served):
    job = await api.job()
    async with streaming(served[1], job, api.admin, **{"Last-Event-ID": "9999"}) as (_, blocks):
        await api.claim(job)
        assert [event["kind"] for event in await events(blocks, 1)] == ["claimed"]


@pytest.mark.parametrize("last", ["", "x", "-1", "1.0", "2147483648", "9" * 5000])
async def test_a_last_event_id_that_is_none_begins_at_the_start(api, served, last):
    job = await api.job()
    await api.post(f"/api/v1/jobs/{job['id']}/cancel")
    async with streaming(served[1], job, api.admin, **{"Last-Event-ID": last}) as (_, blocks):
        assert [event["kind"] for event in await events(blocks)] == ["submitted", "cancelled"]


@pytest.mark.parametrize("last", ["", "x", "2"])
async def test_a_last_event_id_does_not_matter_to_the_history(api, last):
    job = await api.job()
    answer = await api.get(f"/api/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": last})
    assert [event["kind"] for event in answer.json()["items"]] == ["submitted"]


async def test_a_quiet_stream_has_a_heartbeat(api, served):
    job = await api.job()
    async with streaming(served[1], job, api.admin) as (_, blocks):
        beats = 0
        async for lines in blocks:
            beats += lines[0].startswith(": ping")
            if beats == 2:
                break


async def test_a_stream_ends_when_its_token_is_revoked_and_no_other_does(api, served):
    job = await api.job()
    theirs, others = (api.as_user("viewer", sid=session) for session in ("a-session", "another"))
    async with streaming(served[1], job, theirs) as (_, blocks), streaming(served[1], job, others) as (_, going_on):
        assert [event["kind"] for event in await events(blocks, 1)] == ["submitted"]
        served[0].state.verifier.revoke([Revocation(Kind.SESSION, "a-session", int(time.time()) + 600)])
        assert [lines async for lines in blocks if not lines[0].startswith(": ping")] == [[": the token is revoked"]]
        await api.post(f"/api/v1/jobs/{job['id']}/cancel")
        assert [event["kind"] for event in await events(going_on)] == ["submitted", "cancelled"]
    async with streaming(served[1], job, theirs) as (answer, _):
        assert answer.status_code == 401


async def _no_keys():
    raise KeysUnavailable


async def test_a_stream_goes_on_while_nobody_can_say_whether_its_api_key_is_good(api, served):
    """A revoked key is asked about at auth-service, which may be away for a while."""
    job = await api.job()
    key = f"trk_{'k' * 43}"
    owner = await served[0].state.verifier.verify(api.admin["Authorization"].removeprefix("Bearer "))
    answers = [owner.model_copy(update={"token": key}), KeysUnavailable(), KeysUnavailable(), ApiKeyInvalid()]

    async def ask(_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    served[0].state.verifier = TokenVerifier(
        _no_keys, issuer=ISSUER, audience=AUDIENCE, api_keys=ApiKeys(ask, revocations_are_read=lambda: True)
    )
    async with streaming(served[1], job, {"Authorization": f"Bearer {key}"}) as (_, blocks):
        assert [event["kind"] for event in await events(blocks, 1)] == ["submitted"]
        served[0].state.verifier.revoke([Revocation(Kind.TOKEN, owner.token_id, int(time.time()) + 600)])
        assert [lines async for lines in blocks if not lines[0].startswith(": ping")] == [[": the token is revoked"]]
    assert not answers


async def test_streams_hold_no_connection(api, served):
    job = await api.job()

    async def follow():
        async with streaming(served[1], job, api.admin) as (_, blocks):
            started.release()
            return [event["kind"] for event in await events(blocks)]

    started = asyncio.Semaphore(0)
    streams = [asyncio.create_task(follow()) for _ in range(30)]
    for _ in streams:
        await started.acquire()
    async with httpx2.AsyncClient(base_url=served[1]) as http:
        for _ in range(10):
            assert (await http.get(f"/api/v1/jobs/{job['id']}", headers=api.admin)).status_code == 200
            assert (await http.get("/api/v1/jobs", headers=api.admin)).status_code == 200
    await api.claim(job)
    await api.finish(job)
    assert await asyncio.gather(*streams) == [["submitted", "claimed", "completed"]] * 30
    assert served[0].state.follower._watches == set()


async def test_streams_close_when_the_service_stops(api, served):
    app, url = served
    job = await api.job()
    async with streaming(url, job, api.admin) as (_, blocks):
        await events(blocks, 1)
        app.state.draining.set()
        async with asyncio.timeout(5):
            assert await events(blocks) == []


async def test_a_stream_outlives_a_query_that_fails(api, served, monkeypatch):
    job = await api.job()
    async with streaming(served[1], job, api.admin) as (_, blocks):
        await events(blocks, 1)
        api.sql("ALTER TABLE job_events RENAME TO elsewhere")
        beats = 0
        async for lines in blocks:
            beats += lines[0].startswith(": ping")
            if beats == 5:  # half a second: two turns and more
                break
    api.sql("ALTER TABLE elsewhere RENAME TO job_events")
    async with streaming(served[1], job, api.admin, **{"Last-Event-ID": "1"}) as (_, blocks):
        await api.claim(job)
        assert [event["kind"] for event in await events(blocks, 1)] == ["claimed"]


@pytest.mark.parametrize(
    ("accept", "streams"),
    [
        ("text/event-stream", True),
        ("TEXT/Event-Stream; charset=utf-8", True),
        ("text/event-stream, application/json", True),
        ("application/json;q=0.5, text/event-stream;q=0.9", True),
        ("*/*, text/event-stream", True),
        ("application/json, text/event-stream", False),
        ("text/event-stream;q=0", False),
        ("text/event-stream;q=0.4, application/json;q=0.5", False),
        ("text/event-stream;q=x", False),
        ("*/*", False),
        ("text/html", False),
        ("", False),
    ],
)
async def test_accept_chooses_between_history_and_stream(api, accept, streams):
    job = await api.job()
    await api.post(f"/api/v1/jobs/{job['id']}/cancel")
    answer = await api.get(f"/api/v1/jobs/{job['id']}/events", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream" if streams else "application/json")


async def test_a_stream_tells_what_came_before_a_users_retry_and_goes_on(api, served):
    job = await api.job()
    await api.claim(job)
    await api.finish(job, "failed")
    async with streaming(served[1], job, api.admin) as (_, blocks):
        assert [event["kind"] for event in await events(blocks)] == ["submitted", "claimed", "failed"], "and ended"
    await api.post(f"/api/v1/jobs/{job['id']}/retry")
    for last, before in ((0, ["submitted", "claimed", "failed"]), (3, [])):
        async with streaming(served[1], job, api.admin, **{"Last-Event-ID": str(last)}) as (_, blocks):
            assert [event["kind"] for event in await events(blocks, len(before) + 1)] == [*before, "retried"]
    async with streaming(served[1], job, api.admin, **{"Last-Event-ID": "4"}) as (_, blocks):
        await api.post(f"/api/v1/jobs/{job['id']}/cancel")
        assert [event["kind"] for event in await events(blocks)] == ["cancelled"]


async def test_a_stream_ends_with_its_token(api, served):
    job = await api.job()
    user = api.as_user("viewer", exp=int(time.time()) + 2)
    async with asyncio.timeout(10), streaming(served[1], job, user) as (answer, blocks):
        assert answer.status_code == 200
        assert [event["kind"] for event in await events(blocks)] == ["submitted"]
    assert served[0].state.follower._watches == set()


async def test_a_stream_of_another_clients_job_does_not_exist(api, served):
    job = await api.job()
    user = api.bound(await api.client("Other"))
    async with streaming(served[1], job, user) as (answer, _):
        assert answer.status_code == 404


async def test_a_long_history_comes_whole_and_in_order(api, served):
    job = await api.job()
    many_events(api, job, 450)
    async with streaming(served[1], job, api.admin) as (_, blocks):
        assert [event["seq"] for event in await events(blocks, 451)] == list(range(1, 452))


def many_events(api, job, count, message=""):
    api.sql(
        """WITH moved AS (
          UPDATE generation_jobs SET event_seq = 1 + %(count)s WHERE id = %(id)s RETURNING id
        )
        INSERT INTO job_events (job_id, seq, kind, status, progress, message)
        SELECT id, 1 + n, 'progress', 'pending', 0, %(message)s FROM moved, generate_series(1, %(count)s) AS n""",
        id=job["id"],
        count=count,
        message=message,
    )


async def test_a_reader_that_takes_nothing_keeps_little_in_memory_and_is_cut(api, served, opened, monkeypatch):
    monkeypatch.setattr(job_routes, "READER_TIMEOUT", 0.5)
    job = await api.job()
    many_events(api, job, 2000, message="x" * 20_000)  # 40 MB: more than the sockets hold
    follower = served[0].state.follower
    await opened(served[1], job, api.admin)
    most = 0
    async with asyncio.timeout(30):
        while not follower._watches:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.01)
        while follower._watches:
            most = max(most, *(watch.new.qsize() for watch in list(follower._watches)), 0)
            assert all(watch.after < 2001 for watch in list(follower._watches))
            await asyncio.sleep(0.01)
    assert 0 < most <= 101


async def test_a_reader_that_goes_away_leaves_nothing(api, served, opened):
    job = await api.job()
    for _ in range(5):
        reader, writer = await opened(served[1], job, api.admin)
        await reader.readuntil(b"submitted")
        writer.transport.abort()
    async with asyncio.timeout(10):
        while served[0].state.follower._watches:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.01)


# --- a thousand, in a process of their own


@pytest.fixture
async def opened():
    """Opens a stream over a plain socket."""
    writers = []

    async def open_one(url, job, user):
        address = httpx2.URL(url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writers.append(writer)
        head = {"Host": "test", "Accept": "text/event-stream"} | user
        lines = [f"GET /api/v1/jobs/{job['id']}/events HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await writer.drain()
        return reader, writer

    yield open_one
    for writer in writers:
        writer.transport.abort()


@pytest.fixture
async def process(postgres_url, serving):
    """jobs-service as it is run, with two connections of each kind; it trusts the test key. Its URL and the process."""
    keys = FastAPI()

    @keys.get("/api/v1/auth/.well-known/jwks.json")
    async def jwks():
        return KeySet([KEY]).as_dict()

    port = free_port()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))  # of what is started below too
    with serving(keys) as auth_url:
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "--factory", "jobs_service.main:build", "--host", "127.0.0.1"),
            *("--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log"),
            *("--timeout-graceful-shutdown", "10", "--log-level", "warning"),
            env=os.environ
            | {
                "DATABASE_URL": postgres_url,
                "TASK_QUEUE_URL": "memory://",
                "TRITON_AUTH_URL": auth_url,
                "TRITON_LOG_LEVEL": "WARNING",
                "JOBS_POOL_SIZE": "2",
                "JOBS_SWEEP_INTERVAL": "PT1H",
            },
        )
        url = f"http://127.0.0.1:{port}"
        try:
            async with asyncio.timeout(30), httpx2.AsyncClient(base_url=url) as http:
                while True:
                    try:
                        assert (await http.get("/health/live")).status_code == 200
                        break
                    except httpx2.TransportError:
                        assert running.returncode is None, "it did not start"
                        await asyncio.sleep(0.05)
            yield url, running
        finally:
            with suppress(ProcessLookupError):
                running.kill()
            await running.wait()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def seqs(reader, found, *, until):
    """Collect the numbers of the stream's events, until one is there or the stream is over."""
    while until not in found:
        line = await reader.readline()
        if not line:
            return
        if line.startswith(b"id: "):
            found.append(int(line[4:]))


async def test_a_thousand_streams_in_one_process(api, process, opened):
    url, running = process
    jobs = [await api.job() for _ in range(4)]
    gate = asyncio.Semaphore(50)

    async def follow(job):
        async with gate:
            return job, await opened(url, job, api.admin), []

    streams = await asyncio.gather(*(follow(jobs[n % 4]) for n in range(1000)))

    async def all_at(seq):
        async with asyncio.timeout(60):
            await asyncio.gather(*(seqs(reader, found, until=seq) for _, (reader, _), found in streams))

    await all_at(1)
    for job in jobs:
        await api.claim(job)
        await api.progress(job, progress=20)
    await all_at(3)
    assert all(found == [1, 2, 3] for _, _, found in streams)
    [held] = api.sql(
        """SELECT count(*) AS all, count(*) FILTER (WHERE state <> 'idle' AND pid <> pg_backend_pid()
          AND now() - state_change > interval '1 second') AS busy
        FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"""
    )
    assert held["all"] <= 9, "two of each kind in each of two processes, and this one"
    assert held["busy"] == 0
    await api.finish(jobs[0])
    async with asyncio.timeout(60):
        for job, (reader, _), found in streams:
            if job is jobs[0]:
                await seqs(reader, found, until=None)
                assert found == [1, 2, 3, 4], "and the stream is over"
    alive = [(job, stream) for job, stream, _ in streams if job is not jobs[0]]
    running.send_signal(signal.SIGTERM)  # streams end at once, so that their clients go elsewhere
    async with asyncio.timeout(30):
        for _, (reader, _) in alive:
            rest = await reader.read()
            assert b"event-stream" not in rest
    async with asyncio.timeout(20):
        assert await running.wait() == -signal.SIGTERM, "as uvicorn ends when it was asked to"


async def test_an_event_that_cannot_be_read_ends_its_own_streams_alone(api, app):
    """As one of a newer release, while both run."""
    strange, other = await api.job(), await api.job()
    api.sql("UPDATE job_events SET stage = 'dreaming' WHERE job_id = %(id)s", id=strange["id"])
    async with asyncio.timeout(10):
        follower, later = app.state.follower, time.time() + 60
        asked = {"after": 0, "until": later, "allowed": None, "every": 60}
        assert [event async for event in events_of(follower, UUID(strange["id"]), **asked)] == []
        await api.post(f"/api/v1/jobs/{other['id']}/cancel")
        assert len([event async for event in events_of(follower, UUID(other["id"]), **asked)]) == 2
