"""Service accounts: their tokens, and what admins do with them."""

import json
from datetime import timedelta
from typing import Annotated
from urllib.parse import unquote
from uuid import UUID

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response, status
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from loguru import logger

from auth_service import service_accounts
from auth_service.passwords import PasswordHashingBusy
from auth_service.routes.state import (
    ADMIN_ERRORS,
    IssuerDep,
    OriginDep,
    PasswordsDep,
    RevokerDep,
    ServiceAccountsAdmin,
    ThrottleDep,
    not_stored,
)
from auth_service.schemas import (
    PageQuery,
    SecretRotation,
    ServiceAccountCreate,
    ServiceAccountPublic,
    ServiceAccountSecret,
    ServiceAccountUpdate,
    ServiceTokenPublic,
)
from auth_service.service_accounts import (
    InvalidClient,
    InvalidRequest,
    InvalidScope,
    ScopeOfStaff,
    ServiceAccountNotFound,
    UnsupportedGrantType,
)
from auth_service.throttle import TooManyAttempts
from triton_common.db import AlreadyExists, DatabaseDep, DatabaseUnavailable, SessionDep
from triton_common.errors import AppError, problem_response, problems
from triton_common.pages import InvalidCursor, once
from triton_common.schemas import Page

tokens = APIRouter(prefix="/api/v1/auth", tags=["auth"])
router = APIRouter(prefix="/api/v1/auth/service-accounts", tags=["service accounts"], responses=problems(*ADMIN_ERRORS))


class _ClientBasic(HTTPBasic):
    """HTTP Basic, whose malformed headers are refused in the words of RFC 6749."""

    async def __call__(self, request: Request) -> HTTPBasicCredentials | None:  # type: ignore[override]  # as FastAPI's own
        try:
            return await super().__call__(request)
        except HTTPException:
            raise InvalidClient("The Authorization header is not HTTP Basic.") from None


BasicCredentials = Annotated[
    HTTPBasicCredentials | None,
    Depends(_ClientBasic(auto_error=False, scheme_name="client", description="A service account's name and secret")),
]


async def _no_parameter_twice(request: Request) -> None:
    sent = [name for name, _ in (await request.form()).multi_items()]
    if twice := {name for name in sent if sent.count(name) > 1}:
        raise InvalidRequest(f"Send {min(twice)[:64]} once (RFC 6749 §3.2).")


@tokens.post(
    "/token",
    dependencies=[Depends(not_stored), Depends(_no_parameter_twice)],
    responses=problems(
        InvalidRequest,
        UnsupportedGrantType,
        InvalidScope,
        InvalidClient,
        TooManyAttempts,
        PasswordHashingBusy,
        DatabaseUnavailable,
    ),
)
async def token(  # noqa: PLR0917  FastAPI calls it by name
    database: DatabaseDep,
    passwords: PasswordsDep,
    throttle: ThrottleDep,
    issuer: IssuerDep,
    origin: OriginDep,
    basic: BasicCredentials,
    grant_type: Annotated[str, Form(description="client_credentials")] = "",
    scope: Annotated[str, Form(description="Fewer scopes than the account has, separated by spaces")] = "",
    client_id: Annotated[str, Form(description="The service account's name, unless sent by HTTP Basic")] = "",
    client_secret: Annotated[str, Form(description="Its secret, unless sent by HTTP Basic")] = "",
) -> ServiceTokenPublic:
    """An access token for a service account, by the client credentials grant of RFC 6749 §4.4.

    Errors carry RFC 6749's `error` and `error_description` beside the fields that all errors have.
    """
    if not grant_type:
        raise InvalidRequest("Send grant_type=client_credentials as application/x-www-form-urlencoded.")
    if grant_type != "client_credentials":
        raise UnsupportedGrantType
    if basic and client_secret:
        raise InvalidRequest("Send the client's secret by HTTP Basic or in the form, not both.")
    # RFC 6749 §2.3.1 has both parts percent-encoded; a "+" stays one, for the many clients that do not encode
    name, secret = (unquote(basic.username), unquote(basic.password)) if basic else (client_id, client_secret)
    return await service_accounts.grant(
        database,
        passwords=passwords,
        throttle=throttle,
        issuer=issuer,
        origin=origin,
        name=name,
        secret=secret,
        scope=scope,
    )


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    dependencies=[Depends(not_stored)],
    responses=problems(*ADMIN_ERRORS, ScopeOfStaff, AlreadyExists, PasswordHashingBusy),
)
async def create_service_account(  # noqa: PLR0917  FastAPI calls it by name
    body: ServiceAccountCreate,
    principal: ServiceAccountsAdmin,
    session: SessionDep,
    passwords: PasswordsDep,
    origin: OriginDep,
    response: Response,
) -> ServiceAccountSecret:
    """Make a service account. Its secret is shown this once."""
    made = await service_accounts.create(session, by=principal, origin=origin, passwords=passwords, new=body)
    response.headers["Location"] = f"/api/v1/auth/service-accounts/{made.id}"
    return made


