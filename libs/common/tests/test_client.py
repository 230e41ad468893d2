"""Calls between services, over real HTTP."""

import base64
import json
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest
from pydantic import SecretStr

from triton_common.client import ServiceClient, ServiceUnreachable, SyncServiceClient, SyncServiceToken
from triton_common.errors import AppError, BadRequest, Conflict, NotFound, Unauthorized, Unavailable
from triton_common.logging import log_context
from triton_common.testing import free_port

PROBLEM = {
    "type": "…#widget_broken",
    "title": "The widget is broken",
    "status": 409,
    "code": "widget_broken",
    "message": "Mend it.",
    "details": [{"field": "a", "issue": "b", "code": "c"}],
    "request_id": "r",
}


class Other:
    """Another service: answers what it is told to, in order, the last for ever; keeps what it was asked."""

    def __init__(self):
        self.asked = []
        self.answers = deque([(200, {"ok": True}, {})])
        other = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                other.asked.append((self.command, self.path, dict(self.headers), body))
                status, payload, headers = other.answers.popleft() if len(other.answers) > 1 else other.answers[0]
                data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET  # noqa: N815  the name that http.server calls

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def other():
    """Another service."""
    service = Other()
    yield service
    service.server.shutdown()
    service.server.server_close()


@pytest.fixture(params=["async", "sync"])
def call(request):
    """`await call(url, method, path)` with either client."""
    if request.param == "async":

        async def asynchronous(url, method, path, **options):
            async with ServiceClient(url) as client:
                return await client.request(method, path, **options)

        return asynchronous

    async def synchronous(url, method, path, **options):
        with SyncServiceClient(url) as client:
            if method == "POST" and set(options) == {"json"}:
                return client.post(path, **options)
            return client.request(method, path, **options)

    return synchronous


async def test_answer_is_json_and_the_request_id_goes_along(other, call):
    with log_context(request_id="r-12345678"):
        assert await call(other.url, "GET", "/x") == {"ok": True}
    [(_, path, headers, _)] = other.asked
    assert path == "/x"
    assert headers["X-Request-Id" if "X-Request-Id" in headers else "X-Request-ID"] == "r-12345678"


async def test_problem_is_raised_as_the_error_it_was(other, call):
    other.answers = deque([(409, PROBLEM, {"Retry-After": "3"})])
    with pytest.raises(Conflict) as caught:
        await call(other.url, "POST", "/x", json={})
    assert (caught.value.code, caught.value.message, caught.value.retry_after) == ("widget_broken", "Mend it.", 3)
    assert caught.value.details[0].field == "a"
    assert Conflict.code == "conflict"


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (418, BadRequest), (500, AppError), (599, Unavailable)])
async def test_answer_without_a_problem_is_an_error_all_the_same(other, call, status, error):
    other.answers = deque([(status, b"<html>", {})])
    with pytest.raises(error, match=str(status)):
        await call(other.url, "POST", "/x", json={})


async def test_read_is_repeated_when_the_other_side_is_not_ready(other, call):
    other.answers = deque([(503, PROBLEM, {}), (502, b"", {}), (200, {"third": True}, {})])
    assert await call(other.url, "GET", "/x") == {"third": True}


async def test_write_is_not_repeated(other, call):
    other.answers = deque([(503, PROBLEM | {"code": "unavailable"}, {})])
    with pytest.raises(Unavailable):
        await call(other.url, "POST", "/x", json={})
    assert len(other.asked) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nobody_there_is_unreachable(call, method):
    options = {"json": {}} if method == "POST" else {}
    with pytest.raises(ServiceUnreachable):
        await call(f"http://127.0.0.1:{free_port()}", method, "/x", **options)


async def test_empty_answer_is_none(other, call):
    other.answers = deque([(204, b"", {})])
    assert await call(other.url, "POST", "/x", json={}) is None


async def test_token_of_the_caller_goes_along(other):
    async with ServiceClient(other.url) as client:
        assert await client.get("/x", token="t0ken", limit=3) == {"ok": True}
    [(_, path, headers, _)] = other.asked
    assert (path, headers["Authorization"]) == ("/x?limit=3", "Bearer t0ken")


async def test_proxy_of_the_environment_is_not_asked(other, call, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    assert await call(other.url, "GET", "/x") == {"ok": True}


def service_token(other, secret="s3cret"):
    return SyncServiceToken(other.url, client_id="agent-runner", client_secret=SecretStr(secret))


def issued(number):
    return (200, {"access_token": f"t{number}", "expires_in": 3600}, {})


OK = (200, {"ok": True}, {})


def authorizations(other, path="/x"):
    return [headers["Authorization"] for _, asked, headers, _ in other.asked if asked == path]


def test_service_token_is_kept_and_renewed_before_its_end(other, monkeypatch):
    other.answers = deque([issued(0), OK, OK, issued(1), OK])
    token = service_token(other)
    with SyncServiceClient(other.url, token=token) as client:
        client.get("/x")
        client.get("/x")
        later = time.monotonic() + 3600 - 30
        monkeypatch.setattr("triton_common.client.time.monotonic", lambda: later)
        client.get("/x")
    token.close()
    assert authorizations(other) == ["Bearer t0", "Bearer t0", "Bearer t1"]
    method, path, _, body = other.asked[0]
    assert (method, path, body) == ("POST", "/api/v1/auth/token", b"grant_type=client_credentials")
    assert "s3cret" not in repr(vars(token))


def test_refused_service_token_is_replaced_once(other):
    refused = (401, PROBLEM | {"code": "token_key_unknown", "status": 401}, {})
    other.answers = deque([issued(0), refused, issued(1), OK, refused, issued(2), refused])
    token = service_token(other)
    with SyncServiceClient(other.url, token=token) as client:
        assert client.post("/x", json={}) == {"ok": True}
        with pytest.raises(Unauthorized):
            client.post("/x", json={})
    token.close()
    assert authorizations(other) == ["Bearer t0", "Bearer t1", "Bearer t1", "Bearer t2"]


def test_secret_with_reserved_characters_arrives(other):
    other.answers = deque([issued(0), OK])
    token = service_token(other, secret="p%41:s/ s")
    with SyncServiceClient(other.url, token=token) as client:
        client.get("/x")
    token.close()
    sent = base64.b64decode(other.asked[0][2]["Authorization"].removeprefix("Basic ")).decode()
    assert unquote(sent.split(":")[1]) == "p%41:s/ s"
