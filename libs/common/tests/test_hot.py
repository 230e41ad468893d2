"""The fast path answers as FastAPI does: twins of each route, one hot and one not, get the same requests."""

import json
import time
from typing import Annotated
from uuid import UUID

import httpx2
import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import AliasChoices, Field

from triton_common.app import create_app
from triton_common.auth import Principal, require
from triton_common.errors import Conflict, Forbidden, Unavailable
from triton_common.hot import hot, hot_routes
from triton_common.schemas import Schema
from triton_common.settings import CommonSettings
from triton_common.testing import access_token

WIDGET = UUID("01980000-0000-7000-8000-000000000001")
GOOD = {"name": "bolt", "size": 3}
JSON = {"Content-Type": "application/json"}


class WidgetMelted(Conflict):
    """The widget is molten."""


class NotForClients(Forbidden):
    """Widgets are made by staff."""


class WidgetBody(Schema):
    name: str = Field(min_length=2)
    size: float = 1
    owner: UUID | None = None


class WidgetPublic(Schema):
    id: UUID
    name: str
    size: float
    by: str


async def staff_only(principal: Annotated[Principal, require("jobs:work")]) -> None:
    if not principal.is_staff:
        raise NotForClients


async def shop(request: Request) -> str:
    name: str = request.app.title
    return name


Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=3)]
Writer = Annotated[Principal, require("jobs:write")]
Shop = Annotated[str, Depends(shop)]


def outcome(widget_id, body):
    """What an endpoint may do, by the name it is given."""
    match body.name:
        case "molten":
            raise WidgetMelted("Wait.", retry_after=7)
        case "away":
            raise Unavailable("Later.")
        case "teapot":
            raise HTTPException(404, "no such thing", headers={"X-Kettle": "on"})
        case "crash":
            raise RuntimeError("canary-999-17-5017")
        case "plain":
            return PlainTextResponse("as it is", status_code=203)
        case "nonsense":
            return {"id": "no", "name": 1}
        case "dict":
            return {"id": widget_id, "name": "of a dict", "size": "2.5", "by": "nobody"}
    return WidgetPublic(id=widget_id, name=body.name, size=body.size, by=str(body.owner))


def widgets(prefix, mark):
    """The routes; `app.state.ways` hears which way each request came."""
    router = APIRouter(prefix=prefix)

    def note(request):
        request.app.state.ways.append("slow" if "fastapi_inner_astack" in request.scope else "fast")

    @router.post("", status_code=202)
    @mark
    async def make(  # all that an endpoint may ask for
        *, body: WidgetBody, request: Request, response: Response, principal: Writer, at: Shop, key: Key = None
    ) -> WidgetPublic:
        note(request)
        response.headers["Location"] = f"{prefix}/{WIDGET}"
        response.headers.append("Set-Cookie", "a=1")
        response.headers.append("Set-Cookie", "b=2")
        if body.name == "here":
            response.status_code = 201
        return WidgetPublic(id=WIDGET, name=f"{body.name} {key} {at}", size=body.size, by=principal.role)

    @router.get("/{widget_id}")
    @mark
    async def read(
        widget_id: UUID, request: Request, principal: Annotated[Principal, require("jobs:read")]
    ) -> WidgetPublic:
        note(request)
        return WidgetPublic(id=widget_id, name="bolt", size=1, by=principal.role)

    @router.post("/{widget_id}/{kind}/{rest}")
    async def other(widget_id: str, kind: str, rest: str) -> str:
        return f"{widget_id}{kind}{rest}"

    @router.post("/{widget_id}/work", dependencies=[Depends(staff_only)])
    @mark
    async def work(widget_id: UUID, body: WidgetBody, request: Request) -> WidgetPublic:
        note(request)
        return outcome(widget_id, body)

    return router


def built(*routers):
    return create_app(
        CommonSettings(cors_origins="https://app.example", max_body_bytes=4096),
        name="widget-service",
        version="1.2.3",
        description="Widgets.",
        routers=routers,
    )


@pytest.fixture
def twins(running):
    """An app that has each route twice: hot under /hot, ordinary under /own."""
    app = built(widgets("/hot", hot), widgets("/own", lambda endpoint: endpoint))
    app.state.ways = []
    return app


async def chunks():
    yield b'{"name": '
    yield b'"bolt"}'


async def many_chunks():
    for _ in range(9):
        yield b'{"name": "bolt"} ' * 50


def token(**claims):
    return {"Authorization": f"Bearer {access_token({'scope': 'jobs:read jobs:write jobs:work'} | claims)}"}


def case(method, path, way, *, token=token, headers=(), **options):
    return (method, path, way, token, headers, options)


