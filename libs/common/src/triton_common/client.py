"""Calls between services: timeouts, retries of what may be repeated, the request id, a service's own token.

A problem in an answer is raised as the error it was.
"""

import asyncio
import random
import threading
import time
from collections.abc import Generator, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx2
from pydantic import SecretStr

from triton_common.errors import (
    AppError,
    BadRequest,
    Conflict,
    ContentTooLarge,
    Forbidden,
    Internal,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unprocessable,
    UnsupportedContent,
    problem_of,
)
from triton_common.logging import current_request_id
from triton_common.telemetry import outgoing_headers

TIMEOUT: Final = httpx2.Timeout(10.0, connect=2.0)
ATTEMPTS: Final = 3
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
RENEW_BEFORE: Final = 60.0  # seconds before its end a token is replaced, so that none expires on its way

_BY_STATUS: Final[dict[int, type[AppError]]] = {
    cls.status.value: cls
    for cls in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        Conflict,
        ContentTooLarge,
        UnsupportedContent,
        Unprocessable,
        TooManyRequests,
        Internal,
        Unavailable,
    )
}


class ServiceUnreachable(Unavailable):
    """Another service does not answer."""


def remote_error(response: httpx2.Response) -> AppError:
    """The error an answer of 400 or more stands for, with the code and message the other side gave."""
    known = problem_of(response.content)
    cls = _BY_STATUS.get(response.status_code, Unavailable if response.status_code >= 500 else BadRequest)
    retry_after = response.headers.get("Retry-After", "")
    error = cls(
        known.message if known else f"answered {response.status_code}",
        details=known.details if known else (),
        retry_after=int(retry_after) if retry_after.isdigit() else None,
    )
    if known:  # on the instance: the class may be a base of the one that was raised over there
        error.code = known.code  # type: ignore[misc]
        error.title = known.title  # type: ignore[misc]
    return error


def _worth_another_try(method: str, response: httpx2.Response) -> bool:
    return method in IDEMPOTENT and response.status_code in (502, 503, 504)


def _pause(attempt: int) -> float:
    """Seconds before the next attempt: 0.1, 0.2, … with up to as much again by chance, so that callers spread."""
    return random.uniform(0.1, 0.2) * float(2**attempt)  # noqa: S311  no secret


def _decoded(response: httpx2.Response) -> Any:
    if response.is_error:
        raise remote_error(response)
    return response.json() if response.content else None


class ServiceClient:
    """Calls one service from another. Answers parsed JSON; raises the answer's error, or ServiceUnreachable."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout: httpx2.Timeout = TIMEOUT,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """Each call brings its caller's token."""
        # not by a proxy of the environment, which knows nothing of our services
        self._http = httpx2.AsyncClient(base_url=base_url, timeout=timeout, transport=transport, trust_env=False)

    async def get(self, path: str, *, token: str | None = None, **params: Any) -> Any:
        """GET with query parameters."""
        return await self.request("GET", path, token=token, params=params)

    async def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Any:
        """Any call; `options` as httpx2 takes them. A POST is not repeated: the other side may have done it."""
        for attempt in range(ATTEMPTS):
            sent = outgoing_headers(current_request_id()) | dict(headers or {})
            if token:
                sent["Authorization"] = f"Bearer {token}"
            last = attempt == ATTEMPTS - 1
            try:
                response = await self._http.request(method, path, headers=sent, **options)
            except httpx2.TransportError as error:
                if last or not (method in IDEMPOTENT or isinstance(error, httpx2.ConnectError)):
                    raise ServiceUnreachable(f"{self._http.base_url.host} does not answer.", retry_after=2) from error
            else:
                if last or not _worth_another_try(method, response):
                    return _decoded(response)
            await asyncio.sleep(_pause(attempt))
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """As a context, it closes itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()


class SyncServiceClient:
    """The same for workers and the command line, which are sync. Safe to share between threads."""

    def __init__(
        self,
        base_url: str,
        *,
        token: "SyncServiceToken | None" = None,
        timeout: httpx2.Timeout = TIMEOUT,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """`token` goes with each call."""
        self._http = httpx2.Client(auth=token, base_url=base_url, timeout=timeout, transport=transport, trust_env=False)

    def get(self, path: str, **params: Any) -> Any:
        """GET with query parameters."""
        return self.request("GET", path, params=params)

    def post(self, path: str, *, json: Any, **options: Any) -> Any:
        """POST a JSON body. Not repeated: the other side may have done it."""
        return self.request("POST", path, json=json, **options)

    def request(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any) -> Any:
        """Any call; `options` as httpx2 takes them."""
        for attempt in range(ATTEMPTS):
            sent = outgoing_headers(current_request_id()) | dict(headers or {})
            last = attempt == ATTEMPTS - 1
            try:
                response = self._http.request(method, path, headers=sent, **options)
            except httpx2.TransportError as error:
                if last or not (method in IDEMPOTENT or isinstance(error, httpx2.ConnectError)):
                    raise ServiceUnreachable(f"{self._http.base_url.host} does not answer.", retry_after=2) from error
            else:
                if last or not _worth_another_try(method, response):
                    return _decoded(response)
            time.sleep(_pause(attempt))
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """As a context, it closes itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


class SyncServiceToken(httpx2.Auth):
    """A service account's access token by client credentials (RFC 6749 §4.4), kept until shortly before its end.

    A call that is refused with 401 is made once more with a new one: keys change, and a laptop's clock sleeps with it.
    Its errors: Unauthorized for a wrong secret, ServiceUnreachable without auth-service.
    """

    def __init__(self, auth_url: str, *, client_id: str, client_secret: SecretStr) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._http = SyncServiceClient(auth_url)
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """What httpx2 asks before and after each request."""
        token = self._valid(refused=None)
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == httpx2.codes.UNAUTHORIZED:
            request.headers["Authorization"] = f"Bearer {self._valid(refused=token)}"
            yield request

    def _valid(self, *, refused: str | None) -> str:
        with self._lock:
            if time.monotonic() >= self._renew_at or self._token == refused:
                secret = self._client_secret.get_secret_value()
                answer = self._http.request(
                    "POST",
                    "/api/v1/auth/token",
                    data={"grant_type": "client_credentials"},
                    auth=(quote(self._client_id, safe=""), quote(secret, safe="")),  # as RFC 6749 §2.3.1 has it
                )
                self._token = answer["access_token"]
                lifetime = float(answer["expires_in"])
                self._renew_at = time.monotonic() + max(lifetime - RENEW_BEFORE, lifetime / 2)
            return self._token

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
