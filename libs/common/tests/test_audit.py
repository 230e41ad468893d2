"""What requests leave in the audit log, and that it comes there whatever is killed, emptied, frozen or away."""

import asyncio
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import pytest
from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from loguru import logger
from redis import Redis
from redis.exceptions import RedisError
from uuid_utils.compat import uuid7

from triton_common import trail
from triton_common.api_keys import ApiKeys
from triton_common.app import create_app
from triton_common.audit import Event, recorded, recorded_routes
from triton_common.auth import CurrentPrincipal, Principal, TokenVerifier, require
from triton_common.errors import NotFound
from triton_common.hot import hot
from triton_common.messages import AuditEvent
from triton_common.settings import CommonSettings
from triton_common.spool import ASIDE, Spool
from triton_common.testing import Wire, free_port, recorded_events

CLIENT = UUID("01930000-0000-7000-8000-000000000001")
SET_ASIDE = "what the audit log does not take was set aside in the spool"
KNOWN = UUID("01930000-0000-7000-8000-000000000002")
Read = Annotated[Event, recorded("prospect.read", on="prospect", report="summary")]

router = APIRouter()


@router.get("/prospects/{prospect_id}/batches/{batch}")
async def read(
    event: Read, prospect_id: UUID, batch: str, principal: Annotated[Principal, require("prospects:read")]
) -> str:
    """One prospect is known; a batch may crash."""
    if prospect_id != KNOWN:
        raise NotFound
    if batch == "crash":
        raise RuntimeError
    event.tell(client_id=CLIENT, rows=3, filter=None)
    return batch


@router.get("/prospects", dependencies=[recorded("prospect.listed")])
async def listed(principal: CurrentPrincipal) -> PlainTextResponse:
    """An answer in a form of its own."""
    return PlainTextResponse("prospects")


@router.get("/other")
async def other() -> str:
    """Nothing to record."""
    return "other"


def service(spool, *, redis_url=""):
    settings = CommonSettings(audit_spool=spool, redis_url=redis_url)
    return create_app(settings, name="widget-service", version="1", description="", routers=[router])


def event(number=0):
    return AuditEvent.model_validate(
        {
            "id": uuid7(),
            "at": datetime.now(UTC),
            "source": "test",
            "actor_kind": "user",
            "actor_id": "ada",
            "action": "prospect.read",
            "object_kind": "prospect",
            "object_id": str(number),
            "request_id": "request-1",
        }
    )


class AuthService:
    """Its end of the streams: stores each event once, then confirms it, a repeated one too."""

    def __init__(self, url):
        self.stored = {}
        self.came = 0
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        last = "0-0"
        with Redis.from_url(self._url, decode_responses=True, socket_timeout=1) as redis:
            while not self._over.wait(0.01):
                with suppress(RedisError):
                    end = redis.xrevrange(AuditEvent.queue, count=1)
                    if not end or [*map(int, end[0][0].split("-"))] < [*map(int, last.split("-"))]:
                        last = "0-0"  # emptied
                    found = redis.xrange(AuditEvent.queue, min=f"({last}", count=1000)
                    pipeline = redis.pipeline()
                    for _, fields in found:
                        told = AuditEvent.model_validate_json(fields["event"])
                        self.stored.setdefault(told.id, told)
                        pipeline.xadd(trail.STORED, {"id": str(told.id)}, maxlen=100_000)
                    pipeline.execute()
                    self.came += len(found)
                    last = found[-1][0] if found else last

    def has(self, *ids):
        return set(ids) <= self.stored.keys()

    def stop(self):
        self._over.set()
        self._thread.join()


@contextmanager
def auth_service(url):
    serving = AuthService(url)
    try:
        yield serving
    finally:
        serving.stop()


async def becomes(condition, *, within=20):
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  it sets no Event
            await asyncio.sleep(0.02)


