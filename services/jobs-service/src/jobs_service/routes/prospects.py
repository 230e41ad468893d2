"""Prospects: the health plans and employers that a client sells to."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status
from sqlmodel import col

from jobs_service import catalogue
from jobs_service.catalogue import ClientArchived, ClientNotFound
from jobs_service.idempotency import IdempotencyKeyInUse, IdempotencyKeyReused, once_in_session
from jobs_service.models import Prospect
from jobs_service.routes.state import ERRORS, IdempotencyKeyHeader
from jobs_service.schemas.catalogue import ProspectCreate, ProspectPublic, ProspectUpdate
from triton_common.audit import Event, recorded
from triton_common.auth import Principal, require
from triton_common.db import SessionDep, newest
from triton_common.errors import ProspectNotFound, problems
from triton_common.pages import CursorQuery, InvalidCursor, LimitQuery, once
from triton_common.schemas import Page
from triton_common.trail import AuditUnavailable

router = APIRouter(prefix="/api/v1/prospects", tags=["prospects"], responses=problems(*ERRORS, AuditUnavailable))

Reader = Annotated[Principal, require("prospects:read")]
Writer = Annotated[Principal, require("prospects:write")]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=problems(ClientNotFound, ClientArchived, IdempotencyKeyInUse, IdempotencyKeyReused),
)
async def create_prospect(
    *,
    body: ProspectCreate,
    session: SessionDep,
    event: Annotated[Event, recorded("prospect.created")],
    principal: Writer,
    response: Response,
    idempotency_key: IdempotencyKeyHeader = None,
) -> ProspectPublic:
    """Create a prospect of a client."""
    event.on = ("client", str(body.client_id))  # until there is a prospect

    async def make() -> ProspectPublic:
        made = await catalogue.add(session, Prospect(client_id=body.client_id, name=body.name), principal=principal)
        return ProspectPublic.model_validate(made)

    prospect = await once_in_session(
        session, principal=principal, key=idempotency_key, request=body, make=make, answer=ProspectPublic
    )
    event.on = ("prospect", str(prospect.id))
    event.tell(client_id=prospect.client_id)
    response.headers["Location"] = f"{router.prefix}/{prospect.id}"
    return prospect


@router.get("", dependencies=[once()], responses=problems(InvalidCursor))
async def list_prospects(
    *,
    session: SessionDep,
    event: Annotated[Event, recorded("prospect.listed")],
    principal: Reader,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
    client_id: Annotated[UUID | None, Query()] = None,
    include_archived: Annotated[bool, Query()] = False,
) -> Page[ProspectPublic]:
    """List prospects, newest first."""
    conditions = [col(Prospect.client_id) == owner for owner in (client_id, principal.client_id) if owner is not None]
    if not include_archived:
        conditions.append(col(Prospect.archived_at).is_(None))
    found, next_cursor = await newest(session, Prospect, *conditions, limit=limit, cursor=cursor)
    event.tell(client_id=principal.client_id or client_id, items=len(found))
    return Page(items=[ProspectPublic.model_validate(record) for record in found], next_cursor=next_cursor)


@router.get("/{prospect_id}", responses=problems(ProspectNotFound))
async def read_prospect(
    prospect_id: UUID,
    session: SessionDep,
    event: Annotated[Event, recorded("prospect.read", on="prospect")],
    principal: Reader,
) -> ProspectPublic:
    """Read one prospect."""
    prospect = await catalogue.find(session, Prospect, prospect_id, principal=principal)
    event.tell(client_id=prospect.client_id)
    return ProspectPublic.model_validate(prospect)


@router.patch("/{prospect_id}", responses=problems(ProspectNotFound))
async def update_prospect(
    *,
    prospect_id: UUID,
    body: ProspectUpdate,
    session: SessionDep,
    event: Annotated[Event, recorded("prospect.changed", on="prospect")],
    principal: Writer,
) -> ProspectPublic:
    """Change a prospect; what is left out stays as it is."""
    prospect = await catalogue.find(session, Prospect, prospect_id, principal=principal)
    fields = body.model_dump(exclude_unset=True)
    event.tell(client_id=prospect.client_id, fields=sorted(fields))
    return ProspectPublic.model_validate(await catalogue.change(session, prospect, fields))


@router.post("/{prospect_id}/archive", responses=problems(ProspectNotFound))
async def archive_prospect(
    prospect_id: UUID,
    session: SessionDep,
    event: Annotated[Event, recorded("prospect.archived", on="prospect")],
    principal: Writer,
) -> ProspectPublic:
    """Archive a prospect: it stays readable, and takes part in no new job."""
    prospect = await catalogue.find(session, Prospect, prospect_id, principal=principal)
    event.tell(client_id=prospect.client_id)
    return ProspectPublic.model_validate(await catalogue.archive(session, prospect))
