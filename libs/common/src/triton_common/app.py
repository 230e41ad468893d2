"""create_app(), the one shape of all services: logging, telemetry, errors, health, metrics, body limit, CORS."""

import asyncio
import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import cache
from itertools import count
from time import perf_counter
from types import FrameType
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from loguru import logger
from opentelemetry import trace
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from triton_common.api_keys import ApiKeys, remote_principal
from triton_common.audit import recorded_routes
from triton_common.auth import TokenVerifier, remote_keys
from triton_common.errors import (
    AppError,
    ContentTooLarge,
    UnsupportedContent,
    install_error_handlers,
    internal_error_response,
    problem_response,
    problems,
)
from triton_common.hot import HotPath, HotRoute, hot_routes
from triton_common.logging import configure_logging, log_context, log_line
from triton_common.revocations import Revocation, RevocationFeed
from triton_common.schemas import DependencyHealth, Health, Problem
from triton_common.settings import CommonSettings, Environment
from triton_common.telemetry import HTTP_DURATION, HTTP_REQUESTS, configure_tracing, exposition, span_below
from triton_common.trail import Trail

Check = Callable[[FastAPI], Awaitable[None]]
"""A readiness check: an async function named after the dependency; it raises when that is down."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

CHECK_TIMEOUT: Final = 2.0  # seconds; a hung dependency must not hang the answer
LONG_WAIT: Final = 60.0  # seconds of an event for the audit log: it was sent twice by then
LET_GO: Final = (
    200  # answers; one in so many closes its connection, and the caller's next one may reach another replica
)
REQUEST_ID: Final = re.compile(rb"^[A-Za-z0-9._-]{8,64}$")


def create_app(
    settings: CommonSettings,
    *,
    name: str,
    version: str,
    description: str,
    routers: Sequence[APIRouter] = (),
    lifespan: Lifespan | None = None,
    readiness: Sequence[Check] = (),
    uploads: tuple[re.Pattern[str], int] | None = None,
    verifier: TokenVerifier | None = None,
    openapi_url: str | None = "/openapi.json",
) -> FastAPI:
    """A service's app. `uploads` are the paths that take files, and their limit in bytes; `verifier` is for the service
    that issues the tokens itself; `openapi_url` None for the one that has a document of its own there."""
    if int(os.environ.get("WEB_CONCURRENCY") or 1) > 1 and not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        raise ValueError(
            "set PROMETHEUS_MULTIPROC_DIR to an empty folder: else /metrics tells of one of WEB_CONCURRENCY processes"
        )
    configure_logging(settings, service=name)
    configure_tracing(service=name, version=version)

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            _drain_on_sigterm(app)
            if verifier is None:
                await stack.enter_async_context(app.state.verifier)
            for part in background:
                await stack.enter_async_context(part())
            if lifespan is not None:
                await stack.enter_async_context(lifespan(app))
            logger.bind(version=version).info("service started")
            yield
            app.state.draining.set()
        logger.info("service stopped")

    def revoke(revocations: Sequence[Revocation]) -> None:
        app.state.verifier.revoke(revocations)

    async def revocations(_: FastAPI) -> None:
        """Readiness: without them tokens are verified all the same."""
        if feed is not None and not feed.alive:
            raise Degraded("tokens are judged by signature and expiry alone until Redis is back")

    redis_url = settings.redis_url.get_secret_value()
    feed = RevocationFeed(redis_url, revoke) if redis_url else None
    trail = _trail(settings, name) if any(recorded_routes(router.routes) for router in routers) else None
    checks = [*readiness, *([revocations] if feed else []), *([audit] if trail else [])]
    background = [*([feed.following] if feed else []), *([trail.open] if trail else [])]
    app = _Service(
        title=name,
        version=version,
        description=description,
        lifespan=run,
        docs_url=None,
        redoc_url=None,
        openapi_url=openapi_url,
        separate_input_output_schemas=False,
        responses={422: {"model": Problem} | _INVALID},
        telemetry={"tracing": False, "metrics": False, "logs": False},  # RequestMiddleware has ours: one span, not five
    )
    app.state.settings = settings
    app.state.audit = trail
    app.state.draining = asyncio.Event()
    app.state.verifier = verifier or TokenVerifier(
        remote_keys(f"{settings.auth_url}/api/v1/auth/.well-known/jwks.json"),
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        api_keys=ApiKeys(
            remote_principal(settings.auth_url), revocations_are_read=lambda: feed is not None and feed.alive
        ),
    )
    install_error_handlers(app)
    app.include_router(_operations(name=name, version=version, readiness=checks))
    for router in routers:
        app.include_router(router)
    app.hot_routes = hot_routes(app)
    app.add_middleware(CrashMiddleware)  # inside what is added next, and what _Service puts around all
    app.add_middleware(BodyLimitMiddleware, limit=settings.max_body_bytes, uploads=uploads)
    return app


async def audit(app: FastAPI) -> None:
    """Readiness: events wait on disk without harm; when they cannot, what must be recorded is refused."""
    trail: Trail = app.state.audit
    if not trail.writable:
        raise Degraded("what must be recorded is refused: the audit log's spool cannot be written")
    if trail.oldest > LONG_WAIT:
        raise Degraded("events wait on disk until Redis and auth-service take them")


def _trail(settings: CommonSettings, name: str) -> Trail:
    if settings.audit_spool is None and settings.environment is not Environment.DEV:
        raise ValueError(
            "set TRITON_AUDIT_SPOOL: events for the audit log that are lost with a process are only for dev"
        )
    return Trail(settings.audit_spool, source=name, redis_url=settings.redis_url.get_secret_value())


_INVALID: Final = {"description": "`validation_failed`, `malformed_json`: see details"}


class _Service(FastAPI):
    """FastAPI, whose document says that a problem goes out as problem+json, and which bodies are refused unread."""

    hot_routes: Sequence[HotRoute] = ()

    def build_middleware_stack(self) -> ASGIApp:
        """Ours go around FastAPI's own, where `add_middleware` puts none: a hot request passes no other."""
        settings: CommonSettings = self.state.settings
        app: ASGIApp = HotPath(super().build_middleware_stack(), routes=self.hot_routes, limit=settings.max_body_bytes)
        if settings.cors_origins:
            app = CORSMiddleware(
                app,
                allow_origins=settings.cors_origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["X-Request-ID", "Location", "Retry-After"],
            )
        return RequestMiddleware(app, service=self.title)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            for path in document["paths"].values():
                for operation in path.values():
                    refused = operation["responses"].get("422", _INVALID)
                    if refused["description"] != _INVALID["description"]:  # a rule of its own, which took its place
                        refused["description"] = f"{_INVALID['description']}; {refused['description']}"
                    if "requestBody" in operation:
                        operation["responses"].setdefault("413", problems(ContentTooLarge)[413])
                    if "application/json" in operation.get("requestBody", {}).get("content", {}):
                        operation["responses"].setdefault("415", problems(UnsupportedContent)[415])
                    for answer in operation.get("responses", {}).values():
                        content = answer.get("content", {})
                        for kind in [kind for kind in content if content[kind].get("schema") == Problem.ref()]:
                            content["application/problem+json"] = content.pop(kind)
        assert self.openapi_schema is not None  # noqa: S101  FastAPI keeps what it has made
        return self.openapi_schema


