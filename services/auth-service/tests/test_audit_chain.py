"""Each event of the audit log is sealed once, and whatever is done to the log afterwards shows."""

import asyncio
import sys

import psycopg
import pytest
from loguru import logger
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from auth_service import chain
from auth_service.chain import Head, Sealer, verify
from auth_service.models import AuditEvent
from triton_common.db import Database, DatabaseUnavailable

KEY = b"k" * 32


@pytest.fixture
async def database(postgres_url):
    async with Database.connect(postgres_url) as connected:
        yield connected


@pytest.fixture
def events(postgres_url):
    """Puts in so many events, as another service's would be."""

    def add(count, **values):
        columns = {
            "at": "2026-11-23T01:00:00.123456+02:00",
            "source": "jobs-service",
            "actor_kind": "user",
            "actor_id": "ada",
            "action": "prospect.read",
            "object_kind": "prospect",
            "request_id": "request-1",
            "outcome": "succeeded",
            "details": Jsonb({"b": [1.50, 'é\u2028"'], "a": None}),
        } | values
        names = ", ".join(["id", *columns])
        with psycopg.connect(postgres_url) as connection, connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO audit_events ({names}) VALUES ({', '.join(['%s'] * (len(columns) + 1))})",
                [(uuid7(), *columns.values()) for _ in range(count)],
            )

    return add


@pytest.fixture
def tampering(postgres_url):
    """Does as a superuser what the trigger and the constraints forbid."""

    def do(*statements):
        with psycopg.connect(postgres_url) as connection:
            connection.execute("ALTER TABLE audit_events DROP CONSTRAINT IF EXISTS ck_audit_events_sealed_whole")
            connection.execute("ALTER TABLE audit_events DISABLE TRIGGER ALL")
            connection.execute("ALTER TABLE audit_events DROP CONSTRAINT IF EXISTS uq_audit_events_seq")
            for statement in statements:
                assert connection.execute(statement.encode()).rowcount
            connection.execute("ALTER TABLE audit_events ENABLE TRIGGER ALL")

    return do


@pytest.fixture
def short_pages(monkeypatch):
    """Events are verified five at once."""
    monkeypatch.setattr(chain, "PAGE", 5)


async def report_of(database, *, since_seq=None, limit=1_000_000, expected=None):
    return await verify(database, KEY, since_seq=since_seq, limit=limit, expected=expected)


async def test_events_are_numbered_in_the_order_they_came_and_verified(database, events, rows, monkeypatch):
    monkeypatch.setattr(chain, "BATCH", 4)
    monkeypatch.setattr(chain, "PAGE", 3)
    events(6)
    events(5, actor_id=None, object_kind=None, details=Jsonb({}))
    assert await Sealer(database, KEY).seal() == 11
    assert await Sealer(database, KEY).seal() == 0
    in_order = rows("SELECT seq FROM audit_events ORDER BY recorded_at, id")
    assert [seq for (seq,) in in_order] == list(range(1, 12))
    report = await report_of(database)
    assert report.valid
    assert (report.events, report.head_seq, report.next_seq, report.unsealed) == (11, 11, None, 0)
    assert report.head_hash == rows("SELECT encode(hash, 'hex') FROM audit_events WHERE seq = 11")[0][0]


async def test_an_empty_log_is_whole(database):
    report = await report_of(database)
    assert report.valid
    assert (report.events, report.head_seq, report.head_hash) == (0, 0, None)


async def test_events_that_wait_for_their_seal_are_counted(database, events):
    events(2)
    await Sealer(database, KEY).seal()
    events(3)
    report = await report_of(database)
    assert (report.valid, report.events, report.unsealed) == (True, 2, 3)


def test_the_hash_covers_every_column():
    covered = set(chain.AS_TEXT.replace(",", " ").replace("(", " ").replace(")", " ").split())
    assert set(AuditEvent.model_fields) - covered == {"seq", "hash"}


