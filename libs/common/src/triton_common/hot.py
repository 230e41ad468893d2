"""The fast path of the few routes a platform of jobs lives by: FastAPI's answers at a fraction of FastAPI's cost.

A route marked @hot is an ordinary route, in its document and in everything it answers. But while all is well with a
request, HotPath calls the endpoint itself; whatever is out of the ordinary goes to FastAPI as it came (docs/adr/013).
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar
from uuid import UUID

from fastapi import FastAPI, Request, Response, params
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts, serialize_response
from pydantic_core import from_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from triton_common.errors import internal_error_response

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_MARK: Final = "on_the_hot_path"
_REQUEST: Final = "request"
_RESPONSE: Final = "response"
_JSON: Final = b"application/json"
_CONTENT_TYPE: Final = (b"content-type", _JSON)
_ONLY_FASTAPI_DOES: Final = (
    "response_model_include",
    "response_model_exclude",
    "response_model_exclude_unset",
    "response_model_exclude_defaults",
    "response_model_exclude_none",
    "max_body_size",
    "_embed_body_fields",
)


def hot(endpoint: Endpoint) -> Endpoint:
    """Put an endpoint on the fast path. It may ask for UUIDs in its path, one JSON body, the request, the response,
    optional headers (with one of them a request goes the ordinary way), and async dependencies that ask for nothing but
    the request and one another, and may be run twice. `create_app` raises TypeError for anything else."""
    setattr(endpoint, _MARK, True)
    return endpoint


def hot_routes(app: FastAPI) -> "list[HotRoute]":
    """The hot ones among an app's routes."""
    return [HotRoute(route) for route in iter_route_contexts(app.routes) if hasattr(route.endpoint, _MARK)]


