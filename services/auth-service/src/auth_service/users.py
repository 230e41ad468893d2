"""Users: people with a role. An admin who is bound to a client sees and makes that client's users alone."""

from uuid import UUID

from loguru import logger
from pydantic import SecretStr, ValidationError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_service.models import User
from auth_service.passwords import Passwords
from auth_service.schemas import UserCreate, UserPublic
from triton_common.auth import Principal
from triton_common.db import newest
from triton_common.errors import NotFound
from triton_common.schemas import Page


class UserNotFound(NotFound):
    """There is no such user."""


class UserClientNotFound(NotFound):
    """The user's client does not exist for you."""


async def create(session: AsyncSession, *, by: Principal, passwords: Passwords, new: UserCreate) -> User:
    """A new user. Raises UserClientNotFound; an address that is taken turns up at commit, as AlreadyExists."""
    if not by.is_staff and new.client_id != by.client_id:
        raise UserClientNotFound
    return await _add(session, passwords=passwords, new=new)


async def get(session: AsyncSession, *, by: Principal, user_id: UUID) -> User:
    """A user. Raises UserNotFound, for another client's too."""
    user = await session.get(User, user_id)
    if user is None or not (by.is_staff or user.client_id == by.client_id):
        raise UserNotFound(f"There is no user {user_id}.")
    return user


async def page(session: AsyncSession, *, by: Principal, limit: int, cursor: str | None) -> Page[UserPublic]:
    """Users, newest first. Raises InvalidCursor."""
    mine = [] if by.is_staff else [col(User.client_id) == by.client_id]
    users, next_cursor = await newest(session, User, *mine, limit=limit, cursor=cursor)
    return Page(
        items=[UserPublic.model_validate(user, from_attributes=True) for user in users], next_cursor=next_cursor
    )


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
    except ValidationError as error:
        reasons = "; ".join(f"AUTH_BOOTSTRAP_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise ValueError(f"the first admin cannot be made: {reasons}") from None
    user = await _add(session, passwords=passwords, new=first)
    logger.bind(user_id=str(user.id)).info("first admin made")


async def _add(session: AsyncSession, *, passwords: Passwords, new: UserCreate) -> User:
    password_hash = await passwords.hash(new.password.get_secret_value())
    user = User(email=new.email, password_hash=password_hash, role=new.role, client_id=new.client_id)
    session.add(user)
    await session.flush()
    return user
