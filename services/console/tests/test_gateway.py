"""The real Traefik with the files of infra/traefik, a real console, and backends that answer what they were asked."""

import asyncio
import gzip
import http.client
import json
import os
import socket
import subprocess
import sysconfig
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from console.main import build
from console.services import services_of
from console.settings import Settings
from triton_common import gateway as words
from triton_common.app import create_app
from triton_common.settings import CommonSettings
from triton_common.testing import WORKSPACE, eventually, free_port

FILES = WORKSPACE / "infra" / "traefik"
TRAEFIK = Path(sysconfig.get_path("scripts")) / "traefik"
UPLOAD = 50_000_000  # bytes


@dataclass
class Backends:
    """What the backends were asked, and the strings that a test pulls."""

    asked: list[str] = field(default_factory=list)
    first_chunk: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


@dataclass
class Gateway:
    """A running gateway."""

    url: str
    internal_url: str
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """Its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def echo(name: str, backends: Backends) -> FastAPI:
    """Answers every request with what arrived of it."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/api/v1/jobs/{job_id}/events")
    async def events() -> StreamingResponse:
        def stream() -> Iterator[str]:
            yield "id: 1\ndata: first\n\n"
            assert backends.go_on.wait(10)
            yield "id: 2\ndata: second\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.get("/api/v1/documents/large")
    async def large() -> JSONResponse:
        return JSONResponse({"text": "word " * 10_000})

    @app.get("/api/v1/documents/broken")
    async def broken() -> JSONResponse:
        return JSONResponse({"code": "own_words"}, status_code=503, media_type="application/problem+json")

    @app.post("/api/v1/analytics/prospects/{prospect_id}/claims")
    async def checks(request: Request) -> JSONResponse:
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            backends.first_chunk.set()
        assert await asyncio.to_thread(backends.go_on.wait, 10)
        return JSONResponse({"bytes": received})

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def anything(request: Request) -> JSONResponse:
        if request.url.path != "/health/ready":  # Traefik asks for it when it likes
            backends.asked.append(request.url.path)
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            backends.first_chunk.set()
        return JSONResponse(
            {"service": name, "path": request.url.path, "bytes": received, "headers": dict(request.headers)},
            headers={"Server": "secret/1.0"},
        )

    return app


def static_environment() -> dict[str, str]:
    """What static.env sets."""
    lines = (FILES / "static.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def backends() -> Backends:
    return Backends()


@contextmanager
def running_gateway(folder: Path, urls: dict[str, str], *, ready: int = 200, **settings: str) -> Iterator[Gateway]:
    """Traefik over these services, once GET / answers `ready`."""
    address, internal = (f"127.0.0.1:{free_port()}" for _ in range(2))
    environment = static_environment() | {
        "TRAEFIK_ENTRYPOINTS_WEB_ADDRESS": address,
        "TRAEFIK_ENTRYPOINTS_INTERNAL_ADDRESS": internal,
        "TRAEFIK_PROVIDERS_FILE_FILENAME": str(FILES / "dynamic.yml"),
    }
    environment |= {f"TRITON_{name.upper()}_URL": url for name, url in urls.items()} | settings
    gateway = Gateway(f"http://{address}", f"http://{internal}", folder / "traefik.log")
    with gateway.log.open("wb") as output:
        process = subprocess.Popen(
            [TRAEFIK], env=os.environ | environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        # /ping answers before the routes are there
        eventually(lambda: answers(f"{gateway.internal_url}/ping", 200) and answers(f"{gateway.url}/", ready))
        yield gateway
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture(scope="module")
def gateway(serving, backends: Backends, tmp_path_factory) -> Iterator[Gateway]:
    with ExitStack() as stack:
        urls = {name: stack.enter_context(serving(echo(name, backends))) for name in ("auth", "jobs", "analytics")}
        urls["agents"] = f"http://127.0.0.1:{free_port()}"  # nobody listens
        settings = Settings.model_validate({f"{name}_url": url for name, url in urls.items()})
        urls["console"] = stack.enter_context(serving(build(settings)))
        yield stack.enter_context(running_gateway(tmp_path_factory.mktemp("gateway"), urls))


def answers(url: str, status: int) -> bool:
    """Whether it does, in a service's words: a gateway without routes has some of its own, a 404 among them."""
    try:
        answer = httpx2.get(url)
    except httpx2.TransportError:
        return False
    return answer.status_code == status and answer.text != "404 page not found\n"


@pytest.fixture(scope="module")
def web(gateway: Gateway) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=gateway.url, timeout=20) as client:
        yield client


def raw(gateway: Gateway, path: str) -> tuple[int, dict[str, Any]]:
    """GET of a path, sent as it is: httpx would resolve its dots."""
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=10)
    with closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def assert_problem(answer: httpx2.Response, status: int, code: str) -> None:
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["request_id"] == answer.headers["X-Request-ID"]


