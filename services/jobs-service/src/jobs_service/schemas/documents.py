"""Documents, as the public API gives them."""

from uuid import UUID

from jobs_service.schemas.shared import Public
from triton_common.schemas import DocumentContent


class DocumentSummary(Public):
    """A document in a list."""

    job_id: UUID
    client_id: UUID
    prospect_id: UUID
    value_proposition_id: UUID
    title: str


class DocumentPublic(Public):
    """What a completed job made."""

    job_id: UUID
    client_id: UUID
    prospect_id: UUID
    value_proposition_id: UUID
    content: DocumentContent
