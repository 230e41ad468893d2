"""Service accounts: machines that get an access token by client credentials (RFC 6749 §4.4)."""

import re
from typing import ClassVar, Final

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_service.models import ServiceAccount
from auth_service.passwords import Passwords
from auth_service.schemas import ServiceTokenPublic
from auth_service.tokens import TokenIssuer
from triton_common.auth import SCOPES_OF_ROLE
from triton_common.db import Database, transaction
from triton_common.errors import BadRequest, Unauthorized

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


async def grant(
    database: Database, *, passwords: Passwords, issuer: TokenIssuer, name: str, secret: str, scope: str
) -> ServiceTokenPublic:
    """An access token for a service account. `scope` narrows it; empty, it asks for all.

    Raises InvalidClient, InvalidScope. The secret is hashed outside the transaction, and for an unknown name too.
    """
    account = None
    if NAME.fullmatch(name):
        async with transaction(database) as session:
            account = (await session.exec(select(ServiceAccount).where(ServiceAccount.name == name))).one_or_none()
    if not await passwords.verify(secret, password_hash=account.secret_hash if account else None) or account is None:
        raise InvalidClient
    allowed = SCOPES_OF_ROLE[ROLE]
    scopes = frozenset(scope.split()) or allowed
    if not scopes <= allowed:
        raise InvalidScope(f"Ask for some of: {' '.join(sorted(allowed))}.")
    return ServiceTokenPublic(
        access_token=issuer.access_token(subject=account.id, role=ROLE, scopes=scopes),
        expires_in=issuer.expires_in,
        scope=" ".join(sorted(scopes)),
    )


async def ensure(session: AsyncSession, *, passwords: Passwords, name: str, secret: str) -> None:
    """Let the account exist with this secret. Callers hold the start-up lock."""
    account = (await session.exec(select(ServiceAccount).where(ServiceAccount.name == name))).one_or_none()
    if account is None:
        session.add(ServiceAccount(name=name, secret_hash=await passwords.hash(secret)))
    elif not await passwords.verify(secret, password_hash=account.secret_hash):
        account.secret_hash = await passwords.hash(secret)
