"""The audit log for those who may read it: a page at a time, as CSV, and whether it is what was written."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from auth_service import audit, chain, events
from auth_service.audit import Actor, Origin
from auth_service.audit_schemas import AuditConditions, AuditEventPublic, AuditFilter, ChainQuery, ChainReport
from auth_service.chain import Head
from auth_service.routes.state import ADMIN_ERRORS, AuditReader, OriginDep, not_stored
from triton_common.auth import Principal
from triton_common.db import DatabaseDep, SessionDep, transaction
from triton_common.errors import Forbidden, problems
from triton_common.pages import InvalidCursor, once
from triton_common.schemas import Page

router = APIRouter(prefix="/api/v1/auth", tags=["audit log"], responses=problems(*ADMIN_ERRORS))


class ChainOfAllClients(Forbidden):
    """The chain goes through the events of all clients, so staff alone verify it."""


class Csv(StreamingResponse):
    """Rows as they come."""

    media_type = "text/csv"


@router.get("/audit", dependencies=[Depends(not_stored), once()], responses=problems(InvalidCursor))
async def list_audit_events(
    principal: AuditReader, session: SessionDep, origin: OriginDep, wanted: Annotated[AuditFilter, Query()]
) -> Page[AuditEventPublic]:
    """Events that meet all conditions that are given, newest first. Who is bound to a client sees its events alone.
    Reading them is an event too."""
    found = await events.page(session, by=principal, wanted=wanted)
    _record(session, "audit.read", by=principal, origin=origin, wanted=wanted, events=len(found.items))
    return found


@router.get(
    "/audit.csv",
    response_class=Csv,
    dependencies=[once()],
    responses={200: {"description": "The events, a header first", "content": {"text/csv": {}}}},
)
async def export_audit_events(
    principal: AuditReader, database: DatabaseDep, origin: OriginDep, wanted: Annotated[AuditConditions, Query()]
) -> Csv:
    """All of them as CSV, newest first (RFC 4180, UTF-8). A text that a spreadsheet would compute begins with
    `'`. A log of any length; an answer that breaks off is not whole."""
    async with transaction(database) as session:
        _record(session, "audit.exported", by=principal, origin=origin, wanted=wanted)
    name = f"audit-{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Csv(events.as_csv(database, by=principal, wanted=wanted), headers=headers)


@router.get(
    "/audit/verify", dependencies=[Depends(not_stored), once()], responses=problems(*ADMIN_ERRORS, ChainOfAllClients)
)
async def verify_audit_log(
    request: Request,
    principal: AuditReader,
    database: DatabaseDep,
    origin: OriginDep,
    wanted: Annotated[ChainQuery, Query()],
) -> ChainReport:
    """Compute the hash of each event again, and say where the chain does not hold: an event that was changed, removed,
    put in or swapped. Whether its end was cut, a head tells that the service logged (`expected_seq`, `expected_hash`).

    A long log takes several requests, each from `next_seq` of the one before, whose head is what the next expects.
    """
    if not principal.is_staff:
        raise ChainOfAllClients
    expected = None
    if wanted.expected_seq is not None and wanted.expected_hash is not None:
        expected = Head(wanted.expected_seq, bytes.fromhex(wanted.expected_hash))
    key: bytes = request.app.state.chain_key
    report = await chain.verify(database, key, since_seq=wanted.since_seq, limit=wanted.limit, expected=expected)
    async with transaction(database) as session:
        audit.record(
            session,
            "audit.verified",
            actor=Actor.of(principal),
            origin=origin,
            outcome="succeeded" if report.valid else "failed",
            **report.model_dump(mode="json", include={"events", "head_seq", "first_bad"}),
        )
    return report


def _record(
    session: Any, action: str, *, by: Principal, origin: Origin, wanted: AuditConditions, **details: Any
) -> None:
    """What was asked for. The client is the one whose events were: its own admins see who read them."""
    asked = wanted.model_dump(mode="json", exclude_none=True, exclude={"limit", "cursor"})
    audit.record(
        session,
        action,
        actor=Actor.of(by),
        origin=origin,
        client_id=by.client_id or wanted.client_id,
        filters=asked,
        **details,
    )
