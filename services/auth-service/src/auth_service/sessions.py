"""Sessions: a login begins one, its refresh token is replaced at each use, logout or the reuse of a token ends it."""

from datetime import UTC, datetime

from loguru import logger
from prometheus_client import Counter
from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_service import tokens
from auth_service.models import RefreshToken, User, UserSession
from auth_service.passwords import Passwords
from auth_service.schemas import TokenPair
from auth_service.tokens import TokenIssuer
from triton_common.auth import SCOPES_OF_ROLE
from triton_common.db import Database, transaction
from triton_common.errors import Unauthorized

LOGIN_ATTEMPTS = Counter("triton_login_attempts_total", "Logins by outcome: succeeded or failed", ["outcome"])
for _outcome in ("succeeded", "failed"):  # a series that begins at 0 shows its first increase
    LOGIN_ATTEMPTS.labels(_outcome)


class InvalidCredentials(Unauthorized):
    """The e-mail address or the password is wrong."""


class InvalidRefreshToken(Unauthorized):
    """The refresh token is unknown, or its session is over."""


class RefreshTokenReused(Unauthorized):
    """The refresh token was used before, so its session has been ended."""


async def log_in(
    database: Database, *, passwords: Passwords, issuer: TokenIssuer, email: str, password: str
) -> TokenPair:
    """Begin a session. Raises InvalidCredentials: after the same time, with the same words, for an unknown address too.

    The password is hashed between two transactions: a queue of logins holds no connections.
    """
    async with transaction(database) as session:
        user = (await session.exec(select(User).where(User.email == email))).one_or_none()
    if not await passwords.verify(password, password_hash=user.password_hash if user else None) or user is None:
        LOGIN_ATTEMPTS.labels("failed").inc()
        raise InvalidCredentials
    rehashed = await passwords.hash(password) if passwords.is_outdated(user.password_hash) else None
    async with transaction(database) as session:
        if rehashed:  # unless the password was changed meanwhile
            unchanged = (col(User.id) == user.id, col(User.password_hash) == user.password_hash)
            await session.exec(update(User).where(*unchanged).values(password_hash=rehashed))
        pair = await _begin(session, user, issuer=issuer)
    LOGIN_ATTEMPTS.labels("succeeded").inc()
    return pair


async def _begin(session: AsyncSession, user: User, *, issuer: TokenIssuer) -> TokenPair:
    now = datetime.now(UTC)
    expired = (col(UserSession.user_id) == user.id, col(UserSession.expires_at) < now)
    await session.exec(delete(UserSession).where(*expired))
    begun = UserSession(user_id=user.id, expires_at=now + issuer.session_lifetime)
    session.add(begun)
    await session.flush()
    refresh_token = tokens.new_refresh_token()
    session.add(RefreshToken(token_hash=tokens.fingerprint(refresh_token), session_id=begun.id))
    return _pair(user, begun, refresh_token, issuer=issuer)


async def refresh(database: Database, *, issuer: TokenIssuer, refresh_token: str) -> TokenPair:
    """Replace a refresh token by its successor. Raises InvalidRefreshToken, or RefreshTokenReused: the session is over.

    Within the grace the token just used is answered with the same successor, so that a client whose answer was lost, or
    which refreshed twice at once, keeps its session.
    """
    async with transaction(database) as session:
        outcome = await _rotate(session, issuer=issuer, refresh_token=refresh_token)
    if isinstance(outcome, Unauthorized):  # raised only now: inside, it would roll back the end of the session
        raise outcome
    return outcome


async def _rotate(session: AsyncSession, *, issuer: TokenIssuer, refresh_token: str) -> TokenPair | Unauthorized:
    now = datetime.now(UTC)
    current = await _locked(session, refresh_token)
    if current is None or current.ended_at or current.expires_at <= now:
        return InvalidRefreshToken()
    token = await session.get_one(RefreshToken, tokens.fingerprint(refresh_token))
    user = await session.get_one(User, current.user_id)
    successor = issuer.successor(refresh_token)
    if token.used_at is None:
        token.used_at = now
        session.add(RefreshToken(token_hash=tokens.fingerprint(successor), session_id=current.id))
        return _pair(user, current, successor, issuer=issuer)
    following = await session.get_one(RefreshToken, tokens.fingerprint(successor))
    if now - token.used_at < issuer.refresh_grace and following.used_at is None:
        return _pair(user, current, successor, issuer=issuer)
    current.ended_at, current.end_reason = now, "token_reused"
    logger.bind(session_id=str(current.id), user_id=str(user.id)).warning("refresh token used again: session ended")
    return RefreshTokenReused()


async def log_out(session: AsyncSession, *, refresh_token: str) -> None:
    """End the token's session. An unknown token, or one of a session that is over, changes nothing."""
    current = await _locked(session, refresh_token)
    if current is not None and current.ended_at is None:
        current.ended_at, current.end_reason = datetime.now(UTC), "logout"


async def _locked(session: AsyncSession, refresh_token: str) -> UserSession | None:
    """The token's session, locked: uses of its tokens come one after another."""
    of_token = select(RefreshToken.session_id).where(RefreshToken.token_hash == tokens.fingerprint(refresh_token))
    return (
        await session.exec(select(UserSession).where(col(UserSession.id).in_(of_token)).with_for_update())
    ).one_or_none()


def _pair(user: User, session: UserSession, refresh_token: str, *, issuer: TokenIssuer) -> TokenPair:
    access_token = issuer.access_token(
        subject=user.id,
        role=user.role,
        scopes=SCOPES_OF_ROLE[user.role],
        client_id=user.client_id,
        session_id=session.id,
    )
    return TokenPair(access_token=access_token, refresh_token=refresh_token, expires_in=issuer.expires_in)