@pytest.fixture
def spool(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def hasty(monkeypatch):
    """Sends again, and looks for dead processes, before a test has lost its patience."""
    monkeypatch.setattr(trail, "RESEND", 0.3)
    monkeypatch.setattr(trail, "LOOK", 0.3)
    monkeypatch.setattr(trail, "SLOWEST", 0.1)


def opened(spool, url=""):
    sender = trail.Trail(spool, source="test", redis_url=url)
    return sender, sender.open()


# ── what is recorded ──


async def test_what_is_read_is_on_disk_when_the_answer_leaves(spool, running, as_user):
    who = as_user("viewer", client_id=CLIENT, sub="ada")
    async with running(service(spool)) as http:
        answer = await http.get(f"/prospects/{KNOWN}/batches/b1", headers=who | {"X-Request-ID": "request-from-test"})
        assert (answer.status_code, answer.json()) == (200, "b1")
        (told,) = recorded_events(spool)
    assert told.model_dump(exclude={"id", "at", "traceparent"}) == {
        "request_id": "request-from-test",
        "source": "widget-service",
        "actor_kind": "user",
        "actor_id": "ada",
        "action": "prospect.read",
        "object_kind": "prospect",
        "object_id": str(KNOWN),
        "client_id": CLIENT,
        "address": "127.0.0.1",
        "outcome": "succeeded",
        "details": {"report": "summary", "batch": "b1", "rows": 3},
    }


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ((f"/prospects/{KNOWN}/batches/b1", "prospects:read"), (200, "succeeded")),
        ((f"/prospects/{CLIENT}/batches/b1", "prospects:read"), (404, "refused")),
        ((f"/prospects/{KNOWN}/batches/b1", "jobs:read"), (403, "refused")),
        ((f"/prospects/{KNOWN}/batches/crash", "prospects:read"), (500, "failed")),
        (("/prospects/no-id/batches/b1", "prospects:read"), (422, None)),
        (("/prospects", "jobs:read"), (200, "succeeded")),
        (("/other", "jobs:read"), (200, None)),
    ],
)
async def test_what_was_refused_and_what_broke_is_recorded_too(spool, running, as_user, asked, answered):
    (path, scope), (status, outcome) = asked, answered
    async with running(service(spool)) as http:
        assert (await http.get(path, headers=as_user("viewer", scopes={scope}))).status_code == status
        told = recorded_events(spool)
    assert [one.outcome for one in told] == ([outcome] if outcome else [])
    assert all(one.object_id in {None, str(KNOWN), str(CLIENT)} for one in told)


async def test_who_has_no_good_token_is_nobody_to_record(spool, running):
    async with running(service(spool)) as http:
        for headers in ({}, {"Authorization": "Bearer x"}):
            assert (await http.get(f"/prospects/{KNOWN}/batches/b", headers=headers)).status_code == 401
        assert recorded_events(spool) == []


async def test_an_id_as_given_is_made_fit_to_be_stored(spool, running, as_user):
    async with running(service(spool)) as http:
        path = f"/prospects/{'%00%0a' + 'x' * 200}/batches/%00"
        assert (await http.get(path, headers=as_user("viewer", scopes=set()))).status_code == 403
        (told,) = recorded_events(spool)
    assert (told.object_id, told.details) == ("x" * 64, {"report": "summary", "batch": ""})


async def test_an_event_by_an_api_key_names_the_key(spool, running):
    key = "trk_" + "k" * 43

    async def ask(_):
        told = {
            "subject": "ada",
            "kind": "api_key",
            "role": "viewer",
            "scopes": ["prospects:read"],
            "token_id": "key-7",
        }
        return Principal.model_validate(told | {"expires_at": 2**33, "token": key})

    async def no_keys():
        return {"keys": []}

    app = service(spool)
    async with running(app) as http:
        app.state.verifier = TokenVerifier(
            no_keys, issuer="x", audience="x", api_keys=ApiKeys(ask, revocations_are_read=lambda: True)
        )
        path = f"/prospects/{KNOWN}/batches/b"
        assert (await http.get(path, headers={"Authorization": f"Bearer {key}"})).status_code == 200
        (told,) = recorded_events(spool)
    assert (told.actor_kind, told.actor_id, told.details["api_key"]) == ("api_key", "ada", "key-7")


