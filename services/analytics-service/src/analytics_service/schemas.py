"""HTTP shapes that this service alone uses."""

from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from analytics_service.datasets import Dataset
from triton_common.schemas import ProblemDetail, Schema


class LoadError(Schema):
    """Why a load failed: what the call was answered."""

    code: str
    message: str
    details: list[ProblemDetail] = Field(default=[])


class IngestBatch(Schema):
    """A file, or the files of one call, taken into a dataset."""

    id: UUID
    client_id: UUID
    prospect_id: UUID
    dataset: Dataset
    source: str
    status: Literal["loading", "completed", "failed"]
    bytes: int = Field(default=0, description="Of the body, as it travelled; while loading those that have come")
    bytes_total: int | None = Field(default=None, description="While loading: of the whole body, if the call says it")
    rows: int = Field(description="While loading: on disk so far; reports see them once all are")
    rejected: int = 0
    rejects: list[ProblemDetail] = Field(default=[], description="With on_error=skip: the first 1,000 bad rows")
    content_sha256: str = Field(default="", description="Empty while loading")
    error: LoadError | None = Field(default=None, description="With status failed")
    created_at: AwareDatetime


class Preview(Schema):
    """What a call would store."""

    rows: list[dict[str, Any]] = Field(description="The first rows, as they would be stored: ids as their hashes")
    good: int
    rejected: int
    rejects: list[ProblemDetail] = Field(description="The first 1,000 problems")
