"""Users: people with a role. An admin who is bound to a client sees and changes that client's users alone."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from loguru import logger
from pydantic import SecretStr, ValidationError
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_service import audit, logins, sessions
from auth_service.audit import SYSTEM, Actor, Origin
from auth_service.models import User
from auth_service.passwords import Passwords, PasswordTooCommon, check_strength
from auth_service.revocations import Revoker
from auth_service.schemas import Role, UserCreate, UserFilter, UserPublic, UserUpdate
from auth_service.throttle import Throttle
from triton_common.auth import Principal
from triton_common.db import Database, newest, transaction
from triton_common.errors import Conflict, Forbidden, NotFound
from triton_common.messages import Outcome
from triton_common.revocations import Kind
from triton_common.schemas import Page

ADMINS: Final = 0x61646D696E  # "admin": a lock


class UserNotFound(NotFound):
    """There is no such user."""


class UserClientNotFound(NotFound):
    """The user's client does not exist for you."""


class WrongPassword(Forbidden):
    """The present password is another one."""


class LastAdmin(Conflict):
    """Nobody else could administer the platform."""


def public(user: User) -> UserPublic:
    """As others see it."""
    shown = user.model_dump(include=set(UserPublic.model_fields) - {"has_password"})
    return UserPublic(**shown, has_password=user.password_hash is not None)


async def create(
    session: AsyncSession, *, by: Principal, origin: Origin, passwords: Passwords, new: UserCreate
) -> User:
    """A new user. Raises UserClientNotFound, PasswordTooCommon; an address that is taken turns up as AlreadyExists."""
    if not _may_bind(by, new.client_id):
        raise UserClientNotFound
    user = await _add(session, passwords=passwords, new=new)
    audit.record(
        session,
        "user.created",
        actor=Actor.of(by),
        origin=origin,
        on=("user", str(user.id)),
        client_id=user.client_id,
        role=user.role,
    )
    return user


async def get(session: AsyncSession, *, by: Principal, user_id: UUID, change: bool = False) -> User:
    """A user, locked when it is to `change`. Raises UserNotFound, for another client's too."""
    user = await session.get(User, user_id, with_for_update=change)
    if user is None or not (by.is_staff or user.client_id == by.client_id):
        raise UserNotFound(f"There is no user {user_id}.")
    return user


async def page(session: AsyncSession, *, by: Principal, wanted: UserFilter) -> Page[UserPublic]:
    """Users, newest first. Raises InvalidCursor."""
    conditions: list[Any] = [] if by.is_staff else [col(User.client_id) == by.client_id]
    for column, value in ((User.email, wanted.email), (User.role, wanted.role), (User.client_id, wanted.client_id)):
        if value is not None:
            conditions.append(col(column) == value)
    if wanted.active is not None:
        conditions.append(col(User.deactivated_at).is_(None) == wanted.active)
    found, next_cursor = await newest(session, User, *conditions, limit=wanted.limit, cursor=wanted.cursor)
    return Page(items=[public(user) for user in found], next_cursor=next_cursor)


async def update(
    session: AsyncSession, *, by: Principal, origin: Origin, revoker: Revoker, user_id: UUID, change: UserUpdate
) -> User:
    """Change a role, or what a user is bound to. Their tokens are refused from then on; a refresh gets them new ones.

    Raises UserNotFound, UserClientNotFound, LastAdmin.
    """
    await _one_at_a_time(session)
    user = await get(session, by=by, user_id=user_id, change=True)
    wanted = change.model_dump(exclude_unset=True)
    if "client_id" in wanted and not _may_bind(by, wanted["client_id"]):
        raise UserClientNotFound
    changed = {name: value for name, value in wanted.items() if getattr(user, name) != value}
    if not changed:
        return user
    await _leave_an_admin(session, user, but=changed)
    for name, value in changed.items():
        setattr(user, name, value)
    _revoke_tokens(session, user, revoker=revoker)
    told = {name: str(value) for name, value in changed.items()}
    _record(session, "user.changed", by=by, origin=origin, user=user, changed=told)
    return user


async def give_role(session: AsyncSession, *, revoker: Revoker, origin: Origin, user_id: UUID, role: Role) -> None:
    """The role that the identity provider tells of a user, who logs in just now. Raises LastAdmin."""
    await _one_at_a_time(session)
    user = await session.get_one(User, user_id, with_for_update=True)
    await _leave_an_admin(session, user, but={"role": role})
    user.role = role
    _revoke_tokens(session, user, revoker=revoker)
    on = ("user", str(user.id))
    audit.record(
        session, "user.changed", actor=SYSTEM, origin=origin, on=on, client_id=user.client_id, role=role, method="sso"
    )


async def deactivate(session: AsyncSession, *, by: Principal, origin: Origin, revoker: Revoker, user_id: UUID) -> User:
    """End all of a user's sessions, tokens and API keys, and let no new ones begin. Raises UserNotFound, LastAdmin."""
    await _one_at_a_time(session)
    user = await get(session, by=by, user_id=user_id, change=True)
    if user.deactivated_at is None:
        await _leave_an_admin(session, user, but={"deactivated_at": True})
        user.deactivated_at = datetime.now(UTC)
        await sessions.end_all(session, user, by=by, origin=origin, reason="deactivated", revoker=revoker)
        _revoke_tokens(session, user, revoker=revoker)
        _record(session, "user.deactivated", by=by, origin=origin, user=user)
    return user


