"""A process of its own on an engine's folder: `python child.py FOLDER hang-at-FUNCTION | look | open`.

hang: begins an ingest, says so, and stands still there until it is killed. look: starts as the service does, and tells
what there is. open: only opens the engine.
"""

import asyncio
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from pydantic import SecretStr
from uuid_utils.compat import uuid7

from analytics_service import batches, ingest
from analytics_service.clickhouse import ClickHouse
from analytics_service.loads import Load
from analytics_service.main import build
from analytics_service.prospects import Tenant
from analytics_service.schema import migrate
from analytics_service.settings import Settings
from analytics_service.unpacking import Arriving
from analytics_service.uploads import Received, spool_folder

TENANT = Tenant(UUID(int=1), UUID(int=2))
ROWS = [f"canary-member-{n},canary-claim-{n},2024-01-01,other,1.00,0" for n in range(1000)]
HEADER = "member_id,claim_id,service_date,claim_type,paid,member_paid"
CSV = "\n".join([HEADER, *ROWS[:500], "", *ROWS[500:]]).encode()  # the empty line takes it through every step


def settings(folder: Path) -> Settings:
    spool = folder / "spool"
    spool.mkdir(exist_ok=True)
    return Settings(clickhouse_url=SecretStr(f"chdb://{folder}/db"), spool_dir=spool, member_key=SecretStr("x" * 32))


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def stand_still(*_: object, **__: object) -> None:
    say("standing still")
    time.sleep(60)


def load(engine, **options) -> object:
    arriving = Arriving("csv", limit=1 << 20)
    arriving.write(CSV)
    under_way = Load(TENANT, uuid7(), "claims", "triton", created_at=datetime.now(UTC))
    came = Received([arriving.finish()])
    return ingest.load(engine, under_way, came, skip_bad_rows=False, secret=SecretStr("x" * 32), **options)


async def hang(folder: Path, function: str) -> None:
    setattr(batches if function == "complete" else ingest, function, stand_still)
    wanted = settings(folder)
    with spool_folder(wanted.spool_dir):
        (Path(tempfile.gettempdir()) / "driver.raw").write_bytes(CSV)  # as the driver leaves it
        async with connected(wanted) as clickhouse:
            await clickhouse.write(migrate)
            await clickhouse.write(load)


def connected(wanted: Settings):
    return ClickHouse.connect(
        wanted.clickhouse_url.get_secret_value(), readers=1, waiting=1, query_timeout=wanted.query_timeout
    )


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def look(folder: Path) -> None:
    app = build(settings(folder))
    async with app.router.lifespan_context(app):
        read = app.state.clickhouse.read
        tables = await read("SELECT name FROM system.tables WHERE startsWith(name, 'stage_')")
        rows = await read("SELECT count() AS rows FROM claims")
        known = await read("SELECT status, count() AS number FROM ingest_batches FINAL GROUP BY status")
        text = await asyncio.to_thread(everything, folder)
        _, created = await app.state.clickhouse.write(load)
        again = await read("SELECT count() AS rows FROM claims")
    say(
        json.dumps(
            {
                "staging": len(tables),
                "rows": rows[0]["rows"],
                "statuses": {row["status"]: row["number"] for row in known},
                "on_disk": b"canary-member-7" in text,
                "again": [created, again[0]["rows"]],
            }
        )
    )


async def open_only(folder: Path) -> None:
    async with connected(Settings(clickhouse_url=SecretStr(f"chdb://{folder}"))):
        say("opened")


if __name__ == "__main__":
    where, what = Path(sys.argv[1]), sys.argv[2]
    match what:
        case "look":
            asyncio.run(look(where))
        case "open":
            asyncio.run(open_only(where))
        case _:
            asyncio.run(hang(where, what.removeprefix("hang-at-")))
