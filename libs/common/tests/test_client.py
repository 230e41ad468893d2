"""Calls between services, over real HTTP."""

import base64
import datetime as dt
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import httpx2
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from triton_common.client import ATTEMPTS, ServiceClient, ServiceUnreachable, SyncServiceClient, SyncServiceToken
from triton_common.errors import AppError, BadRequest, Conflict, NotFound, Unauthorized, Unavailable
from triton_common.logging import log_context
from triton_common.testing import eventually, free_port

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


def test_service_token_is_used_to_its_end_while_auth_service_is_away(other, monkeypatch):
    away = (503, PROBLEM | {"code": "unavailable", "status": 503}, {})
    other.answers = deque([issued(0), OK, away, OK, OK, away])
    began, passed = time.monotonic(), [0.0]
    monkeypatch.setattr("triton_common.client.time.monotonic", lambda: began + passed[0])
    token = service_token(other)
    with SyncServiceClient(other.url, token=token) as client:
        client.get("/x")
        passed[0] = 3600 - 30
        assert client.get("/x") == {"ok": True}
        assert client.get("/x") == {"ok": True}, "and auth-service is not asked by every call"
        passed[0] = 3600 + 30
        with pytest.raises(Unavailable):
            client.get("/x")
    token.close()
    assert authorizations(other) == ["Bearer t0"] * 3


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


# --- the wire, as a worker meets it

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"ok": true}'
SILENCE = object()


class Wire:
    """A server told byte by byte what to do: for each connection it takes, what it answers to each request on it, or
    what makes the answer; then it closes the connection."""

    def __init__(self, connections, tls=None):
        self.heard = []
        self._over = threading.Event()
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, args=[connections], daemon=True)
        self._thread.start()

    def _serve(self, connections):
        for number, answers in enumerate(connections):
            try:
                taken, _ = self._socket.accept()
            except OSError:  # closed
                return
            with suppress(ssl.SSLError), self._tls.wrap_socket(taken, server_side=True) if self._tls else taken as to:
                for answer in answers:
                    self.heard.append((number, self._request(to)))
                    if answer is SILENCE:
                        self._over.wait()
                    else:
                        to.sendall(answer() if callable(answer) else answer)

    def _request(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        ]
        while len(body) < sum(lengths):
            body += connection.recv(65536)
        return head.split(b" ")[0].decode(), body

    def close(self):
        self._over.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=10)
        self._socket.close()


@pytest.fixture
def wire():
    """`wire([answers of the first connection], …)`."""
    made = []

    def make(*connections, tls=None):
        made.append(Wire(connections, tls=tls))
        return made[-1]

    yield make
    for one in made:
        one.close()


def client_of(wire, **options):
    return SyncServiceClient(f"http://127.0.0.1:{wire.port}", **options)


def test_calls_share_a_connection(wire):
    one = wire([ANSWER, ANSWER, ANSWER])
    with client_of(one) as client:
        for number in range(3):
            assert client.post("/x", json={"n": number}) == {"ok": True}
    assert one.heard == [(0, ("POST", b'{"n":%d}' % number)) for number in range(3)]


def test_call_that_outlasts_its_client_leaves_no_connection_behind(wire):
    closed = threading.Event()
    client = client_of(wire([lambda: closed.wait(10) and ANSWER]))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.get, "/x")
        client.close()
        closed.set()
        assert call.result() == {"ok": True}
    assert not client._idle


def test_connection_closed_while_idle_is_replaced_before_it_is_used(wire):
    one = wire([ANSWER], [ANSWER])
    with client_of(one) as client:
        client.post("/x", json={})
        eventually(lambda: not client._idle[0].is_open())
        assert client.post("/x", json={}) == {"ok": True}
    assert len(one.heard) == 2


def test_connection_closed_under_a_call_is_replaced_once(wire):
    one = wire([ANSWER, b""], [ANSWER])
    with client_of(one) as client:
        client.post("/x", json={"n": 1})
        assert client.post("/x", json={"n": 2}) == {"ok": True}
    assert one.heard == [(0, ("POST", b'{"n":1}')), (0, ("POST", b'{"n":2}')), (1, ("POST", b'{"n":2}'))]


