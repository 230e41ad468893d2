"""What other services send reaches the audit log once, whatever happens to Redis, Postgres or a process meanwhile."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from loguru import logger
from redis import Redis
from uuid_utils.compat import uuid7

from auth_service import intake
from auth_service.intake import GROUP, REFUSED, STORED, STREAM, Intake
from auth_service.main import build
from triton_common.db import Database
from triton_common.messages import AuditEvent
from triton_common.revocations import redis_client
from triton_common.testing import eventually


@pytest.fixture
def redis(redis_url):
    with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def taking(postgres_url, redis_url, monkeypatch):
    """`async with taking():` a process's intake runs."""
    monkeypatch.setattr(intake, "PAUSE", 0.05)
    monkeypatch.setattr(intake, "LOOK_EVERY", 0.2)
    monkeypatch.setattr(intake, "LEFT_FOR", 200)

    @asynccontextmanager
    async def run():
        async with Database.connect(postgres_url) as database, redis_client(redis_url) as client:
            task = asyncio.create_task(Intake(database, client).run())
            try:
                yield
            finally:
                while not task.done():
                    task.cancel()
                    await asyncio.wait({task}, timeout=0.2)

    return run


@pytest.fixture
def lines():
    """What is logged."""
    seen = []
    sink = logger.add(seen.append, format="{message} {extra}\n{exception}")
    yield seen
    logger.remove(sink)


def event(**values):
    defaults = {"id": uuid7(), "at": datetime.now(UTC), "source": "jobs-service", "actor_kind": "user", "actor_id": "1"}
    return AuditEvent(**(defaults | {"action": "prospect.read"} | values))


def send(redis, *events):
    for one in events:
        redis.xadd(STREAM, {"event": one.model_dump_json()})


def confirmed(redis):
    return [fields["id"] for _, fields in redis.xrange(STORED)]


async def becomes(condition):
    await asyncio.to_thread(eventually, condition)


async def test_events_are_stored_confirmed_and_let_go(taking, redis, rows):
    sent = event(
        request_id="request-1",
        traceparent="00-1-2-3",
        object_kind="prospect",
        object_id="7",
        client_id=uuid7(),
        address="10.0.0.1",
        outcome="refused",
        details={"route": "/api/v1/prospects/{prospect_id}", "deep": [{"é": 1.5}]},
    )
    async with taking():
        send(redis, sent)
        await becomes(lambda: confirmed(redis) == [str(sent.id)])
        await becomes(lambda: redis.xlen(STREAM) == 0)
    [stored] = rows("SELECT to_jsonb(e) - 'recorded_at' - 'seq' - 'hash' FROM audit_events AS e")
    at = datetime.fromisoformat(stored[0].pop("at"))
    assert at == sent.at
    assert stored[0] == sent.model_dump(mode="json", exclude={"at", "traceparent"})


async def test_one_that_is_sent_twice_is_stored_once_and_confirmed_each_time(taking, redis, rows):
    sent = event()
    async with taking():
        send(redis, sent, event(), sent)
        await becomes(lambda: confirmed(redis).count(str(sent.id)) == 2)
        send(redis, sent.model_copy(update={"action": "prospect.deleted"}))
        await becomes(lambda: confirmed(redis).count(str(sent.id)) == 3)
    assert rows("SELECT count(*), count(*) FILTER (WHERE action = 'prospect.read') FROM audit_events") == [(2, 2)]


POISON = [
    {"event": "marked-9f2c"},
    {"event": '{"id": "marked-9f2c"}'},
    {"other": "marked-9f2c"},
    {"event": '["marked-9f2c"]'},
    {"event": event(details={"x": 1}).model_dump_json().replace('"x":1', '"marked-9f2c":' + "1" * 5000)},
    {"event": event().model_dump_json().replace("prospect.read", "marked-9f2c\\ud800")},
    {"event": event().model_dump_json().replace('"user"', '"marked-9f2c"')},
    {"event": "[" * 100_000 + "marked-9f2c"},
]


async def test_what_is_no_event_is_moved_aside_and_keeps_nobody(taking, redis, rows, lines):
    first, last = event(), event()
    async with taking():
        send(redis, first)
        for fields in POISON:
            redis.xadd(STREAM, fields)
        send(redis, last)
        await becomes(lambda: confirmed(redis) == [str(first.id), str(last.id)])
        await becomes(lambda: redis.xlen(STREAM) == 0)
    assert [fields for _, fields in redis.xrange(REFUSED)] == POISON
    assert rows("SELECT count(*) FROM audit_events") == [(2,)]
    assert len([line for line in lines if "moved aside" in line]) == len(POISON)
    assert "marked-9f2c" not in "".join(lines)


