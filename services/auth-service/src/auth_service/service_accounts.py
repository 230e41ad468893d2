"""Service accounts: machines that get an access token by client credentials (RFC 6749 §4.4)."""

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final
from uuid import UUID

from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_service import audit
from auth_service.audit import ANONYMOUS, SYSTEM, Actor, Origin
from auth_service.models import ServiceAccount
from auth_service.passwords import Passwords
from auth_service.revocations import Revoker
from auth_service.schemas import (
    ServiceAccountCreate,
    ServiceAccountPublic,
    ServiceAccountSecret,
    ServiceAccountUpdate,
    ServiceTokenPublic,
)
from auth_service.throttle import Throttle, TooManyAttempts
from auth_service.tokens import TokenIssuer
from triton_common.auth import SCOPES_OF_ROLE, STAFF_SCOPES, Principal
from triton_common.db import Database, newest, transaction
from triton_common.errors import BadRequest, NotFound, Unauthorized, Unprocessable
from triton_common.revocations import Kind
from triton_common.schemas import Page

ROLE: Final = "service"
NAME: Final = re.compile(r"[a-z0-9-]{1,64}")


class TokenRequestError(Exception):
    """Marks the refusals whose code is one of RFC 6749 §5.2, so that they are answered under its name too."""


class InvalidRequest(TokenRequestError, BadRequest):
    """The token request lacks a parameter, or has one twice."""


class UnsupportedGrantType(TokenRequestError, BadRequest):
    """The grant type is not client_credentials."""


class InvalidScope(TokenRequestError, BadRequest):
    """The scope asked for goes beyond the service account's."""


class InvalidClient(TokenRequestError, Unauthorized):
    """The service account's name or secret is wrong."""

    headers: ClassVar = {"WWW-Authenticate": 'Basic realm="triton"'}


class ServiceAccountNotFound(NotFound):
    """There is no such service account."""


class ScopeOfStaff(Unprocessable):
    """A service account that is bound to a client would do what is staff's."""


async def grant(
    database: Database,
    *,
    passwords: Passwords,
    throttle: Throttle,
    issuer: TokenIssuer,
    origin: Origin,
    name: str,
    secret: str,
    scope: str,
) -> ServiceTokenPublic:
    """An access token for a service account. `scope` narrows it; empty, it asks for all.

    Raises InvalidClient, InvalidScope, TooManyAttempts. The secret is hashed outside the transaction, and for an
    unknown name too.
    """
    asked = frozenset(scope.split())
    async with _admitted(database, throttle, name, origin=origin):
        account = await _authenticated(database, passwords=passwords, name=name, secret=secret)
        granted = account is not None and asked <= set(account.scopes)
        async with transaction(database) as session:
            audit.record(
                session,
                "service_token.granted" if granted else "service_token.refused",
                actor=Actor("service", str(account.id)) if account else ANONYMOUS,
                origin=origin,
                on=("service_account", str(account.id)) if account else None,
                client_id=account.client_id if account else None,
                outcome="succeeded" if granted else "refused",
            )
            if account and granted:
                this = col(ServiceAccount.id) == account.id
                await session.exec(update(ServiceAccount).where(this).values(last_used_at=datetime.now(UTC)))
        if account is None:
            raise InvalidClient
    if not granted:
        raise InvalidScope(f"Ask for some of: {' '.join(account.scopes)}.")
    scopes = asked or frozenset(account.scopes)
    return ServiceTokenPublic(
        access_token=issuer.access_token(
            subject=account.id, role=ROLE, scopes=scopes, epoch=account.token_epoch, client_id=account.client_id
        ),
        expires_in=issuer.expires_in,
        scope=" ".join(sorted(scopes)),
    )


@asynccontextmanager
async def _admitted(database: Database, throttle: Throttle, name: str, *, origin: Origin) -> AsyncIterator[None]:
    try:
        async with throttle.attempt(f"client:{name}", address=origin.address):
            yield
    except TooManyAttempts as refused:
        if refused.is_news:
            account = await _named(database, name)
            async with transaction(database) as session:
                audit.record(
                    session,
                    "service_token.throttled",
                    actor=ANONYMOUS,
                    origin=origin,
                    on=("service_account", str(account.id)) if account else None,
                    client_id=account.client_id if account else None,
                    outcome="refused",
                )
        raise


async def _named(database: Database, name: str) -> ServiceAccount | None:
    if not NAME.fullmatch(name):
        return None
    async with transaction(database) as session:
        return (await session.exec(select(ServiceAccount).where(ServiceAccount.name == name))).one_or_none()


async def _authenticated(database: Database, *, passwords: Passwords, name: str, secret: str) -> ServiceAccount | None:
    account = await _named(database, name)
    if await passwords.verify(secret, password_hash=account.secret_hash if account else None):
        return account if account and account.deactivated_at is None else None
    if account is None or account.previous_expires_at is None or account.previous_expires_at <= datetime.now(UTC):
        return None
    matches = await passwords.verify(secret, password_hash=account.previous_secret_hash)
    return account if matches and account.deactivated_at is None else None


