"""HTTP shapes that this service alone uses."""

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from analytics_service.datasets import Dataset
from triton_common.schemas import ProblemDetail, Schema


class IngestBatch(Schema):
    """A file, or the files of one call, taken into a dataset."""

    id: UUID
    client_id: UUID
    prospect_id: UUID
    dataset: Dataset
    source: str
    status: Literal["completed"]
    rows: int
    rejected: int = 0
    rejects: list[ProblemDetail] = Field(default=[], description="With on_error=skip: the first 1,000 bad rows")
    content_sha256: str
    created_at: AwareDatetime