@router.get("", dependencies=[once()], responses=problems(InvalidCursor))
async def list_service_accounts(
    _: ServiceAccountsAdmin, session: SessionDep, wanted: Annotated[PageQuery, Query()]
) -> Page[ServiceAccountPublic]:
    """Service accounts, newest first."""
    return await service_accounts.page(session, limit=wanted.limit, cursor=wanted.cursor)


@router.get("/{account_id}", responses=problems(ServiceAccountNotFound))
async def get_service_account(account_id: UUID, _: ServiceAccountsAdmin, session: SessionDep) -> ServiceAccountPublic:
    """One service account."""
    return service_accounts.public(await service_accounts.get(session, account_id))


@router.patch("/{account_id}", responses=problems(ServiceAccountNotFound, ScopeOfStaff))
async def update_service_account(  # noqa: PLR0917  FastAPI calls it by name
    account_id: UUID,
    body: ServiceAccountUpdate,
    principal: ServiceAccountsAdmin,
    session: SessionDep,
    revoker: RevokerDep,
    origin: OriginDep,
) -> ServiceAccountPublic:
    """Change what a service account may do. With other scopes, every service refuses the tokens it has,
    within seconds."""
    return service_accounts.public(
        await service_accounts.update_account(
            session, by=principal, origin=origin, revoker=revoker, account_id=account_id, change=body
        )
    )


@router.post(
    "/{account_id}/rotate-secret",
    dependencies=[Depends(not_stored)],
    responses=problems(*ADMIN_ERRORS, ServiceAccountNotFound, PasswordHashingBusy),
)
async def rotate_service_account_secret(  # noqa: PLR0917  FastAPI calls it by name
    account_id: UUID,
    body: SecretRotation,
    principal: ServiceAccountsAdmin,
    session: SessionDep,
    passwords: PasswordsDep,
    origin: OriginDep,
) -> ServiceAccountSecret:
    """Give a service account another secret, shown this once. The one before may go on working for a while, so that the
    machine can be told of the new one; tokens it has stay good."""
    return await service_accounts.rotate_secret(
        session,
        by=principal,
        origin=origin,
        passwords=passwords,
        account_id=account_id,
        keep_old=timedelta(seconds=body.keep_old_for_seconds),
    )


@router.post("/{account_id}/deactivate", responses=problems(ServiceAccountNotFound))
async def deactivate_service_account(
    account_id: UUID, principal: ServiceAccountsAdmin, session: SessionDep, revoker: RevokerDep, origin: OriginDep
) -> ServiceAccountPublic:
    """Let a service account get no more tokens. Every service refuses those it has within seconds."""
    return service_accounts.public(
        await service_accounts.set_active(
            session, by=principal, origin=origin, revoker=revoker, account_id=account_id, active=False
        )
    )


@router.post("/{account_id}/activate", responses=problems(ServiceAccountNotFound))
async def activate_service_account(
    account_id: UUID, principal: ServiceAccountsAdmin, session: SessionDep, revoker: RevokerDep, origin: OriginDep
) -> ServiceAccountPublic:
    """Let a deactivated service account get tokens again."""
    return service_accounts.public(
        await service_accounts.set_active(
            session, by=principal, origin=origin, revoker=revoker, account_id=account_id, active=True
        )
    )


async def answer_token_request_error(_: Request, error: Exception) -> Response:
    """The problem that every error is, with RFC 6749's two members, which OAuth clients look for."""
    assert isinstance(error, AppError)  # noqa: S101  what the handler is registered for
    logger.bind(code=error.code, status=error.status.value).info("request refused")
    answer = problem_response(error)
    problem: dict[str, object] = json.loads(bytes(answer.body))
    return JSONResponse(
        problem | {"error": error.code, "error_description": error.message},
        status_code=answer.status_code,
        headers=dict(error.headers) | {"Cache-Control": "no-store"},
        media_type=answer.media_type,
    )
