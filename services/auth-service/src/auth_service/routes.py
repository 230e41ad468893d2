"""The routes of /api/v1/auth."""

import json
from typing import Annotated, Final
from urllib.parse import unquote
from uuid import UUID

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response, status
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from loguru import logger

from auth_service import service_accounts, sessions, users
from auth_service.keys import KeyRing
from auth_service.models import User
from auth_service.passwords import PasswordHashingBusy, Passwords
from auth_service.schemas import (
    KeySetPublic,
    LoginRequest,
    Me,
    RefreshRequest,
    ServiceTokenPublic,
    TokenPair,
    UserCreate,
    UserPublic,
)
from auth_service.service_accounts import InvalidClient, InvalidRequest, InvalidScope, UnsupportedGrantType
from auth_service.sessions import InvalidCredentials, InvalidRefreshToken, RefreshTokenReused
from auth_service.tokens import TokenIssuer
from auth_service.users import UserClientNotFound, UserNotFound
from triton_common.auth import TOKEN_ERRORS, CurrentPrincipal, InsufficientScope, Principal, require
from triton_common.db import AlreadyExists, DatabaseDep, DatabaseUnavailable, SessionDep
from triton_common.errors import AppError, problem_response, problems
from triton_common.pages import CursorQuery, InvalidCursor, LimitQuery
from triton_common.schemas import Page

JWKS_MAX_AGE: Final = 300  # seconds a verifier may keep the set; an unknown kid makes it ask sooner

router = APIRouter(prefix="/api/v1/auth", tags=["auth"])


class _ClientBasic(HTTPBasic):
    """HTTP Basic, whose malformed headers are refused in the words of RFC 6749."""

    async def __call__(self, request: Request) -> HTTPBasicCredentials | None:  # type: ignore[override]  # as FastAPI's own
        try:
            return await super().__call__(request)
        except HTTPException:
            raise InvalidClient("The Authorization header is not HTTP Basic.") from None


async def _passwords(request: Request) -> Passwords:
    passwords: Passwords = request.app.state.passwords
    return passwords


async def _issuer(request: Request) -> TokenIssuer:
    issuer: TokenIssuer = request.app.state.issuer
    return issuer


async def _not_stored(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"  # RFC 6749 §5.1: an answer with tokens


PasswordsDep = Annotated[Passwords, Depends(_passwords)]
IssuerDep = Annotated[TokenIssuer, Depends(_issuer)]
BasicCredentials = Annotated[
    HTTPBasicCredentials | None,
    Depends(_ClientBasic(auto_error=False, scheme_name="client", description="A service account's name and secret")),
]
UsersAdmin = Annotated[Principal, require("users:admin")]


@router.post(
    "/login",
    dependencies=[Depends(_not_stored)],
    responses=problems(InvalidCredentials, PasswordHashingBusy, DatabaseUnavailable),
)
async def log_in(body: LoginRequest, database: DatabaseDep, passwords: PasswordsDep, issuer: IssuerDep) -> TokenPair:
    """Begin a session: an access token to send as `Authorization: Bearer`, and a refresh token to get the next."""
    return await sessions.log_in(
        database, passwords=passwords, issuer=issuer, email=body.email, password=body.password.get_secret_value()
    )


@router.post(
    "/refresh",
    dependencies=[Depends(_not_stored)],
    responses=problems(InvalidRefreshToken, RefreshTokenReused, DatabaseUnavailable),
)
async def refresh(body: RefreshRequest, database: DatabaseDep, issuer: IssuerDep) -> TokenPair:
    """Replace a refresh token: the answer's is the next one, and the one sent is used up.

    Sent again within ten seconds it is answered with the same next one. Sent again later it ends the session, since two
    parties seem to hold it.
    """
    return await sessions.refresh(database, issuer=issuer, refresh_token=body.refresh_token.get_secret_value())


@router.post("/logout", status_code=status.HTTP_204_NO_CONTENT, responses=problems(DatabaseUnavailable))
async def log_out(body: RefreshRequest, session: SessionDep) -> None:
    """End the session of a refresh token: none of its tokens refreshes any more. 204 too when it was over already."""
    await sessions.log_out(session, refresh_token=body.refresh_token.get_secret_value())


@router.get("/me", responses=problems(*TOKEN_ERRORS, DatabaseUnavailable))
async def me(principal: CurrentPrincipal, session: SessionDep) -> Me:
    """Who the access token belongs to, and what it allows."""
    user = await session.get(User, UUID(principal.subject))
    return Me(
        id=UUID(principal.subject),
        email=user.email if user else None,
        role=principal.role,
        client_id=principal.client_id,
        scopes=sorted(principal.scopes),
    )


@router.post(
    "/token",
    dependencies=[Depends(_not_stored)],
    responses=problems(
        InvalidRequest, UnsupportedGrantType, InvalidScope, InvalidClient, PasswordHashingBusy, DatabaseUnavailable
    ),
)
async def token(  # noqa: PLR0917  FastAPI calls it by name
    database: DatabaseDep,
    passwords: PasswordsDep,
    issuer: IssuerDep,
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
        database, passwords=passwords, issuer=issuer, name=name, secret=secret, scope=scope
    )


@router.get("/.well-known/jwks.json")
async def jwks(request: Request, response: Response) -> KeySetPublic:
    """The public keys that verify access tokens, as a JSON Web Key Set."""
    response.headers["Cache-Control"] = f"public, max-age={JWKS_MAX_AGE}"
    key_ring: KeyRing = request.app.state.keys
    return KeySetPublic.model_validate(key_ring.published)


@router.post(
    "/users",
    status_code=status.HTTP_201_CREATED,
    responses=problems(
        *TOKEN_ERRORS, InsufficientScope, UserClientNotFound, AlreadyExists, PasswordHashingBusy, DatabaseUnavailable
    ),
)
async def create_user(
    body: UserCreate, principal: UsersAdmin, session: SessionDep, passwords: PasswordsDep, response: Response
) -> UserPublic:
    """Make a user. One with a client_id sees that client alone."""
    user = await users.create(session, by=principal, passwords=passwords, new=body)
    response.headers["Location"] = f"/api/v1/auth/users/{user.id}"
    return UserPublic.model_validate(user, from_attributes=True)


@router.get("/users", responses=problems(*TOKEN_ERRORS, InsufficientScope, InvalidCursor, DatabaseUnavailable))
async def list_users(
    principal: UsersAdmin, session: SessionDep, limit: LimitQuery = 50, cursor: CursorQuery = None
) -> Page[UserPublic]:
    """Users, newest first."""
    return await users.page(session, by=principal, limit=limit, cursor=cursor)


@router.get("/users/{user_id}", responses=problems(*TOKEN_ERRORS, InsufficientScope, UserNotFound, DatabaseUnavailable))
async def get_user(user_id: UUID, principal: UsersAdmin, session: SessionDep) -> UserPublic:
    """One user."""
    user = await users.get(session, by=principal, user_id=user_id)
    return UserPublic.model_validate(user, from_attributes=True)


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
