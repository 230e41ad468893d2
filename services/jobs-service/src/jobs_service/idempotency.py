"""Idempotency-Key: the same key with the same body gets the first answer again, for 24 hours, whoever wins the race."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from psycopg import AsyncConnection
from psycopg.errors import LockNotAvailable
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel
from sqlmodel.ext.asyncio.session import AsyncSession

from jobs_service.statements import Row
from triton_common.auth import Principal
from triton_common.errors import Conflict, Unprocessable

Answer = TypeVar("Answer", bound=BaseModel)

KEPT: Final = "24 hours"
WAIT: Final = "1s"  # for the first request, when it has the key and is not done; mostly it is done in milliseconds
PURGED: Final = 1000  # a statement, each second, in each process: more than one makes

_TAKE = f"""
INSERT INTO idempotency_keys (caller, key, fingerprint) VALUES (%(caller)s, %(key)s, %(fingerprint)s)
ON CONFLICT (caller, key) DO UPDATE SET fingerprint = excluded.fingerprint, answer = NULL, created_at = now()
  WHERE idempotency_keys.created_at < now() - interval '{KEPT}'
RETURNING key
"""  # noqa: S608  a constant
_READ = "SELECT fingerprint, answer FROM idempotency_keys WHERE caller = %(caller)s AND key = %(key)s"
_KEEP = "UPDATE idempotency_keys SET answer = %(answer)s WHERE caller = %(caller)s AND key = %(key)s"
# By the rows' places, so that it costs the same however many there are
PURGE: Final = f"""
DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM idempotency_keys WHERE created_at < now() - interval '{KEPT}' ORDER BY created_at LIMIT {PURGED}
  FOR UPDATE SKIP LOCKED))"""  # noqa: S608  constants


class IdempotencyKeyReused(Unprocessable):
    """The Idempotency-Key was sent before with another request."""


class IdempotencyKeyInUse(Conflict):
    """The first request with this Idempotency-Key is still running."""


async def once(
    connection: AsyncConnection[Any],
    *,
    principal: Principal,
    key: str,
    request: BaseModel,
    make: Callable[[], Awaitable[Answer]],
    answer: type[Answer],
) -> tuple[Answer, bool]:
    """(the answer, whether it was made now). Within the connection's transaction: an error gives the key back too.

    A request that finds its key taken waits for the first one's commit, which the unique index decides.
    Raises IdempotencyKeyReused, IdempotencyKeyInUse.
    """
    values: dict[str, Any] = {
        "caller": _caller(principal),
        "key": key,
        "fingerprint": _fingerprint(request),
    }
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(f"SET LOCAL lock_timeout = '{WAIT}'".encode())
        try:
            await cursor.execute(_TAKE.encode(), values)
        except LockNotAvailable as error:
            raise IdempotencyKeyInUse("Wait for the answer of the first request.", retry_after=1) from error
        if await cursor.fetchone() is None:
            await cursor.execute(_READ.encode(), values)
            return _first_answer(await cursor.fetchone(), values["fingerprint"], answer), False
        made = await make()
        await cursor.execute(_KEEP.encode(), values | {"answer": Jsonb(made.model_dump(mode="json"))})
        return made, True


def _caller(principal: Principal) -> str:
    """Whose key it is: somebody who was bound to another client is another caller, for an answer is a client's own."""
    return principal.subject if principal.client_id is None else f"{principal.subject} of {principal.client_id}"


def _fingerprint(request: BaseModel) -> str:
    """The same for the same body, however its JSON was laid out; another for another kind of request."""
    body = json.dumps(request.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{type(request).__name__}\n{body}".encode()).hexdigest()


def _first_answer(known: Row | None, fingerprint: str, answer: type[Answer]) -> Answer:
    assert known is not None  # noqa: S101  a key that is taken and committed stays for a day
    if known["fingerprint"] != fingerprint:
        raise IdempotencyKeyReused("Send another key with another body.")
    return answer.model_validate(known["answer"])


async def once_in_session(
    session: AsyncSession,
    *,
    principal: Principal,
    key: str | None,
    request: BaseModel,
    make: Callable[[], Awaitable[Answer]],
    answer: type[Answer],
) -> Answer:
    """`once` in a session's transaction; without a key, simply make."""
    if key is None:
        return await make()
    connection = (await (await session.connection()).get_raw_connection()).driver_connection
    assert isinstance(connection, AsyncConnection)  # noqa: S101  what the driver of every session is
    return (await once(connection, principal=principal, key=key, request=request, make=make, answer=answer))[0]