async def create(
    session: AsyncSession, *, by: Principal, origin: Origin, passwords: Passwords, new: ServiceAccountCreate
) -> ServiceAccountSecret:
    """A new account and its secret. Raises ScopeOfStaff; a name that is taken turns up at commit, as AlreadyExists."""
    _check_scopes(new.scopes, client_id=new.client_id)
    secret = _new_secret()
    account = ServiceAccount(
        **new.model_dump(),
        secret_hash=await passwords.hash(secret),
        created_at=datetime.now(UTC),
        secret_changed_at=datetime.now(UTC),
    )
    session.add(account)
    await session.flush()
    _record(session, "service_account.created", by=by, origin=origin, account=account, scopes=account.scopes)
    return ServiceAccountSecret(**public(account).model_dump(), client_secret=secret)


def public(account: ServiceAccount) -> ServiceAccountPublic:
    """As admins see it."""
    return ServiceAccountPublic(**account.model_dump(include=set(ServiceAccountPublic.model_fields)))


async def get(session: AsyncSession, account_id: UUID, *, change: bool = False) -> ServiceAccount:
    """An account, locked when it is to `change`. Raises ServiceAccountNotFound."""
    account = await session.get(ServiceAccount, account_id, with_for_update=change)
    if account is None:
        raise ServiceAccountNotFound(f"There is no service account {account_id}.")
    return account


async def page(session: AsyncSession, *, limit: int, cursor: str | None) -> Page[ServiceAccountPublic]:
    """Accounts, newest first. Raises InvalidCursor."""
    found, next_cursor = await newest(session, ServiceAccount, limit=limit, cursor=cursor)
    return Page(items=[public(account) for account in found], next_cursor=next_cursor)


async def update_account(
    session: AsyncSession,
    *,
    by: Principal,
    origin: Origin,
    revoker: Revoker,
    account_id: UUID,
    change: ServiceAccountUpdate,
) -> ServiceAccount:
    """Change what an account may do. Raises ServiceAccountNotFound, ScopeOfStaff."""
    account = await get(session, account_id, change=True)
    wanted = change.model_dump(exclude_unset=True)
    _check_scopes(wanted.get("scopes", []), client_id=account.client_id)
    changed = {name: value for name, value in wanted.items() if getattr(account, name) != value}
    for name, value in changed.items():
        setattr(account, name, value)
    if "scopes" in changed:
        _revoke_tokens(session, account, revoker=revoker)
    if changed:
        _record(session, "service_account.changed", by=by, origin=origin, account=account, changed=changed)
    return account


async def rotate_secret(
    session: AsyncSession,
    *,
    by: Principal,
    origin: Origin,
    passwords: Passwords,
    account_id: UUID,
    keep_old: timedelta,
) -> ServiceAccountSecret:
    """Give an account another secret; the one before works for `keep_old` on. Raises ServiceAccountNotFound."""
    secret = _new_secret()
    secret_hash = await passwords.hash(secret)  # before the first statement: no connection is held meanwhile
    account = await get(session, account_id, change=True)
    now = datetime.now(UTC)
    account.previous_secret_hash = account.secret_hash if keep_old else None
    account.previous_expires_at = now + keep_old if keep_old else None
    account.secret_hash, account.secret_changed_at = secret_hash, now
    _record(session, "service_account.secret_rotated", by=by, origin=origin, account=account)
    return ServiceAccountSecret(**public(account).model_dump(), client_secret=secret)


async def set_active(
    session: AsyncSession, *, by: Principal, origin: Origin, revoker: Revoker, account_id: UUID, active: bool
) -> ServiceAccount:
    """Let an account get tokens, or no more; those it has are refused then. Raises ServiceAccountNotFound."""
    account = await get(session, account_id, change=True)
    if active != (account.deactivated_at is None):
        account.deactivated_at = None if active else datetime.now(UTC)
        if not active:
            _revoke_tokens(session, account, revoker=revoker)
        action = "service_account.activated" if active else "service_account.deactivated"
        _record(session, action, by=by, origin=origin, account=account)
    return account


async def ensure(session: AsyncSession, *, passwords: Passwords, name: str, secret: str) -> None:
    """Let the account exist with this secret. Callers hold the start-up lock."""
    account = (await session.exec(select(ServiceAccount).where(ServiceAccount.name == name))).one_or_none()
    if account is None:
        account = ServiceAccount(
            name=name, secret_hash=await passwords.hash(secret), scopes=sorted(SCOPES_OF_ROLE[ROLE])
        )
        session.add(account)
        audit.record(session, "service_account.created", actor=SYSTEM, on=("service_account", str(account.id)))
    elif not await passwords.verify(secret, password_hash=account.secret_hash):
        account.secret_hash = await passwords.hash(secret)
        audit.record(session, "service_account.secret_rotated", actor=SYSTEM, on=("service_account", str(account.id)))


def _check_scopes(scopes: list[str], *, client_id: UUID | None) -> None:
    if client_id is not None and (beyond := sorted(STAFF_SCOPES.intersection(scopes))):
        raise ScopeOfStaff(f"An account that is bound to a client cannot have the scope {beyond[0]}.")


def _new_secret() -> str:
    return "trs_" + secrets.token_urlsafe(32)


def _revoke_tokens(session: AsyncSession, account: ServiceAccount, *, revoker: Revoker) -> None:
    account.token_epoch += 1
    revoker.revoke(session, Kind.SUBJECT, str(account.id), epoch=account.token_epoch)


def _record(
    session: AsyncSession, action: str, *, by: Principal, origin: Origin, account: ServiceAccount, **details: Any
) -> None:
    audit.record(
        session,
        action,
        actor=Actor.of(by),
        origin=origin,
        on=("service_account", str(account.id)),
        client_id=account.client_id,
        **details,
    )
