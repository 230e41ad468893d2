"""Personal API keys: somebody's own programs act with some of their scopes, until the key expires or is revoked."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlmodel import col, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_service import audit
from auth_service.audit import Actor, Origin
from auth_service.models import ApiKey, User
from auth_service.revocations import Revoker
from auth_service.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyPublic
from auth_service.tokens import fingerprint
from triton_common.auth import API_KEY_PREFIX, ApiKeyInvalid, Principal, scopes_of
from triton_common.db import Database, newest, transaction
from triton_common.errors import Conflict, NotFound, Unprocessable
from triton_common.revocations import Kind
from triton_common.schemas import Page

USUAL_AGE: Final = timedelta(days=90)
MOST_OF_A_USER: Final = 50
HINT: Final = len(API_KEY_PREFIX) + 6  # characters that are shown: 36 bits of 256
NOTED_EVERY: Final = timedelta(minutes=1)  # that a key was used: a write a minute, not one a request


class ApiKeyNotFound(NotFound):
    """There is no such API key, or it is revoked."""


class ScopeNotYours(Unprocessable):
    """The key would allow what you may not."""


class ExpiryOutOfRange(Unprocessable):
    """The key would expire in the past, or too late."""


class TooManyApiKeys(Conflict):
    """You have too many API keys; revoke one."""


async def create(
    session: AsyncSession, *, by: Principal, origin: Origin, new: ApiKeyCreate, longest: timedelta
) -> ApiKeyCreated:
    """A new key of the principal's. Raises ScopeNotYours, ExpiryOutOfRange, TooManyApiKeys, ApiKeyNotFound without a
    user behind the token."""
    if beyond := sorted(set(new.scopes) - by.scopes):
        raise ScopeNotYours(f"You do not have the scope {beyond[0]}.")
    now = datetime.now(UTC)
    expires_at = new.expires_at or now + min(USUAL_AGE, longest)
    if not now < expires_at <= now + longest + timedelta(minutes=1):
        raise ExpiryOutOfRange(f"Choose a time within the next {longest.days} days.")
    owner = await session.get(User, UUID(by.subject), with_for_update=True)  # one at a time: they are counted
    if owner is None:
        raise ApiKeyNotFound("This token's user does not exist.")
    count = (await session.exec(select(func.count()).select_from(ApiKey).where(*_live(owner.id)))).one()
    if count >= MOST_OF_A_USER:
        raise TooManyApiKeys(f"You have {count} keys; revoke one.")
    key = API_KEY_PREFIX + secrets.token_urlsafe(32)
    made = ApiKey(
        user_id=owner.id,
        name=new.name,
        key_hash=fingerprint(key),
        hint=key[:HINT],
        scopes=new.scopes,
        expires_at=expires_at,
        created_at=now,
    )
    session.add(made)
    _record(session, "api_key.created", by=by, origin=origin, owner=owner, key=made, scopes=new.scopes)
    return ApiKeyCreated(**public(made).model_dump(), key=key)


def public(key: ApiKey) -> ApiKeyPublic:
    """As its owner sees it."""
    return ApiKeyPublic(**key.model_dump(include=set(ApiKeyPublic.model_fields)))


async def page(session: AsyncSession, *, user_id: UUID, limit: int, cursor: str | None) -> Page[ApiKeyPublic]:
    """A user's keys that are good, newest first. Raises InvalidCursor."""
    found, next_cursor = await newest(session, ApiKey, *_live(user_id), limit=limit, cursor=cursor)
    return Page(items=[public(key) for key in found], next_cursor=next_cursor)


async def revoke(session: AsyncSession, *, by: Principal, origin: Origin, revoker: Revoker, key_id: UUID) -> None:
    """Revoke one's own key; with the scope users:admin, anyone's one sees. Raises ApiKeyNotFound."""
    key = await session.get(ApiKey, key_id, with_for_update=True)
    if key is None or key.revoked_at is not None:
        raise ApiKeyNotFound
    owner = await session.get_one(User, key.user_id)
    if str(owner.id) != by.subject and not (
        "users:admin" in by.scopes and (by.is_staff or owner.client_id == by.client_id)
    ):
        raise ApiKeyNotFound
    key.revoked_at = datetime.now(UTC)
    revoker.revoke(session, Kind.TOKEN, str(key.id))
    _record(session, "api_key.revoked", by=by, origin=origin, owner=owner, key=key)


async def principal_of(database: Database, key: str) -> Principal:
    """Whose a key is, as the database has it at this moment. Raises ApiKeyInvalid."""
    now = datetime.now(UTC)
    async with transaction(database) as session:
        of_key = (col(ApiKey.key_hash) == fingerprint(key), col(User.deactivated_at).is_(None))
        query = select(ApiKey, User).join(User, col(User.id) == col(ApiKey.user_id))
        found = (await session.exec(query.where(*of_key))).one_or_none()
        if found is None or found[0].revoked_at is not None or found[0].expires_at <= now:
            raise ApiKeyInvalid
        record, owner = found
        if record.last_used_at is None or record.last_used_at < now - NOTED_EVERY:
            await session.exec(update(ApiKey).where(col(ApiKey.id) == record.id).values(last_used_at=now))
    return Principal(
        subject=str(owner.id),
        kind="api_key",
        role=owner.role,
        scopes=frozenset(record.scopes) & scopes_of(owner.role, client_id=owner.client_id),
        client_id=owner.client_id,
        token_id=str(record.id),
        epoch=owner.token_epoch,
        expires_at=int(record.expires_at.timestamp()),
        token=key,
    )


def _live(user_id: UUID) -> list[Any]:
    unexpired = col(ApiKey.expires_at) > datetime.now(UTC)
    return [col(ApiKey.user_id) == user_id, col(ApiKey.revoked_at).is_(None), unexpired]


def _record(
    session: AsyncSession, action: str, *, by: Principal, origin: Origin, owner: User, key: ApiKey, **details: Any
) -> None:
    on = ("api_key", str(key.id))
    details["user_id"] = str(owner.id)
    audit.record(session, action, actor=Actor.of(by), origin=origin, on=on, client_id=owner.client_id, **details)
