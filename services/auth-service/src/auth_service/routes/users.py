"""Users, as admins see and change them; with their sessions and API keys."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from auth_service import api_keys, sessions, users
from auth_service.passwords import PasswordHashingBusy, PasswordTooCommon
from auth_service.routes.state import ADMIN_ERRORS, OriginDep, PasswordsDep, RevokerDep, UsersAdmin
from auth_service.schemas import (
    ApiKeyPublic,
    PageQuery,
    PasswordReset,
    SessionPublic,
    UserCreate,
    UserFilter,
    UserPublic,
    UserUpdate,
)
from auth_service.users import LastAdmin, UserClientNotFound, UserNotFound
from triton_common.db import AlreadyExists, SessionDep
from triton_common.errors import problems
from triton_common.pages import InvalidCursor, once
from triton_common.schemas import Page

router = APIRouter(prefix="/api/v1/auth/users", tags=["users"], responses=problems(*ADMIN_ERRORS))


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=problems(*ADMIN_ERRORS, UserClientNotFound, AlreadyExists, PasswordTooCommon, PasswordHashingBusy),
)
async def create_user(  # noqa: PLR0917  FastAPI calls it by name
    body: UserCreate,
    principal: UsersAdmin,
    session: SessionDep,
    passwords: PasswordsDep,
    origin: OriginDep,
    response: Response,
) -> UserPublic:
    """Make a user. One with a client_id sees that client alone."""
    user = await users.create(session, by=principal, origin=origin, passwords=passwords, new=body)
    response.headers["Location"] = f"/api/v1/auth/users/{user.id}"
    return users.public(user)


@router.get("", dependencies=[once()], responses=problems(InvalidCursor))
async def list_users(
    principal: UsersAdmin, session: SessionDep, wanted: Annotated[UserFilter, Query()]
) -> Page[UserPublic]:
    """Users that meet all conditions that are given, newest first."""
    return await users.page(session, by=principal, wanted=wanted)


@router.get("/{user_id}", responses=problems(UserNotFound))
async def get_user(user_id: UUID, principal: UsersAdmin, session: SessionDep) -> UserPublic:
    """One user."""
    return users.public(await users.get(session, by=principal, user_id=user_id))


@router.patch("/{user_id}", responses=problems(UserNotFound, UserClientNotFound, LastAdmin))
async def update_user(  # noqa: PLR0917  FastAPI calls it by name
    user_id: UUID,
    body: UserUpdate,
    principal: UsersAdmin,
    session: SessionDep,
    revoker: RevokerDep,
    origin: OriginDep,
) -> UserPublic:
    """Change a user's role, or the client they are bound to. Within seconds every service refuses the access tokens
    they have; their next refresh brings the new rights."""
    user = await users.update(session, by=principal, origin=origin, revoker=revoker, user_id=user_id, change=body)
    return users.public(user)


@router.post("/{user_id}/deactivate", responses=problems(UserNotFound, LastAdmin))
async def deactivate_user(
    user_id: UUID, principal: UsersAdmin, session: SessionDep, revoker: RevokerDep, origin: OriginDep
) -> UserPublic:
    """Lock a user out: sessions and API keys end, access tokens are refused within seconds, nothing new begins."""
    return users.public(await users.deactivate(session, by=principal, origin=origin, revoker=revoker, user_id=user_id))


@router.post("/{user_id}/activate", responses=problems(UserNotFound))
async def activate_user(user_id: UUID, principal: UsersAdmin, session: SessionDep, origin: OriginDep) -> UserPublic:
    """Let a deactivated user log in again."""
    return users.public(await users.activate(session, by=principal, origin=origin, user_id=user_id))


@router.put(
    "/{user_id}/password",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(*ADMIN_ERRORS, UserNotFound, PasswordTooCommon, PasswordHashingBusy),
)
async def reset_password(  # noqa: PLR0917  FastAPI calls it by name
    user_id: UUID,
    body: PasswordReset,
    principal: UsersAdmin,
    session: SessionDep,
    passwords: PasswordsDep,
    revoker: RevokerDep,
    origin: OriginDep,
) -> None:
    """Give a user another password. All their sessions end."""
    await users.reset_password(
        session,
        by=principal,
        origin=origin,
        passwords=passwords,
        revoker=revoker,
        user_id=user_id,
        password=body.password.get_secret_value(),
    )


@router.get("/{user_id}/sessions", dependencies=[once()], responses=problems(UserNotFound, InvalidCursor))
async def list_user_sessions(
    user_id: UUID, principal: UsersAdmin, session: SessionDep, wanted: Annotated[PageQuery, Query()]
) -> Page[SessionPublic]:
    """A user's sessions that go on, newest first."""
    await users.get(session, by=principal, user_id=user_id)
    return await sessions.page(session, by=principal, user_id=user_id, limit=wanted.limit, cursor=wanted.cursor)


@router.delete("/{user_id}/sessions", status_code=status.HTTP_204_NO_CONTENT, responses=problems(UserNotFound))
async def end_user_sessions(
    user_id: UUID, principal: UsersAdmin, session: SessionDep, revoker: RevokerDep, origin: OriginDep
) -> None:
    """End all of a user's sessions, but the one that asks."""
    await users.get(session, by=principal, user_id=user_id)
    await sessions.end_others(session, by=principal, user_id=user_id, revoker=revoker, origin=origin)


@router.get("/{user_id}/api-keys", dependencies=[once()], responses=problems(UserNotFound, InvalidCursor))
async def list_user_api_keys(
    user_id: UUID, principal: UsersAdmin, session: SessionDep, wanted: Annotated[PageQuery, Query()]
) -> Page[ApiKeyPublic]:
    """A user's API keys that are good, newest first."""
    await users.get(session, by=principal, user_id=user_id)
    return await api_keys.page(session, user_id=user_id, limit=wanted.limit, cursor=wanted.cursor)
