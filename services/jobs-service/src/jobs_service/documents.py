"""Documents in the forms people read: a list, Markdown, and HTML that stands alone and prints well."""

import re
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from sqlalchemy import func, select
from sqlalchemy.orm import aliased
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from jobs_service import charts
from jobs_service.models import Document
from jobs_service.schemas.documents import DocumentPublic, DocumentSummary, FactOrigin, FactPlace
from triton_common.auth import Principal
from triton_common.errors import NotFound
from triton_common.pages import decode_id_cursor, encode_cursor
from triton_common.schemas import Chart, Page

_MARKDOWN_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>#|~&])")
_EARLIER: Final = aliased(Document)
_VERSION: Final = (
    select(func.count())
    .where(
        col(_EARLIER.prospect_id) == col(Document.prospect_id),
        col(_EARLIER.value_proposition_id) == col(Document.value_proposition_id),
        col(_EARLIER.id) <= col(Document.id),
    )
    .scalar_subquery()
)


class DocumentNotFound(NotFound):
    """There is no such document."""


class FactNotFound(NotFound):
    """The document has no such fact."""


async def summaries(session: AsyncSession, *conditions: Any, limit: int, cursor: str | None) -> Page[DocumentSummary]:
    """A page of the documents that meet all conditions, newest first. Raises InvalidCursor.

    Of a content, which may be a megabyte, Postgres sends the title alone.
    """
    computed = {"title": col(Document.content)["title"].astext.label("title"), "version": _VERSION.label("version")}
    columns = [computed[name] if name in computed else getattr(Document, name) for name in DocumentSummary.model_fields]
    query = select(*columns).where(*conditions).order_by(col(Document.id).desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(col(Document.id) < decode_id_cursor(cursor))
    found = (await (await session.connection()).execute(query)).all()  # columns, not objects
    items = [DocumentSummary.model_validate(row) for row in found[:limit]]
    return Page(items=items, next_cursor=encode_cursor(str(items[-1].id)) if len(found) > limit else None)


async def read(session: AsyncSession, document_id: UUID, *, principal: Principal) -> DocumentPublic:
    """A document as its reader may see it. Raises DocumentNotFound, for another client's too."""
    columns = [
        _VERSION.label("version") if name == "version" else getattr(Document, name)
        for name in DocumentPublic.model_fields
    ]
    query = select(*columns).where(col(Document.id) == document_id)
    found = (await (await session.connection()).execute(query)).one_or_none()
    if found is None or not principal.can_see(found.client_id):
        raise DocumentNotFound(f"There is no document {document_id}.")
    return DocumentPublic.model_validate(found)


def origin(document: DocumentPublic, fact_id: str) -> FactOrigin:
    """Where a figure of the document came from. Raises FactNotFound."""
    content = document.content
    fact = next((fact for fact in content.facts if fact.id == fact_id), None)
    if fact is None:
        raise FactNotFound(f"Document {document.id} has no fact {fact_id}.")
    return FactOrigin(
        **fact.model_dump(),
        query=next((query for query in content.reports if query.id == fact.report), None),
        shown_in=[
            FactPlace(section=section.key, paragraph=number, text=paragraph.text)
            for section in content.sections
            for number, paragraph in enumerate(section.paragraphs, start=1)
            if fact_id in paragraph.facts
        ],
    )


def _escaped_markdown(text: object) -> str:
    """Words of a client or an agent, without the power to be mark-up or HTML."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def _kept(text: str) -> str:
    """With the sign of each amount on the line of its figures; browsers may break a line between them."""
    return text.replace("\u2212", "\u2212\u2060")


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"


def _styled(svg: str) -> Markup:
    """An SVG picture with its style in it, for where there is no page around it."""
    style = _html.get_template("charts.css.j2").render()
    font = "svg text { font-family: 'Libertinus Serif'; }"
    return Markup(str(svg).replace(">", f"><style>{font}{style}</style>", 1))  # noqa: S704  svg is our own template's


def _environment(**options: Any) -> Environment:
    environment = Environment(  # noqa: S701  HTML is escaped by autoescape, Markdown by its own filter
        loader=PackageLoader("jobs_service"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.filters |= {
        "md": _escaped_markdown,
        "kept": _kept,
        "day": _day,
        "amount": charts.amount,
        "styled": _styled,
    }
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
    return _html.get_template("document.html.j2").render(_parts(document))


def markdown(document: DocumentPublic) -> str:
    """CommonMark with tables; charts become tables."""
    return _markdown.get_template("document.md.j2").render(_parts(document))


def printed(document: DocumentPublic) -> dict[str, Any]:
    """What document.typ prints: strings, and charts as SVG that stands alone."""
    content, parts = document.content, _parts(document)
    facts = parts["facts"]

    def drawn(chart: Chart) -> dict[str, Any]:
        svg = _html.get_template("chart.svg.j2").render(chart=chart) if chart.points else None
        return {"title": chart.title, "unit": chart.unit, "svg": svg}

    def tables(key: str) -> list[dict[str, Any]]:
        return [
            {
                "title": table.title,
                "columns": table.columns,
                "rows": [
                    {"label": row.label, "values": [facts[fact].display if fact in facts else "" for fact in row.facts]}
                    for row in table.rows
                ],
            }
            for table in content.tables
            if table.section == key
        ]

    sections = [
        {
            "title": section.title,
            "paragraphs": [paragraph.text for paragraph in section.paragraphs],
            "tables": tables(section.key),
            "charts": [drawn(chart) for chart in content.charts if (chart.section or chart.key) == section.key],
        }
        for section in content.sections
    ]
    if parts["others"]:
        charts_left = [drawn(chart) for chart in parts["others"]]
        sections.append({"title": "In pictures", "paragraphs": [], "tables": [], "charts": charts_left})
    return {
        "title": content.title,
        "made": f"{_day(document.created_at)}, version {document.version}",
        "notice": content.notice,
        "highlights": [
            {"label": one.label, "display": facts[one.fact].display} for one in content.highlights if one.fact in facts
        ],
        "sections": sections,
        "facts": [{"label": fact.label, "display": fact.display, "source": fact.source} for fact in parts["shown"]],
        "imprint": f"Document {document.id} of job {document.job_id}. Written by {content.model}.",
    }


def _parts(document: DocumentPublic) -> dict[str, Any]:
    """The document as templates want it: facts by id, those that its pages show, charts that belong to no section."""
    content = document.content
    keys = {section.key for section in content.sections}
    shown = {key for section in content.sections for paragraph in section.paragraphs for key in paragraph.facts}
    shown |= {one.fact for one in content.highlights}
    shown |= {key for table in content.tables for row in table.rows for key in row.facts}
    return {
        "document": document,
        "content": content,
        "facts": {fact.id: fact for fact in content.facts},
        "shown": [fact for fact in content.facts if fact.id in shown and fact.unit != "text"],
        "others": [chart for chart in content.charts if (chart.section or chart.key) not in keys],
    }


def filename(document: DocumentPublic, extension: str) -> str:
    """A file's name, ASCII alone: acme-diabetes-coaching.html."""
    words = re.sub(r"[^a-z0-9]+", "-", document.content.title.lower()).strip("-")[:60].rstrip("-")
    return f"{words or 'document'}.{extension}"
