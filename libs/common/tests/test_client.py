"""Calls between services, over real HTTP."""

import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from triton_common.client import ServiceClient, ServiceUnreachable, SyncServiceClient, SyncServiceToken
from triton_common.errors import AppError, BadRequest, Conflict, NotFound, Unavailable
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
    """`await call(url, method, path, token=…)` with either client."""
    if request.param == "async":

        async def asynchronous(url, method, path, *, token=None, **options):
            async def answer():
                return token

            async with ServiceClient(url, token=answer if token else None) as client:
                if method == "GET" and not options:
                    return await client.get(path)
                if method == "POST" and set(options) == {"json"}:
                    return await client.post(path, **options)
                return await client.request(method, path, **options)

        return asynchronous

    async def synchronous(url, method, path, *, token=None, **options):
        with SyncServiceClient(url, token=(lambda: token) if token else None) as client:
            if method == "GET" and not options:
                return client.get(path)
            if method == "POST" and set(options) == {"json"}:
                return client.post(path, **options)
            return client.request(method, path, **options)

    return synchronous


async def test_answer_is_json_and_the_request_id_goes_along(other, call):
    with log_context(request_id="r-12345678"):
        assert await call(other.url, "GET", "/x", token="t0ken") == {"ok": True}
    [(_, path, headers, _)] = other.asked
    assert path == "/x"
    assert headers["X-Request-Id" if "X-Request-Id" in headers else "X-Request-ID"] == "r-12345678"
    assert headers["Authorization"] == "Bearer t0ken"


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


def test_service_token_is_kept_and_renewed_before_its_end(other, monkeypatch):
    other.answers = deque([(200, {"access_token": f"t{n}", "expires_in": 3600}, {}) for n in range(3)])
    token = SyncServiceToken(other.url, client_id="agent-runner", client_secret=SecretStr("s3cret"))
    assert [token(), token()] == ["t0", "t0"]
    [(method, path, headers, body)] = other.asked
    assert (method, path, body) == ("POST", "/api/v1/auth/token", b"grant_type=client_credentials")
    assert headers["Authorization"].startswith("Basic ")
    import time  # noqa: PLC0415  the clock is what is patched

    later = time.monotonic() + 3600 - 30
    monkeypatch.setattr("triton_common.client.time.monotonic", lambda: later)
    assert token() == "t1"
    token.close()
    assert "s3cret" not in repr(vars(token))
