"""The chain that shows whether somebody changed the audit log: the hash of each event covers the event and the hash
before it, under a key that the database does not have."""

import asyncio
import hmac
import time
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from loguru import logger
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from auth_service.audit_schemas import ChainFault, ChainReport
from triton_common.db import Database, DatabaseUnavailable, translated_errors

LOCK: Final = 0x6175646974  # "audit": one process seals at a time
TURN: Final = 1.0  # seconds
BATCH: Final = 2000  # events a transaction
PAGE: Final = 1000  # events that are verified at once: 10 ms in which nobody else is served
HEAD_IS_LOGGED: Final = 3600.0  # seconds
BEFORE_THE_FIRST: Final = bytes(32)

# Every column but seq and hash as one text, which no time zone or date style of a connection changes.
AS_TEXT: Final = """json_build_array(
  id, at AT TIME ZONE 'UTC', recorded_at AT TIME ZONE 'UTC', source, actor_kind, actor_id, action, object_kind,
  object_id, client_id, address, request_id, outcome, details)::text"""

UNSEALED: Final = f"""SELECT id, recorded_at::text AS recorded, {AS_TEXT} AS text FROM audit_events
WHERE seq IS NULL AND (recorded_at, id) > (%s::timestamptz, %s) ORDER BY recorded_at, id LIMIT %s"""  # noqa: S608  a constant


@dataclass(frozen=True)
class Head:
    """An event of the chain, by which all before it are known."""

    seq: int = 0
    hash: bytes = BEFORE_THE_FIRST


def link(key: bytes, previous: bytes, *, seq: int, text: str) -> bytes:
    """The hash of an event: HMAC-SHA256 of the hash before it, its number and its columns."""
    return hmac.digest(key, previous + seq.to_bytes(8, signed=True) + text.encode(), "sha256")


class Sealer:
    """Gives each event its number and hash. Any process may; each looks whether what it sealed last is still there."""

    def __init__(self, database: Database, key: bytes) -> None:
        self._database = database
        self._key = key
        self._last = Head()
        self._logged = -HEAD_IS_LOGGED
        self._reachable = True

    async def run(self) -> None:
        """Seal until cancelled."""
        while True:
            try:
                await self.seal()
                self._reachable = True
            except DatabaseUnavailable:
                if self._reachable:
                    logger.warning("audit events are not sealed; they are when Postgres is back")
                self._reachable = False
            except Exception as error:  # noqa: BLE001  the next turn may go better, and there must be one
                logger.opt(exception=error).error("audit events could not be sealed")
            await asyncio.sleep(TURN)

    async def seal(self) -> int:
        """Seal what there is, a transaction a batch; answers how many. None while another process does."""
        total = 0
        after = ("-infinity", UUID(int=0))
        while True:
            async with translated_errors(), self._database.pool.connection() as connection, connection.transaction():
                rows, head = await self._batch(connection, after)
            self._last = head  # once it is committed
            if rows:
                after = (rows[-1]["recorded"], rows[-1]["id"])  # not over the dead entries of the index again
                total += len(rows)
            if len(rows) < BATCH:
                break
        if self._last.seq and time.monotonic() - self._logged >= HEAD_IS_LOGGED:
            logger.bind(seq=self._last.seq, hash=self._last.hash.hex()).info("head of the audit log")
            self._logged = time.monotonic()
        return total

    async def _batch(self, connection: AsyncConnection[DictRow], after: tuple[str, UUID]) -> tuple[list[DictRow], Head]:
        lock = await connection.execute("SELECT pg_try_advisory_xact_lock(%s) AS ours", (LOCK,))
        if not (await lock.fetchone() or {})["ours"]:
            return [], self._last
        head = await _head(connection)
        if self._last.seq and await _hash_at(connection, self._last.seq) != self._last.hash:
            # said once, by each process that saw it whole
            logger.bind(seq=self._last.seq, hash=self._last.hash.hex()).error(
                "the audit log was changed: the event sealed last is another one, or gone"
            )
        found = await connection.execute(UNSEALED, (*after, BATCH))
        rows = await found.fetchall()
        hashes: list[bytes] = []
        first = head.seq + 1
        for seq, row in enumerate(rows, start=first):
            head = Head(seq, link(self._key, head.hash, seq=seq, text=row["text"]))
            hashes.append(head.hash)
        if rows:
            await connection.execute(
                "UPDATE audit_events AS event SET seq = sealed.seq, hash = sealed.hash"
                " FROM unnest(%s::uuid[], %s::bigint[], %s::bytea[]) AS sealed (id, seq, hash)"
                " WHERE event.id = sealed.id",
                ([row["id"] for row in rows], list(range(first, first + len(rows))), hashes),
            )
        return rows, head


