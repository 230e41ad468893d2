"""Documents in the forms people read: a list, Markdown, and HTML that stands alone and prints well."""

import re
from datetime import datetime
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import select
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from jobs_service import charts
from jobs_service.models import Document
from jobs_service.schemas.documents import DocumentPublic, DocumentSummary
from triton_common.errors import NotFound
from triton_common.pages import decode_id_cursor, encode_cursor
from triton_common.schemas import Page

_MARKDOWN_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>#|~])")


class DocumentNotFound(NotFound):
    """There is no such document."""


async def summaries(session: AsyncSession, *conditions: Any, limit: int, cursor: str | None) -> Page[DocumentSummary]:
    """A page of the documents that meet all conditions, newest first. Raises InvalidCursor.

    Of a content, which may be a megabyte, Postgres sends the title alone.
    """
    columns = [col(getattr(Document, name)) for name in DocumentSummary.model_fields if name != "title"]
    title = col(Document.content)["title"].astext.label("title")
    query = select(*columns, title).where(*conditions).order_by(col(Document.id).desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(col(Document.id) < decode_id_cursor(cursor))
    found = (await (await session.connection()).execute(query)).all()  # columns, not objects
    items = [DocumentSummary.model_validate(row) for row in found[:limit]]
    return Page(items=items, next_cursor=encode_cursor(str(items[-1].id)) if len(found) > limit else None)


def _escaped_markdown(text: object) -> str:
    """Words of a client or an agent, without the power to be mark-up or HTML."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"


def _environment(**options: Any) -> Environment:
    environment = Environment(  # noqa: S701  HTML is escaped by autoescape, Markdown by its own filter
        loader=PackageLoader("jobs_service"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.filters |= {"md": _escaped_markdown, "day": _day, "amount": charts.amount}
    environment.globals |= {
        "bars": charts.bars,
        "line": charts.line,
        "WIDTH": charts.WIDTH,
        "LABELS": charts.LABELS,
        "MARGIN": charts.MARGIN,
    }
    return environment


_html: Final = _environment(autoescape=True)
_markdown: Final = _environment(autoescape=False)


def html(document: DocumentPublic) -> str:
    """One page without scripts or anything to load; charts are inline SVG."""
    return _html.get_template("document.html.j2").render(document=document, content=document.content)


def markdown(document: DocumentPublic) -> str:
    """CommonMark with tables; charts become tables."""
    return _markdown.get_template("document.md.j2").render(document=document, content=document.content)


def filename(document: DocumentPublic, extension: str) -> str:
    """A file's name, ASCII alone: acme-diabetes-coaching.html."""
    words = re.sub(r"[^a-z0-9]+", "-", document.content.title.lower()).strip("-")[:60].rstrip("-")
    return f"{words or 'document'}.{extension}"
