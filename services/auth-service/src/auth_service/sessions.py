"""Sessions: a login begins one, its refresh token is replaced at each use; logout, its owner, an admin or the reuse of
a token ends it, and its access tokens with it."""

from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from loguru import logger
from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_service import audit, tokens
from auth_service.audit import ANONYMOUS, Actor, Origin
from auth_service.models import RefreshToken, User, UserSession
from auth_service.revocations import Revoker
from auth_service.schemas import SessionPublic, TokenPair
from auth_service.tokens import TokenIssuer
from triton_common.auth import Principal, scopes_of
from triton_common.db import Database, newest, transaction
from triton_common.errors import NotFound, Unauthorized
from triton_common.revocations import Kind
from triton_common.schemas import Page

EndReason = Literal["logout", "token_reused", "ended", "ended_by_admin", "deactivated", "password_changed"]


class InvalidRefreshToken(Unauthorized):
    """The refresh token is unknown, or its session is over."""


class RefreshTokenReused(Unauthorized):
    """The refresh token was used before, so its session has been ended."""


class SessionNotFound(NotFound):
    """There is no such session, or it is over."""


async def begin(
    session: AsyncSession, user: User, *, issuer: TokenIssuer, method: Literal["password", "sso"], origin: Origin
) -> TokenPair:
    """The first tokens of a new session of a user who has shown who they are. Callers hold the user's row."""
    now = datetime.now(UTC)
    expired = (col(UserSession.user_id) == user.id, col(UserSession.expires_at) < now)
    await session.exec(delete(UserSession).where(*expired))
    begun = UserSession(
        user_id=user.id,
        created_at=now,
        expires_at=issuer.session_end(began=now, used=now),
        method=method,
        address=origin.address,
        user_agent=origin.user_agent,
    )
    session.add(begun)
    user.last_login_at = now
    session.add(user)
    await session.flush()
    refresh_token = tokens.new_refresh_token()
    session.add(RefreshToken(token_hash=tokens.fingerprint(refresh_token), session_id=begun.id))
    audit.record(
        session,
        "login.succeeded",
        actor=Actor("user", str(user.id)),
        origin=origin,
        on=("session", str(begun.id)),
        client_id=user.client_id,
        method=method,
    )
    return _pair(user, begun, refresh_token, issuer=issuer)


async def refresh(
    database: Database, *, issuer: TokenIssuer, revoker: Revoker, origin: Origin, refresh_token: str
) -> TokenPair:
    """Replace a refresh token by its successor. Raises InvalidRefreshToken, or RefreshTokenReused: the session is over.

    Within the grace the token just used is answered with the same successor, so that a client whose answer was lost, or
    which refreshed twice at once, keeps its session.
    """
    async with transaction(database) as session:
        outcome = await _rotate(session, issuer=issuer, revoker=revoker, origin=origin, refresh_token=refresh_token)
    if isinstance(outcome, Unauthorized):  # raised only now: inside, it would roll back the end of the session
        raise outcome
    return outcome


async def _rotate(
    session: AsyncSession, *, issuer: TokenIssuer, revoker: Revoker, origin: Origin, refresh_token: str
) -> TokenPair | Unauthorized:
    now = datetime.now(UTC)
    current = await _locked(session, refresh_token)
    if current is None or current.ended_at or current.expires_at <= now:
        return InvalidRefreshToken()
    token = await session.get_one(RefreshToken, tokens.fingerprint(refresh_token))
    user = await session.get_one(User, current.user_id)
    successor = issuer.successor(refresh_token)
    if token.used_at is None:
        token.used_at = current.last_used_at = now
        current.expires_at = issuer.session_end(began=current.created_at, used=now)
        session.add(RefreshToken(token_hash=tokens.fingerprint(successor), session_id=current.id))
        actor = Actor("user", str(user.id))
        _record(session, "session.refreshed", actor=actor, origin=origin, of=user, session_id=current.id)
        return _pair(user, current, successor, issuer=issuer)
    following = await session.get_one(RefreshToken, tokens.fingerprint(successor))
    if now - token.used_at < issuer.refresh_grace and following.used_at is None:
        return _pair(user, current, successor, issuer=issuer)
    _end(session, current, reason="token_reused", revoker=revoker)
    audit.record(
        session,
        "session.token_reused",
        actor=ANONYMOUS,
        origin=origin,
        on=("session", str(current.id)),
        client_id=user.client_id,
        outcome="refused",
        user_id=str(user.id),
    )
    logger.bind(session_id=str(current.id), user_id=str(user.id)).warning("refresh token used again: session ended")
    return RefreshTokenReused()