def test_the_routes_that_record_can_be_listed():
    assert recorded_routes(service(None).routes) == {
        ("GET", "/prospects/{prospect_id}/batches/{batch}"): "prospect.read",
        ("GET", "/prospects"): "prospect.listed",
    }


def test_a_route_on_the_hot_path_cannot_record():
    hot_router = APIRouter()

    @hot_router.get("/hot", dependencies=[recorded("prospect.read")])
    @hot
    async def quick() -> str:
        return ""

    with pytest.raises(TypeError, match="not for the fast path"):
        create_app(CommonSettings(), name="x", version="1", description="", routers=[hot_router])


def test_outside_dev_a_service_that_records_names_its_spool():
    settings = CommonSettings(environment="prod", redis_url="redis://127.0.0.1:6379/0")
    with pytest.raises(ValueError, match="set TRITON_AUDIT_SPOOL"):
        create_app(settings, name="x", version="1", description="", routers=[router])
    assert create_app(settings, name="x", version="1", description="").state.audit is None


# ── when the disk is away ──


async def ready(http):
    return (await http.get("/health/ready")).json()["dependencies"]["audit"]["status"]


async def test_without_its_spool_nothing_is_told_and_all_is_well_when_it_is_back(spool, running, as_user):
    path, who = f"/prospects/{KNOWN}/batches/b", as_user("viewer")
    async with running(service(spool)) as http:
        assert (await http.get(path, headers=who)).status_code == 200
        assert await ready(http) == "ok"
        shutil.rmtree(spool)
        for _ in range(3):
            answer = await http.get(path, headers=who)
            assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")
        refused = await http.get(f"/prospects/{CLIENT}/batches/b", headers=who)
        assert refused.status_code == 503, "whoever tries ids is not to do so unseen"
        assert (await http.get("/other")).status_code == 200
        assert await ready(http) == "degraded"
        spool.mkdir()
        assert (await http.get(path, headers=who)).status_code == 200
        assert await ready(http) == "ok"
        assert len(recorded_events(spool)) == 1


async def test_a_spool_that_cannot_be_made_ends_the_start(tmp_path, running):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        async with running(service(tmp_path / "file" / "spool")):
            pass


