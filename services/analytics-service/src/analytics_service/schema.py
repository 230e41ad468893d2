"""The tables: numbered SQL files applied once each, on a cluster as replicated and distributed ones, and how long rows
are kept. `python -m analytics_service.schema status|migrate` is what `triton db` calls."""

import asyncio
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib.resources import files
from typing import Final
from uuid import UUID

from loguru import logger

from analytics_service.clickhouse import ClickHouse
from analytics_service.engine import DATABASE, Engine
from analytics_service.lanes import ClickhouseUnavailable
from analytics_service.settings import Settings

LOCK: Final = "schema_migrations_lock"
LOCK_LASTS: Final = 600  # seconds; no migration takes as long, so a lock that is older is a dead process's
ASK_AGAIN: Final = 0.5  # seconds
DATES: Final = {"claims": "service_date", "clinical": "recorded_date", "utilization": "start", "pharmacy": "fill_date"}
SHARDED_BY: Final = {"ingest_batches": "id"}  # the others by member, so that a member's rows lie on one node

_CREATE: Final = re.compile(
    r"CREATE TABLE IF NOT EXISTS (\w+)(.*?)ENGINE = (\w*MergeTree)(?:\(([^)]*)\))?(.*)", re.DOTALL
)
_ALTER: Final = re.compile(r"ALTER TABLE (\w+)\s+(.*)", re.DOTALL)


class MigrationChanged(RuntimeError):
    """A file was changed after it was applied; add a new migration instead."""


def migrate(engine: Engine, *, cluster: str = "") -> list[str]:
    """Apply the SQL files that this database has not seen, in order; answers their names. One process at a time.

    ClickHouse has no transactions for DDL: each statement can run twice, and a file counts once all of it has run.
    Raises MigrationChanged.
    """
    _make_history(engine)
    if not pending(engine):
        return []
    applied: list[str] = []
    with _locked(engine):
        for name in pending(engine):
            text = _migrations()[name]
            for statement in statements(text, cluster=cluster):
                engine.command(statement)
            engine.insert(
                "schema_migrations", [{"name": name, "sha256": _digest(text), "applied_at": datetime.now(UTC)}]
            )
            logger.bind(migration=name).info("migration applied")
            applied.append(name)
    return applied


def pending(engine: Engine) -> list[str]:
    """The files that this database has not seen. Raises MigrationChanged."""
    seen = {row["name"]: row["sha256"] for row in engine.rows("SELECT name, sha256 FROM schema_migrations FINAL")}
    found = _migrations()
    for name in seen.keys() & found.keys():
        if seen[name] != _digest(found[name]):
            raise MigrationChanged(f"{name} was changed after it was applied; add a new migration instead")
    return [name for name in found if name not in seen]


def statements(text: str, *, cluster: str = "") -> list[str]:
    """A file's statements. On a cluster a table is a replicated one on each node, and a distributed one over them."""
    found = [part.strip() for part in re.split(r";\s*(?:\n|$)", text) if part.strip()]
    return [one for statement in found for one in _across(statement, cluster)] if cluster else found


def _across(statement: str, cluster: str) -> list[str]:
    if created := _CREATE.search(statement):
        table, columns, kind, arguments, rest = created.groups()
        local = f"{table}_local"
        place = f"'/clickhouse/tables/{{shard}}/{DATABASE}/{local}', '{{replica}}'" + (
            f", {arguments}" if arguments else ""
        )
        key = SHARDED_BY.get(table, "member_id")
        return [
            f"CREATE TABLE IF NOT EXISTS {local} ON CLUSTER {cluster}{columns}ENGINE = Replicated{kind}({place}){rest}",
            (
                f"CREATE TABLE IF NOT EXISTS {table} ON CLUSTER {cluster} AS {local} "
                f"ENGINE = Distributed({cluster}, {DATABASE}, {local}, cityHash64({key}))"
            ),
        ]
    altered = _ALTER.search(statement)
    if not altered:
        raise ValueError("a migration holds CREATE TABLE and ALTER TABLE alone")
    table, change = altered.groups()
    on_nodes = f"ALTER TABLE {table}_local ON CLUSTER {cluster} {change}"
    if re.match(r"(ADD|DROP|RENAME) COLUMN|MODIFY COLUMN (?!.*CODEC)", change, re.DOTALL):
        return [on_nodes, f"ALTER TABLE {table} ON CLUSTER {cluster} {change}"]
    return [on_nodes]