class HotPath:
    """ASGI middleware, around all but the request's id, log line and metrics: serves the hot routes."""

    def __init__(self, app: ASGIApp, *, routes: "Iterable[HotRoute]", limit: int) -> None:
        """`limit` of a body, in bytes."""
        self.app = app
        self._limit = limit
        self._routes: dict[str, list[HotRoute]] = {}
        for route in routes:
            for method in route.methods:
                self._routes.setdefault(method, []).append(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            for route in self._routes.get(scope["method"], ()):
                if found := route.match(scope["path"]):
                    request = _Rereadable(scope, receive)
                    if await route.serve(request, found.groupdict(), send, limit=self._limit):
                        return
                    receive = request.again
                    break
        await self.app(scope, receive, send)


class _Rereadable(Request):
    """A request whose body FastAPI can read after us."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self._read: list[Message] = []

    async def whole(self) -> bytes:
        """The body; empty when the client has gone."""
        more = True
        while more:
            message = await self.receive()
            self._read.append(message)
            more = message.get("more_body", False)
        return b"".join([message.get("body", b"") for message in self._read])

    async def again(self) -> Message:
        """What the server sent, from the beginning."""
        return self._read.pop(0) if self._read else await self.receive()


class _Unusual(Exception):
    """FastAPI has to answer this request."""


class HotRoute:
    """What FastAPI knows of a route, laid out to be done in one go."""

    def __init__(self, route: RouteContext) -> None:
        dependant: Dependant = route.dependant
        if not _fits(route, dependant):
            raise TypeError(f"{route.path_format} is not for the fast path: see what triton_common.hot.hot allows")
        self.methods: set[str] = route.methods or set()
        self.match = route.path_regex.match
        self._route = route.original_route
        self._endpoint: Any = dependant.call
        self._path = dependant.path_params
        self._unusual = {b"transfer-encoding"} | {field.alias.lower().encode() for field in dependant.header_params}
        self._without_headers = {field.name: field.get_default() for field in dependant.header_params}
        self._body = dependant.body_params[0] if dependant.body_params else None
        self._status: int = route.status_code or 200
        self._answer = route.response_field
        self._calls: dict[Any, list[tuple[str, Any]]] = {}
        self._wants = self._wanted(dependant)
        self._asks_for_response = any(
            value == _RESPONSE for wants in (self._wants, *self._calls.values()) for _, value in wants
        )

    def _wanted(self, dependant: Dependant) -> list[tuple[str, Any]]:
        """[(parameter, what becomes its value)]: the request, the response, or a dependency, which is put into `_calls`
        behind those it needs itself."""
        wants: list[tuple[str, Any]] = []
        for below in dependant.dependencies:
            self._calls[below.call] = self._wanted(below)
            wants.append((below.name or "", below.call))
        wants.append((dependant.request_param_name or dependant.http_connection_param_name or "", _REQUEST))
        wants.append((dependant.response_param_name or "", _RESPONSE))
        return [(name, value) for name, value in wants if name]

    async def serve(self, request: _Rereadable, path: dict[str, str], send: Send, *, limit: int) -> bool:
        """Answer the request; False, with nothing sent, when FastAPI has to."""
        scope = request.scope
        scope["path_params"] = path
        try:
            response = self._beginning()
            arguments = await self._arguments(request, path, response, limit)
        except Exception:  # noqa: BLE001  whatever it is, FastAPI meets it too, and answers
            return False
        scope["route"] = self._route
        try:
            result = await self._endpoint(**arguments)
            if not isinstance(result, Response):
                content = await serialize_response(field=self._answer, response_content=result, dump_json=True)
        except Exception as error:  # noqa: BLE001  answered as around FastAPI
            handlers = scope["app"].exception_handlers
            handler = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)
            result = await handler(request, error) if handler else internal_error_response(error)
        if isinstance(result, Response):
            await result(scope, request.receive, send)
            return True
        status, headers = self._status, [(b"content-length", b"%d" % len(content)), _CONTENT_TYPE]
        if response is not None:
            status = response.status_code or status
            headers += response.raw_headers
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        return True

    def _beginning(self) -> Response | None:
        """The response as FastAPI begins it, for an endpoint that asks: what it puts there comes on top."""
        if not self._asks_for_response:
            return None
        response = Response()
        response.raw_headers.clear()
        response.status_code = None  # type: ignore[assignment]
        return response

    async def _arguments(
        self, request: _Rereadable, path: dict[str, str], response: Response | None, limit: int
    ) -> dict[str, Any]:
        """The endpoint's arguments. Raises what keeps the request from being an ordinary good one."""
        given: list[tuple[bytes, bytes]] = request.scope["headers"]
        headers = dict(given)
        if (
            len(headers) < len(given)  # which of two counts, FastAPI knows
            or not self._unusual.isdisjoint(headers)
            or request.scope.get("root_path")
            or request.scope["app"].dependency_overrides
            or int(headers.get(b"content-length", b"0")) > limit
        ):
            raise _Unusual
        arguments = self._without_headers | {field.name: _valid(field, path[field.alias]) for field in self._path}
        if self._body is not None:
            if headers.get(b"content-type") != _JSON or b"content-length" not in headers:
                raise _Unusual
            # never more lenient than the json.loads of FastAPI, and the same values where it accepts
            arguments[self._body.name] = _valid(self._body, from_json(await request.whole()))
        values: dict[Any, Any] = {_REQUEST: request, _RESPONSE: response}
        for call, wants in self._calls.items():
            values[call] = await call(**{name: values[value] for name, value in wants})
        return arguments | {name: values[value] for name, value in self._wants}


def _valid(field: Any, value: Any) -> Any:
    valid, errors = field.validate(value)
    if errors:
        raise _Unusual
    return valid


def _fits(route: RouteContext, dependant: Dependant) -> bool:
    """Whether `serve` does all that FastAPI would do for a good request."""
    return (
        _asks_for_little(dependant)
        and all(_is_plain_dependency(below) for below in dependant.dependencies)
        and all(field.field_info.annotation is UUID for field in dependant.path_params)
        and not any(field.field_info.is_required() for field in dependant.header_params)
        and all(field.field_info.validation_alias in (None, field.alias) for field in dependant.header_params)
        and all(type(field.field_info) is params.Body for field in dependant.body_params)
        and len(dependant.body_params) <= 1
        and route.response_field is not None
        and isinstance(route.response_class, DefaultPlaceholder)
        and not any(getattr(route, option) for option in _ONLY_FASTAPI_DOES)
    )


def _asks_for_little(dependant: Dependant) -> bool:
    return _is_async(dependant.call) and not (
        dependant.query_params
        or dependant.cookie_params
        or dependant.background_tasks_param_name
        or dependant.security_scopes_param_name
    )


def _is_plain_dependency(dependant: Dependant) -> bool:
    return (
        _asks_for_little(dependant)
        and not (dependant.path_params or dependant.header_params or dependant.body_params or dependant.concurrency)
        and dependant.use_cache
        and all(_is_plain_dependency(below) for below in dependant.dependencies)
    )


def _is_async(call: Any) -> bool:
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004  dependencies may be objects
