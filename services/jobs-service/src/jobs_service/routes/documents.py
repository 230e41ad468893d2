"""Documents: what completed jobs made."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from sqlmodel import col

from jobs_service import documents
from jobs_service.documents import DocumentNotFound, FactNotFound
from jobs_service.models import Document
from jobs_service.press import PdfBusy
from jobs_service.routes.state import ERRORS, accepted
from jobs_service.schemas.documents import DocumentPublic, DocumentQuery, DocumentSummary, FactOrigin
from triton_common.audit import Event, recorded
from triton_common.auth import KeysUnavailable, Principal, require
from triton_common.db import Database, DatabaseDep, DatabaseUnavailable, SessionDep, transaction
from triton_common.errors import problems
from triton_common.pages import CursorQuery, InvalidCursor, LimitQuery, once
from triton_common.schemas import Fact, Page
from triton_common.trail import AuditUnavailable

router = APIRouter(prefix="/api/v1/documents", tags=["documents"], responses=problems(*ERRORS, AuditUnavailable))

Reader = Annotated[Principal, require("documents:read")]
Form = Literal["json", "md", "markdown", "html", "pdf"]

MEDIA_TYPES: dict[str, Form] = {
    "application/json": "json",
    "text/markdown": "md",
    "text/html": "html",
    "application/pdf": "pdf",
}
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
    wanted: Annotated[DocumentQuery, Query()],
) -> Page[DocumentSummary]:
    """List documents, newest first, without their content."""
    conditions = [
        col(Document.client_id) == owner for owner in (wanted.client_id, principal.client_id) if owner is not None
    ]
    if wanted.prospect_id is not None:
        conditions.append(col(Document.prospect_id) == wanted.prospect_id)
    if wanted.value_proposition_id is not None:
        conditions.append(col(Document.value_proposition_id) == wanted.value_proposition_id)
    if wanted.job_id is not None:
        conditions.append(col(Document.job_id) == wanted.job_id)
    page = await documents.summaries(session, *conditions, limit=wanted.limit, cursor=wanted.cursor)
    event.tell(
        client_id=principal.client_id or wanted.client_id,
        prospect_id=wanted.prospect_id,
        job_id=wanted.job_id,
        items=len(page.items),
    )
    return page


@router.get(
    "/{document_id}",
    dependencies=[once()],
    response_model=DocumentPublic,
    responses={
        **problems(DocumentNotFound, KeysUnavailable, DatabaseUnavailable, AuditUnavailable, PdfBusy),
        200: {
            "description": "The document, in the form that ?format= or else Accept asks for",
            "content": {
                "text/markdown": {"schema": {"type": "string"}},
                "text/html": {"schema": {"type": "string"}},
                "application/pdf": {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
)
async def read_document(
    *,
    document_id: UUID,
    request: Request,
    response: Response,
    database: DatabaseDep,
    event: Annotated[Event, recorded("document.read", on="document")],
    principal: Reader,
    form: Annotated[Form | None, Query(alias="format", description="Comes before Accept")] = None,
) -> DocumentPublic | Response:
    """Read a document: as JSON, Markdown, an HTML page that stands alone, or a PDF.

    A document never changes. Each completed job makes another version of the document of its prospect and value
    proposition.
    """
    form = form or MEDIA_TYPES[accepted(request, *MEDIA_TYPES)]
    event.tell(format=form)
    if form != "json":
        event.action = "document.exported"
    document = await _document(database, document_id, principal=principal, event=event)
    match form:
        case "json":
            response.headers["Vary"] = "Accept"
            return document
        case "md" | "markdown":
            return _file(documents.markdown(document), "text/markdown", documents.filename(document, "md"))
        case "html":
            return _file(documents.html(document), "text/html", documents.filename(document, "html"))
        case "pdf":
            content = await request.app.state.press.pdf(document)
            return _file(content, "application/pdf", documents.filename(document, "pdf"))


@router.get("/{document_id}/versions", dependencies=[once()], responses=problems(DocumentNotFound, InvalidCursor))
async def list_versions(
    *,
    document_id: UUID,
    session: SessionDep,
    event: Annotated[Event, recorded("document.read", on="document")],
    principal: Reader,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> Page[DocumentSummary]:
    """List all versions of a document, this one among them, newest first: the documents of its prospect and value
    proposition."""
    found = await session.get(Document, document_id)
    if found is None or not principal.can_see(found.client_id):
        raise DocumentNotFound(f"There is no document {document_id}.")
    page = await documents.summaries(
        session,
        col(Document.prospect_id) == found.prospect_id,
        col(Document.value_proposition_id) == found.value_proposition_id,
        limit=limit,
        cursor=cursor,
    )
    event.tell(client_id=found.client_id, prospect_id=found.prospect_id, items=len(page.items))
    return page


@router.get("/{document_id}/facts", responses=problems(DocumentNotFound))
async def list_facts(
    *,
    document_id: UUID,
    database: DatabaseDep,
    event: Annotated[Event, recorded("document.read", on="document")],
    principal: Reader,
) -> list[Fact]:
    """List all facts of a document: every figure and name its text may show, in their order."""
    document = await _document(database, document_id, principal=principal, event=event)
    return document.content.facts


@router.get("/{document_id}/facts/{fact_id}", responses=problems(DocumentNotFound, FactNotFound))
async def read_fact(
    *,
    document_id: UUID,
    fact_id: Annotated[str, Path(max_length=200)],
    database: DatabaseDep,
    event: Annotated[Event, recorded("document.read", on="document")],
    principal: Reader,
) -> FactOrigin:
    """Read where a figure came from: its value and unit, the formula, the report and the request that answers it, and
    the paragraphs that show it."""
    document = await _document(database, document_id, principal=principal, event=event)
    return documents.origin(document, fact_id)


async def _document(database: Database, document_id: UUID, *, principal: Principal, event: Event) -> DocumentPublic:
    async with transaction(database) as session:  # over before the document is typeset
        document = await documents.read(session, document_id, principal=principal)
    event.tell(client_id=document.client_id, prospect_id=document.prospect_id)
    return document


def _file(content: str | bytes, media_type: str, filename: str) -> Response:
    headers = {
        "Vary": "Accept",
        "Content-Disposition": f'inline; filename="{filename}"',
        "Content-Security-Policy": PAGE_POLICY,
        "X-Content-Type-Options": "nosniff",
    }
    return Response(content, media_type=media_type, headers=headers)