def retain(engine: Engine, *, retention: Mapping[UUID, timedelta], cluster: str = "") -> None:
    """Keep rows of a client for so long from their date, others for ever. Does nothing where this is already so.

    The engine deletes what is older when it merges; parts that are there already it goes through in the background, a
    few a second, and a start does not wait for it.
    """
    for table, column in DATES.items():
        wanted = ttl(column, retention)
        local = f"{table}_local" if cluster else table
        made = engine.row(
            "SELECT create_table_query AS made FROM system.tables "
            "WHERE database = currentDatabase() AND name = {name:String}",
            {"name": local},
        )["made"]
        present = re.search(r"\bTTL (.*?)(?: SETTINGS |$)", made, re.DOTALL)
        if (present[1] if present else "") == wanted:
            continue
        across = f" ON CLUSTER {cluster}" if cluster else ""
        # one that still goes through the parts would go on failing once there is no TTL
        engine.command(
            f"KILL MUTATION{across} WHERE database = currentDatabase() AND table = {{name:String}} "
            "AND command = '(MATERIALIZE TTL)' AND NOT is_done",
            {"name": local},
        )
        change = f"MODIFY TTL {wanted}" if wanted else "REMOVE TTL"
        engine.command(f"ALTER TABLE {local}{across} {change} SETTINGS alter_sync = 0")
        logger.bind(table=table, clients=len(retention)).info("retention set")


def ttl(column: str, retention: Mapping[UUID, timedelta]) -> str:
    """SQL of a table's TTL, as the engine writes it."""
    return ", ".join(
        f"{column} + toIntervalDay({age.days}) WHERE client_id = '{client}'"
        for client, age in sorted(retention.items(), key=lambda item: str(item[0]))
    )


@contextmanager
def _locked(engine: Engine) -> Iterator[None]:
    """Making a table that is there fails: of two processes one makes it. A process that died holds it for a while; an
    embedded engine's only process finds its own."""
    until = time.monotonic() + LOCK_LASTS
    while not _take(engine):
        if time.monotonic() > until:
            raise ClickhouseUnavailable(f"The table {LOCK} is there: another process migrates, or died doing so.")
        time.sleep(ASK_AGAIN)
    try:
        yield
    finally:
        engine.command(f"DROP TABLE IF EXISTS {LOCK} SYNC")


def _take(engine: Engine) -> bool:
    made = engine.rows(
        "SELECT dateDiff('second', metadata_modification_time, now()) AS age FROM system.tables "
        "WHERE database = currentDatabase() AND name = {name:String}",
        {"name": LOCK},
    )
    if made and (engine.embedded or made[0]["age"] > LOCK_LASTS):
        engine.command(f"DROP TABLE IF EXISTS {LOCK} SYNC")
    if made and not engine.embedded:
        return False
    return engine.create(f"CREATE TABLE {LOCK} (x UInt8) ENGINE = Memory")


def _make_history(engine: Engine) -> None:
    engine.command(
        "CREATE TABLE IF NOT EXISTS schema_migrations "
        "(name String, sha256 String, applied_at DateTime64(3, 'UTC')) ENGINE = ReplacingMergeTree ORDER BY name"
    )


def _migrations() -> dict[str, str]:
    """Their texts, by name, in order."""
    folder = files("analytics_service") / "migrations"
    found = (file for file in folder.iterdir() if file.name.endswith(".sql"))
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(found, key=lambda file: file.name)}


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _report(engine: Engine, *, change: bool, cluster: str) -> str:
    if change:
        applied = migrate(engine, cluster=cluster)
        return "\n".join([f"applied {name}" for name in applied] or ["up to date"])
    _make_history(engine)
    waiting = pending(engine)
    return "\n".join(f"{'pending' if name in waiting else 'applied'} {name}" for name in _migrations())


async def _main(command: str) -> str:
    settings = Settings()
    async with ClickHouse.connect(
        settings.clickhouse_url.get_secret_value(), readers=1, waiting=1, query_timeout=settings.query_timeout
    ) as clickhouse:
        return await clickhouse.write(
            lambda engine: _report(engine, change=command == "migrate", cluster=settings.clickhouse_cluster)
        )


if __name__ == "__main__":
    if sys.argv[1:] not in (["status"], ["migrate"]):
        raise SystemExit("usage: python -m analytics_service.schema status|migrate")
    try:
        sys.stdout.write(asyncio.run(_main(sys.argv[1])) + "\n")
    except ClickhouseUnavailable:
        raise SystemExit(
            "ClickHouse cannot be opened: a running analytics-service has its folder, or no server answers."
        ) from None