async def log_out(session: AsyncSession, *, revoker: Revoker, origin: Origin, refresh_token: str) -> None:
    """End the token's session. An unknown token, or one of a session that is over, changes nothing."""
    current = await _locked(session, refresh_token)
    if current is not None and current.ended_at is None:
        _end(session, current, reason="logout", revoker=revoker)
        user = await session.get_one(User, current.user_id)
        actor = Actor("user", str(user.id))
        _record(session, "session.ended", actor=actor, origin=origin, of=user, session_id=current.id, reason="logout")


async def page(
    session: AsyncSession, *, by: Principal, user_id: UUID, limit: int, cursor: str | None
) -> Page[SessionPublic]:
    """A user's sessions that go on, newest first. Raises InvalidCursor."""
    mine = (col(UserSession.user_id) == user_id, *_going_on())
    found, next_cursor = await newest(session, UserSession, *mine, limit=limit, cursor=cursor)
    return Page(
        items=[
            SessionPublic(
                **one.model_dump(include=set(SessionPublic.model_fields)), current=str(one.id) == by.session_id
            )
            for one in found
        ],
        next_cursor=next_cursor,
    )


async def end(session: AsyncSession, *, by: Principal, revoker: Revoker, origin: Origin, session_id: UUID) -> None:
    """End one of one's own sessions; with the scope users:admin, anyone's one sees. Raises SessionNotFound."""
    found = await session.get(UserSession, session_id, with_for_update=True)
    if found is None or found.ended_at is not None or found.expires_at <= datetime.now(UTC):
        raise SessionNotFound
    own = str(found.user_id) == by.subject
    user = await session.get_one(User, found.user_id)
    if not own and not ("users:admin" in by.scopes and (by.is_staff or user.client_id == by.client_id)):
        raise SessionNotFound
    reason: EndReason = "ended" if own else "ended_by_admin"
    _end(session, found, reason=reason, revoker=revoker)
    _record(session, "session.ended", actor=Actor.of(by), origin=origin, of=user, session_id=session_id, reason=reason)


async def end_others(session: AsyncSession, *, by: Principal, user_id: UUID, revoker: Revoker, origin: Origin) -> None:
    """End all of a user's sessions but the principal's own: one's others, or as an admin all of somebody else."""
    user = await session.get(User, user_id)
    if user is not None:
        reason: EndReason = "ended" if str(user_id) == by.subject else "ended_by_admin"
        await end_all(session, user, by=by, origin=origin, reason=reason, revoker=revoker, but=by.session_id)


async def end_all(
    session: AsyncSession,
    user: User,
    *,
    by: Principal,
    origin: Origin,
    reason: EndReason,
    revoker: Revoker,
    but: str | None = None,
) -> None:
    """End a user's sessions, `but` one."""
    conditions = [col(UserSession.user_id) == user.id, *_going_on()]
    if but is not None:
        conditions.append(col(UserSession.id) != UUID(but))
    ids = (await session.exec(select(UserSession.id).where(*conditions).with_for_update())).all()
    ended = update(UserSession).where(col(UserSession.id).in_(ids))
    await session.exec(ended.values(ended_at=datetime.now(UTC), end_reason=reason))
    for ended_id in ids:
        revoker.revoke(session, Kind.SESSION, str(ended_id))
        _record(
            session, "session.ended", actor=Actor.of(by), origin=origin, of=user, session_id=ended_id, reason=reason
        )


def _going_on() -> list[Any]:
    return [col(UserSession.ended_at).is_(None), col(UserSession.expires_at) > datetime.now(UTC)]


def _end(session: AsyncSession, current: UserSession, *, reason: EndReason, revoker: Revoker) -> None:
    current.ended_at, current.end_reason = datetime.now(UTC), reason
    revoker.revoke(session, Kind.SESSION, str(current.id))


def _record(
    session: AsyncSession,
    action: str,
    *,
    actor: Actor,
    origin: Origin,
    of: User,
    session_id: UUID,
    **details: Any,
) -> None:
    """`of` is the user whose session it is: their client's admins see it."""
    details["user_id"] = str(of.id)
    on = ("session", str(session_id))
    audit.record(session, action, actor=actor, origin=origin, on=on, client_id=of.client_id, **details)


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
        scopes=scopes_of(user.role, client_id=user.client_id),
        epoch=user.token_epoch,
        client_id=user.client_id,
        session_id=session.id,
    )
    return TokenPair(access_token=access_token, refresh_token=refresh_token, expires_in=issuer.expires_in)
