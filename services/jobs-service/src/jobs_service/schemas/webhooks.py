"""Webhook endpoints and deliveries, as the public API takes and gives them."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from jobs_service.schemas.shared import PageQuery, Public, Time, Update
from triton_common.schemas import Schema

WebhookEventType = Literal[
    "job.submitted",
    "job.claimed",
    "job.retrying",
    "job.released",
    "job.lease_lost",
    "job.cancel_requested",
    "job.retried",
    "job.completed",
    "job.failed",
    "job.cancelled",
    "webhook.disabled",
    "webhook.test",
]
WebhookDeliveryStatus = Literal["pending", "delivered", "failed"]
WebhookEventTypes = Annotated[frozenset[WebhookEventType], Field(min_length=1)]
WebhookUrl = Annotated[
    str, Field(max_length=2048, description="https, to a public address; without user name, password or fragment")
]
Description = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")]


class WebhookEndpointQuery(PageQuery):
    """A page of webhook endpoints."""

    client_id: UUID | None = None


class WebhookDeliveryQuery(PageQuery):
    """A page of what was sent to an endpoint."""

    status: WebhookDeliveryStatus | None = None


class WebhookEndpointCreate(Schema):
    """A new webhook endpoint of a client."""

    client_id: UUID | None = Field(default=None, description="Staff must name it; others have their own")
    url: WebhookUrl
    description: Description = ""
    event_types: WebhookEventTypes = frozenset({"job.completed", "job.failed", "job.cancelled"})


class WebhookEndpointUpdate(Update):
    """A change of a webhook endpoint."""

    url: WebhookUrl | None = None
    description: Description | None = None
    event_types: WebhookEventTypes | None = None
    enabled: bool | None = Field(default=None, description="What waits while it is disabled is sent when it is enabled")


class WebhookEndpointPublic(Public):
    """Where a client wants to be told of what."""

    updated_at: Time
    client_id: UUID
    url: str
    description: str
    event_types: list[WebhookEventType]
    enabled: bool
    disabled_at: Time | None
    disabled_reason: str | None
    failing_since: Time | None = Field(description="The first failure after the last success")
    previous_secret_expires_at: Time | None = Field(description="Until then the secret before this one signs too")


class WebhookEndpointWithSecret(WebhookEndpointPublic):
    """An endpoint and its secret, which no other answer shows."""

    secret: str = Field(description="whsec_…: verify the header webhook-signature with it")


class WebhookSecretRotate(Schema):
    """How a secret is rotated."""

    force: bool = Field(default=False, description="Also while the secret before still signs, which ends at once")


class WebhookSecretRotation(WebhookSecretRotate):
    """What an Idempotency-Key of a rotation stands for."""

    endpoint_id: UUID


class WebhookDeliveryPublic(Public):
    """One event for one endpoint. Its id is the header `webhook-id`, the same in every attempt."""

    endpoint_id: UUID
    event_type: WebhookEventType
    job_id: UUID | None
    payload: dict[str, Any] = Field(description="The body that is sent")
    status: WebhookDeliveryStatus
    attempts: int
    next_attempt_at: Time | None = Field(description="Null unless pending")
    last_attempt_at: Time | None
    response_status: int | None = Field(description="Of the last attempt; null when nothing was answered")
    error: str | None
    delivered_at: Time | None
