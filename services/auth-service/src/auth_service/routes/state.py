"""What the app holds and its requests bring, as dependencies; and the errors that every route behind a token has."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Request, Response

from auth_service.audit import Origin
from auth_service.keys import KeyRing
from auth_service.passwords import Passwords
from auth_service.revocations import Revoker
from auth_service.settings import Settings
from auth_service.throttle import Throttle
from auth_service.tokens import TokenIssuer
from triton_common.audit import address_of
from triton_common.auth import (
    TOKEN_ERRORS,
    CurrentPrincipal,
    InsufficientScope,
    Principal,
    TokenMalformed,
    require,
)
from triton_common.db import DatabaseUnavailable
from triton_common.errors import Forbidden

LONGEST_USER_AGENT: Final = 200  # characters that are kept

ERRORS: Final = (*TOKEN_ERRORS, DatabaseUnavailable)
ADMIN_ERRORS: Final = (*ERRORS, InsufficientScope)


class SessionRequired(Forbidden):
    """This takes the access token of a session: neither an API key nor a service account may do it."""


async def _passwords(request: Request) -> Passwords:
    passwords: Passwords = request.app.state.passwords
    return passwords


async def _issuer(request: Request) -> TokenIssuer:
    issuer: TokenIssuer = request.app.state.issuer
    return issuer


async def _throttle(request: Request) -> Throttle:
    throttle: Throttle = request.app.state.throttle
    return throttle


async def _revoker(request: Request) -> Revoker:
    revoker: Revoker = request.app.state.revoker
    return revoker


async def _keys(request: Request) -> KeyRing:
    keys: KeyRing = request.app.state.keys
    return keys


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _origin(request: Request) -> Origin:
    agent = request.headers.get("user-agent", "")[:LONGEST_USER_AGENT]
    printable = "".join(character for character in agent if character.isprintable())
    return Origin(address=address_of(request), user_agent=printable or None)


async def not_stored(response: Response) -> None:
    """For answers with secrets (RFC 6749 §5.1)."""
    response.headers["Cache-Control"] = "no-store"


def subject_of(principal: Principal) -> UUID:
    """The id of who asks. Raises TokenMalformed: every subject of ours has one."""
    try:
        return UUID(principal.subject)
    except ValueError as error:
        raise TokenMalformed from error


async def _in_session(principal: CurrentPrincipal) -> Principal:
    subject_of(principal)
    if principal.kind != "user" or principal.session_id is None:
        raise SessionRequired
    return principal


PasswordsDep = Annotated[Passwords, Depends(_passwords)]
IssuerDep = Annotated[TokenIssuer, Depends(_issuer)]
ThrottleDep = Annotated[Throttle, Depends(_throttle)]
RevokerDep = Annotated[Revoker, Depends(_revoker)]
KeysDep = Annotated[KeyRing, Depends(_keys)]
SettingsDep = Annotated[Settings, Depends(_settings)]
OriginDep = Annotated[Origin, Depends(_origin)]
InSession = Annotated[Principal, Depends(_in_session)]
UsersAdmin = Annotated[Principal, require("users:admin")]
ServiceAccountsAdmin = Annotated[Principal, require("service-accounts:admin")]
KeysAdmin = Annotated[Principal, require("keys:admin")]
AuditReader = Annotated[Principal, require("audit:read")]