async def test_the_hash_does_not_depend_on_how_a_connection_shows_times(database, events, postgres_url, rows):
    events(3)
    await Sealer(database, KEY).seal()
    name = postgres_url.rpartition("/")[2]
    rows(f"ALTER DATABASE {name} SET timezone = 'Asia/Kathmandu'")
    rows(f"ALTER DATABASE {name} SET datestyle = 'German'")
    rows(f"ALTER DATABASE {name} SET extra_float_digits = -5")
    async with Database.connect(postgres_url) as elsewhere:
        assert (await report_of(elsewhere)).valid
        events(2)
        assert await Sealer(elsewhere, KEY).seal() == 2
    assert (await report_of(database)).valid


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "gen_random_uuid()"),
        ("at", "at + interval '1 microsecond'"),
        ("at", "'infinity'"),
        ("recorded_at", "'-infinity'"),
        ("source", "'analytics-service'"),
        ("actor_kind", "'service'"),
        ("actor_id", "'eve'"),
        ("actor_id", "NULL"),
        ("action", "'prospect.seen'"),
        ("object_kind", "''"),
        ("object_id", "'1'"),
        ("client_id", "gen_random_uuid()"),
        ("address", "'10.0.0.1'"),
        ("request_id", "'request-2'"),
        ("outcome", "'refused'"),
        ("details", "'{}'"),
        ("details", """'{"a": null, "b": [1.500, "é\u2028\\\""]}'"""),
        ("hash", "sha256('x')"),
        ("hash", "NULL"),
    ],
)
async def test_a_changed_event_shows(database, events, tampering, column, value):
    events(9)
    await Sealer(database, KEY).seal()
    tampering(f"UPDATE audit_events SET {column} = {value} WHERE seq = 5")
    report = await report_of(database)
    assert not report.valid
    assert (report.events, report.head_seq) == (4, 4)
    assert (report.first_bad.seq, report.first_bad.reason) == (5, "changed")
    assert report.first_bad.id
    assert report.next_seq is None


async def test_a_removed_event_shows(database, events, tampering):
    events(9)
    await Sealer(database, KEY).seal()
    tampering("DELETE FROM audit_events WHERE seq = 5")
    fault = (await report_of(database)).first_bad
    assert (fault.seq, fault.id, fault.reason) == (5, None, "missing")


async def test_a_removed_event_whose_place_others_took_shows(database, events, tampering):
    events(9)
    await Sealer(database, KEY).seal()
    tampering("DELETE FROM audit_events WHERE seq = 5", "UPDATE audit_events SET seq = seq - 1 WHERE seq > 5")
    fault = (await report_of(database)).first_bad
    assert (fault.seq, fault.reason) == (5, "changed")


async def test_the_first_events_removed_show(database, events, tampering):
    events(9)
    await Sealer(database, KEY).seal()
    tampering("DELETE FROM audit_events WHERE seq < 4")
    fault = (await report_of(database)).first_bad
    assert (fault.seq, fault.reason) == (1, "missing")


@pytest.mark.parametrize(("seq", "reason"), [(5, "inserted"), (0, "inserted"), (-3, "inserted"), (10, "changed")])
@pytest.mark.usefixtures("short_pages")  # the copy is the next page's first
async def test_an_inserted_event_shows(database, events, tampering, seq, reason):
    events(9)
    await Sealer(database, KEY).seal()
    columns = "at, recorded_at, source, actor_kind, actor_id, action, request_id, outcome, details, hash"
    tampering(
        f"INSERT INTO audit_events (id, seq, {columns})"
        f" SELECT 'ffffffff-ffff-7fff-8fff-ffffffffffff', {seq}, {columns} FROM audit_events WHERE seq = 5"
    )
    fault = (await report_of(database)).first_bad
    assert (fault.seq, fault.reason, str(fault.id)) == (seq, reason, "ffffffff-ffff-7fff-8fff-ffffffffffff")


async def test_swapped_events_show(database, events, tampering):
    events(9)
    await Sealer(database, KEY).seal()
    tampering(
        "UPDATE audit_events AS one SET seq = 9 - one.seq, hash = other.hash FROM audit_events AS other"
        " WHERE one.seq IN (4, 5) AND other.seq = 9 - one.seq"
    )
    fault = (await report_of(database)).first_bad
    assert (fault.seq, fault.reason) == (4, "changed")


async def test_a_cut_end_shows_against_a_head(database, events, tampering):
    events(9)
    sealer = Sealer(database, KEY)
    await sealer.seal()
    report = await report_of(database)
    head = Head(report.head_seq, bytes.fromhex(report.head_hash))
    assert (await report_of(database, expected=head)).valid
    tampering("DELETE FROM audit_events WHERE seq > 6")
    assert (await report_of(database)).valid
    fault = (await report_of(database, expected=head)).first_bad
    assert (fault.seq, fault.reason) == (9, "cut")
    events(5)
    await sealer.seal()
    assert (await report_of(database)).valid
    fault = (await report_of(database, expected=head)).first_bad
    assert (fault.seq, fault.reason) == (9, "other_head")
    tampering("DELETE FROM audit_events WHERE seq = 9")
    fault = (await report_of(database, expected=head)).first_bad
    assert (fault.seq, fault.reason) == (9, "missing")


