"""The sender of webhooks: one task in every process. A delivery is leased, sent, and noted as delivered, due again or
failed; what a process leaves behind is due again when its lease ends, so each is sent at least once, under one id."""

import asyncio
import json
import random
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore2
from cryptography.fernet import InvalidToken
from loguru import logger
from standardwebhooks import Webhook

from jobs_service.addresses import (
    Address,
    AddressRefused,
    CheckedNetwork,
    Reach,
    Resolver,
    WebhookUrlRefused,
    check_url,
    look_up,
)
from jobs_service.metrics import WEBHOOK_DELIVERIES
from jobs_service.statements import Row, connected, row, rows
from jobs_service.webhooks import Vault, reencrypt
from triton_common.db import Database, DatabaseUnavailable

TIMEOUT: Final = 10.0  # seconds for one attempt, from the name's lookup to the answer's status
LEASE: Final = timedelta(seconds=30)  # longer than an attempt and its note take
IN_FLIGHT: Final = 64  # attempts at once in a process
PER_CLIENT: Final = 16  # of them for one client: its slow endpoints leave the others their places
PER_ENDPOINT: Final = 4  # of them to one endpoint
# after which pause the next attempt follows: ten more in 24 hours
PAUSES: Final = tuple(
    timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 8 * 3600)
)
PURGED: Final = 500  # rows a statement
PURGE_EVERY: Final = 60.0  # seconds
FAILURES: Final = (
    WebhookUrlRefused,
    AddressRefused,
    TimeoutError,
    OSError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    httpcore2.NetworkError,
)
READ_AT_MOST: Final = 65_536  # bytes of an answer's body: thrown away, so that its writer is not cut off
READ_FOR: Final = 1.0  # seconds

# It steps through the index from one endpoint with something due to the next: others cost next to nothing, and the long
# queue of one no more than a short one. Who has the fewest places comes first, then who waits longest.
TAKE: Final = f"""
WITH RECURSIVE waiting AS (
  (SELECT endpoint_id FROM webhook_deliveries WHERE status = 'pending' AND next_attempt_at <= now()
    ORDER BY endpoint_id LIMIT 1)
  UNION ALL
  SELECT (SELECT endpoint_id FROM webhook_deliveries
    WHERE status = 'pending' AND next_attempt_at <= now() AND endpoint_id > waiting.endpoint_id
    ORDER BY endpoint_id LIMIT 1)
  FROM waiting WHERE endpoint_id IS NOT NULL
), sending AS (
  SELECT * FROM unnest(%(clients)s::uuid[], %(endpoints)s::uuid[]) AS attempt (client_id, endpoint_id)
), due AS (
  SELECT oldest.id, oldest.next_attempt_at,
    row_number() OVER (PARTITION BY client_id ORDER BY oldest.next_attempt_at)
      + (SELECT count(*) FROM sending WHERE sending.client_id = listener.client_id) AS place
  FROM waiting JOIN webhook_endpoints AS listener ON listener.id = waiting.endpoint_id AND listener.enabled
  CROSS JOIN LATERAL (
    SELECT id, next_attempt_at FROM webhook_deliveries
    WHERE endpoint_id = listener.id AND status = 'pending' AND next_attempt_at <= now() ORDER BY next_attempt_at
    LIMIT greatest({PER_ENDPOINT} - (SELECT count(*) FROM sending WHERE sending.endpoint_id = listener.id), 0)
  ) AS oldest
)
UPDATE webhook_deliveries AS delivery
SET attempts = attempts + 1, last_attempt_at = now(), next_attempt_at = now() + %(lease)s
FROM webhook_endpoints AS endpoint
WHERE endpoint.id = delivery.endpoint_id AND delivery.id = ANY (ARRAY(
  SELECT id FROM webhook_deliveries
  WHERE status = 'pending' AND next_attempt_at <= now() AND id = ANY (ARRAY(
    SELECT id FROM due WHERE place <= {PER_CLIENT} ORDER BY place, next_attempt_at LIMIT %(free)s))
  FOR UPDATE SKIP LOCKED))
RETURNING delivery.id, endpoint_id, client_id, attempts, payload, url, secret,
  CASE WHEN previous_secret_expires_at > now() THEN previous_secret END AS previous_secret"""  # noqa: S608  constants