async def test_nothing_that_a_request_holds_keeps_its_event_from_being_stored(taking, redis, rows):
    strange = [
        event(object_id="a\x00b", details={"a\x00": ["\x00", {"b": "\x00"}]}),
        event(object_id="é" * 100_000, action="a" * 5000, request_id="r" * 5000, actor_id="x" * 5000),
        event(at=datetime(1, 1, 1, tzinfo=UTC)),
        event(at=datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        event(at=datetime(2026, 1, 1)),  # noqa: DTZ001  as a sender might
        event(object_id="'; DROP TABLE audit_events; --"),
        event(details={"x": float("inf"), "y": 10**4000}),
    ]
    async with taking():
        send(redis, *strange)
        await becomes(lambda: len(confirmed(redis)) == len(strange))
    assert rows("SELECT count(*) FROM audit_events") == [(len(strange),)]
    assert rows("SELECT object_id, details FROM audit_events WHERE id = %s", strange[0].id) == [
        ("a\ufffdb", {"a\ufffd": ["\ufffd", {"b": "\ufffd"}]})
    ]
    assert redis.xlen(REFUSED) == 0


async def test_an_emptied_redis_gets_its_group_again(taking, redis, rows):
    async with taking():
        send(redis, event())
        await becomes(lambda: len(confirmed(redis)) == 1)
        redis.flushall()
        send(redis, event())
        await becomes(lambda: len(confirmed(redis)) == 1)
    assert rows("SELECT count(*) FROM audit_events") == [(2,)]


async def test_events_sent_before_any_auth_service_ran_are_stored(taking, redis, rows):
    send(redis, *[event() for _ in range(1200)])
    async with taking():
        await becomes(lambda: len(confirmed(redis)) == 1200)
    assert rows("SELECT count(*) FROM audit_events") == [(1200,)]
    assert redis.xinfo_groups(STREAM)[0]["pending"] == 0


async def test_a_redis_that_was_away_is_heard_again(taking, redis_server, redis, rows, lines):
    async with taking():
        redis_server.stop()
        try:
            await becomes(lambda: any("not taken" in line for line in lines))
        finally:
            redis_server.start()
        send(redis, event())
        await becomes(lambda: len(confirmed(redis)) == 1)
        await becomes(lambda: any("taken again" in line for line in lines))
    assert len([line for line in lines if "not taken" in line]) == 1


async def test_without_postgres_nothing_is_let_go(taking, redis, postgres_server, rows, lines):
    async with taking():
        postgres_server.stop()
        try:
            send(redis, event(), event())
            await becomes(lambda: any("not taken" in line for line in lines))
            assert redis.xlen(STREAM) == 2
            assert confirmed(redis) == []
        finally:
            postgres_server.start()
        await becomes(lambda: len(confirmed(redis)) == 2)
    assert rows("SELECT count(*) FROM audit_events") == [(2,)]


TAKES_AND_HANGS = """
import asyncio, sys
from auth_service import intake
from triton_common.db import Database
from triton_common.revocations import redis_client

async def hang(self, events):
    print("took", len(events), flush=True)
    await asyncio.Event().wait()

async def main():
    intake.Intake._store = hang
    async with Database.connect(sys.argv[1]) as database, redis_client(sys.argv[2]) as redis:
        await intake.Intake(database, redis).run()

asyncio.run(main())
"""


async def test_what_a_killed_process_took_another_stores(taking, redis, redis_url, postgres_url, rows):
    send(redis, *[event() for _ in range(5)])
    command = [sys.executable, "-c", TAKES_AND_HANGS, postgres_url, redis_url]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert await process.stdout.readline() == b"took 5\n"
    process.kill()
    await process.wait()
    async with taking():
        send(redis, event())
        await becomes(lambda: len(confirmed(redis)) == 6)
    assert rows("SELECT count(*) FROM audit_events") == [(6,)]
    assert redis.xinfo_groups(STREAM)[0]["pending"] == 0


async def test_the_names_of_dead_processes_are_forgotten(taking, redis, monkeypatch):
    monkeypatch.setattr(intake, "GONE_AFTER", 300)
    async with taking():
        send(redis, event())
        await becomes(lambda: confirmed(redis))
    old = redis.xinfo_consumers(STREAM, GROUP)[0]["name"]
    async with taking():
        await becomes(lambda: old not in [one["name"] for one in redis.xinfo_consumers(STREAM, GROUP)])


async def test_a_fault_of_one_turn_does_not_end_the_taking(taking, redis, monkeypatch, lines):
    real, failed = intake._event, []

    def fails_once(fields):
        if not failed:
            failed.append(1)
            raise RuntimeError
        return real(fields)

    monkeypatch.setattr(intake, "_event", fails_once)
    async with taking():
        send(redis, event())
        await becomes(lambda: len(confirmed(redis)) == 1)
    assert any("could not be taken" in line for line in lines)


async def test_the_app_takes_events_and_seals_them(make_settings, starting, redis, redis_url, rows):
    async with starting(build(make_settings(redis_url=redis_url))) as http:
        send(redis, event(object_id="of the app"))
        await becomes(lambda: rows("SELECT seq FROM audit_events WHERE object_id = 'of the app' AND seq > 0"))
        login = await http.post("/login", json={"email": "ada@triton.local", "password": "a long enough password"})
        bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
        found = (await http.get("/audit", params={"object_id": "of the app"}, headers=bearer)).json()["items"]
        assert [one["source"] for one in found] == ["jobs-service"]
        assert json.loads((await http.get("/audit/verify", headers=bearer)).text)["valid"]