def test_call_on_a_new_connection_is_not_made_again(wire):
    one = wire([b""], [ANSWER])
    with client_of(one) as client, pytest.raises(ServiceUnreachable):
        client.post("/x", json={})
    assert len(one.heard) == 1


@contextmanager
def served(app, port):
    """The app on this port, in the server that services run in."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def test_server_that_comes_back_is_found(app):
    port = free_port()
    with SyncServiceClient(f"http://127.0.0.1:{port}") as client:
        with served(app, port):
            assert client.post("/raw", json={}) == {"bytes": 2}
        with pytest.raises(ServiceUnreachable):
            client.post("/raw", json={})
        with served(app, port):
            assert client.post("/raw", json={}) == {"bytes": 2}


def test_answer_in_chunks_is_whole(wire):
    chunks = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{"ok":\r\n6\r\n true}\r\n0\r\n\r\n'
    with client_of(wire([chunks, ANSWER])) as client:
        assert client.post("/x", json={}) == {"ok": True}
        assert client.post("/x", json={}) == {"ok": True}


def test_answer_that_ends_its_connection_ends_it(wire):
    last = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    with client_of(wire([last], [ANSWER])) as client:
        client.post("/x", json={})
        assert not client._idle
        assert client.post("/x", json={}) == {"ok": True}


def test_answer_that_breaks_off_is_no_answer(wire):
    one = wire([ANSWER[:-4]])
    with client_of(one) as client, pytest.raises(ServiceUnreachable):
        client.post("/x", json={})
    assert not client._idle


def test_slow_answer_is_not_waited_for_nor_asked_for_again(wire):
    one = wire([SILENCE])
    with client_of(one, timeout=httpx2.Timeout(0.1)) as client, pytest.raises(ServiceUnreachable):
        client.post("/x", json={})
    assert len(one.heard) == 1


def test_half_open_connection_is_dropped(wire):
    one = wire([ANSWER, SILENCE])
    with client_of(one, timeout=httpx2.Timeout(0.1)) as client:
        client.post("/x", json={})
        with pytest.raises(ServiceUnreachable):
            client.post("/x", json={})
        assert not client._idle
    assert len(one.heard) == 2


def test_threads_share_a_client(other):
    with SyncServiceClient(other.url) as client, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: client.post("/x", json={"n": number}), range(200)))
        assert 1 <= len(client._idle) <= 8
    assert answers == [{"ok": True}] * 200
    assert sorted(json.loads(body)["n"] for *_, body in other.asked) == list(range(200))


def test_path_of_the_base_url_goes_before(other):
    with SyncServiceClient(f"{other.url}/below/") as client:
        client.get("/x", codes=["a b", "c"], deep=True)
    assert other.asked[0][1] == "/below/x?codes=a+b&codes=c&deep=true"


@pytest.fixture
def certificate(tmp_path):
    """A certificate of 127.0.0.1, which signs itself: (file, context of a server that has it)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, both = tmp_path / "cert.pem", tmp_path / "both.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both.write_bytes(private + file.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return file, context


def test_https_is_spoken_with_who_can_be_trusted(wire, certificate, monkeypatch):
    file, context = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    one = wire([ANSWER, ANSWER], tls=context)
    with SyncServiceClient(f"https://127.0.0.1:{one.port}") as client:
        assert client.post("/x", json={}) == {"ok": True}
        assert client.post("/x", json={}) == {"ok": True}


def test_https_is_not_spoken_with_a_stranger(wire, certificate):
    one = wire(*[[ANSWER]] * ATTEMPTS, tls=certificate[1])
    with SyncServiceClient(f"https://127.0.0.1:{one.port}") as client, pytest.raises(ServiceUnreachable):
        client.post("/x", json={})
    assert one.heard == []
