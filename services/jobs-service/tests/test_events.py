"""A job's events: the history over HTTP, and streams through a real server, which alone shows what arrives when."""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx2
import pytest

from jobs_service.main import build
from jobs_service.settings import Settings

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


@pytest.mark.parametrize("last", ["x", "-1", "2147483648"])
async def test_a_last_event_id_that_is_none_is_refused(api, last):
    job = await api.job()
    answer = await api.get(f"/api/v1/jobs/{job['id']}/events", headers=STREAM | {"Last-Event-ID": last})
    assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "header.Last-Event-ID")


async def test_a_quiet_stream_has_a_heartbeat(api, served):
    job = await api.job()
    async with streaming(served[1], job, api.admin) as (_, blocks):
        beats = 0
        async for lines in blocks:
            beats += lines[0].startswith(": ping")
            if beats == 2:
                break


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