def test_every_public_prefix_reaches_the_service_that_console_believes(web):
    names = {"auth-service": "auth", "jobs-service": "jobs", "analytics-service": "analytics"}
    for service in services_of(Settings()):
        for prefix in service.prefixes if service.name in names else ():
            for path in (prefix, f"{prefix}/", f"{prefix}/x/y", f"{prefix}?limit=1"):
                assert web.get(path).json()["service"] == names[service.name]


@pytest.mark.parametrize(
    "path", ["/api/v1/jobsX", "/api/v1/jobs-x", "/api/v1", "/api/v2/jobs", "/jobs", "/api/v1/auth.x"]
)
def test_a_path_that_only_begins_like_a_prefix_is_nobodys(web, path):
    assert_problem(web.get(path), 404, "not_found")


def test_the_rest_goes_to_console(web):
    assert web.get("/").json()["name"] == "Triton"
    assert "swagger-ui" in web.get("/docs").text
    assert web.get("/health").json()["services"]["agent-runner"]["status"] == "down"


@pytest.mark.parametrize(
    "path",
    [
        "/internal",
        "/internal/",
        "/internal/v1/jobs/1/claim",
        "/metrics",
        "/metrics/",
        "/health/live",
        "/health/ready",
        "/errors/404",
        "//internal/v1",
        "/./internal/v1",
        "/%69nternal/v1",
        "/%2e/internal",
        "/%2Finternal",
        "/internal%2Fv1",
        "/internal%0a",
        "/api/../internal/v1",
        "/api/v1/jobs/../../../internal/v1",
        "/api/v1/jobs/%2e%2e/%2e%2e/%2e%2e/internal/v1",
        "/api/v1/jobs/..%2f..%2f..%2finternal/v1",
        "/api/v1/jobs/%252e%252e/internal",
        "/api/v1/jobs/..%5c..%5cinternal",
        "/api/v1/jobs/%00",
        "/api/v1/jobs//../../../metrics?x=1",
    ],
)
def test_what_is_not_public_is_404_however_it_is_written(gateway, backends, path):
    backends.asked.clear()
    status, problem = raw(gateway, path)
    assert (status, problem["status"], problem["code"]) == (404, 404, "not_found")
    assert problem["request_id"]
    assert not backends.asked


def test_dots_with_semicolons_stay_one_segment(gateway, backends):
    backends.asked.clear()
    raw(gateway, "/api/v1/jobs/..;/..;/internal")
    assert backends.asked == ["/api/v1/jobs/..;/..;/internal"]


def test_a_service_that_is_down_is_a_503_that_keeps_the_request_id(web):
    answer = web.get("/api/v1/agents", headers={"X-Request-ID": "request-0001", "Authorization": "Bearer x"})
    assert_problem(answer, 503, "service_unreachable")
    assert answer.json()["request_id"] == "request-0001"
    assert answer.headers["Retry-After"] == "2"
    assert_problem(web.post("/api/v1/agents", json={}), 503, "service_unreachable")


def test_without_console_auth_service_has_the_words(serving, tmp_path):
    urls = dict.fromkeys(("jobs", "analytics", "agents", "console"), f"http://127.0.0.1:{free_port()}")
    auth = create_app(CommonSettings(), name="auth-service", version="1", description="", routers=[words.router])
    with serving(auth) as url, running_gateway(tmp_path, urls | {"auth": url}, ready=503) as gateway:
        assert_problem(httpx2.get(f"{gateway.url}/"), 503, "service_unreachable")
        assert_problem(httpx2.get(f"{gateway.url}/internal"), 404, "not_found")
        assert_problem(httpx2.post(f"{gateway.url}/api/v1/jobs", json={}), 503, "service_unreachable")


def test_a_service_that_stands_still_is_a_503_and_long_answers_are_let_be(serving, backends, tmp_path):
    backends.first_chunk.clear()
    backends.go_on.clear()
    words_of = create_app(CommonSettings(), name="console", version="1", description="", routers=[words.router])
    with (
        socket.create_server(("127.0.0.1", 0)) as frozen,  # the kernel takes connections, nobody reads them
        serving(words_of) as console,
        serving(echo("jobs", backends)) as jobs,
        serving(echo("analytics", backends)) as analytics,
        ThreadPoolExecutor() as threads,
    ):
        urls = {"console": console, "jobs": jobs, "analytics": analytics}
        urls |= {name: f"http://127.0.0.1:{frozen.getsockname()[1]}" for name in ("auth", "agents")}
        with (
            running_gateway(tmp_path, urls, ready=404, TRITON_ANSWER_TIMEOUT="300ms") as gateway,
            httpx2.stream("GET", f"{gateway.url}/api/v1/jobs/1/events") as events,
        ):
            lines = events.iter_lines()
            assert next(lines) == "id: 1"
            upload = threads.submit(httpx2.post, f"{gateway.url}/api/v1/analytics/prospects/1/claims", content=b"x")
            assert backends.first_chunk.wait(10)
            for path in ("agents", "auth/me", "agents"):  # three times as long as anybody else may take
                assert_problem(httpx2.get(f"{gateway.url}/api/v1/{path}"), 503, "service_unreachable")
            assert not upload.done()
            backends.go_on.set()
            assert upload.result(10).json() == {"bytes": 1}
            assert "data: second" in list(lines)


