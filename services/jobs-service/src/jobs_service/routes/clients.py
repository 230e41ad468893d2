"""Clients: companies that sell health-care programmes."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status
from sqlmodel import col

from jobs_service import catalogue
from jobs_service.catalogue import ClientNotFound, StaffOnly
from jobs_service.idempotency import IdempotencyKeyInUse, IdempotencyKeyReused, once_in_session
from jobs_service.models import Client
from jobs_service.routes.state import ERRORS, IdempotencyKeyHeader
from jobs_service.schemas.catalogue import ClientCreate, ClientPublic, ClientUpdate
from triton_common.auth import InsufficientScope, Principal, require
from triton_common.db import SessionDep, newest
from triton_common.errors import problems
from triton_common.pages import CursorQuery, InvalidCursor, LimitQuery, once
from triton_common.schemas import Page

router = APIRouter(prefix="/api/v1/clients", tags=["clients"], responses=problems(*ERRORS))

Reader = Annotated[Principal, require("clients:read")]
Writer = Annotated[Principal, require("clients:write")]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=problems(InsufficientScope, StaffOnly, IdempotencyKeyInUse, IdempotencyKeyReused),
)
async def create_client(
    *,
    body: ClientCreate,
    session: SessionDep,
    principal: Writer,
    response: Response,
    idempotency_key: IdempotencyKeyHeader = None,
) -> ClientPublic:
    """Create a client. Only staff may."""

    async def make() -> ClientPublic:
        made = await catalogue.add_client(session, Client(name=body.name), principal=principal)
        return ClientPublic.model_validate(made)

    client = await once_in_session(
        session, principal=principal, key=idempotency_key, request=body, make=make, answer=ClientPublic
    )
    response.headers["Location"] = f"{router.prefix}/{client.id}"
    return client


@router.get("", dependencies=[once()], responses=problems(InvalidCursor))
async def list_clients(
    *,
    session: SessionDep,
    principal: Reader,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
    include_archived: Annotated[bool, Query()] = False,
) -> Page[ClientPublic]:
    """List clients, newest first."""
    conditions = [] if principal.client_id is None else [col(Client.id) == principal.client_id]
    if not include_archived:
        conditions.append(col(Client.archived_at).is_(None))
    found, next_cursor = await newest(session, Client, *conditions, limit=limit, cursor=cursor)
    return Page(items=[ClientPublic.model_validate(client) for client in found], next_cursor=next_cursor)


@router.get("/{client_id}", responses=problems(ClientNotFound))
async def read_client(client_id: UUID, session: SessionDep, principal: Reader) -> ClientPublic:
    """Read one client."""
    return ClientPublic.model_validate(await catalogue.find(session, Client, client_id, principal=principal))


@router.patch("/{client_id}", responses=problems(ClientNotFound))
async def update_client(client_id: UUID, body: ClientUpdate, session: SessionDep, principal: Writer) -> ClientPublic:
    """Change a client; what is left out stays as it is."""
    client = await catalogue.find(session, Client, client_id, principal=principal)
    return ClientPublic.model_validate(await catalogue.change(session, client, body.model_dump(exclude_unset=True)))


@router.post("/{client_id}/archive", responses=problems(ClientNotFound))
async def archive_client(client_id: UUID, session: SessionDep, principal: Writer) -> ClientPublic:
    """Archive a client: it stays readable, and gets no new jobs, prospects or value propositions."""
    client = await catalogue.find(session, Client, client_id, principal=principal)
    return ClientPublic.model_validate(await catalogue.archive(session, client))
