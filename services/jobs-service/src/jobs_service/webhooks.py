"""Webhook endpoints: where a client wants to be told of what. Their secrets are encrypted here and nowhere else."""

import base64
import secrets
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from loguru import logger
from pydantic import SecretStr
from sqlalchemy import func, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from jobs_service import catalogue
from jobs_service.addresses import Reach, check_url
from jobs_service.catalogue import ClientArchived
from jobs_service.models import Client, WebhookDelivery, WebhookEndpoint
from jobs_service.schemas.webhooks import WebhookEndpointCreate
from jobs_service.statements import connected, rows
from triton_common.auth import Principal
from triton_common.db import Database
from triton_common.errors import Conflict, NotFound, Unprocessable

Record = TypeVar("Record", WebhookEndpoint, WebhookDelivery)

ENDPOINTS_PER_CLIENT: Final = 20
SECRET_BYTES: Final = 32  # Standard Webhooks asks for 24 to 64
OVERLAP: Final = "24 hours"  # how long the secret before the last rotation signs too

_SECRETS = "SELECT id, secret, previous_secret FROM webhook_endpoints"
_REENCRYPT = """
UPDATE webhook_endpoints SET secret = %(secret)s, previous_secret = %(previous_secret)s
WHERE id = %(id)s AND secret = %(was)s"""


class WebhookEndpointNotFound(NotFound):
    """There is no such webhook endpoint."""


class WebhookDeliveryNotFound(NotFound):
    """There is no such webhook delivery."""


class WebhookEndpointDisabled(Conflict):
    """The webhook endpoint is disabled."""


class SecretJustRotated(Conflict):
    """The secret before the last rotation still signs."""


class TooManyWebhookEndpoints(Conflict):
    """The client has as many webhook endpoints as it may have."""


class ClientNotNamed(Unprocessable):
    """Staff, who are bound to no client, must name one."""


class Vault:
    """Encrypts by the first of the comma-separated keys, decrypts by any of them."""

    def __init__(self, keys: SecretStr) -> None:
        fernets = [Fernet(_derived(key)) for key in keys.get_secret_value().split(",")]
        self._first = fernets[0]
        self._all = MultiFernet(fernets)

    def encrypt(self, secret: str) -> str:
        """What may be stored."""
        return self._first.encrypt(secret.encode()).decode()

    def decrypt(self, token: str) -> str:
        """The secret. Raises InvalidToken when no key fits."""
        return self._all.decrypt(token).decode()

    def renewed(self, token: str) -> str:
        """The token itself when the first key made it, else one that it makes. Raises InvalidToken."""
        try:
            self._first.decrypt(token)
        except InvalidToken:
            return self._all.rotate(token).decode()
        return token


def _derived(key: str) -> bytes:
    kdf = HKDF(SHA256(), length=32, salt=None, info=b"triton jobs webhook secrets")  # RFC 5869
    return base64.urlsafe_b64encode(kdf.derive(key.strip().encode()))


async def reencrypt(database: Database, *, vault: Vault) -> None:
    """Bring all secrets under the first key, so that the keys behind it can be dropped."""
    for endpoint in await rows(database, _SECRETS, {}):
        old = (endpoint["secret"], endpoint["previous_secret"])
        try:
            new = tuple(token and vault.renewed(token) for token in old)
        except InvalidToken:
            logger.bind(endpoint_id=endpoint["id"]).error("JOBS_ENCRYPTION_KEYS lacks the key of a webhook's secret")
            continue
        if new != old:
            values = {"id": endpoint["id"], "was": old[0], "secret": new[0], "previous_secret": new[1]}
            async with connected(database) as connection:
                await connection.execute(_REENCRYPT.encode(), values)


async def find(
    session: AsyncSession, endpoint_id: UUID, *, principal: Principal, lock: bool = False
) -> WebhookEndpoint:
    """The endpoint. Raises WebhookEndpointNotFound, for another client's too. `lock` it to change what it says now:
    who comes second sees what the first has made of it."""
    endpoint = await session.get(WebhookEndpoint, endpoint_id, with_for_update={"key_share": True} if lock else None)
    if endpoint is None or not principal.can_see(endpoint.client_id):
        raise WebhookEndpointNotFound(f"There is no webhook endpoint {endpoint_id}.")
    return endpoint