@pytest.fixture
def logged():
    """Answers the fields of each line of a message that was logged: those of the line, whatever else an app that ran
    before has put on all lines."""
    seen = []
    sink = logger.add(lambda line: seen.append(line.record), format="{message}")
    yield lambda message: [record["extra"] for record in seen if record["message"] == message]
    logger.remove(sink)


async def test_the_head_is_logged_at_the_start_and_each_hour(database, events, rows, logged, monkeypatch):
    events(9)
    sealer = Sealer(database, KEY)
    await sealer.seal()
    await sealer.seal()
    head = (9, rows("SELECT encode(hash, 'hex') FROM audit_events WHERE seq = 9")[0][0])
    assert [(line["seq"], line["hash"]) for line in logged("head of the audit log")] == [head]
    monkeypatch.setattr(chain, "HEAD_IS_LOGGED", 0)
    await sealer.seal()
    assert [(line["seq"], line["hash"]) for line in logged("head of the audit log")] == [head, head]


async def test_the_sealer_says_when_the_end_was_cut_or_written_anew(database, events, tampering, logged):
    events(9)
    sealer = Sealer(database, KEY)
    await sealer.seal()
    await sealer.seal()
    tampering("UPDATE audit_events SET seq = NULL, hash = NULL, actor_id = 'eve' WHERE seq = 9")
    await sealer.seal()
    await sealer.seal()
    assert len(logged("the audit log was changed: the event sealed last is another one, or gone")) == 1


async def test_a_seal_that_was_rolled_back_is_no_alarm(database, events, postgres_url, logged):
    events(3)
    sealer = Sealer(database, KEY)
    await sealer.seal()
    events(3)
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE audit_events IN SHARE MODE")
        with pytest.raises(DatabaseUnavailable):
            await sealer.seal()
    assert await sealer.seal() == 3
    assert not logged("the audit log was changed: the event sealed last is another one, or gone")
    assert (await report_of(database)).events == 6


async def test_what_waits_for_its_seal_is_read_by_an_index_alone(database, events, rows):
    events(3000)
    rows("ANALYZE audit_events")
    after = ("-infinity", "00000000-0000-0000-0000-000000000000", 100)
    async with database.pool.connection() as connection:
        found = await connection.execute(f"EXPLAIN {chain.UNSEALED}", after)
        plan = str(await found.fetchall())
    assert "Index Scan using ix_audit_events_unsealed" in plan
    assert "Sort" not in plan


async def test_another_key_makes_another_chain(database, events):
    events(2)
    await Sealer(database, b"another key").seal()
    assert (await report_of(database)).first_bad.reason == "changed"


async def test_a_long_chain_is_verified_in_parts(database, events, tampering, monkeypatch):
    monkeypatch.setattr(chain, "PAGE", 4)
    events(20)
    await Sealer(database, KEY).seal()
    since_seq, expected, seen = None, None, []
    while since_seq is not None or not seen:
        report = await report_of(database, since_seq=since_seq, limit=10, expected=expected)
        assert report.valid
        seen.append(report.events)
        since_seq = report.next_seq
        expected = Head(report.head_seq, bytes.fromhex(report.head_hash))
    assert sum(seen) == 20
    assert expected.seq == 20
    tampering("DELETE FROM audit_events WHERE seq = 10")
    fault = (await report_of(database, since_seq=11)).first_bad
    assert (fault.seq, fault.reason) == (10, "missing")


SEALS_UNTIL_400 = """
import asyncio, sys
from auth_service.chain import Sealer, verify
from triton_common.db import Database

async def main():
    async with Database.connect(sys.argv[1]) as database:
        sealer = Sealer(database, b"k" * 32)
        while (await verify(database, b"k" * 32, since_seq=None, limit=1000, expected=None)).head_seq < 400:
            await sealer.seal()

asyncio.run(main())
"""


async def test_two_processes_that_seal_at_once_make_one_chain(database, events, postgres_url):
    command = [sys.executable, "-c", SEALS_UNTIL_400, postgres_url]
    processes = [await asyncio.create_subprocess_exec(*command) for _ in "ab"]
    for _ in range(40):
        await asyncio.to_thread(events, 10)
    async with asyncio.timeout(60):
        assert [await process.wait() for process in processes] == [0, 0]
    report = await report_of(database)
    assert (report.valid, report.events, report.unsealed) == (True, 400, 0)
