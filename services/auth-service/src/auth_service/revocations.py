"""What is taken back: a row in the transaction that takes it back, then an entry in Redis that every service reads.

A row that was not published is published when Redis is there; when Redis was emptied, all that have not expired are.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from loguru import logger
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from auth_service.models import RevocationRecord
from triton_common.auth import LEEWAY
from triton_common.db import Database, DatabaseUnavailable, after_commit, transaction
from triton_common.revocations import BATCH, INCARNATION, STREAM, Kind, Revocation

TURN: Final = 1.0  # seconds after which it looks by itself: other processes revoke too, and Redis comes and goes


class Revoker:
    """Records revocations, applies them in this process at once, and publishes them for all others."""

    def __init__(
        self,
        database: Database,
        redis: Redis | None,
        *,
        apply: Callable[[Sequence[Revocation]], None],
        access_lifetime: timedelta,
    ) -> None:
        self._database = database
        self._redis = redis
        self._apply = apply
        self._lifetime = access_lifetime + timedelta(seconds=LEEWAY)
        self._changed = asyncio.Event()
        self._newest = (0, 0)  # the last entry of ours in the stream
        self._reachable = True

    def revoke(self, session: AsyncSession, kind: Kind, target: str = "", *, epoch: int = 0) -> None:
        """Take something back when the session's transaction commits: no token lives longer than we remember it."""
        until = datetime.now(UTC) + self._lifetime
        session.add(RevocationRecord(kind=kind.value, target=target, epoch=epoch, expires_at=until))
        after_commit(
            session, lambda: self._committed(Revocation(kind, target, until=int(until.timestamp()) + 1, epoch=epoch))
        )

    def _committed(self, revocation: Revocation) -> None:
        self._apply([revocation])
        self._changed.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            self._changed.clear()
            try:
                if self._redis is not None:
                    await self.publish(self._redis)
                if not self._reachable:
                    logger.info("revocations are published again")
                self._reachable = True
            except (RedisError, OSError, TimeoutError, DatabaseUnavailable):
                if self._reachable:
                    logger.warning("revocations cannot be published; they are when Redis and Postgres are back")
                self._reachable = False
            except Exception as error:  # noqa: BLE001  the next turn may go better, and there must be one
                logger.opt(exception=error).error("revocations could not be published")
            with suppress(TimeoutError):
                async with asyncio.timeout(TURN):
                    await self._changed.wait()

    async def publish(self, redis: Redis) -> None:
        """Publish what was not; all of it, when the stream is not complete."""
        complete = await self._is_complete(redis)
        wanted = [] if complete else [col(RevocationRecord.expires_at) > datetime.now(UTC)]
        if complete:
            wanted.append(col(RevocationRecord.published_at).is_(None))
        after = RevocationRecord.id
        last = None
        while True:
            conditions = [*wanted, *([col(after) > last] if last else [])]
            async with transaction(self._database) as session:
                rows = (
                    await session.exec(select(RevocationRecord).where(*conditions).order_by(col(after)).limit(BATCH))
                ).all()
            if rows:
                await self._send(redis, rows)
                last = rows[-1].id
                async with transaction(self._database) as session:
                    sent = col(RevocationRecord.id).in_([row.id for row in rows])
                    await session.exec(update(RevocationRecord).where(sent).values(published_at=datetime.now(UTC)))
            if len(rows) < BATCH:
                break
        if not complete:
            await redis.set(INCARNATION, uuid7().hex)

    async def _is_complete(self, redis: Redis) -> bool:
        """Whether Redis still has what we and others published: it may have been emptied, or be a replica that lacks
        the last entries."""
        if await redis.get(INCARNATION) is None:
            return False
        newest: Any = await redis.xrevrange(STREAM, count=1)
        return self._newest <= (_position(newest[0][0]) if newest else (0, 0))

    async def _send(self, redis: Redis, rows: Sequence[RevocationRecord]) -> None:
        oldest = int((datetime.now(UTC) - self._lifetime).timestamp() * 1000)
        async with redis.pipeline(transaction=False) as pipeline:
            for row in rows:
                until = int(row.expires_at.timestamp()) + 1
                entry = Revocation(Kind(row.kind), row.target, until=until, epoch=row.epoch)
                pipeline.xadd(STREAM, entry.fields(), minid=oldest, approximate=True)
            ids: Any = await pipeline.execute()
        self._newest = max(self._newest, _position(ids[-1]))


def _position(entry: str) -> tuple[int, int]:
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)


async def forget_expired(session: AsyncSession) -> None:
    """Delete those that no unexpired token can meet."""
    await session.exec(delete(RevocationRecord).where(col(RevocationRecord.expires_at) < datetime.now(UTC)))
