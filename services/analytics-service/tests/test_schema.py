"""The tables: one process at a time makes them, on a cluster as replicated and distributed ones, with retention."""

import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from importlib.resources import files
from uuid import UUID

import pytest

from analytics_service import schema
from analytics_service.columns import MOST, MOST_COUNTED, Number
from analytics_service.engine import Engine
from triton_common.testing import eventually

TEXTS = {file.name: file.read_text() for file in (files("analytics_service") / "migrations").iterdir()}
CLIENT = UUID("019b0000-0000-7000-8000-000000000001")


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_on_a_cluster_tables_are_replicated_and_distributed(name: str):
    for statement in schema.statements(TEXTS[name], cluster="triton"):
        assert " ON CLUSTER triton" in statement
        if "Distributed" in statement:
            table = statement.split()[5]
            key = "id" if table == "ingest_batches" else "member_id"
            assert f"AS {table}_local ENGINE = Distributed(triton, analytics, {table}_local, cityHash64({key}))" in (
                statement
            )
        elif "CREATE TABLE" in statement:
            assert "ENGINE = Replicated" in statement
            assert "_local ON CLUSTER triton" in statement
            assert "'/clickhouse/tables/{shard}/analytics/" in statement
    alone = schema.statements(TEXTS[name])
    assert not any("CLUSTER" in statement for statement in alone)
    made = [statement for statement in alone if "CREATE TABLE" in statement]
    across = schema.statements(TEXTS[name], cluster="triton")
    assert len([statement for statement in across if "CREATE TABLE" in statement]) == 2 * len(made)


def test_the_batches_keep_their_version_on_a_cluster():
    made = schema.statements(TEXTS["0001_batches.sql"], cluster="c")[0]
    place = "'/clickhouse/tables/{shard}/analytics/ingest_batches_local', '{replica}'"
    assert f"ReplicatedReplacingMergeTree({place}, version)" in made


def test_columns_change_on_both_tables_and_what_is_stored_on_the_nodes():
    assert schema.statements("ALTER TABLE claims ADD COLUMN x UInt8", cluster="c") == [
        "ALTER TABLE claims_local ON CLUSTER c ADD COLUMN x UInt8",
        "ALTER TABLE claims ON CLUSTER c ADD COLUMN x UInt8",
    ]
    assert schema.statements("ALTER TABLE claims MODIFY TTL x", cluster="c") == [
        "ALTER TABLE claims_local ON CLUSTER c MODIFY TTL x"
    ]
    with pytest.raises(ValueError, match="alone"):
        schema.statements("DROP TABLE claims", cluster="c")


@pytest.fixture
async def retained(app, http, prospect, monkeypatch) -> AsyncIterator[str]:
    """A table like claims, with two rows of the prospect's, that alone is retained."""
    header = "member_id,claim_id,service_date,claim_type,paid,member_paid"
    await prospect.send("claims", f"{header}\nM,C-1,1960-01-01,other,1.00,0\nM,C-2,2026-01-01,other,2.00,0\n")
    monkeypatch.setattr(schema, "DATES", {"retained": "service_date"})

    def make(engine: Engine) -> None:
        engine.command("CREATE TABLE retained AS claims")
        engine.command("INSERT INTO retained SELECT * FROM claims WHERE prospect_id = {id:UUID}", {"id": prospect.id})

    await app.state.clickhouse.write(make)
    yield "retained"
    await app.state.clickhouse.write(lambda engine: engine.command("DROP TABLE retained SYNC"))


async def test_retention_is_set_once_and_taken_back(app, retained: str):
    def check(engine: Engine) -> None:
        def made() -> str:
            query = "SELECT create_table_query AS made FROM system.tables WHERE name = {name:String}"
            return str(engine.row(query, {"name": retained})["made"])

        commands: list[str] = []
        run = engine.command
        engine.command = lambda sql, parameters=None: (commands.append(sql), run(sql, parameters))[1]  # type: ignore[method-assign]
        try:
            for _ in range(2):
                schema.retain(engine, retention={CLIENT: timedelta(days=900)})
            assert len([command for command in commands if command.startswith("ALTER")]) == 1
            assert f"TTL service_date + toIntervalDay(900) WHERE client_id = '{CLIENT}'" in made()
            schema.retain(engine, retention={})
            assert "TTL" not in made()
        finally:
            del engine.command  # type: ignore[method-assign]

    await app.state.clickhouse.write(check)


async def test_rows_beyond_their_clients_retention_go(app, prospect, retained: str):
    """Those too that were there before."""

    def check(engine: Engine) -> None:
        schema.retain(engine, retention={prospect.client_id: timedelta(days=3650)})
        query = f"SELECT toYear(service_date) AS year FROM {retained}"
        eventually(lambda: engine.rows(query) == [{"year": 2026}])
        schema.retain(engine, retention={})
        unfinished = "SELECT * FROM system.mutations WHERE table = {name:String} AND NOT is_done"
        assert engine.rows(unfinished, {"name": retained}) == []

    await app.state.clickhouse.write(check)


async def test_who_finds_the_lock_waits_for_it(app, http, monkeypatch):
    def check(engine: Engine) -> None:
        monkeypatch.setattr(schema, "ASK_AGAIN", 0.01)
        waited = threading.Event()
        monkeypatch.setattr(
            schema.time, "sleep", lambda _: (waited.set(), engine.command(f"DROP TABLE {schema.LOCK}"))[0]
        )
        assert engine.create(f"CREATE TABLE {schema.LOCK} (x UInt8) ENGINE = Memory")
        assert not engine.create(f"CREATE TABLE {schema.LOCK} (x UInt8) ENGINE = Memory")
        with schema._locked(engine):
            assert waited.is_set() != engine.embedded  # whose folder no other process can have open: who locked is dead
            assert schema._take(engine) == engine.embedded
        assert schema._take(engine)
        monkeypatch.setattr(schema, "LOCK_LASTS", -1)
        assert schema._take(engine) == engine.embedded  # a dead process's lock goes
        assert schema._take(engine)
        engine.command(f"DROP TABLE {schema.LOCK}")

    await app.state.clickhouse.write(check)


async def test_status_tells_what_is_applied(app, http):
    text = await app.state.clickhouse.write(lambda engine: schema._report(engine, change=False, cluster=""))
    assert text.splitlines() == [f"applied {name}" for name in sorted(TEXTS)]
    assert (
        await app.state.clickhouse.write(lambda engine: schema._report(engine, change=True, cluster="")) == "up to date"
    )


@pytest.mark.parametrize("places", [0, 2, 3])
async def test_a_number_is_refused_whenever_a_check_of_it_says_so(app, http, places: int):
    number = Number("paid", places=places)
    whole, beyond = ["0", "-0", "7", "+3", "007", "1e2", str(MOST), str(MOST + 1), str(MOST_COUNTED + 1)], "1e30"
    texts = [
        *whole,
        beyond,
        "-1",
        "-0.00001",
        "0.00001",
        "1.5",
        "1.005",
        "x",
        "1,5",
        "nan",
        "inf",
        "-inf",
        "1 000",
        "0x1",
    ]
    differ = await app.state.clickhouse.read(
        f"SELECT text FROM (SELECT arrayJoin({{texts:Array(String)}}) AS text) "
        f"WHERE ({number.refuses('text')}) != ({' OR '.join(f'({one})' for one in number.checks('text').values())})",
        {"texts": texts},
    )
    assert differ == []
