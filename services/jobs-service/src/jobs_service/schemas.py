"""What the public API takes and gives. What workers send and get is in triton_common.schemas."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, StringConstraints, model_validator

from triton_common.schemas import (
    DocumentContent,
    JobError,
    JobParameters,
    JobStage,
    JobStatus,
    Schema,
    Text,
    ValuePropositionContent,
)


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


Time = Annotated[AwareDatetime, AfterValidator(_utc)]
Name = Annotated[Text, StringConstraints(max_length=200)]


class Update(Schema):
    """Base of PATCH bodies: a field that is left out stays as it is."""

    @model_validator(mode="after")
    def something(self) -> "Update":
        """At least one field, and none of them null."""
        if not self.model_fields_set:
            raise ValueError("name at least one field to change")
        if any(getattr(self, field) is None for field in self.model_fields_set):
            raise ValueError("a field may be left out, not null")
        return self


class Public(Schema):
    """Base of what is read from a table."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    created_at: Time


class Archivable(Public):
    """What can change, and be archived."""

    updated_at: Time
    archived_at: Time | None = Field(description="Archived things stay readable, and take part in no new job")


class ClientCreate(Schema):
    """A new client."""

    name: Name


class ClientUpdate(Update):
    """A change of a client."""

    name: Name | None = None


class ClientPublic(Archivable):
    """A company that sells health-care programmes."""

    name: str


class ValuePropositionCreate(Schema):
    """A new value proposition of a client."""

    client_id: UUID
    name: Name
    content: ValuePropositionContent


class ValuePropositionUpdate(Update):
    """A change of a value proposition; `content` is replaced as a whole. Jobs claimed from now on see it."""

    name: Name | None = None
    content: ValuePropositionContent | None = None


class ValuePropositionPublic(Archivable):
    """What a client's programme does, for whom, with what effect, at what price."""

    client_id: UUID
    name: str
    content: ValuePropositionContent


class ProspectCreate(Schema):
    """A new prospect of a client."""

    client_id: UUID
    name: Name


class ProspectUpdate(Update):
    """A change of a prospect."""

    name: Name | None = None


class ProspectPublic(Archivable):
    """A health plan or employer that a client sells to."""

    client_id: UUID
    name: str


class JobCreate(Schema):
    """A document to be made. Prospect and value proposition belong to the same client."""

    job_type: Literal["value_proposition"]
    prospect_id: UUID
    value_proposition_id: UUID
    parameters: JobParameters = JobParameters()


class JobPublic(Public):
    """A generation job."""

    job_type: str
    client_id: UUID
    prospect_id: UUID
    value_proposition_id: UUID
    status: JobStatus
    progress: int = Field(ge=0, le=100)
    stage: JobStage | None
    parameters: dict[str, Any]
    error: JobError | None = Field(description="Why it failed; of a pending job, why its last attempt did")
    document_id: UUID | None
    attempt: int = Field(description="How many times a worker has taken it")
    max_attempts: int
    created_by: str
    request_id: str
    cancel_requested_at: Time | None
    started_at: Time | None
    finished_at: Time | None


class JobEventPublic(Schema):
    """One thing that happened to a job."""

    model_config = ConfigDict(from_attributes=True)

    seq: int
    at: Time
    kind: str = Field(
        description="submitted, claimed, progress, retrying, released, lease_lost, cancel_requested, "
        "completed, failed or cancelled"
    )
    status: JobStatus
    progress: int
    stage: JobStage | None
    message: str


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