# fenced by the attempt: one that outlived its lease changes nothing
_MINE = "WHERE id = %(id)s AND attempts = %(attempts)s AND status = 'pending'"
DELIVERED: Final = f"""
UPDATE webhook_deliveries SET status = 'delivered', delivered_at = now(), next_attempt_at = NULL, error = NULL,
  response_status = %(response_status)s
{_MINE}"""  # noqa: S608  a constant
NOT_DELIVERED: Final = f"""
UPDATE webhook_deliveries SET status = CASE WHEN %(pause)s::interval IS NULL THEN 'failed' ELSE 'pending' END,
  next_attempt_at = now() + %(pause)s::interval, error = %(error)s, response_status = %(response_status)s
{_MINE}"""  # noqa: S608  a constant
# Statements of their own, after the delivery's: a deleted endpoint is locked before its deliveries, not after them
SUCCEEDED: Final = "UPDATE webhook_endpoints SET failing_since = NULL WHERE id = %(id)s AND failing_since IS NOT NULL"
FAILED: Final = """
WITH endpoint AS (
  UPDATE webhook_endpoints SET failing_since = coalesce(failing_since, now()),
    enabled = NOT over.disabled,
    disabled_at = CASE WHEN over.disabled THEN now() END,
    disabled_reason = CASE WHEN %(gone)s THEN 'It answered 410 Gone.'
      WHEN over.disabled THEN 'Its deliveries have failed without a success since '
        || to_char(failing_since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z".') END
  FROM (SELECT id AS over_id, %(gone)s OR
      %(failed)s AND coalesce(failing_since < now() - %(disable_after)s, false) AS disabled
    FROM webhook_endpoints WHERE id = %(id)s FOR NO KEY UPDATE) AS over
  WHERE id = over.over_id AND enabled AND (failing_since IS NULL OR over.disabled)
  RETURNING id, client_id, enabled, disabled_at, disabled_reason
), told AS (
  INSERT INTO webhook_deliveries (endpoint_id, event_type, payload)
  SELECT other.id, 'webhook.disabled', jsonb_build_object(
    'type', 'webhook.disabled',
    'timestamp', to_char(endpoint.disabled_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'data', jsonb_build_object('endpoint_id', endpoint.id, 'client_id', endpoint.client_id,
      'reason', endpoint.disabled_reason))
  FROM endpoint JOIN webhook_endpoints AS other ON other.client_id = endpoint.client_id AND other.id <> endpoint.id
    AND other.enabled AND other.event_types @> ARRAY['webhook.disabled']
  WHERE NOT endpoint.enabled
  FOR KEY SHARE OF other
)
SELECT enabled, disabled_reason FROM endpoint"""
# Ids are UUIDv7, so their order is the order of creation; the subquery lets the primary key's index be used
PURGE: Final = f"""
DELETE FROM webhook_deliveries WHERE id = ANY (ARRAY(
  SELECT id FROM webhook_deliveries WHERE id < (SELECT uuidv7(-%(kept)s::interval)) ORDER BY id LIMIT {PURGED}
  FOR UPDATE SKIP LOCKED))"""  # noqa: S608  a constant


@dataclass(frozen=True)
class Answer:
    """How an attempt went: without an error it was delivered."""

    status: int | None = None
    error: str | None = None
    ours: bool = False  # the failure says nothing about the endpoint


