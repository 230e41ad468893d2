"""Events of the other services, on their way from Redis into the audit log: each once, however often it is sent."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC
from typing import Any, Final

from loguru import logger
from psycopg import DataError, IntegrityError
from pydantic import ValidationError
from pydantic_core import to_json
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from uuid_utils.compat import uuid7

from triton_common.db import Database, DatabaseUnavailable, translated_errors
from triton_common.messages import AuditEvent

STREAM: Final = AuditEvent.queue
STORED: Final = f"{STREAM}:stored"  # ids of events that need not be sent again
REFUSED: Final = f"{STREAM}:refused"  # entries that are no events, for somebody to look at
GROUP: Final = "auth-service"
BATCH: Final = 500
CONFIRMED: Final = 100_000  # ids that are kept; a sender that does not find its own sends again
KEPT: Final = 1_000  # refused entries that are kept
BLOCK: Final = 500  # milliseconds; less than the client waits for an answer
LEFT_FOR: Final = 15_000  # milliseconds after which what a process took is another's to take
LOOK_EVERY: Final = 5.0  # seconds
GONE_AFTER: Final = 3_600_000  # milliseconds of a consumer's silence after which its name is forgotten
PAUSE: Final = 1.0  # seconds until Redis or Postgres is asked again; doubled up to LONGEST_PAUSE
LONGEST_PAUSE: Final = 8.0
LONGEST: Final = 200  # characters of a column: indexes refuse rows of more than 2,700 bytes

Entry = tuple[str, dict[Any, Any]]

_STORE: Final = """
INSERT INTO audit_events (id, at, source, actor_kind, actor_id, action, object_kind, object_id, client_id, address,
  request_id, outcome, details)
SELECT * FROM jsonb_to_recordset(%s::text::jsonb) AS event (id uuid, at timestamptz, source text, actor_kind text,
  actor_id text, action text, object_kind text, object_id text, client_id uuid, address text, request_id text,
  outcome text, details jsonb)
ON CONFLICT (id) DO NOTHING"""


class Intake:
    """One of the consumers of the stream; each process has one, and Redis gives each entry to one of them."""

    def __init__(self, database: Database, redis: Redis) -> None:
        self._database = database
        self._redis = redis
        self._name = uuid7().hex
        self._looked = -LOOK_EVERY
        self._reachable = True

    async def run(self) -> None:
        """Take events until cancelled."""
        pause = PAUSE
        while True:
            try:
                await self._turn()
                if not self._reachable:
                    logger.info("audit events are taken again")
                self._reachable, pause = True, PAUSE
                continue
            except (RedisError, OSError, TimeoutError, DatabaseUnavailable):
                if self._reachable:
                    logger.warning("audit events are not taken; they are when Redis and Postgres are back")
                self._reachable = False
            except Exception as error:  # noqa: BLE001  the next turn may go better, and there must be one
                logger.opt(exception=error).error("audit events could not be taken")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _turn(self) -> None:
        try:
            if time.monotonic() - self._looked >= LOOK_EVERY:
                await self._take_what_was_left()
                self._looked = time.monotonic()
            found: Any = await self._redis.xreadgroup(GROUP, self._name, {STREAM: ">"}, count=BATCH, block=BLOCK)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):  # the first turn of all, and after Redis was emptied
                raise
            with suppress(ResponseError):  # another process was faster
                await self._redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
            return
        for _, entries in found:
            await self._take(entries)

    async def _take_what_was_left(self) -> None:
        """What a process took that then died, or that we took when Postgres was away; and the names of the dead."""
        start = "0-0"
        while True:
            claimed: Any = await self._redis.xautoclaim(
                STREAM, GROUP, self._name, min_idle_time=LEFT_FOR, start_id=start, count=BATCH
            )
            start = claimed[0]
            await self._take(claimed[1])
            if start == "0-0":
                break
        consumers: Any = await self._redis.xinfo_consumers(STREAM, GROUP)
        for consumer in consumers:
            if consumer["pending"] == 0 and consumer["idle"] > GONE_AFTER:
                await self._redis.xgroup_delconsumer(STREAM, GROUP, consumer["name"])

    async def _take(self, entries: Sequence[Entry]) -> None:
        """Store, then confirm, then let go: whatever ends in between, they are taken again."""
        if not entries:
            return
        events = {entry: event for entry, fields in entries if (event := _event(fields))}
        stored = await self._store(list(events.items()))
        async with self._redis.pipeline(transaction=True) as pipeline:
            for entry, fields in entries:
                if entry in stored:
                    pipeline.xadd(STORED, {"id": events[entry]["id"]}, maxlen=CONFIRMED, approximate=True)
                else:
                    logger.bind(entry=entry).error("an entry of the stream of audit events is none: moved aside")
                    pipeline.xadd(REFUSED, fields, maxlen=KEPT, approximate=True)
            pipeline.xack(STREAM, GROUP, *dict(entries))
            pipeline.xdel(STREAM, *dict(entries))
            await pipeline.execute()

    async def _store(self, events: Sequence[tuple[str, dict[str, Any]]]) -> set[str]:
        """Answers whose events are stored: all but those that Postgres refuses, whatever one among them holds."""
        try:
            async with translated_errors(), self._database.pool.connection() as connection:
                await connection.execute(_STORE, (to_json([event for _, event in events]).decode(),))
        except (DataError, IntegrityError):
            if len(events) == 1:
                return set()
            middle = len(events) // 2
            return await self._store(events[:middle]) | await self._store(events[middle:])
        return {entry for entry, _ in events}


def _event(fields: dict[str, str]) -> dict[str, Any] | None:
    """The columns of an event, None for what is none. Nothing that a request sent makes an event that Postgres refuses:
    else it would go unrecorded."""
    try:
        event = AuditEvent.model_validate_json(fields["event"])
    except (KeyError, ValidationError):
        return None
    if event.at.tzinfo is None:
        event = event.model_copy(update={"at": event.at.replace(tzinfo=UTC)})
    columns: dict[str, Any] = event.model_dump(mode="json", exclude={"traceparent"})
    return {
        name: _without_nul(value) if name == "details" else value and _without_nul(value)[:LONGEST]
        for name, value in columns.items()
    }


def _without_nul(value: Any) -> Any:
    """Postgres stores every character but one."""
    match value:
        case str():
            return value.replace("\x00", "\ufffd")
        case dict():
            return {_without_nul(key): _without_nul(item) for key, item in value.items()}
        case list():
            return [_without_nul(item) for item in value]
        case _:
            return value
