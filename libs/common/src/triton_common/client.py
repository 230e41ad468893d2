"""Calls between services: timeouts, retries of what may be repeated, the request id, a service's own token.

A problem in an answer is raised as the error it was.
"""

import asyncio
import base64
import random
import select
import ssl
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import SplitResult, quote, urlsplit

import httpx2
from pydantic import SecretStr
from pydantic_core import from_json, to_json

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
RENEW_AGAIN: Final = 5.0  # seconds until the next try, when auth-service did not answer and the old token is still good
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


class Answer(NamedTuple):
    """What the other side answered, whoever carried it here."""

    status: int
    body: bytes
    retry_after: str | None


def remote_error(answer: Answer) -> AppError:
    """The error an answer of 400 or more stands for, with the code and message the other side gave."""
    known = problem_of(answer.body)
    cls = _BY_STATUS.get(answer.status, Unavailable if answer.status >= 500 else BadRequest)
    retry_after = answer.retry_after or ""
    error = cls(
        known.message if known else f"answered {answer.status}",
        details=known.details if known else (),
        retry_after=int(retry_after) if retry_after.isdigit() else None,
    )
    if known:  # on the instance: the class may be a base of the one that was raised over there
        error.code = known.code  # type: ignore[misc]
        error.title = known.title  # type: ignore[misc]
    return error


def _worth_another_try(method: str, answer: Answer) -> bool:
    return method in IDEMPOTENT and answer.status in (502, 503, 504)


def _pause(attempt: int) -> float:
    """Seconds before the next attempt: 0.1, 0.2, … with up to as much again by chance, so that callers spread."""
    return random.uniform(0.1, 0.2) * float(2**attempt)  # noqa: S311  no secret


def _decoded(answer: Answer) -> Any:
    if answer.status >= 400:
        raise remote_error(answer)
    return from_json(answer.body) if answer.body else None


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
                answer = Answer(response.status_code, response.content, response.headers.get("Retry-After"))
                if last or not _worth_another_try(method, answer):
                    return _decoded(answer)
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
    """The same for workers, which are sync: over kept-alive connections of http.client, which take a third of httpx2's
    time. Safe to share between threads: each call has a connection to itself.

    A call whose kept-alive connection turns out to have been closed is made once more, on a new one. The other side may
    have begun with the first, so what is posted must be safe to repeat, as all that workers call is.
    """

    def __init__(
        self, base_url: str, *, token: "SyncServiceToken | None" = None, timeout: httpx2.Timeout = TIMEOUT
    ) -> None:
        """`token` goes with each call. Opens no connection yet."""
        self._url = urlsplit(base_url)
        self._tls = ssl.create_default_context() if self._url.scheme == "https" else None
        self._timeout = timeout
        self._token = token
        self._idle: deque[_Connection] = deque()  # the last used in front
        self._closed = False

    def get(self, path: str, **params: Any) -> Any:
        """GET with query parameters."""
        return self.request("GET", f"{path}?{httpx2.QueryParams(params)}" if params else path)

    def post(self, path: str, *, json: Any) -> Any:
        """POST a JSON body. Not repeated when the answer is an error."""
        return self.request("POST", path, headers={"Content-Type": "application/json"}, content=to_json(json))

    def request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> Any:
        """Any call."""
        for attempt in range(ATTEMPTS):
            sent = outgoing_headers(current_request_id()) | dict(headers or {})
            last = attempt == ATTEMPTS - 1
            try:
                answer = self._authorized(method, self._url.path.rstrip("/") + path, sent, content)
            except (OSError, HTTPException) as error:
                if last or not (method in IDEMPOTENT or isinstance(error, _NotConnected)):
                    raise ServiceUnreachable(f"{self._url.hostname} does not answer.", retry_after=2) from error
            else:
                if last or not _worth_another_try(method, answer):
                    return _decoded(answer)
            time.sleep(_pause(attempt))
        raise AssertionError("unreachable")

    def _authorized(self, method: str, path: str, headers: dict[str, str], content: bytes | None) -> Answer:
        if self._token is None:
            return self._exchange(method, path, headers, content)
        token = self._token.value()
        answer = self._exchange(method, path, headers | {"Authorization": f"Bearer {token}"}, content)
        if answer.status == httpx2.codes.UNAUTHORIZED:
            token = self._token.value(refused=token)
            answer = self._exchange(method, path, headers | {"Authorization": f"Bearer {token}"}, content)
        return answer

    def _exchange(self, method: str, path: str, headers: dict[str, str], content: bytes | None) -> Answer:
        connection, is_new = self._connection()
        try:
            try:
                response = connection.ask(method, path, headers, content)
            except (ConnectionError, ssl.SSLError):
                if is_new:
                    raise
                connection.close()
                connection = _Connection(self._url, tls=self._tls, timeout=self._timeout)
                response = connection.ask(method, path, headers, content)
            answer = Answer(response.status, response.read(), response.headers.get("Retry-After"))
        except BaseException:
            connection.close()
            raise
        if not response.will_close:
            self._idle.appendleft(connection)
        if self._closed:  # while this call was under way
            self.close()
        return answer

    def _connection(self) -> "tuple[_Connection, bool]":
        """A connection that nobody else uses now, and whether it is new."""
        while self._idle:
            with suppress(IndexError):  # another thread took the last one
                connection = self._idle.popleft()
                if connection.is_open():
                    return connection, False
                connection.close()
        return _Connection(self._url, tls=self._tls, timeout=self._timeout), True

    def close(self) -> None:
        """Close the connections; those of calls that are under way with their answers."""
        self._closed = True
        while self._idle:
            with suppress(IndexError):  # another thread took the last one
                self._idle.popleft().close()

    def __enter__(self) -> Self:
        """As a context, it closes itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


class _NotConnected(OSError):
    """Nobody has heard of the request."""


class _Connection(HTTPConnection):
    """A connection that stands: making one raises _NotConnected. http.client sets TCP_NODELAY."""

    def __init__(self, url: SplitResult, *, tls: ssl.SSLContext | None, timeout: httpx2.Timeout) -> None:
        self.default_port = 443 if tls else 80
        super().__init__(url.hostname or "", url.port, timeout=timeout.connect)
        self._unsent = b""
        try:
            self.connect()
            if tls:
                self.sock = tls.wrap_socket(self.sock, server_hostname=self.host)
        except OSError as error:
            self.close()
            raise _NotConnected from error
        self.sock.settimeout(timeout.read)

    def is_open(self) -> bool:
        """Whether the other side has not closed it: there is nothing to read, not even the end."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)

    def ask(self, method: str, path: str, headers: Mapping[str, str], content: bytes | None) -> HTTPResponse:
        """The answer, its body yet to be read. Head and body leave in one piece: two would wake the server twice."""
        self.request(method, path, content, headers)
        unsent, self._unsent = self._unsent, b""
        super().send(unsent)
        return self.getresponse()

    def send(self, data: Any) -> None:
        """Keep what http.client sends piece by piece."""
        self._unsent += data


