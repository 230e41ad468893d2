"""Documents: what completed jobs made."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlmodel import col

from jobs_service import documents
from jobs_service.documents import DocumentNotFound
from jobs_service.models import Document
from jobs_service.routes.state import ERRORS, accepted
from jobs_service.schemas.documents import DocumentPublic, DocumentSummary
from triton_common.audit import Event, recorded
from triton_common.auth import Principal, require
from triton_common.db import SessionDep
from triton_common.errors import problems
from triton_common.pages import CursorQuery, InvalidCursor, LimitQuery, once
from triton_common.schemas import Page
from triton_common.trail import AuditUnavailable

router = APIRouter(prefix="/api/v1/documents", tags=["documents"], responses=problems(*ERRORS, AuditUnavailable))

Reader = Annotated[Principal, require("documents:read")]
Form = Literal["json", "md", "html"]

MEDIA_TYPES: dict[str, Form] = {"application/json": "json", "text/markdown": "md", "text/html": "html"}
# the page runs nothing and loads nothing; its own style is all it has
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


@router.get("", dependencies=[once()], responses=problems(InvalidCursor))
async def list_documents(
    *,
    session: SessionDep,
    event: Annotated[Event, recorded("document.listed")],
    principal: Reader,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
    client_id: Annotated[UUID | None, Query()] = None,
    prospect_id: Annotated[UUID | None, Query()] = None,
    job_id: Annotated[UUID | None, Query()] = None,
) -> Page[DocumentSummary]:
    """List documents, newest first, without their content."""
    conditions = [col(Document.client_id) == owner for owner in (client_id, principal.client_id) if owner is not None]
    if prospect_id is not None:
        conditions.append(col(Document.prospect_id) == prospect_id)
    if job_id is not None:
        conditions.append(col(Document.job_id) == job_id)
    page = await documents.summaries(session, *conditions, limit=limit, cursor=cursor)
    event.tell(
        client_id=principal.client_id or client_id, prospect_id=prospect_id, job_id=job_id, items=len(page.items)
    )
    return page


@router.get(
    "/{document_id}",
    response_model=DocumentPublic,
    responses={
        **problems(DocumentNotFound),
        200: {
            "description": "The document, in the form that ?format= or else Accept asks for",
            "content": {
                "text/markdown": {"schema": {"type": "string"}},
                "text/html": {"schema": {"type": "string"}},
            },
        },
    },
)
async def read_document(
    *,
    document_id: UUID,
    request: Request,
    response: Response,
    session: SessionDep,
    event: Annotated[Event, recorded("document.read", on="document")],
    principal: Reader,
    form: Annotated[Form | None, Query(alias="format", description="Comes before Accept")] = None,
) -> DocumentPublic | Response:
    """Read a document: as JSON, as Markdown, or as an HTML page that stands alone and can be printed."""
    found = await session.get(Document, document_id)
    if found is None or not principal.can_see(found.client_id):
        raise DocumentNotFound(f"There is no document {document_id}.")
    document = DocumentPublic.model_validate(found)
    form = form or MEDIA_TYPES[accepted(request, *MEDIA_TYPES)]
    event.tell(client_id=found.client_id, prospect_id=found.prospect_id, format=form)
    if form != "json":
        event.action = "document.exported"
    match form:
        case "json":
            response.headers["Vary"] = "Accept"
            return document
        case "md":
            return _text(documents.markdown(document), "text/markdown", documents.filename(document, "md"))
        case "html":
            return _text(documents.html(document), "text/html", documents.filename(document, "html"))


def _text(content: str, media_type: str, filename: str) -> Response:
    headers = {
        "Vary": "Accept",
        "Content-Disposition": f'inline; filename="{filename}"',
        "Content-Security-Policy": PAGE_POLICY,
        "X-Content-Type-Options": "nosniff",
    }
    return Response(content, media_type=media_type, headers=headers)