CASES = {
    # what goes the fast way
    "submit": case("POST", "", "fast", json=GOOD),
    "submit with another status": case("POST", "", "fast", json=GOOD | {"name": "here"}),
    "extra query": case("POST", "?x=1&x=2", "fast", json=GOOD),
    "space around": case("POST", "", "fast", content=b' {"name":"bolt"}\n', headers=JSON.items()),
    "two of a key": case("POST", "", "fast", content=b'{"name":"bolt","name":"nut"}', headers=JSON.items()),
    "coerced": case("POST", "", "fast", json={"name": "bolt", "size": "1.50", "owner": WIDGET.hex}),
    "great number": case("POST", "", "fast", content=b'{"name":"nut","size":1e400}', headers=JSON.items()),
    "no number": case("POST", "", "fast", content=b'{"name":"nut","size":NaN}', headers=JSON.items()),
    "escaped": case("POST", "", "fast", content=rb'{"name":"\u00e9\ud83d\ude00\u0000\/"}', headers=JSON.items()),
    "read": case("GET", f"/{WIDGET}", "fast"),
    "read with odd headers": case(
        "GET", f"/{WIDGET}", "fast", headers=[("Accept", "text/html"), ("Range", "bytes=0-3")]
    ),
    "read by urn": case("GET", f"/urn:uuid:{WIDGET}", "fast"),
    "read by hex": case("GET", f"/{WIDGET.hex}", "fast"),
    "from a browser": case("GET", f"/{WIDGET}", "fast", headers=[("Origin", "https://app.example")]),
    "work": case("POST", f"/{WIDGET}/work", "fast", json=GOOD),
    "error": case("POST", f"/{WIDGET}/work", "fast", json={"name": "molten"}),
    "error of ours": case("POST", f"/{WIDGET}/work", "fast", json={"name": "away"}),
    "error of FastAPI": case("POST", f"/{WIDGET}/work", "fast", json={"name": "teapot"}),
    "crash": case("POST", f"/{WIDGET}/work", "fast", json={"name": "crash"}),
    "answer of its own": case("POST", f"/{WIDGET}/work", "fast", json={"name": "plain"}),
    "answer that does not fit": case("POST", f"/{WIDGET}/work", "fast", json={"name": "nonsense"}),
    "answer to be coerced": case("POST", f"/{WIDGET}/work", "fast", json={"name": "dict"}),
    # what is good, and FastAPI's
    "header": case("POST", "", "slow", json=GOOD, headers=[("Idempotency-Key", "abc")]),
    "in chunks": case("POST", "", "slow", content=chunks, headers=JSON.items()),
    "charset": case(
        "POST", "", "slow", content=b'{"name":"nut"}', headers=[("Content-Type", "application/json; charset=utf-8")]
    ),
    "vendor's json": case(
        "POST", "", "slow", content=b'{"name":"nut"}', headers=[("Content-Type", "application/x+json")]
    ),
    "byte order mark": case("POST", "", "slow", content=b'\xef\xbb\xbf{"name":"nut"}', headers=JSON.items()),
    "utf-16": case("POST", "", "slow", content='{"name":"nut"}'.encode("utf-16"), headers=JSON.items()),
    "header twice": case("GET", f"/{WIDGET}", "slow", headers=[("X-Thing", "1"), ("X-Thing", "2")]),
    # what is refused
    "short header": case("POST", "", None, json=GOOD, headers=[("Idempotency-Key", "a")]),
    "no token": case("GET", f"/{WIDGET}", None, token=dict),
    "no token, bad body": case("POST", "", None, token=dict, json={}),
    "no token, no JSON": case("POST", "", None, token=dict, content=b"{", headers=JSON.items()),
    "other scheme": case("GET", f"/{WIDGET}", None, token=lambda: {"Authorization": "Basic eDp5"}),
    "expired": case("GET", f"/{WIDGET}", None, token=lambda: token(exp=int(time.time()) - 1)),
    "other issuer": case("GET", f"/{WIDGET}", None, token=lambda: token(iss="x")),
    "noise": case("GET", f"/{WIDGET}", None, token=lambda: {"Authorization": "Bearer x.y.z"}),
    "wrong scope": case("POST", "", None, token=lambda: token(scope="jobs:read"), json=GOOD),
    "refused by the router": case(
        "POST", f"/{WIDGET}/work", None, token=lambda: token(client_id=str(WIDGET)), json=GOOD
    ),
    "two tokens": case("GET", f"/{WIDGET}", None, token=dict, headers=[("Authorization", "Basic x"), *token().items()]),
    "two types": case("POST", "", None, content=b"{}", headers=[("Content-Type", "text/plain"), *JSON.items()]),
    "bad uuid": case("GET", "/no-uuid", None),
    "bad uuid and body": case("POST", "/no-uuid/work", None, json={}),
    "missing field": case("POST", "", None, json={"size": 1}),
    "unknown field": case("POST", "", None, json=GOOD | {"colour": "red"}),
    "short name": case("POST", "", None, json={"name": "a"}),
    "empty body": case("POST", "", None, content=b"", headers=JSON.items()),
    "no body": case("POST", "", None),
    "null": case("POST", "", None, json=None, content=b"null", headers=JSON.items()),
    "list": case("POST", "", None, json=[GOOD]),
    "text": case("POST", "", None, content=b'{"name":"nut"}', headers=[("Content-Type", "text/plain")]),
    "no type": case("POST", "", None, content=b'{"name":"nut"}'),
    "broken": case("POST", "", None, content=b'{"name":"nut"', headers=JSON.items()),
    "not utf-8": case("POST", "", None, content=b'{"name":"n\xff"}', headers=JSON.items()),
    "NUL": case("POST", "", None, content=b'{"name":"n\x00t"}', headers=JSON.items()),
    "half a pair": case("POST", "", None, content=rb'{"name":"n\ud83d"}', headers=JSON.items()),
    "deep": case("POST", "", None, content=b'{"name":' + b"[" * 400 + b"]" * 400 + b"}", headers=JSON.items()),
    "long number": case("POST", "", None, content=b'{"size":' + b"1" * 4050 + b"}", headers=JSON.items()),
    "too large": case("POST", "", None, json={"name": "x" * 5000}),
    "too large, in chunks": case("POST", "", None, content=many_chunks, headers=JSON.items()),
    "other method": case("DELETE", f"/{WIDGET}", None),
    "slash at the end": case("GET", f"/{WIDGET}/", None),
    "preflight": case(
        "OPTIONS", "", None, headers=[("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET")]
    ),
    "other route": case("POST", f"/{WIDGET}/a/b", None),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_hot_route_answers_as_its_twin(twins, running, capfd, name):
    method, path, way, make_token, headers, options = CASES[name]
    sent = [("X-Request-ID", "twin-test-1"), *make_token().items(), *headers]
    answers, ways, lines = [], [], []
    async with running(twins) as http:
        for prefix in ("/own", "/hot", "/hot"):  # the second time, the token is known
            twins.state.ways.clear()
            capfd.readouterr()
            content = options["content"]() if callable(options.get("content")) else options.get("content")
            body = {"json": options["json"]} if "json" in options and content is None else {"content": content}
            answer = await http.request(method, prefix + path, headers=sent, **body)
            answers.append((answer.status_code, answer.headers.raw, answer.text.replace("/hot", "/own")))
            ways.append(list(twins.state.ways))
            logged = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
            lines.append(
                [(line["level"], line["message"], line.get("route", "").replace("/hot", "/own")) for line in logged]
            )
    assert (
        answers[1:]
        == [(status, [(n, v.replace(b"/own", b"/hot")) for n, v in raw], text) for status, raw, text in answers[:1]] * 2
    )
    assert lines[0] == lines[1] == lines[2]
    assert ways == ([["slow"], [way], [way]] if way else [[], [], []])


def test_a_hot_route_is_documented_as_its_twin():
    assert built(widgets("/x", hot)).openapi() == built(widgets("/x", lambda endpoint: endpoint)).openapi()


async def test_an_overridden_dependency_is_heeded(twins, running):
    async def elsewhere() -> str:
        return "elsewhere"

    twins.dependency_overrides[shop] = elsewhere
    async with running(twins) as http:
        answer = await http.post("/hot", json=GOOD, headers=token())
    assert answer.json()["name"] == "bolt None elsewhere"
    assert twins.state.ways == ["slow"]


def test_a_served_hot_route_reads_its_body_once_a_request(twins, serving):
    with serving(twins) as url, httpx2.Client(base_url=url, headers=token()) as http:
        sent = [GOOD, {"name": "x"}, GOOD, {"name": "b" * 3000}, GOOD]
        assert [http.post("/hot", json=body).status_code for body in sent] == [202, 422, 202, 202, 202]


def sync_dependency() -> None: ...


async def generator():
    yield 1


async def with_query(page: int) -> None: ...


TWO_NAMES = AliasChoices("key", "x-key")


# endpoints that the fast path does not do
def sync(item: UUID) -> int: ...
async def no_answer(item: UUID): ...
async def text_in_path(item: str) -> int: ...
async def query(item: UUID, page: Annotated[int, Query()]) -> int: ...
async def cookie(item: UUID, crumb: Annotated[str, Cookie()]) -> int: ...
async def required_header(item: UUID, key: Annotated[str, Header()]) -> int: ...
async def header_of_two_names(item: UUID, key: Annotated[str, Header(validation_alias=TWO_NAMES)] = "") -> int: ...
async def two_bodies(item: UUID, first: WidgetBody, second: WidgetBody) -> int: ...
async def of_sync(item: UUID, got: Annotated[None, Depends(sync_dependency)]) -> int: ...
async def of_generator(item: UUID, got: Annotated[int, Depends(generator)]) -> int: ...
async def of_query(item: UUID, got: Annotated[None, Depends(with_query)]) -> int: ...


@pytest.mark.parametrize(
    "endpoint",
    [
        sync,
        no_answer,
        text_in_path,
        query,
        cookie,
        required_header,
        header_of_two_names,
        two_bodies,
        of_sync,
        of_generator,
        of_query,
    ],
)
def test_what_the_fast_path_cannot_do_is_refused_at_the_start(endpoint):
    router = APIRouter()
    router.add_api_route("/x/{item}", hot(endpoint), methods=["POST"])
    with pytest.raises(TypeError, match="fast path"):
        built(router)


def test_an_app_without_hot_routes_has_none():
    assert hot_routes(FastAPI()) == []