async def verify(
    database: Database, key: bytes, *, since_seq: int | None, limit: int, expected: Head | None
) -> ChainReport:
    """Compute the chain again: from the first event, or from `since_seq` on as the one before it says; no more than
    `limit` events, in pages. `expected` is a head of before, from the log or an earlier report."""
    started = time.perf_counter()
    async with translated_errors(), database.pool.connection() as connection:
        fault = await _fault_at(connection, expected) if expected else None
        last = Head()
        if since_seq is not None and since_seq > 1:
            before = await _hash_at(connection, since_seq - 1)
            last = Head(since_seq - 1, before or b"")
            if before is None:
                fault = fault or ChainFault(seq=since_seq - 1, id=None, reason="missing")
    # from before the first number: there must be nothing
    position: tuple[int, UUID] = (-(2**63), UUID(int=0)) if last.seq == 0 else (last.seq, UUID(int=2**128 - 1))
    events = 0
    whole = False
    while not fault and not whole and events < limit:
        size = min(PAGE, limit - events)
        rows = await _page(database, position, size)
        for row in rows:
            fault = _fault(key, last, row)
            if fault:
                break
            last = Head(row["seq"], row["hash"])
            events += 1
        whole = len(rows) < size
        if rows:
            position = (rows[-1]["seq"], rows[-1]["id"])
    async with translated_errors(), database.pool.connection() as connection:
        unsealed = await connection.execute("SELECT count(*) AS events FROM audit_events WHERE seq IS NULL")
        count: int = (await unsealed.fetchone() or {})["events"]
    return ChainReport(
        valid=fault is None,
        events=events,
        head_seq=last.seq,
        head_hash=last.hash.hex() if last.seq else None,
        first_bad=fault,
        unsealed=count,
        next_seq=None if fault or whole else last.seq + 1,
        duration_ms=round((time.perf_counter() - started) * 1000, 1),
    )


async def _page(database: Database, position: tuple[int, UUID], size: int) -> list[DictRow]:
    async with translated_errors(), database.pool.connection() as connection:
        found = await connection.execute(
            f"SELECT seq, id, hash, {AS_TEXT} AS text FROM audit_events"  # noqa: S608  a constant
            " WHERE seq IS NOT NULL AND (seq, id) > (%s, %s) ORDER BY seq, id LIMIT %s",
            (*position, size),
        )
        return await found.fetchall()


def _fault(key: bytes, last: Head, row: DictRow) -> ChainFault | None:
    seq: int = row["seq"]
    if seq > last.seq + 1:
        return ChainFault(seq=last.seq + 1, id=None, reason="missing")
    if seq <= last.seq:
        return ChainFault(seq=seq, id=row["id"], reason="inserted")
    if row["hash"] != link(key, last.hash, seq=seq, text=row["text"]):
        return ChainFault(seq=seq, id=row["id"], reason="changed")
    return None


async def _fault_at(connection: AsyncConnection[DictRow], expected: Head) -> ChainFault | None:
    present = await _hash_at(connection, expected.seq)
    if present == expected.hash:
        return None
    if present is None and (await _head(connection)).seq < expected.seq:
        return ChainFault(seq=expected.seq, id=None, reason="cut")
    return ChainFault(seq=expected.seq, id=None, reason="missing" if present is None else "other_head")


async def _head(connection: AsyncConnection[DictRow]) -> Head:
    found: Any = await (
        await connection.execute("SELECT seq, hash FROM audit_events WHERE seq IS NOT NULL ORDER BY seq DESC LIMIT 1")
    ).fetchone()
    return Head(found["seq"], found["hash"]) if found else Head()


async def _hash_at(connection: AsyncConnection[DictRow], seq: int) -> bytes | None:
    found = await (await connection.execute("SELECT hash FROM audit_events WHERE seq = %s", (seq,))).fetchone()
    return found["hash"] if found else None