def _drain_on_sigterm(app: FastAPI) -> None:
    """Let readiness and streams know of a SIGTERM at once; the server's own handler still runs."""
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before) or threading.current_thread() is not threading.main_thread():  # no server of its own around
        return

    def drain(signum: int, frame: FrameType | None) -> None:
        app.state.draining.set()
        before(signum, frame)

    signal.signal(signal.SIGTERM, drain)


def _operations(*, name: str, version: str, readiness: Sequence[Check]) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/health/live")
    async def live() -> Health:
        """The process answers. Touches no dependency."""
        return Health(service=name, version=version, status="ok")

    @router.get("/health/ready")
    async def ready(request: Request, response: Response) -> Health:
        """Each dependency by name and latency; 503 when one is down, or once SIGTERM came."""
        app: FastAPI = request.app
        results = await asyncio.gather(*(_checked(check, app) for check in readiness))
        dependencies = {check.__name__: result for check, result in zip(readiness, results, strict=True)}
        down = any(result.status == "down" for result in results)
        degraded = any(result.status == "degraded" for result in results)
        stopping = app.state.draining.is_set()
        if down or stopping:
            response.status_code = 503
        status: Any = "stopping" if stopping else "down" if down else "degraded" if degraded else "ok"
        return Health(service=name, version=version, status=status, dependencies=dependencies)

    @router.get("/metrics")
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(exposition(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router


class Degraded(Exception):
    """Raised by a readiness check of something the service can do without for a while."""


async def _checked(check: Check, app: FastAPI) -> DependencyHealth:
    started = perf_counter()
    status, message = "ok", None
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await check(app)
    except Degraded as reason:
        status, message = "degraded", str(reason)
    except Exception as error:  # noqa: BLE001  whatever it raises, the dependency is down
        # the text of a driver's error names hosts and users: for the log only
        logger.bind(dependency=check.__name__, error=type(error).__name__).warning("dependency is down")
        status = "down"
        message = error.message if isinstance(error, AppError) else f"{check.__name__} does not answer"
    return DependencyHealth.model_validate(
        {"status": status, "latency_ms": round((perf_counter() - started) * 1000, 2), "message": message}
    )


class RequestMiddleware:
    """Around every request: its id, its span, its metrics and its log line.

    Pure ASGI: starlette's BaseHTTPMiddleware costs two thirds of the throughput.
    """

    def __init__(self, app: ASGIApp, *, service: str) -> None:
        self.app = app
        self._answers = count(1)
        # finding a metric's child by its labels costs more than counting
        self._requests = cache(lambda method, route, status: HTTP_REQUESTS.labels(service, method, route, str(status)))
        self._duration = cache(lambda method, route: HTTP_DURATION.labels(service, method, route))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if REQUEST_ID.match(given) else str(uuid7())
        scope.setdefault("state", {})["request_id"] = request_id
        started = perf_counter()
        status = 500
        streams = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                given = message.get("headers", ())
                streams = any(name == b"content-type" and b"event-stream" in value for name, value in given)
                message["headers"] = told = [*given, (b"x-request-id", request_id.encode())]
                if next(self._answers) % LET_GO == 0:
                    told.append((b"connection", b"close"))
            await send(message)

        method, path = scope["method"], scope["path"]
        if path.startswith(("/health/", "/metrics")):  # asked every few seconds, by machines
            await self.app(scope, receive, send_with_id)
            return
        span = span_below(method, traceparent=headers.get(b"traceparent", b"").decode("latin-1"))
        with log_context(request_id=request_id), trace.use_span(span, end_on_exit=True):
            try:
                await self.app(scope, receive, send_with_id)
            finally:
                route = route_template(scope)
                seconds = perf_counter() - started
                self._requests(method, route, status).inc()
                if not streams:  # one that is open for minutes is not slow
                    self._duration(method, route).observe(seconds)
                if span.is_recording():
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.response.status_code", status)
                # what workers ask all the time is told by their own lines
                log_line(
                    "DEBUG" if path.startswith("/internal/") else "INFO",
                    "request served",
                    {"method": method, "route": route, "status": status, "duration_ms": round(seconds * 1000, 2)},
                )


def route_template(scope: Scope) -> str:
    """The matched route's template; never the path, which holds ids."""
    route = scope.get("route") or scope.get("state", {}).get("route")
    return str(getattr(route, "path_format", getattr(route, "path", None)) or "unmatched")


class CrashMiddleware:
    """Answers what nobody caught. Inside CORS, so that a browser's application may read that answer too.

    And tells which route was matched, since FastAPI's own middleware hands on a copy of the scope.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        answered = False

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = answered or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:
            if scope["type"] != "http":
                raise
            if answered:  # too late for another answer: cut the connection, so that nobody takes it for whole
                logger.opt(exception=error).error("answer broke off")
                raise
            await internal_error_response(error)(scope, receive, send)
        finally:
            if scope["type"] == "http":
                scope["state"]["route"] = scope.get("route")


class BodyLimitMiddleware:
    """Refuses bodies over `limit` bytes with 413: by Content-Length at once, else as soon as the count goes over.

    Paths that `uploads` matches have the limit beside it.
    """

    def __init__(self, app: ASGIApp, *, limit: int, uploads: tuple[re.Pattern[str], int] | None = None) -> None:
        self.app = app
        self.limit = limit
        self.uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901  two closures, one state
        """Serve one request, counting its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.uploads[1] if self.uploads and self.uploads[0].fullmatch(scope["path"]) else self.limit
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) <= limit and _is_all(scope, headers):
            await self.app(scope, receive, send)
            return
        too_large = ContentTooLarge(f"Send at most {limit} bytes.")
        if length.isdigit() and int(length) > limit:
            await problem_response(too_large)(scope, receive, send)
            return
        received = 0
        refused = answered = False

        async def counted() -> Message:
            nonlocal received, refused
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    refused = True
                    raise too_large
            return message

        async def unless_refused(message: Message) -> None:
            # whoever reads a body may take our error for a fault of the body, and answer in words of its own
            nonlocal answered
            if answered or not refused:
                answered = True
                await send(message)

        try:
            await self.app(scope, counted, unless_refused)
        except ContentTooLarge:
            if answered:
                raise
        if refused and not answered:
            await problem_response(too_large)(scope, receive, send)


def _is_all(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether Content-Length, or its absence, tells the body's length: the server then hands over no byte more."""
    return scope["http_version"].startswith("1") and b"transfer-encoding" not in headers