class Sender:
    """Sends what is due. `sending` holds its running attempts with their deliveries; each notes its own end."""

    def __init__(
        self,
        database: Database,
        *,
        vault: Vault,
        reach: Reach,
        disable_after: timedelta,
        kept: timedelta,
        timeout: float = TIMEOUT,
        resolve: Resolver = look_up,
    ) -> None:
        """`resolve` in place of the system's names."""
        self._database = database
        self._vault = vault
        self._reach = reach
        self._disable_after = disable_after
        self._kept = kept
        self._timeout = timeout
        self._resolve = resolve
        self.sending: dict[asyncio.Task[None], Row] = {}

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """One for all: to read the system's authorities takes milliseconds, in which the process does nothing else."""
        return httpcore2.default_ssl_context()

    async def run(self, *, interval: timedelta) -> None:
        """Send until cancelled; look for what is due each interval, and whenever an attempt has ended."""
        loop = asyncio.get_running_loop()
        purge_at = loop.time()
        secrets_are_current = False
        try:
            while True:
                try:
                    if not secrets_are_current:
                        await reencrypt(self._database, vault=self._vault)
                        secrets_are_current = True
                    await self.turn()
                    if loop.time() >= purge_at:
                        await self.purge()
                        purge_at = loop.time() + PURGE_EVERY
                except DatabaseUnavailable as error:
                    logger.bind(reason=error.message).warning("no webhooks are sent: there is no database")
                except Exception as error:  # noqa: BLE001  the next turn may go better, and there must be one
                    logger.opt(exception=error).error("webhooks could not be sent")
                await self._pause(interval)
        finally:
            for attempt in self.sending:
                attempt.cancel()
            while self.sending:  # before the database is closed, however often this task is cancelled
                with suppress(asyncio.CancelledError):
                    await asyncio.wait(self.sending)

    async def _pause(self, interval: timedelta) -> None:
        if self.sending:
            await asyncio.wait(self.sending, timeout=interval.total_seconds(), return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(interval.total_seconds())

    async def turn(self) -> None:
        """Start the attempts that are due and have a place."""
        free = IN_FLIGHT - len(self.sending)
        if free > 0:
            sending = self.sending.values()
            values = {
                "lease": LEASE,
                "free": free,
                "clients": [delivery["client_id"] for delivery in sending],
                "endpoints": [delivery["endpoint_id"] for delivery in sending],
            }
            for delivery in await rows(self._database, TAKE, values):
                self._start(delivery)

    async def purge(self) -> None:
        """Delete what is older than it is kept, a bounded number of rows a statement."""
        deleted = PURGED
        while deleted == PURGED:
            async with connected(self._database) as connection:
                deleted = (await connection.execute(PURGE.encode(), {"kept": self._kept})).rowcount

    def _start(self, delivery: Row) -> None:
        attempt = asyncio.create_task(self._attempt(delivery), name=f"webhook {delivery['id']}")
        self.sending[attempt] = delivery
        attempt.add_done_callback(self.sending.pop)

    async def _attempt(self, delivery: Row) -> None:
        """Send one delivery, and note how it went. When that cannot be noted it is sent again after its lease."""
        lookups: list[asyncio.Future[list[Address]]] = []

        async def resolve(name: str, port: int) -> list[Address]:
            lookups.append(asyncio.ensure_future(self._resolve(name, port)))
            return await asyncio.shield(lookups[-1])

        try:
            await self._note(delivery, await self._answer(delivery, CheckedNetwork(self._reach, resolve=resolve)))
            if lookups:  # who hangs there still has a thread, and so keeps the place
                await asyncio.wait(lookups)
        except DatabaseUnavailable as error:
            logger.bind(reason=error.message, delivery_id=delivery["id"]).warning("a webhook's end could not be noted")
        except Exception as error:  # noqa: BLE001  it ends this attempt alone
            logger.opt(exception=error).bind(delivery_id=delivery["id"]).error("a webhook could not be sent")
        finally:
            for lookup in lookups:
                lookup.cancel()

    async def _answer(self, delivery: Row, network: CheckedNetwork) -> Answer:
        try:
            secrets = [
                self._vault.decrypt(token)
                for token in (delivery["secret"], delivery["previous_secret"])
                if token is not None
            ]
            check_url(delivery["url"], reach=self._reach)  # again: the settings may have changed
            status = await self._post(network, delivery["url"], *signed(delivery, secrets))
        except InvalidToken:
            return Answer(error="Its secret cannot be decrypted: rotate it.", ours=True)
        except FAILURES as error:
            return Answer(error=_reason(error))
        return Answer(status, _complaint(status))

    async def _post(self, network: CheckedNetwork, url: str, headers: dict[str, str], body: bytes) -> int:
        """The answer's status, which decides in time. Of its body a little is read and thrown away, however slow it is.

        No connection is kept: each attempt's address is looked up and judged anew. Neither proxies of the environment
        nor redirects are followed at this level of the library.
        """
        async with (
            asyncio.timeout(self._timeout) as patience,
            httpcore2.AsyncConnectionPool(ssl_context=self._tls, network_backend=network) as http,
            http.stream("POST", _target(url), headers=list(headers.items()), content=body) as response,
        ):
            patience.reschedule(None)
            status: int = response.status
            read = 0
            with suppress(httpcore2.NetworkError, httpcore2.ProtocolError, TimeoutError):
                async with asyncio.timeout(READ_FOR):
                    async for chunk in response.aiter_stream():
                        read += len(chunk)
                        if read > READ_AT_MOST:
                            break
            return status

    async def _note(self, delivery: Row, answer: Answer) -> None:
        log = logger.bind(
            delivery_id=delivery["id"],
            endpoint_id=delivery["endpoint_id"],
            attempt=delivery["attempts"],
            status=answer.status,
        )
        values: dict[str, Any] = {
            "id": delivery["id"],
            "attempts": delivery["attempts"],
            "response_status": answer.status,
            "error": answer.error,
        }
        endpoint: dict[str, Any] = {"id": delivery["endpoint_id"]}
        async with connected(self._database) as connection:
            if answer.error is None:
                await connection.execute(DELIVERED.encode(), values)
                await connection.execute(SUCCEEDED.encode(), endpoint)
                WEBHOOK_DELIVERIES.labels("delivered").inc()
                log.debug("webhook delivered")
                return
            gone = answer.status == HTTPStatus.GONE
            pause = None if gone else pause_after(delivery["attempts"])
            await connection.execute(NOT_DELIVERED.encode(), values | {"pause": pause})
        WEBHOOK_DELIVERIES.labels("failed" if pause is None else "retrying").inc()
        log.bind(reason=answer.error).info("webhook not delivered")
        if answer.ours:
            return
        changed = await row(
            self._database,
            FAILED,
            endpoint | {"gone": gone, "failed": pause is None, "disable_after": self._disable_after},
        )
        if changed is not None and not changed["enabled"]:
            log.bind(reason=changed["disabled_reason"]).warning("webhook endpoint disabled")


def _target(url: str) -> httpcore2.URL:
    """By its parts: the library's own parsing drops what stands behind a semicolon."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return httpcore2.URL(scheme=parts.scheme, host=parts.hostname or "", port=parts.port, target=target)


def _reason(error: Exception) -> str:
    """Why there was no answer, in a sentence that holds nothing of what the other side sent."""
    match error:
        case WebhookUrlRefused():
            reason = error.message
        case AddressRefused():
            reason = "The name leads to an address that is not public."
        case TimeoutError() | httpcore2.TimeoutException():
            reason = "There was no answer in time."
        # a protocol error that no other stands behind: the end came before a whole head, often before a byte
        case httpcore2.RemoteProtocolError(__context__=None) | httpcore2.ReadError() | httpcore2.WriteError():
            reason = "The connection was closed before an HTTP answer."
        case httpcore2.ProtocolError():
            reason = "The answer was not HTTP."
        case _:
            reason = f"There is no connection: {str(error) or type(error).__name__}"[:300]
    return reason


def _complaint(status: int) -> str | None:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return f"It answered {status}: redirects are not followed. Change the URL."
    return f"It answered {status}."


def pause_after(attempts: int) -> timedelta | None:
    """Before the next attempt, a fifth more or less by chance, so that retries spread; None when there is none."""
    if attempts > len(PAUSES):
        return None
    return PAUSES[attempts - 1] * random.uniform(0.8, 1.2)  # noqa: S311  no secret


def signed(delivery: Row, secrets: Sequence[str]) -> tuple[dict[str, str], bytes]:
    """(headers, body) as Standard Webhooks has them: one signature for each secret."""
    webhook_id, now = str(delivery["id"]), datetime.now(UTC)
    body = json.dumps(delivery["payload"], ensure_ascii=False, separators=(",", ":"))
    headers = {
        "Host": urlsplit(delivery["url"]).netloc,
        "Content-Type": "application/json",
        "User-Agent": f"Triton-Webhooks/{version('jobs-service')}",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(webhook_id, now, body) for secret in secrets),
    }
    return headers, body.encode()
