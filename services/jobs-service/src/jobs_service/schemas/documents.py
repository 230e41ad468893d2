"""Documents, as the public API gives them."""

from typing import Final
from uuid import UUID

from pydantic import Field

from jobs_service.schemas.shared import PageQuery, Public
from triton_common.schemas import DocumentContent, Fact, ReportQuery, Schema

_VERSION: Final = Field(description="Counts the documents of this prospect and value proposition, from 1")


class DocumentQuery(PageQuery):
    """A page of the documents that meet all conditions given."""

    client_id: UUID | None = None
    prospect_id: UUID | None = None
    value_proposition_id: UUID | None = None
    job_id: UUID | None = None


class DocumentSummary(Public):
    """A document in a list."""

    job_id: UUID
    client_id: UUID
    prospect_id: UUID
    value_proposition_id: UUID
    version: int = _VERSION
    title: str


class DocumentPublic(Public):
    """What a completed job made."""

    job_id: UUID
    client_id: UUID
    prospect_id: UUID
    value_proposition_id: UUID
    version: int = _VERSION
    content: DocumentContent


class FactPlace(Schema):
    """A paragraph that shows a fact."""

    section: str
    paragraph: int = Field(description="From 1")
    text: str


class FactOrigin(Fact):
    """A fact, where it came from and where it is shown."""

    query: ReportQuery | None = Field(description="The request that answers its report; null without a report")
    shown_in: list[FactPlace]