async def add(
    session: AsyncSession, body: WebhookEndpointCreate, *, principal: Principal, vault: Vault, reach: Reach
) -> WebhookEndpoint:
    """A new endpoint, with a secret. Raises WebhookUrlRefused, ClientNotNamed, ClientNotFound, ClientArchived,
    TooManyWebhookEndpoints."""
    check_url(body.url, reach=reach)
    client_id = body.client_id or principal.client_id
    if client_id is None:
        raise ClientNotNamed("Send client_id.")
    client = await catalogue.find(session, Client, client_id, principal=principal)
    if client.archived_at is not None:
        raise ClientArchived
    # one at a time for a client, so that two at once cannot both be the last that fits
    await session.exec(select(Client.id).where(col(Client.id) == client_id).with_for_update(key_share=True))
    known = await session.exec(
        select(func.count()).select_from(WebhookEndpoint).where(col(WebhookEndpoint.client_id) == client_id)
    )
    if known.one() >= ENDPOINTS_PER_CLIENT:
        raise TooManyWebhookEndpoints(f"A client has {ENDPOINTS_PER_CLIENT} at most: change or delete one.")
    endpoint = WebhookEndpoint(
        client_id=client_id,
        url=body.url,
        description=body.description,
        event_types=sorted(body.event_types),
        secret=_new_secret(vault),
    )
    session.add(endpoint)
    return await _written(session, endpoint)


def _new_secret(vault: Vault) -> str:
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"
    return vault.encrypt(secret)


async def change(
    session: AsyncSession, endpoint: WebhookEndpoint, fields: dict[str, Any], *, reach: Reach
) -> WebhookEndpoint:
    """Put new values into fields. Another URL, or being enabled again, ends what failed before.

    Raises WebhookUrlRefused.
    """
    if "url" in fields:
        check_url(fields["url"], reach=reach)
        endpoint.failing_since = None
    if "event_types" in fields:
        fields = fields | {"event_types": sorted(fields["event_types"])}
    match fields.get("enabled"):
        case True:
            endpoint.failing_since = endpoint.disabled_at = endpoint.disabled_reason = None
        case False if endpoint.enabled:
            endpoint.disabled_at = func.now()  # type: ignore[assignment]  # the server's time, read back below
            endpoint.disabled_reason = "It was disabled by a user."
    for field, value in fields.items():
        setattr(endpoint, field, value)
    return await _touched(session, endpoint)


async def rotate(session: AsyncSession, endpoint: WebhookEndpoint, *, vault: Vault, force: bool) -> WebhookEndpoint:
    """A new secret; for a day the one before signs too. Raises SecretJustRotated within that day, unless forced: the
    receiver may still go by the secret that would end."""
    until, now = endpoint.previous_secret_expires_at, (await session.exec(select(func.now()))).one()
    if until is not None and until > now and not force:
        raise SecretJustRotated(f"Rotate it after {until.isoformat(timespec='seconds')}, or send force true.")
    endpoint.previous_secret = endpoint.secret
    endpoint.previous_secret_expires_at = func.now() + text(f"interval '{OVERLAP}'")  # type: ignore[assignment]
    endpoint.secret = _new_secret(vault)
    return await _touched(session, endpoint)


def secret_of(endpoint: WebhookEndpoint, *, vault: Vault) -> str:
    """The present secret, to be shown once."""
    return vault.decrypt(endpoint.secret)


async def send_test(session: AsyncSession, endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Have a `webhook.test` sent, whatever the endpoint listens to. Raises WebhookEndpointDisabled."""
    _must_be_enabled(endpoint)
    payload = {
        "type": "webhook.test",
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "data": {"endpoint_id": str(endpoint.id), "client_id": str(endpoint.client_id)},
    }
    delivery = WebhookDelivery(endpoint_id=endpoint.id, event_type="webhook.test", payload=payload)
    session.add(delivery)
    return await _written(session, delivery)


async def redeliver(session: AsyncSession, endpoint: WebhookEndpoint, delivery_id: UUID) -> WebhookDelivery:
    """Have a delivery sent again, under the same id. Raises WebhookDeliveryNotFound, WebhookEndpointDisabled."""
    # locked: a sender that notes its end meanwhile would leave half of what is set here
    delivery = await session.get(WebhookDelivery, delivery_id, with_for_update={"key_share": True})
    if delivery is None or delivery.endpoint_id != endpoint.id:
        raise WebhookDeliveryNotFound(f"There is no delivery {delivery_id}.")
    _must_be_enabled(endpoint)
    delivery.status = "pending"
    delivery.attempts = 0
    delivery.next_attempt_at = func.now()  # type: ignore[assignment]  # the server's time, read back below
    delivery.delivered_at = delivery.response_status = delivery.error = None
    return await _written(session, delivery)


def _must_be_enabled(endpoint: WebhookEndpoint) -> None:
    if not endpoint.enabled:
        raise WebhookEndpointDisabled("Enable it first: PATCH it with enabled true.")


async def _touched(session: AsyncSession, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    endpoint.updated_at = func.now()  # type: ignore[assignment]  # the server's time, read back below
    return await _written(session, endpoint)


async def _written(session: AsyncSession, record: Record) -> Record:
    await session.flush()
    await session.refresh(record)
    return record
