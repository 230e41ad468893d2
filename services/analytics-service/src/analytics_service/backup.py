"""The prospects' data out of ClickHouse and back in, whatever the engine: `python -m analytics_service.backup dump`
writes a tar to stdout, `load` reads one from stdin. `triton backup` runs both.

The tar has a table's rows in a file, in ClickHouse's Native format under gzip, and before them what is in it: the
migrations they were written under and how many rows a table has. Rows of batches that are not completed stay out.
"""

import asyncio
import gzip
import io
import json
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, cast

from analytics_service import schema
from analytics_service.clickhouse import ClickHouse
from analytics_service.datasets import COLUMNS
from analytics_service.engine import Engine
from analytics_service.lanes import ClickhouseUnavailable
from analytics_service.settings import Settings

CONTENTS: Final = "contents.json"
BATCHES: Final = "SELECT * FROM ingest_batches FINAL WHERE status = 'completed'"
ROWS: Final = "SELECT * FROM {table} WHERE batch_id IN (SELECT id FROM ingest_batches FINAL WHERE status = 'completed')"
TRIES: Final = 3
SPEED: Final = 3  # of gzip's levels: half as large as level 1 where it counts, in half the time of level 9


class BackupFailed(Exception):
    """A dump or a load cannot be done; the message is a sentence that says why."""


def dump(engine: Engine, out: IO[bytes], *, spool: Path) -> None:
    """Write the tar. It is of one moment: when batches came or went meanwhile, the tables are read anew.

    Raises BackupFailed when they do so again and again. Takes the compressed size of all tables in `spool`.
    """
    for _ in range(TRIES):
        with tempfile.TemporaryDirectory(prefix="backup-", dir=spool) as folder:
            before = _batches(engine)
            tables = {"ingest_batches": BATCHES} | {table: ROWS.format(table=table) for table in COLUMNS}
            counts = {table: _number(engine, f"({sql})") for table, sql in tables.items()}
            for table, sql in tables.items():
                with gzip.open(Path(folder) / table, "wb", compresslevel=SPEED) as file:
                    engine.copy_out(sql, cast("IO[bytes]", file))
            if _batches(engine) != before:
                continue
            contents = {"migrations": _migrations(engine), "rows": counts}
            _write(out, contents, [Path(folder) / table for table in tables])
            return
    raise BackupFailed("Extracts were loaded or removed all the while: try again when none are.")


def load(engine: Engine, source: IO[bytes]) -> None:
    """Fill the empty tables of a migrated database with what dump wrote.

    Raises BackupFailed: the tables are not empty, the data is of a newer release, or it is not whole; then some of it
    may be in the tables.
    """
    if filled := [table for table in ("ingest_batches", *COLUMNS) if _number(engine, table)]:
        raise BackupFailed(f"ClickHouse is not empty: there are rows in {', '.join(filled)}.")
    try:
        with tarfile.open(fileobj=cast("BinaryIO", source), mode="r|") as tar:
            contents: dict[str, Any] = {}
            for member in tar:
                file = tar.extractfile(member)
                if file is None:
                    raise BackupFailed(f"{member.name} is no file of a backup.")
                if member.name == CONTENTS:
                    contents = json.load(file)
                    _judge(contents, _migrations(engine))
                elif member.name in contents.get("rows", {}):
                    with gzip.GzipFile(fileobj=file) as rows:
                        if rows.peek(1):  # an empty body is refused
                            engine.copy_in(member.name, cast("IO[bytes]", rows))
                else:
                    raise BackupFailed(f"{member.name} is no table of a backup.")
    except (tarfile.TarError, zlib.error, OSError, EOFError, ValueError) as error:
        raise BackupFailed(f"The backup of ClickHouse is damaged: {error}.") from None
    found = {table: _number(engine, table) for table in contents.get("rows", {})}
    if not contents or found != contents["rows"]:
        raise BackupFailed(f"The backup of ClickHouse is not whole: it says {contents.get('rows')}, and gave {found}.")


def _write(out: IO[bytes], contents: dict[str, Any], tables: Sequence[Path]) -> None:
    with tarfile.open(fileobj=cast("BinaryIO", out), mode="w|") as tar:
        text = json.dumps(contents).encode()
        head = tarfile.TarInfo(CONTENTS)
        head.size = len(text)
        tar.addfile(head, io.BytesIO(text))
        for table in tables:
            entry = tarfile.TarInfo(table.name)
            entry.size = table.stat().st_size
            with table.open("rb") as file:
                tar.addfile(entry, file)


def _judge(contents: dict[str, Any], known: Sequence[str]) -> None:
    if newer := sorted(set(contents["migrations"]) - set(known)):
        raise BackupFailed(f"The backup is of a newer release: this one does not know {', '.join(newer)}.")
    if set(contents["rows"]) != {"ingest_batches", *COLUMNS}:
        raise BackupFailed(f"The backup has {', '.join(contents['rows'])}, and not the tables of this release.")


def _batches(engine: Engine) -> list[dict[str, Any]]:
    return engine.rows("SELECT id FROM ingest_batches FINAL WHERE status = 'completed' ORDER BY id")


def _migrations(engine: Engine) -> list[str]:
    return [row["name"] for row in engine.rows("SELECT name FROM schema_migrations FINAL ORDER BY name")]


def _number(engine: Engine, source: str) -> int:
    found: int = engine.row(f"SELECT count() AS rows FROM {source}")["rows"]  # noqa: S608  one of our own
    return found


async def _run(verb: str, settings: Settings) -> None:
    url = settings.clickhouse_url.get_secret_value()
    async with ClickHouse.connect(url, readers=1, waiting=1, query_timeout=settings.query_timeout) as clickhouse:
        await clickhouse.write(lambda engine: schema.migrate(engine, cluster=settings.clickhouse_cluster))
        if verb == "dump":
            await clickhouse.write(lambda engine: dump(engine, sys.stdout.buffer, spool=settings.spool_dir))
        else:
            await clickhouse.write(lambda engine: load(engine, sys.stdin.buffer))


def main() -> None:
    """Exit code 1 and a sentence on stderr when it cannot be done."""
    if sys.argv[1:] not in (["dump"], ["load"]):
        sys.exit("usage: python -m analytics_service.backup dump | load")
    try:
        asyncio.run(_run(sys.argv[1], Settings()))
    except (BackupFailed, ClickhouseUnavailable) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
