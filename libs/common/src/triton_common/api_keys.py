"""Personal API keys as bearer tokens: auth-service tells whose they are, and the answer is kept for a short while."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx2
from pydantic import ValidationError

from triton_common.auth import API_KEY_PREFIX, ApiKeyInvalid, KeysUnavailable, Principal
from triton_common.revocations import Revoked

LENGTH: Final = len(API_KEY_PREFIX) + 43  # 256 random bits, base64url
KEPT: Final = 60.0  # seconds, while revocations are read: a revoked key is dropped by them within two
KEPT_ALONE: Final = 4.0  # seconds, while they are not: then its end is noticed by asking again
CACHED_KEYS: Final = 10_000

Ask = Callable[[str], Awaitable[Principal]]
"""Answers whose an API key is; raises ApiKeyInvalid or KeysUnavailable."""


def remote_principal(auth_url: str) -> Ask:
    """Asks auth-service."""

    async def ask(key: str) -> Principal:
        try:
            async with httpx2.AsyncClient(base_url=auth_url, timeout=3, trust_env=False) as http:
                answer = await http.get("/internal/v1/principal", headers={"Authorization": f"Bearer {key}"})
            if answer.status_code == httpx2.codes.UNAUTHORIZED:
                raise ApiKeyInvalid
            answer.raise_for_status()
            told: dict[str, Any] = answer.json()
            return Principal.model_validate(told | {"token": key})
        except (httpx2.HTTPError, ValueError, TypeError, ValidationError) as error:
            raise KeysUnavailable("auth-service does not answer; try again.", retry_after=2) from error

    return ask


class ApiKeys:
    """Principals of API keys. Who asks for the same key at once shares one question."""

    def __init__(self, ask: Ask, *, revocations_are_read: Callable[[], bool]) -> None:
        self._ask = ask
        self._revocations_are_read = revocations_are_read
        self._known: OrderedDict[str, tuple[float, Principal | None]] = OrderedDict()  # None: it is not valid
        self._asking: dict[str, asyncio.Task[Principal]] = {}
        self._changes = 0

    async def principal(self, key: str) -> Principal:
        """Whose the key is. Raises ApiKeyInvalid, KeysUnavailable."""
        if len(key) != LENGTH or not key.isascii():
            raise ApiKeyInvalid
        until, principal = self._known.get(key, (0.0, None))
        if until <= time.monotonic():
            asking = self._asking.get(key)
            if asking is None:
                asking = self._asking[key] = asyncio.create_task(self._fresh(key))
                asking.add_done_callback(lambda _: self._asking.pop(key, None))
            return await asyncio.shield(asking)
        if principal is None or principal.expires_at <= time.time():
            raise ApiKeyInvalid
        return principal

    def forget(self, revoked: Revoked) -> None:
        """Drop the principals that are revoked. What is being asked meanwhile is not kept."""
        self._changes += 1
        for key, (_, principal) in list(self._known.items()):
            if principal is not None and principal.is_covered_by(revoked):
                del self._known[key]

    async def _fresh(self, key: str) -> Principal:
        changes = self._changes
        kept = KEPT if self._revocations_are_read() else KEPT_ALONE
        principal: Principal | None = None
        try:
            principal = await self._ask(key)
        except ApiKeyInvalid:
            kept = KEPT_ALONE
            raise
        except KeysUnavailable:
            kept = 0
            raise
        finally:
            if kept and changes == self._changes:
                self._known[key] = (time.monotonic() + kept, principal)
                self._known.move_to_end(key)
                while len(self._known) > CACHED_KEYS:
                    self._known.popitem(last=False)
        return principal
