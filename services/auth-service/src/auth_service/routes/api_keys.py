"""One's own API keys; and, for other services alone, whose a key is."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Response, status

from auth_service import api_keys
from auth_service.api_keys import ApiKeyNotFound, ExpiryOutOfRange, ScopeNotYours, TooManyApiKeys
from auth_service.routes.state import ERRORS, InSession, OriginDep, RevokerDep, SessionRequired, SettingsDep, not_stored
from auth_service.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyPublic, KeyPrincipal, PageQuery
from triton_common.auth import ApiKeyInvalid
from triton_common.db import DatabaseDep, DatabaseUnavailable, SessionDep
from triton_common.errors import problems
from triton_common.pages import InvalidCursor, once
from triton_common.schemas import Page

router = APIRouter(prefix="/api/v1/auth/api-keys", tags=["api keys"])
internal = APIRouter(prefix="/internal/v1", tags=["internal"])


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    dependencies=[Depends(not_stored)],
    responses=problems(*ERRORS, SessionRequired, ScopeNotYours, ExpiryOutOfRange, TooManyApiKeys, ApiKeyNotFound),
)
async def create_api_key(  # noqa: PLR0917  FastAPI calls it by name
    body: ApiKeyCreate,
    principal: InSession,
    session: SessionDep,
    settings: SettingsDep,
    origin: OriginDep,
    response: Response,
) -> ApiKeyCreated:
    """Make a key for one's own programs, to be sent as `Authorization: Bearer`. It is shown this once."""
    made = await api_keys.create(session, by=principal, origin=origin, new=body, longest=settings.api_key_max_age)
    response.headers["Location"] = f"/api/v1/auth/api-keys/{made.id}"
    return made


@router.get("", dependencies=[once()], responses=problems(*ERRORS, SessionRequired, InvalidCursor))
async def list_api_keys(
    principal: InSession, session: SessionDep, wanted: Annotated[PageQuery, Query()]
) -> Page[ApiKeyPublic]:
    """One's own keys that are good, newest first."""
    return await api_keys.page(session, user_id=UUID(principal.subject), limit=wanted.limit, cursor=wanted.cursor)


@router.delete(
    "/{key_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(*ERRORS, SessionRequired, ApiKeyNotFound),
)
async def revoke_api_key(
    key_id: UUID, principal: InSession, session: SessionDep, revoker: RevokerDep, origin: OriginDep
) -> None:
    """Revoke one of one's own keys; admins, anyone's. Every service refuses it within seconds."""
    await api_keys.revoke(session, by=principal, origin=origin, revoker=revoker, key_id=key_id)


@internal.get("/principal", dependencies=[Depends(not_stored)], responses=problems(ApiKeyInvalid, DatabaseUnavailable))
async def principal_of_api_key(
    database: DatabaseDep, authorization: Annotated[str, Header(max_length=200)] = ""
) -> KeyPrincipal:
    """Whose the API key of the Authorization header is, and what it allows. Who has the key may ask."""
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise ApiKeyInvalid
    principal = await api_keys.principal_of(database, key)
    return KeyPrincipal(**principal.model_dump(include=set(KeyPrincipal.model_fields)))
