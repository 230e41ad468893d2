"""Value propositions: what a client's programme does, for whom, with what effect, at what price."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status
from sqlmodel import col

from jobs_service import catalogue
from jobs_service.catalogue import ClientArchived, ClientNotFound, ValuePropositionNotFound
from jobs_service.idempotency import IdempotencyKeyInUse, IdempotencyKeyReused, once_in_session
from jobs_service.models import ValueProposition
from jobs_service.routes.state import ERRORS, IdempotencyKeyHeader
from jobs_service.schemas.catalogue import ValuePropositionCreate, ValuePropositionPublic, ValuePropositionUpdate
from triton_common.auth import Principal, require
from triton_common.db import SessionDep, newest
from triton_common.errors import problems
from triton_common.pages import CursorQuery, InvalidCursor, LimitQuery, once
from triton_common.schemas import Page

router = APIRouter(prefix="/api/v1/value-propositions", tags=["value-propositions"], responses=problems(*ERRORS))

Reader = Annotated[Principal, require("value-propositions:read")]
Writer = Annotated[Principal, require("value-propositions:write")]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=problems(ClientNotFound, ClientArchived, IdempotencyKeyInUse, IdempotencyKeyReused),
)
async def create_value_proposition(
    *,
    body: ValuePropositionCreate,
    session: SessionDep,
    principal: Writer,
    response: Response,
    idempotency_key: IdempotencyKeyHeader = None,
) -> ValuePropositionPublic:
    """Create a value proposition of a client."""

    async def make() -> ValuePropositionPublic:
        made = await catalogue.add(session, ValueProposition(**body.model_dump(mode="json")), principal=principal)
        return ValuePropositionPublic.model_validate(made)

    value_proposition = await once_in_session(
        session, principal=principal, key=idempotency_key, request=body, make=make, answer=ValuePropositionPublic
    )
    response.headers["Location"] = f"{router.prefix}/{value_proposition.id}"
    return value_proposition


@router.get("", dependencies=[once()], responses=problems(InvalidCursor))
async def list_value_propositions(
    *,
    session: SessionDep,
    principal: Reader,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
    client_id: Annotated[UUID | None, Query()] = None,
    include_archived: Annotated[bool, Query()] = False,
) -> Page[ValuePropositionPublic]:
    """List value propositions, newest first."""
    conditions = [
        col(ValueProposition.client_id) == owner for owner in (client_id, principal.client_id) if owner is not None
    ]
    if not include_archived:
        conditions.append(col(ValueProposition.archived_at).is_(None))
    found, next_cursor = await newest(session, ValueProposition, *conditions, limit=limit, cursor=cursor)
    return Page(items=[ValuePropositionPublic.model_validate(record) for record in found], next_cursor=next_cursor)


@router.get("/{value_proposition_id}", responses=problems(ValuePropositionNotFound))
async def read_value_proposition(
    value_proposition_id: UUID, session: SessionDep, principal: Reader
) -> ValuePropositionPublic:
    """Read one value proposition."""
    return ValuePropositionPublic.model_validate(
        await catalogue.find(session, ValueProposition, value_proposition_id, principal=principal)
    )


@router.patch("/{value_proposition_id}", responses=problems(ValuePropositionNotFound))
async def update_value_proposition(
    value_proposition_id: UUID, body: ValuePropositionUpdate, session: SessionDep, principal: Writer
) -> ValuePropositionPublic:
    """Change a value proposition; what is left out stays as it is."""
    value_proposition = await catalogue.find(session, ValueProposition, value_proposition_id, principal=principal)
    fields = body.model_dump(mode="json", exclude_unset=True)
    return ValuePropositionPublic.model_validate(await catalogue.change(session, value_proposition, fields))


@router.post("/{value_proposition_id}/archive", responses=problems(ValuePropositionNotFound))
async def archive_value_proposition(
    value_proposition_id: UUID, session: SessionDep, principal: Writer
) -> ValuePropositionPublic:
    """Archive a value proposition: it stays readable, and takes part in no new job."""
    value_proposition = await catalogue.find(session, ValueProposition, value_proposition_id, principal=principal)
    return ValuePropositionPublic.model_validate(await catalogue.archive(session, value_proposition))
