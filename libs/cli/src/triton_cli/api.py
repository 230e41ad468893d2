"""The gateway as one user sees it: who that is, requests, streams of events, and what a refusal says."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Literal, Self

import httpx2

from triton_cli.command import clean, say
from triton_cli.filters import Json
from triton_cli.state import CommandFailed, WrongUsage

TIMEOUT: Final = httpx2.Timeout(30.0, connect=5.0)
STREAM_SILENCE: Final = 60.0  # seconds without even a heartbeat, then the stream is opened anew
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
SUBMITS: Final = 5  # tries of a submit whose answer was lost, all with one key
RETRY_PAUSE: Final = 0.5  # seconds; doubled each time
LOST: Final = (502, 503, 504)  # a gateway's answers: whether the service did it is not known
PAGE: Final = 200  # the most that a list answers at once
DETAILS: Final = 20  # of a refusal, which may have a thousand
AT_ONCE: Final = 1000  # jobs that one call of many changes, in a second or two
Renewal = Callable[["Api", str], Awaitable[str]]
"""Gives a token in place of the one that was refused, or of none."""
Verb = Literal["cancel", "retry"]
CHANGEABLE: Final[dict[Verb, tuple[str, ...]]] = {
    "cancel": ("pending", "processing"),
    "retry": ("failed", "cancelled"),
}


class Unreachable(CommandFailed):
    """Nobody answered, or the connection broke before the answer: what was asked may have been done."""

    passing: Final = True

    def __init__(self, url: str, error: Exception) -> None:
        self.refused = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)  # then nothing was asked
        super().__init__(
            f"{url} does not answer ({type(error).__name__}). See `triton status`; `triton up` starts the platform of "
            "this machine, --url or TRITON_URL names another."
        )


class Refused(CommandFailed):
    """The platform answered, and said no."""

    def __init__(self, response: httpx2.Response) -> None:
        from triton_common.schemas import Problem  # noqa: PLC0415  what is refused may take the time to import it

        request, self.status = response.request, response.status_code
        try:
            problem = Problem.model_validate_json(response.content)
        except ValueError:
            problem = Problem(type="", title="", status=self.status, code="", message="No reason was given.")
        # whoever answers may be no platform of ours, and wants something of the terminal
        self.code, self.request_id, self.message = map(clean, (problem.code, problem.request_id, problem.message))
        self.details = [detail.model_dump() for detail in problem.details]
        self.unrouted = self.status == httpx2.codes.NOT_FOUND and not self.code  # a gateway that has no routes yet
        self.passing = self.status >= 500 or self.unrouted  # or so one hopes: a part that starts again
        told = ", ".join(filter(None, (self.code, self.request_id and f"request {self.request_id}")))
        text = f"{request.method} {request.url.path} answered {self.status}: {self.message}"
        if told:
            text += f" ({told})"
        if wait := response.headers.get("Retry-After"):
            text += f" Try again in {clean(wait)} s."
        details = [f"\n  {clean(detail.field)}: {clean(detail.issue)}" for detail in problem.details]
        more = f"\n  and {len(details) - DETAILS} more" if len(details) > DETAILS else ""
        super().__init__(text + "".join(details[:DETAILS]) + more)


class NoStream(CommandFailed):
    """The answer is no stream of events."""


class NothingFollows(Exception):
    """The job is over, and its last event was seen."""


class Api:
    """The gateway at `url`. As a context it holds connections, and may be entered again; who is logged in stays.

    Answers JSON; raises Refused with what the platform says is wrong, or Unreachable.
    """

    def __init__(self, url: str, *, token: str = "", renews: Renewal | None = None, source: str = "") -> None:
        """Without a token, `renews` gives one when it is first entered; and another when one is refused. `source` tells
        people who it was that named the user."""
        try:
            parts = httpx2.URL(url)
        except (httpx2.InvalidURL, ValueError) as error:
            raise WrongUsage(f"{url} is no URL: {error}.") from error
        if parts.userinfo:
            raise WrongUsage("The platform's URL names no user: set TRITON_EMAIL and TRITON_PASSWORD.")
        if parts.scheme not in ("http", "https") or not parts.host:
            raise WrongUsage(f"{url} is no URL of a platform: http:// or https://, then the host.")
        self.url = str(parts).rstrip("/")  # one spelling: host in lower case, no port that goes without saying
        self.in_the_clear = parts.scheme == "http" and parts.host not in LOOPBACK
        self._here = parts.host in LOOPBACK
        self.token = token
        self.source = source
        self._renews = renews

    async def log_in(self, email: str, password: str) -> None:
        """Every call from now on is this user's."""
        token = (await self.post("/api/v1/auth/login", json={"email": email, "password": password}))["access_token"]
        if not (isinstance(token, str) and token.isascii() and token.isprintable()):
            raise CommandFailed("The answer is no session: is this a Triton platform?")
        self.token = token

    async def get(self, path: str, **params: Any) -> Any:
        """GET, an object."""
        return _object(await self._send("GET", path, params=params))

    async def text(self, path: str, **params: str) -> str:
        """GET, as it is."""
        return (await self._send("GET", path, params=params)).text

    async def content(self, path: str, **params: str) -> bytes:
        """GET, as bytes."""
        return (await self._send("GET", path, params=params)).content

    async def post(self, path: str, **options: Any) -> Any:
        """POST, an object."""
        return _object(await self._send("POST", path, **options))

    async def patch(self, path: str, *, json: Any) -> Any:
        """PATCH, an object."""
        return _object(await self._send("PATCH", path, json=json))

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """Any method, whatever JSON it is; None where there is no content."""
        response = await self._send(method, path, **options)
        return None if response.status_code == httpx2.codes.NO_CONTENT else _parsed(response)

    async def download(self, path: str, **params: Any) -> AsyncIterator[bytes]:
        """GET, as it comes; it raises Unreachable too when it breaks off."""
        await self.get("/api/v1/auth/me")  # which gets another token where this one is refused
        try:
            async with self._http.stream("GET", path, headers=self._headers(), params=params) as response:
                if response.is_error:
                    await response.aread()
                    raise Refused(response)
                async for chunk in response.aiter_bytes():
                    yield chunk
        except httpx2.TransportError as error:
            raise Unreachable(self.url, error) from error

    async def items(self, path: str, **filters: Any) -> AsyncIterator[Any]:
        """All items of a list, page after page."""
        cursor: dict[str, str] = {}
        while True:
            page = await self.get(path, limit=PAGE, **filters, **cursor)
            for item in page["items"]:
                yield item
            if not page["next_cursor"]:
                return
            cursor = {"cursor": page["next_cursor"]}

    async def find(self, path: str, name: str, **filters: str) -> Any | None:
        """The newest item of a list that has this name."""
        async for item in self.items(path, **filters):
            if item["name"] == name:
                return item
        return None

    async def events(self, path: str, last: int) -> AsyncIterator[Any]:
        """The events after number `last`, until the stream ends.

        Raises NothingFollows when the job is over and there are none; NoStream, Refused, or Unreachable.
        """
        headers = self._headers() | {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(last)} if last else {})
        timeout = httpx2.Timeout(10, read=STREAM_SILENCE)
        try:
            async with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.status_code == httpx2.codes.NO_CONTENT:
                    raise NothingFollows
                if response.status_code == httpx2.codes.UNAUTHORIZED and self._renews:
                    await self._renew(self._renews)  # the token ended, and with it the stream before
                    return
                if response.is_client_error and response.status_code != httpx2.codes.NOT_ACCEPTABLE:
                    await response.aread()
                    raise Refused(response)
                kind = response.headers.get("Content-Type", "no content type").partition(";")[0]
                if response.status_code != httpx2.codes.OK or kind != "text/event-stream":
                    raise NoStream(f"the answer is {response.status_code}, {kind}")
                fields: dict[str, str] = {}
                async for line in response.aiter_lines():
                    name, _, value = line.partition(":")
                    if name:
                        fields[name] = value.removeprefix(" ")
                    elif not line and "data" in fields:
                        yield json.loads(fields["data"])
                        fields = {}
        except httpx2.TransportError as error:
            raise Unreachable(self.url, error) from error

    async def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        response = await self._answer(method, path, **options)
        if response.status_code == httpx2.codes.UNAUTHORIZED and self._renews and self.token:
            await self._renew(self._renews)
            response = await self._answer(method, path, **options)
        if response.is_error:
            raise Refused(response)
        return response

    async def _renew(self, renews: Renewal) -> None:
        refused, self.token = self.token, ""  # who is refused without one is refused
        self.token = await renews(self, refused)

    async def _answer(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> httpx2.Response:
        try:
            return await self._http.request(method, path, headers=self._headers() | (headers or {}), **options)
        except httpx2.TransportError as error:
            raise Unreachable(self.url, error) from error

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def __aenter__(self) -> Self:
        """Open; get a token when there is none."""
        # the environment's proxies know nothing of this machine's own ports
        self._http = httpx2.AsyncClient(
            base_url=self.url, timeout=TIMEOUT, trust_env=not self._here, headers={"User-Agent": "triton-cli"}
        )
        if self._renews and not self.token:
            try:
                await self._renew(self._renews)
            except BaseException:
                await self._http.aclose()
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._http.aclose()


class _Object(dict[str, Any]):
    """An object of an answer. What it lacks no platform of ours leaves out."""

    def __missing__(self, name: str) -> Any:
        raise CommandFailed(f"The answer has no {name}: is this a Triton platform?")


def _parsed(response: httpx2.Response) -> Any:
    try:
        return response.json(object_hook=_Object)
    except (ValueError, RecursionError):
        raise CommandFailed(
            f"{response.request.url} answered something that is not JSON: is this a Triton platform?"
        ) from None


def _object(response: httpx2.Response) -> Any:
    answer = _parsed(response)
    if not isinstance(answer, _Object):
        raise CommandFailed(f"{response.request.url} answered no object: is this a Triton platform?")
    return answer


async def submit_once(api: Api, body: Json, *, key: str) -> Json:
    """Submit once, however often the answer is lost. Raises Refused, or CommandFailed that says how to go on."""
    for attempt in range(SUBMITS):
        try:
            job: Json = await api.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": key})
        except Unreachable as error:
            if error.refused and not attempt:
                raise
            lost: CommandFailed = error
        except Refused as error:
            if not (error.status in LOST or error.unrouted or error.code == "idempotency_key_in_use"):
                raise
            lost = error
        else:
            return job
        if attempt < SUBMITS - 1:
            say("The answer was lost; asking again with the same key.")
            await asyncio.sleep(RETRY_PAUSE * 2**attempt)
    raise CommandFailed(
        f"{lost}\nWhether the job was submitted is not known. The same command with --idempotency-key {key} "
        "submits it once at most."
    )


async def pages(
    api: Api, path: str, filters: Json, *, limit: int | None = None, cursor: str | None = None
) -> AsyncIterator[Json]:
    """Pages of a list, of `limit` items in all."""
    left = limit
    while left is None or left > 0:
        more = {"cursor": cursor} if cursor else {}
        page = await api.get(path, limit=PAGE if left is None else min(PAGE, left), **filters, **more)
        yield page
        cursor = page["next_cursor"]
        if not cursor:
            return
        left = left and left - len(page["items"])


async def change_all(api: Api, verb: Verb, selection: Json) -> Json:
    """Change what a selection of more jobs than a call takes matches now, each once: what it matches later, as a
    retried job that failed again, stays as it is."""
    states = [status for status in CHANGEABLE[verb] if status in selection.get("status", CHANGEABLE[verb])]
    filters = selection | {"status": states}
    ids = [job["id"] async for page in pages(api, "/api/v1/jobs", filters) for job in page["items"]]
    total = {"matched": 0, "changed": 0}
    for start in range(0, len(ids), AT_ONCE):
        answer: Json = await api.post(f"/api/v1/jobs/{verb}", json={"ids": ids[start : start + AT_ONCE]})
        total = {name: total[name] + answer[name] for name in total}
    return total | {"complete": True}
