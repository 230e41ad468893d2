"""Single sign-on: the way to the provider, the way back, and the exchange of the code for tokens."""

import hashlib
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, status
from fastapi.responses import RedirectResponse

from auth_service import sso, sso_users
from auth_service.oidc import SsoProviderUnavailable
from auth_service.routes.state import (
    ADMIN_ERRORS,
    IssuerDep,
    OriginDep,
    RevokerDep,
    ThrottleDep,
    UsersAdmin,
    not_stored,
)
from auth_service.schemas import SsoCodeExchange, TokenPair
from auth_service.sso import (
    ATTEMPT,
    InvalidSsoCode,
    ProviderAnswer,
    ReturnToNotAllowed,
    SingleSignOn,
    SsoBrowserMismatch,
    SsoLoginInvalid,
    SsoNotConfigured,
)
from auth_service.throttle import TooManyAttempts
from auth_service.users import UserNotFound
from triton_common.db import DatabaseDep, DatabaseUnavailable, SessionDep
from triton_common.errors import problems
from triton_common.pages import once

_PRIVATE: Final = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}

router = APIRouter(prefix="/api/v1/auth", tags=["single sign-on"])


async def _sso(request: Request) -> SingleSignOn:
    configured: SingleSignOn | None = request.app.state.sso
    if configured is None:
        raise SsoNotConfigured
    return configured


SsoDep = Annotated[SingleSignOn, Depends(_sso)]


@router.get(
    "/sso/login",
    status_code=status.HTTP_302_FOUND,
    response_class=RedirectResponse,
    dependencies=[once()],
    responses=problems(
        SsoNotConfigured, ReturnToNotAllowed, TooManyAttempts, SsoProviderUnavailable, DatabaseUnavailable
    ),
)
async def begin_sso(
    sign_on: SsoDep,
    database: DatabaseDep,
    throttle: ThrottleDep,
    origin: OriginDep,
    return_to: Annotated[str, Query(max_length=2000, description="Where the app wants the browser back")],
) -> RedirectResponse:
    """Send the browser to the identity provider, to come back within ten minutes.

    `return_to` gets `#code=…`, to send to `POST /sso/token` within a minute, or `#error=…`. An app puts a random value
    of its own into the query of `return_to` and compares it then, so that nobody else's login is taken for its own.
    """
    begun = await sso.begin(database, sign_on, throttle=throttle, origin=origin, return_to=return_to)
    answer = RedirectResponse(begun.url, status_code=status.HTTP_302_FOUND, headers=_PRIVATE)
    answer.set_cookie(
        _cookie(begun.state, sign_on),
        begun.browser,
        max_age=int(ATTEMPT.total_seconds()),
        path="/",
        httponly=True,
        secure=sign_on.https_only,
        samesite="lax",  # sent along when the provider sends the browser back
    )
    return answer


@router.get(
    "/sso/callback",
    status_code=status.HTTP_302_FOUND,
    response_class=RedirectResponse,
    dependencies=[once()],
    responses=problems(SsoNotConfigured, SsoLoginInvalid, SsoBrowserMismatch, DatabaseUnavailable),
)
async def finish_sso(  # noqa: PLR0917  FastAPI calls it by name
    request: Request,
    sign_on: SsoDep,
    database: DatabaseDep,
    revoker: RevokerDep,
    throttle: ThrottleDep,
    origin: OriginDep,
    state: Annotated[str, Query(max_length=128)],
    code: Annotated[str | None, Query(max_length=8192)] = None,
    error: Annotated[str | None, Query(max_length=256)] = None,
    iss: Annotated[str | None, Query(max_length=2000)] = None,
) -> RedirectResponse:
    """Where the identity provider sends the browser. It goes back to the app with `#code=…`, or with `#error=` and
    `sso_denied`, `sso_refused`, `sso_provider_invalid` or `sso_provider_unavailable`.
    """
    cookie = _cookie(state, sign_on)
    location = await sso.finish(
        database,
        sign_on,
        revoker=revoker,
        throttle=throttle,
        origin=origin,
        state=state,
        browser=request.cookies.get(cookie),
        answer=ProviderAnswer(code=code, error=error, iss=iss),
    )
    answer = RedirectResponse(location, status_code=status.HTTP_302_FOUND, headers=_PRIVATE)
    answer.delete_cookie(cookie, path="/", httponly=True, secure=sign_on.https_only, samesite="lax")
    return answer


@router.post(
    "/sso/token",
    dependencies=[Depends(_sso), Depends(not_stored)],
    responses=problems(SsoNotConfigured, InvalidSsoCode, DatabaseUnavailable),
)
async def exchange_sso_code(
    body: SsoCodeExchange, database: DatabaseDep, issuer: IssuerDep, origin: OriginDep
) -> TokenPair:
    """Begin a session with the code of the fragment, which is good once and for a minute."""
    return await sso.exchange(database, issuer=issuer, origin=origin, code=body.code.get_secret_value())


@router.delete(
    "/users/{user_id}/sso-identities",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(*ADMIN_ERRORS, UserNotFound),
)
async def unlink_sso(user_id: UUID, principal: UsersAdmin, session: SessionDep, origin: OriginDep) -> None:
    """Forget who the user is at the identity provider: for one who got another account there. Their next login links
    it by its e-mail address."""
    await sso_users.unlink(session, by=principal, origin=origin, user_id=user_id)


def _cookie(state: str, sign_on: SingleSignOn) -> str:
    """One for each login, so that two tabs do not disturb each other. `__Host-` keeps a subdomain from planting it;
    browsers know that of Secure cookies alone."""
    prefix = "__Host-" if sign_on.https_only else ""
    return f"{prefix}triton-sso-{hashlib.sha256(state.encode()).hexdigest()[:16]}"
