"""Login, refresh, logout, one's sessions, one's password, and who one is."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, status

from auth_service import logins, sessions, users
from auth_service.logins import InvalidCredentials
from auth_service.models import User
from auth_service.passwords import PasswordHashingBusy, PasswordTooCommon
from auth_service.routes.state import (
    ERRORS,
    InSession,
    IssuerDep,
    OriginDep,
    PasswordsDep,
    RevokerDep,
    SessionRequired,
    ThrottleDep,
    not_stored,
    subject_of,
)
from auth_service.schemas import LoginRequest, Me, PageQuery, PasswordChange, RefreshRequest, SessionPublic, TokenPair
from auth_service.sessions import (
    InvalidRefreshToken,
    RefreshTokenReused,
    SessionNotFound,
)
from auth_service.throttle import TooManyAttempts
from auth_service.users import WrongPassword
from triton_common.auth import CurrentPrincipal
from triton_common.db import DatabaseDep, DatabaseUnavailable, SessionDep
from triton_common.errors import problems
from triton_common.pages import InvalidCursor, once
from triton_common.schemas import Page

router = APIRouter(prefix="/api/v1/auth", tags=["auth"])


@router.post(
    "/login",
    dependencies=[Depends(not_stored)],
    responses=problems(InvalidCredentials, TooManyAttempts, PasswordHashingBusy, DatabaseUnavailable),
)
async def log_in(  # noqa: PLR0917  FastAPI calls it by name
    body: LoginRequest,
    database: DatabaseDep,
    passwords: PasswordsDep,
    throttle: ThrottleDep,
    issuer: IssuerDep,
    origin: OriginDep,
) -> TokenPair:
    """Begin a session: an access token to send as `Authorization: Bearer`, and a refresh token to get the next.

    After ten wrong logins of an account each further one has to wait, longer each time: 429 with `Retry-After`.
    """
    return await logins.log_in(
        database,
        passwords=passwords,
        throttle=throttle,
        issuer=issuer,
        origin=origin,
        email=body.email,
        password=body.password.get_secret_value(),
    )


@router.post(
    "/refresh",
    dependencies=[Depends(not_stored)],
    responses=problems(InvalidRefreshToken, RefreshTokenReused, DatabaseUnavailable),
)
async def refresh(
    body: RefreshRequest, database: DatabaseDep, issuer: IssuerDep, revoker: RevokerDep, origin: OriginDep
) -> TokenPair:
    """Replace a refresh token: the answer's is the next one, and the one sent is used up.

    Sent again within ten seconds it is answered with the same next one. Sent again later it ends the session, since two
    parties seem to hold it.
    """
    return await sessions.refresh(
        database,
        issuer=issuer,
        revoker=revoker,
        origin=origin,
        refresh_token=body.refresh_token.get_secret_value(),
    )


@router.post("/logout", status_code=status.HTTP_204_NO_CONTENT, responses=problems(DatabaseUnavailable))
async def log_out(body: RefreshRequest, session: SessionDep, revoker: RevokerDep, origin: OriginDep) -> None:
    """End the session of a refresh token: none of its tokens refreshes any more, and within seconds every service
    refuses its access tokens. 204 too when it was over already."""
    await sessions.log_out(session, revoker=revoker, origin=origin, refresh_token=body.refresh_token.get_secret_value())


@router.get("/me", responses=problems(*ERRORS))
async def me(principal: CurrentPrincipal, session: SessionDep) -> Me:
    """Who the access token belongs to, and what it allows."""
    subject = subject_of(principal)
    user = await session.get(User, subject)
    return Me(
        id=subject,
        kind=principal.kind,
        email=user.email if user else None,
        role=principal.role,
        client_id=principal.client_id,
        scopes=sorted(principal.scopes),
    )


@router.put(
    "/me/password",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(
        *ERRORS, SessionRequired, WrongPassword, PasswordTooCommon, TooManyAttempts, PasswordHashingBusy
    ),
)
async def change_password(  # noqa: PLR0917  FastAPI calls it by name
    body: PasswordChange,
    principal: InSession,
    database: DatabaseDep,
    passwords: PasswordsDep,
    throttle: ThrottleDep,
    revoker: RevokerDep,
    origin: OriginDep,
) -> None:
    """Replace one's own password. All one's other sessions end."""
    await users.change_password(
        database,
        by=principal,
        passwords=passwords,
        throttle=throttle,
        revoker=revoker,
        origin=origin,
        current=body.current_password.get_secret_value(),
        new=body.new_password.get_secret_value(),
    )


@router.get("/sessions", dependencies=[once()], responses=problems(*ERRORS, SessionRequired, InvalidCursor))
async def list_sessions(
    principal: InSession, session: SessionDep, wanted: Annotated[PageQuery, Query()]
) -> Page[SessionPublic]:
    """One's own sessions that go on, newest first."""
    return await sessions.page(
        session, by=principal, user_id=subject_of(principal), limit=wanted.limit, cursor=wanted.cursor
    )


@router.delete("/sessions", status_code=status.HTTP_204_NO_CONTENT, responses=problems(*ERRORS, SessionRequired))
async def end_other_sessions(principal: InSession, session: SessionDep, revoker: RevokerDep, origin: OriginDep) -> None:
    """End all one's own sessions but the one that asks."""
    await sessions.end_others(session, by=principal, user_id=subject_of(principal), revoker=revoker, origin=origin)


@router.delete(
    "/sessions/{session_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(*ERRORS, SessionRequired, SessionNotFound),
)
async def end_session(
    session_id: UUID, principal: InSession, session: SessionDep, revoker: RevokerDep, origin: OriginDep
) -> None:
    """End one of one's own sessions; admins, anyone's. Every service refuses its access tokens within seconds."""
    await sessions.end(session, by=principal, revoker=revoker, origin=origin, session_id=session_id)
