"""Webhook endpoints of clients, and the log of what was sent to them."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response, status
from sqlmodel import col

from jobs_service import webhooks
from jobs_service.addresses import Reach, WebhookUrlRefused
from jobs_service.catalogue import ClientArchived, ClientNotFound
from jobs_service.idempotency import IdempotencyKeyInUse, IdempotencyKeyReused, once_in_session
from jobs_service.models import WebhookDelivery, WebhookEndpoint
from jobs_service.routes.state import ERRORS, IdempotencyKeyHeader, SettingsDep
from jobs_service.schemas.webhooks import (
    WebhookDeliveryPublic,
    WebhookDeliveryQuery,
    WebhookEndpointCreate,
    WebhookEndpointPublic,
    WebhookEndpointQuery,
    WebhookEndpointUpdate,
    WebhookEndpointWithSecret,
    WebhookSecretRotate,
    WebhookSecretRotation,
)
from jobs_service.webhooks import (
    ClientNotNamed,
    SecretJustRotated,
    TooManyWebhookEndpoints,
    Vault,
    WebhookDeliveryNotFound,
    WebhookEndpointDisabled,
    WebhookEndpointNotFound,
)
from triton_common.auth import Principal, require
from triton_common.db import SessionDep, newest
from triton_common.errors import problems
from triton_common.pages import InvalidCursor, once
from triton_common.schemas import Page

router = APIRouter(prefix="/api/v1/webhooks", tags=["webhooks"], responses=problems(*ERRORS))

Reader = Annotated[Principal, require("webhooks:read")]
Writer = Annotated[Principal, require("webhooks:write")]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=problems(
        WebhookUrlRefused,
        ClientNotNamed,
        ClientNotFound,
        ClientArchived,
        TooManyWebhookEndpoints,
        IdempotencyKeyInUse,
        IdempotencyKeyReused,
    ),
)
async def create_webhook_endpoint(
    *,
    body: WebhookEndpointCreate,
    session: SessionDep,
    settings: SettingsDep,
    principal: Writer,
    response: Response,
    idempotency_key: IdempotencyKeyHeader = None,
) -> WebhookEndpointWithSecret:
    """Have a client told of what happens to its jobs. Keep the secret: no other answer shows it."""
    vault = Vault(settings.encryption_keys)

    async def make() -> WebhookEndpointPublic:
        made = await webhooks.add(session, body, principal=principal, vault=vault, reach=Reach.of(settings))
        return WebhookEndpointPublic.model_validate(made)

    endpoint = await once_in_session(
        session, principal=principal, key=idempotency_key, request=body, make=make, answer=WebhookEndpointPublic
    )
    response.headers["Location"] = f"{router.prefix}/{endpoint.id}"
    return await _with_secret(endpoint, session, principal, settings, response)


async def _with_secret(
    endpoint: WebhookEndpointPublic,
    session: SessionDep,
    principal: Principal,
    settings: SettingsDep,
    response: Response,
) -> WebhookEndpointWithSecret:
    """The answer that is kept for an Idempotency-Key has no secret: it comes from the row, where it is encrypted."""
    found = await webhooks.find(session, endpoint.id, principal=principal)
    secret = webhooks.secret_of(found, vault=Vault(settings.encryption_keys))
    response.headers["Cache-Control"] = "no-store"
    return WebhookEndpointWithSecret(**endpoint.model_dump(), secret=secret)


@router.get("", dependencies=[once()], responses=problems(InvalidCursor))
async def list_webhook_endpoints(
    wanted: Annotated[WebhookEndpointQuery, Query()], session: SessionDep, principal: Reader
) -> Page[WebhookEndpointPublic]:
    """List webhook endpoints, newest first."""
    owners = (wanted.client_id, principal.client_id)
    conditions = [col(WebhookEndpoint.client_id) == owner for owner in owners if owner is not None]
    found, next_cursor = await newest(session, WebhookEndpoint, *conditions, limit=wanted.limit, cursor=wanted.cursor)
    return Page(items=[WebhookEndpointPublic.model_validate(record) for record in found], next_cursor=next_cursor)


@router.get("/{endpoint_id}", responses=problems(WebhookEndpointNotFound))
async def read_webhook_endpoint(endpoint_id: UUID, session: SessionDep, principal: Reader) -> WebhookEndpointPublic:
    """Read one webhook endpoint."""
    return WebhookEndpointPublic.model_validate(await webhooks.find(session, endpoint_id, principal=principal))


@router.patch("/{endpoint_id}", responses=problems(WebhookEndpointNotFound, WebhookUrlRefused))
async def update_webhook_endpoint(
    endpoint_id: UUID, body: WebhookEndpointUpdate, session: SessionDep, settings: SettingsDep, principal: Writer
) -> WebhookEndpointPublic:
    """Change a webhook endpoint; what is left out stays as it is. Enable it again with enabled true."""
    endpoint = await webhooks.find(session, endpoint_id, principal=principal, lock=True)
    fields = body.model_dump(exclude_unset=True)
    return WebhookEndpointPublic.model_validate(
        await webhooks.change(session, endpoint, fields, reach=Reach.of(settings))
    )


@router.delete("/{endpoint_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(WebhookEndpointNotFound))
async def delete_webhook_endpoint(endpoint_id: UUID, session: SessionDep, principal: Writer) -> None:
    """Delete a webhook endpoint with its log; what was not sent yet is not sent any more."""
    await session.delete(await webhooks.find(session, endpoint_id, principal=principal))


@router.post(
    "/{endpoint_id}/rotate-secret",
    responses=problems(WebhookEndpointNotFound, SecretJustRotated, IdempotencyKeyInUse, IdempotencyKeyReused),
)
async def rotate_webhook_secret(
    *,
    endpoint_id: UUID,
    body: WebhookSecretRotate | None = None,
    session: SessionDep,
    settings: SettingsDep,
    principal: Writer,
    response: Response,
    idempotency_key: IdempotencyKeyHeader = None,
) -> WebhookEndpointWithSecret:
    """Get a new secret. For 24 hours the one before signs too, so that receivers have time to change."""
    # locked: a repeated request that runs beside the first one finds the secret that the first has made
    endpoint = await webhooks.find(session, endpoint_id, principal=principal, lock=True)
    force = body is not None and body.force

    async def make() -> WebhookEndpointPublic:
        vault = Vault(settings.encryption_keys)
        return WebhookEndpointPublic.model_validate(await webhooks.rotate(session, endpoint, vault=vault, force=force))

    rotated = await once_in_session(
        session,
        principal=principal,
        key=idempotency_key,
        request=WebhookSecretRotation(endpoint_id=endpoint_id, force=force),
        make=make,
        answer=WebhookEndpointPublic,
    )
    return await _with_secret(rotated, session, principal, settings, response)


@router.post(
    "/{endpoint_id}/test",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(WebhookEndpointNotFound, WebhookEndpointDisabled),
)
async def send_test_webhook(endpoint_id: UUID, session: SessionDep, principal: Writer) -> WebhookDeliveryPublic:
    """Have a webhook.test sent, within seconds; its delivery says how that went."""
    endpoint = await webhooks.find(session, endpoint_id, principal=principal)
    return WebhookDeliveryPublic.model_validate(await webhooks.send_test(session, endpoint))


@router.get(
    "/{endpoint_id}/deliveries",
    dependencies=[once()],
    responses=problems(WebhookEndpointNotFound, InvalidCursor),
)
async def list_webhook_deliveries(
    endpoint_id: UUID, wanted: Annotated[WebhookDeliveryQuery, Query()], session: SessionDep, principal: Reader
) -> Page[WebhookDeliveryPublic]:
    """List what was sent to an endpoint or is to be, newest first. Deliveries are kept for 30 days."""
    endpoint = await webhooks.find(session, endpoint_id, principal=principal)
    conditions: list[Any] = [col(WebhookDelivery.endpoint_id) == endpoint.id]
    if wanted.status is not None:
        conditions.append(col(WebhookDelivery.status) == wanted.status)
    found, next_cursor = await newest(session, WebhookDelivery, *conditions, limit=wanted.limit, cursor=wanted.cursor)
    return Page(items=[WebhookDeliveryPublic.model_validate(record) for record in found], next_cursor=next_cursor)


@router.post(
    "/{endpoint_id}/deliveries/{delivery_id}/redeliver",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(WebhookEndpointNotFound, WebhookDeliveryNotFound, WebhookEndpointDisabled),
)
async def redeliver_webhook(
    endpoint_id: UUID, delivery_id: UUID, session: SessionDep, principal: Writer
) -> WebhookDeliveryPublic:
    """Have a delivery sent again, within seconds, under the same webhook-id."""
    endpoint = await webhooks.find(session, endpoint_id, principal=principal)
    return WebhookDeliveryPublic.model_validate(await webhooks.redeliver(session, endpoint, delivery_id))
