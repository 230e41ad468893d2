"""What is taken back before it expires: ended sessions, changed accounts, revoked keys.

auth-service writes each one into a stream in Redis, and every service reads that each second. Redis may be emptied:
then auth-service writes them all again, and says so by another incarnation of the stream.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from loguru import logger
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from triton_common.background import in_background

STREAM: Final = "triton:revocations"
INCARNATION: Final = "triton:revocations:complete"  # set once the stream holds all that has not expired
POLL: Final = 1.0  # seconds; a fifth of the five within which every service refuses what was revoked
SILENCE: Final = 1.0  # seconds a Redis may take that is frozen, or behind a half-open connection
BATCH: Final = 1000


class Kind(StrEnum):
    """What a revocation's target is the id of."""

    SESSION = "session"
    SUBJECT = "subject"
    TOKEN = "token"  # noqa: S105  a word
    KEYS = "keys"


@dataclass(frozen=True)
class Revocation:
    """One thing that is no longer good, until when that need be known (Unix seconds).

    Of a subject, those of its tokens are revoked whose epoch is below `epoch`. KEYS has no target: the signing keys
    have changed, so that what was verified must be verified again.
    """

    kind: Kind
    target: str
    until: int
    epoch: int = 0

    def fields(self) -> dict[Any, Any]:
        """As the stream has it."""
        return {"kind": self.kind.value, "target": self.target, "until": self.until, "epoch": self.epoch}

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Self:
        """Raises KeyError or ValueError for what is none."""
        return cls(Kind(fields["kind"]), fields["target"], int(fields["until"]), int(fields["epoch"]))


class Revoked:
    """The revocations that count, by what they are about."""

    def __init__(self) -> None:
        self._found: dict[tuple[Kind, str], Revocation] = {}

    def add(self, revocation: Revocation) -> None:
        """Remember one. Of two about a subject the later epoch counts."""
        key = (revocation.kind, revocation.target)
        before = self._found.get(key)
        if before is None or (revocation.epoch, revocation.until) > (before.epoch, before.until):
            self._found[key] = revocation

    def covers(self, *, subject: str, epoch: int, session_id: str | None, token_id: str) -> bool:
        """Whether a token with these claims is revoked."""
        if not self._found:
            return False
        changed = self._found.get((Kind.SUBJECT, subject))
        return (
            (changed is not None and epoch < changed.epoch)
            or (Kind.SESSION, session_id) in self._found
            or (Kind.TOKEN, token_id) in self._found
        )

    def forget_expired(self) -> None:
        """Let go of those that no unexpired token can meet."""
        now = time.time()
        self._found = {key: revocation for key, revocation in self._found.items() if revocation.until > now}


Apply = Callable[[Sequence[Revocation]], None]


def redis_client(url: str) -> Redis:
    """A client that gives up a silent Redis, and asks once."""
    client: Redis = Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=SILENCE,
        socket_connect_timeout=SILENCE,
        retry=Retry(NoBackoff(), 0),
    )
    return client


class RevocationFeed:
    """Reads the stream. `alive` tells whether what it has read is all there is."""

    def __init__(self, url: str, apply: Apply) -> None:
        self._url = url
        self._apply = apply
        self._incarnation: str | None = None
        self._last = "-"
        self.alive = False

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Read what there is, so that a service that starts knows it, and go on reading until the context ends."""
        async with redis_client(self._url) as redis:
            await self._turn(redis)
            if not self.alive:
                logger.warning("revocations cannot be read: tokens are judged by signature and expiry alone")
            async with in_background(self._run(redis)):
                yield

    async def _run(self, redis: Redis) -> None:
        while True:
            await asyncio.sleep(POLL)
            before = self.alive
            await self._turn(redis)
            if before and not self.alive:
                logger.warning("revocations cannot be read: tokens are judged by signature and expiry alone")
            if self.alive and not before:
                logger.info("revocations are read again")

    async def _turn(self, redis: Redis) -> None:
        try:
            async with asyncio.timeout(2 * SILENCE):
                incarnation: Any = await redis.get(INCARNATION)
            if incarnation != self._incarnation:
                self._incarnation, self._last = incarnation, "-"
            while True:
                async with asyncio.timeout(2 * SILENCE):
                    found: Any = await redis.xrange(STREAM, min=self._last, count=BATCH)
                if found:
                    self._apply([revocation for _, fields in found if (revocation := _valid(fields))])
                    self._last = f"({found[-1][0]}"
                if len(found) < BATCH:
                    break
            self.alive = incarnation is not None
        except (RedisError, OSError, TimeoutError):
            self.alive = False
        except Exception as error:  # noqa: BLE001  the next turn may go better, and there must be one
            logger.opt(exception=error).error("revocations could not be applied")
            self.alive = False


def _valid(fields: Mapping[Any, Any]) -> Revocation | None:
    with suppress(KeyError, ValueError):
        return Revocation.of(fields)
    logger.warning("an entry of the stream of revocations is none")
    return None