@contextmanager
def process(*arguments):
    script = Path(__file__).with_name("audited_process.py")
    command = [sys.executable, str(script), *map(str, arguments)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def answers(child):
    told = []
    while (line := child.stdout.readline()) not in ("asked\n", ""):
        if not line.startswith("{"):  # what it logs
            told.append(tuple(line.split()))
    assert line, "the process ended"
    return told


def test_a_full_disk_refuses_and_leaves_no_half_line(spool):
    with process(spool, "", 20, 4000) as child:
        told = answers(child)
        assert {status for status, *_ in told} == {"200", "503"}
        assert {code for status, _, *code in told for code in code} == {"audit_unavailable"}
        good = [prospect for status, prospect, *_ in told if status == "200"]
        assert [one.object_id for one in recorded_events(spool)] == good
        child.stdin.write("\n")
        child.stdin.flush()
        ((status, prospect),) = answers(child)
        assert status == "200"
        assert [one.object_id for one in recorded_events(spool)] == [*good, prospect]


# ── the way to auth-service ──


async def test_ten_thousand_events_arrive_and_leave_the_disk(spool, redis_url):
    sender, opening = opened(spool, redis_url)
    events = [event(number) for number in range(10_000)]
    with auth_service(redis_url) as auth:
        async with opening:

            async def user(mine):
                for one in mine:
                    await sender.record(one)

            await asyncio.gather(*(user(events[start::64]) for start in range(64)))
            await becomes(lambda: auth.has(*(one.id for one in events)), within=60)
            await becomes(lambda: not sender.waiting)
        assert [auth.stored[one.id] for one in events] == events
    assert list(spool.iterdir()) == []


async def test_a_process_that_stops_sends_what_it_has(spool, redis_url):
    sender, opening = opened(spool, redis_url)
    told = [event(number) for number in range(300)]
    with auth_service(redis_url) as auth:
        async with opening:
            await sender.record(event())
            await becomes(lambda: not sender.waiting)
            await asyncio.gather(*(sender.record(one) for one in told))
        assert auth.has(*(one.id for one in told))
    assert list(spool.iterdir()) == []


async def test_while_auth_service_is_away_disk_holds_what_memory_does_not(spool, redis_url, monkeypatch, hasty):
    monkeypatch.setattr("triton_common.spool.SEGMENT", 20_000)
    monkeypatch.setattr("triton_common.spool.CHUNK", 10_000)
    monkeypatch.setattr(trail, "WINDOW", 50)
    monkeypatch.setattr(trail, "KEPT", 200)
    sender, opening = opened(spool, redis_url)
    events = [event(number) for number in range(1000)]
    async with opening:
        await asyncio.gather(*(sender.record(one) for one in events))
        with Redis.from_url(redis_url) as redis:
            await becomes(lambda: redis.xlen(AuditEvent.queue) > 200)
            assert sender.oldest > 0
            assert len(sender._window) < 100
            with auth_service(redis_url) as auth:
                await becomes(lambda: not sender.waiting)
                assert auth.has(*(one.id for one in events))
                assert auth.came > len(events), "some came twice, and nobody minded"
            assert redis.xlen(AuditEvent.queue) < 400


async def test_redis_may_be_stopped_and_emptied(spool, redis_server, redis_url, hasty):
    sender, opening = opened(spool, redis_url)
    before, during, after = event(1), event(2), event(3)
    async with opening:
        await sender.record(before)
        with Redis.from_url(redis_url) as redis:
            await becomes(lambda: redis.xlen(AuditEvent.queue))
            redis.flushall()
        await asyncio.to_thread(redis_server.stop)
        try:
            await sender.record(during)
        finally:
            await asyncio.to_thread(redis_server.start)
        await sender.record(after)
        with auth_service(redis_url) as auth:
            await becomes(lambda: auth.has(before.id, during.id, after.id))
            await becomes(lambda: not sender.waiting)


async def test_confirmations_of_another_redis_are_read_from_its_beginning(spool, redis_url, hasty):
    """Its clock may be behind: what it adds may look older than what was read."""
    sender, opening = opened(spool, redis_url)
    with Redis.from_url(redis_url) as redis:
        redis.xadd(trail.STORED, {"id": "x"}, id="99999999999999-0")
        async with opening:
            await sender.record(event(1))
            await becomes(lambda: redis.xlen(AuditEvent.queue))
            redis.flushall()
            with auth_service(redis_url):
                await becomes(lambda: not sender.waiting)


async def test_a_redis_that_is_silent_holds_up_nobody(spool, redis_server, redis_url, hasty):
    wire = Wire(redis_server.port)
    sender, opening = opened(spool, redis_url.replace(str(redis_server.port), str(wire.port)))
    told = [event(number) for number in range(20)]
    try:
        async with opening:
            wire.cut()
            async with asyncio.timeout(20):
                for one in told:
                    await sender.record(one)
            wire.mend()
            with auth_service(redis_url) as auth:
                await becomes(lambda: auth.has(*(one.id for one in told)))
                await becomes(lambda: not sender.waiting)
    finally:
        wire.close()


async def test_a_killed_process_loses_nothing(spool, redis_url, hasty):
    with process(spool, f"redis://127.0.0.1:{free_port()}/0", 30) as child:
        answered = [prospect for status, prospect, *_ in answers(child) if status == "200"]
        assert len(answered) == 30
        child.kill()
    sender, opening = opened(spool, redis_url)
    with auth_service(redis_url) as auth:
        async with opening:
            await becomes(lambda: {one.object_id for one in auth.stored.values()} == set(answered))
            await becomes(lambda: not sender.waiting)
    assert list(spool.iterdir()) == []


async def test_two_processes_share_a_folder_and_the_living_inherits(spool, redis_url, hasty):
    sender, opening = opened(spool, redis_url)
    with auth_service(redis_url) as auth, process(spool, f"redis://127.0.0.1:{free_port()}/0", 5) as child:
        answered = {prospect for _, prospect, *_ in answers(child)}
        async with opening:
            mine = event(1)
            await sender.record(mine)
            await becomes(lambda: auth.has(mine.id))
            await sender._on_disk(sender._spool.adopt)
            assert set(auth.stored) == {mine.id}, "what a living process sends itself is let alone"
            child.kill()
            await becomes(lambda: {one.object_id for one in auth.stored.values()} >= answered)


async def test_what_is_torn_is_dropped_and_what_is_no_event_is_set_aside(spool, redis_url):
    whole = [event(1), event(2)]
    dead = spool / f"{uuid7()}.spool"
    dead.mkdir(parents=True)
    text = "".join(f"{one.model_dump_json()}\n" for one in whole)
    (dead / f"{uuid7()}.ndjson").write_text(f"{text}no event\n{text[:50]}")
    (dead / f"{uuid7()}.ndjson").touch()
    (spool / "lost+found").mkdir()
    logged = []
    sink = logger.add(lambda message: logged.append(message.record["message"]))
    sender, opening = opened(spool, redis_url)
    with auth_service(redis_url) as auth:
        async with opening:
            await becomes(lambda: auth.has(*(one.id for one in whole)))
            await becomes(lambda: not sender.waiting)
    logger.remove(sink)
    assert SET_ASIDE in logged
    assert "a torn line of the spool was dropped: its request was not answered" in logged
    assert {path.name for path in spool.iterdir()} == {"lost+found", ASIDE}
    assert (spool / ASIDE).read_text() == "no event\n"


async def test_an_event_that_is_refused_is_set_aside_and_sent_no_more(spool, redis_url, hasty):
    sender, opening = opened(spool, redis_url)
    good, bad = event(1), event(2)
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        async with opening:
            await sender.record(good)
            await sender.record(bad)
            await becomes(lambda: redis.xlen(AuditEvent.queue) > 4)  # they come again
            for _ in range(2):  # so its refusal does
                redis.xadd(trail.STORED, {"refused": str(bad.id)})
            redis.xadd(trail.STORED, {"refused": str(uuid7())})  # another process's
            await becomes(lambda: sender.waiting == 1)
            redis.xadd(trail.STORED, {"id": str(good.id)})
            await becomes(lambda: not sender.waiting)
    assert [path.name for path in spool.iterdir()] == [ASIDE]
    assert (spool / ASIDE).read_text() == f"{bad.model_dump_json()}\n"


def test_a_segment_that_somebody_removed_is_told(spool):
    logged = []
    sink = logger.add(lambda message: logged.append(message.record["message"]))
    lost = Spool(spool)
    lost.open()
    lost.append([b"one\n", b"two\n"])
    for file in spool.rglob("*.ndjson"):
        file.unlink()
    assert (lost.read(), lost.waiting) == ([], 0)
    lost.close()
    logger.remove(sink)
    assert "a segment of the spool is gone" in logged


async def test_events_that_wait_for_long_are_told_and_counted(spool, running, as_user, monkeypatch):
    monkeypatch.setattr("triton_common.app.LONG_WAIT", 0.0)
    app = service(spool, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    async with running(app) as http:
        assert await ready(http) == "ok"
        await http.get(f"/prospects/{KNOWN}/batches/b", headers=as_user("viewer"))
        await becomes(lambda: app.state.audit.oldest > 0)
        answer = await http.get("/health/ready")
        assert (answer.status_code, answer.json()["dependencies"]["audit"]["status"]) == (200, "degraded")
        metrics = (await http.get("/metrics")).text
        assert 'triton_audit_events_waiting{service="widget-service"} 1.0' in metrics
        assert 'triton_audit_oldest_waiting_age_seconds{service="widget-service"} ' in metrics


async def test_a_queue_that_is_full_and_a_disk_that_hangs_refuse(spool, monkeypatch):
    sender, opening = opened(spool)
    async with opening:
        going = threading.Event()
        hanging = asyncio.create_task(sender._on_disk(going.wait))
        monkeypatch.setattr(trail, "PATIENCE", 0.05)
        with pytest.raises(trail.AuditUnavailable):
            await sender.record(event())
        monkeypatch.setattr(trail, "QUEUE", 0)
        with pytest.raises(trail.AuditUnavailable):
            await sender.record(event())
        going.set()
        await hanging