async def activate(session: AsyncSession, *, by: Principal, origin: Origin, user_id: UUID) -> User:
    """Let a deactivated user log in again. Raises UserNotFound."""
    user = await get(session, by=by, user_id=user_id, change=True)
    if user.deactivated_at is not None:
        user.deactivated_at = None
        _record(session, "user.activated", by=by, origin=origin, user=user)
    return user


async def reset_password(
    session: AsyncSession,
    *,
    by: Principal,
    origin: Origin,
    passwords: Passwords,
    revoker: Revoker,
    user_id: UUID,
    password: str,
) -> None:
    """Give a user another password, and end their sessions. Raises UserNotFound, PasswordTooCommon."""
    password_hash = await passwords.hash(password)  # before the first statement: no connection is held meanwhile
    user = await get(session, by=by, user_id=user_id, change=True)
    check_strength(password, email=user.email)
    user.password_hash, user.password_changed_at = password_hash, datetime.now(UTC)
    await sessions.end_all(session, user, by=by, origin=origin, reason="password_changed", revoker=revoker)
    _revoke_tokens(session, user, revoker=revoker)
    _record(session, "user.password_reset", by=by, origin=origin, user=user)


async def change_password(
    database: Database,
    *,
    by: Principal,
    passwords: Passwords,
    throttle: Throttle,
    revoker: Revoker,
    origin: Origin,
    current: str,
    new: str,
) -> None:
    """Replace one's own password and end one's other sessions. Raises WrongPassword, PasswordTooCommon,
    TooManyAttempts: guesses count with those of logins."""
    async with transaction(database) as session:
        user = await session.get(User, UUID(by.subject))
    if user is None or user.password_hash is None:
        raise WrongPassword("This account has no password: it logs in by single sign-on.")
    check_strength(new, email=user.email)
    async with logins.admitted(database, throttle, user.email, origin=origin):
        if not await passwords.verify(current, password_hash=user.password_hash):
            async with transaction(database) as session:
                _record(session, "user.password_changed", by=by, origin=origin, user=user, outcome="refused")
            raise WrongPassword
    password_hash = await passwords.hash(new)
    async with transaction(database) as session:
        present = await session.get_one(User, user.id, with_for_update=True)
        if present.password_hash != user.password_hash:
            raise WrongPassword
        present.password_hash, present.password_changed_at = password_hash, datetime.now(UTC)
        reason: sessions.EndReason = "password_changed"
        await sessions.end_all(
            session, present, by=by, origin=origin, reason=reason, revoker=revoker, but=by.session_id
        )
        _record(session, "user.password_changed", by=by, origin=origin, user=present)


async def bootstrap_admin(
    session: AsyncSession, *, passwords: Passwords, email: str | None, password: SecretStr | None
) -> None:
    """Make the first admin, if there is no user yet. Raises ValueError, naming the variables, for bad values."""
    if (await session.exec(select(User.id).limit(1))).first() is not None:
        return
    if not email or not password:
        logger.warning("there is no user yet: set AUTH_BOOTSTRAP_EMAIL and AUTH_BOOTSTRAP_PASSWORD, and start again")
        return
    try:
        first = UserCreate(email=email, password=password, role="admin")
        user = await _add(session, passwords=passwords, new=first)
    except ValidationError as error:
        reasons = "; ".join(f"AUTH_BOOTSTRAP_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise ValueError(f"the first admin cannot be made: {reasons}") from None
    except PasswordTooCommon as error:
        raise ValueError(f"the first admin cannot be made: AUTH_BOOTSTRAP_PASSWORD: {error.message}") from None
    audit.record(session, "user.created", actor=SYSTEM, on=("user", str(user.id)), role=user.role)
    logger.bind(user_id=str(user.id)).info("first admin made")


async def _add(session: AsyncSession, *, passwords: Passwords, new: UserCreate) -> User:
    password = new.password.get_secret_value()
    check_strength(password, email=new.email)
    password_hash = await passwords.hash(password)
    user = User(email=new.email, password_hash=password_hash, role=new.role, client_id=new.client_id)
    session.add(user)
    await session.flush()
    return user


async def _leave_an_admin(session: AsyncSession, user: User, *, but: dict[str, Any]) -> None:
    """Raises LastAdmin when, `but` for this change, nobody could make another admin."""
    stays = but.get("role", "admin") == "admin" and but.get("client_id") is None and "deactivated_at" not in but
    if stays or user.role != "admin" or user.client_id is not None or user.deactivated_at is not None:
        return
    is_admin = (col(User.role) == "admin", col(User.client_id).is_(None), col(User.deactivated_at).is_(None))
    if (await session.exec(select(User.id).where(*is_admin, col(User.id) != user.id).limit(1))).first() is None:
        raise LastAdmin


def _may_bind(by: Principal, client_id: UUID | None) -> bool:
    return by.is_staff or client_id == by.client_id


async def _one_at_a_time(session: AsyncSession) -> None:
    """Until the transaction ends nobody else changes who is an admin: of two last ones, one stays."""
    await session.exec(select(func.pg_advisory_xact_lock(ADMINS)))


def _revoke_tokens(session: AsyncSession, user: User, *, revoker: Revoker) -> None:
    """Refuse every token and API key principal of before."""
    user.token_epoch += 1
    revoker.revoke(session, Kind.SUBJECT, str(user.id), epoch=user.token_epoch)


def _record(
    session: AsyncSession,
    action: str,
    *,
    by: Principal,
    origin: Origin,
    user: User,
    outcome: Outcome = "succeeded",
    **details: Any,
) -> None:
    audit.record(
        session,
        action,
        actor=Actor.of(by),
        origin=origin,
        on=("user", str(user.id)),
        client_id=user.client_id,
        outcome=outcome,
        **details,
    )