class SyncServiceToken:
    """A service account's access token by client credentials (RFC 6749 §4.4), kept until shortly before its end.

    Its errors: Unauthorized for a wrong secret, ServiceUnreachable without auth-service.
    """

    def __init__(self, auth_url: str, *, client_id: str, client_secret: SecretStr) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._http = SyncServiceClient(auth_url)
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = self._ends_at = 0.0

    def value(self, *, refused: str | None = None) -> str:
        """A token that is valid for a while. `refused` is one that was answered with 401: keys change, and a laptop's
        clock sleeps with it."""
        if self._is_good(refused):
            return self._token
        # One thread renews; the others go on with the old token while that is still valid.
        waits = refused is not None or time.monotonic() >= self._ends_at
        if not self._lock.acquire(blocking=waits):
            return self._token
        try:
            if not self._is_good(refused):
                self._renew(refused)
            return self._token
        finally:
            self._lock.release()

    def _is_good(self, refused: str | None) -> bool:
        return time.monotonic() < self._renew_at and self._token != refused

    def _renew(self, refused: str | None) -> None:
        try:
            answer = self._http.request(
                "POST",
                "/api/v1/auth/token",
                headers={
                    "Authorization": f"Basic {self._credentials()}",
                    "Content-Type": "application/x-www-form-urlencoded",
                },
                content=b"grant_type=client_credentials",
            )
        except Unavailable:
            if refused is not None or time.monotonic() >= self._ends_at:
                raise
            self._renew_at = time.monotonic() + RENEW_AGAIN
            return
        lifetime = float(answer["expires_in"])
        now = time.monotonic()
        self._token, self._ends_at = answer["access_token"], now + lifetime
        self._renew_at = now + max(lifetime - RENEW_BEFORE, lifetime / 2)

    def _credentials(self) -> str:
        """Each part encoded by itself, as RFC 6749 §2.3.1 has it."""
        parts = (self._client_id, self._client_secret.get_secret_value())
        return base64.b64encode(":".join(quote(part, safe="") for part in parts).encode()).decode()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
