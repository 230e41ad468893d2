"""Logins by e-mail address and password: slowed down when many go wrong, and the same to see for a user that there is
not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import Counter
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_service import audit, sessions
from auth_service.audit import ANONYMOUS, Origin
from auth_service.models import User
from auth_service.passwords import Passwords
from auth_service.schemas import TokenPair
from auth_service.throttle import Throttle, TooManyAttempts
from auth_service.tokens import TokenIssuer
from triton_common.db import Database, transaction
from triton_common.errors import Unauthorized

ATTEMPTS = Counter("triton_login_attempts_total", "Logins by outcome: succeeded or failed", ["outcome"])
for _outcome in ("succeeded", "failed"):  # a series that begins at 0 shows its first increase
    ATTEMPTS.labels(_outcome)


class InvalidCredentials(Unauthorized):
    """The e-mail address or the password is wrong."""


async def log_in(
    database: Database,
    *,
    passwords: Passwords,
    throttle: Throttle,
    issuer: TokenIssuer,
    origin: Origin,
    email: str,
    password: str,
) -> TokenPair:
    """Begin a session. Raises InvalidCredentials: after the same time, with the same words, for an unknown or
    deactivated user too; TooManyAttempts.

    The password is hashed between two transactions: a queue of logins holds no connections.
    """
    async with admitted(database, throttle, email, origin=origin):
        async with transaction(database) as session:
            user = (await session.exec(select(User).where(User.email == email))).one_or_none()
        matches = await passwords.verify(password, password_hash=user.password_hash if user else None)
        rehashed = None
        if user and user.password_hash and matches and passwords.is_outdated(user.password_hash):
            rehashed = await passwords.hash(password)
        async with transaction(database) as session:
            pair = await _begin_if(session, user, matches=matches, rehashed=rehashed, issuer=issuer, origin=origin)
        ATTEMPTS.labels("succeeded" if pair else "failed").inc()
        if pair is None:  # raised only now: inside, it would roll back what the audit log tells of it
            raise InvalidCredentials
        return pair


@asynccontextmanager
async def admitted(database: Database, throttle: Throttle, email: str, *, origin: Origin) -> AsyncIterator[None]:
    """Around an attempt at the password of this address. Raises TooManyAttempts, which the audit log is told of."""
    try:
        async with throttle.attempt(email, address=origin.address):
            yield
    except TooManyAttempts as refused:
        if refused.is_news:
            async with transaction(database) as session:
                user = (await session.exec(select(User).where(User.email == email))).one_or_none()
                audit.record(
                    session,
                    "login.throttled",
                    actor=ANONYMOUS,
                    origin=origin,
                    on=("user", str(user.id)) if user else None,
                    client_id=user.client_id if user else None,
                    outcome="refused",
                )
        raise


async def _begin_if(
    session: AsyncSession,
    read: User | None,
    *,
    matches: bool,
    rehashed: str | None,
    issuer: TokenIssuer,
    origin: Origin,
) -> TokenPair | None:
    """The session of the user as read before the hash, unless the password or the account changed meanwhile."""
    user = await session.get(User, read.id, with_for_update=True) if read and matches else None
    if user is None or read is None or user.password_hash != read.password_hash or user.deactivated_at is not None:
        audit.record(
            session,
            "login.failed",
            actor=ANONYMOUS,
            origin=origin,
            on=("user", str(read.id)) if read else None,
            client_id=read.client_id if read else None,
            outcome="refused",
        )
        return None
    if rehashed:
        user.password_hash = rehashed
    return await sessions.begin(session, user, issuer=issuer, method="password", origin=origin)