def test_what_is_no_method_is_a_405(gateway, backends):
    backends.asked.clear()
    for method in ("FOO", "TRACE"):
        answer = httpx2.request(method, f"{gateway.url}/api/v1/jobs")
        assert_problem(answer, 405, "not_allowed")
        assert answer.headers["Allow"] == words.METHODS
    assert not backends.asked


def test_a_services_own_503_passes_untouched(web):
    answer = web.get("/api/v1/documents/broken")
    assert answer.status_code == 503
    assert answer.json() == {"code": "own_words"}


@pytest.mark.parametrize("path", ["/api/v1/clients", "/api/v1/auth/login", "/nothing"])
def test_a_body_of_10_mb_is_refused_where_no_file_is_taken(gateway, backends, path):
    backends.asked.clear()
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=10)
    with closing(connection):
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", "10000000")
        connection.endheaders()  # refused by its length alone, before the first byte of it
        answer = connection.getresponse()
        assert answer.status == 413
        assert json.loads(answer.read())["code"] == "content_too_large"
    assert not backends.asked


def test_a_body_below_10_mb_passes_and_the_service_decides(web):
    assert web.post("/api/v1/clients", content=bytes(9_999_999)).json()["bytes"] == 9_999_999


def test_an_upload_of_50_mb_streams_to_analytics(web, backends):
    backends.first_chunk.clear()
    backends.go_on.set()

    def body() -> Iterator[bytes]:
        yield bytes(1_000_000)
        # the service has the first part before the last is sent: nothing waits for the whole
        assert backends.first_chunk.wait(10)
        for _ in range(49):
            yield bytes(1_000_000)

    path = "/api/v1/analytics/prospects/1/claims"
    assert web.post(path, content=body()).json()["bytes"] == UPLOAD
    assert web.post(path, content=bytes(UPLOAD)).json()["bytes"] == UPLOAD


def test_events_pass_one_by_one_and_uncompressed(web, backends):
    backends.go_on.clear()
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
    with web.stream("GET", "/api/v1/jobs/1/events", headers=headers) as answer:
        assert "Content-Encoding" not in answer.headers
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(3)] == ["id: 1", "data: first", ""]
        backends.go_on.set()  # the second event is made after the first was read here
        assert [next(lines) for _ in range(2)] == ["id: 2", "data: second"]


def test_long_answers_are_compressed(gateway):
    with httpx2.Client(base_url=gateway.url) as client:
        request = client.build_request("GET", "/api/v1/documents/large", headers={"Accept-Encoding": "gzip"})
        answer = client.send(request, stream=True)
        assert answer.headers["Content-Encoding"] == "gzip"
        packed = b"".join(answer.iter_raw())
    assert len(packed) < 5_000
    assert json.loads(gzip.decompress(packed))["text"].startswith("word word")


def test_every_answer_has_the_security_headers_and_no_server_name(web):
    pages = {"/", "/docs", "/nothing"}
    for path in pages | {"/api/v1/jobs", "/api/v1/agents", "/internal"}:
        headers = web.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert ("script-src 'self';" in policy) == (path in pages)
        assert "Server" not in headers


def test_forwarded_headers_of_a_client_are_not_believed(web):
    forged = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Real-Ip": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X_Forwarded_For": "6.6.6.6",
    }
    seen = web.get("/api/v1/jobs", headers=forged).json()["headers"]
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "http"
    assert "6.6.6.6" not in str(seen)
    assert "evil" not in str(seen)


def test_traefiks_own_pages_are_not_public(web, gateway):
    for path in ("/api/rawdata", "/api/version", "/dashboard/", "/ping", "/debug/vars"):
        assert_problem(web.get(path), 404, "not_found")
    metrics = httpx2.get(f"{gateway.internal_url}/metrics").text
    assert 'traefik_service_requests_total{code="200"' in metrics


def test_the_log_is_json_with_no_secret(web, gateway):
    secrets = {"Authorization": "Bearer hunter2", "Cookie": "a=hunter2", "X-Request-ID": "request-0002"}
    web.get("/api/v1/jobs?token=hunter2", headers=secrets)
    line = eventually(
        lambda: next((line for line in gateway.lines() if line.get("request_X-Request-Id") == "request-0002"), None)
    )
    assert line["RequestPath"] == "/api/v1/jobs"
    assert line["DownstreamStatus"] == 200
    assert line["Duration"] > 0
    assert "hunter2" not in gateway.log.read_text()
    assert not [line for line in gateway.lines() if line["level"] == "error"]


def test_logins_are_limited_by_auth_service_alone_so_that_its_answer_arrives(web):
    answers = [web.post("/api/v1/auth/login", json={}) for _ in range(40)]
    assert {answer.status_code for answer in answers} == {200}
