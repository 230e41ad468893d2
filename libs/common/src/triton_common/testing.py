"""Fixtures for the tests of every member: real Postgres and Redis, real tokens, apps that run.

A member's tests/conftest.py takes them with `pytest_plugins = ["triton_common.testing"]`. Postgres and Redis are
imported by the fixtures that need them: a member without a database does not install them.
"""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import KeySet, OKPKey
from uuid_utils.compat import uuid7

from triton_common.auth import ALGORITHM, SCOPES_OF_ROLE, TOKEN_TYPE, TokenVerifier
from triton_common.messages import AuditEvent
from triton_common.openapi import openapi_file, openapi_text

WORKSPACE = next(folder for folder in Path(__file__).parents if (folder / "uv.lock").exists())
KEY = OKPKey.generate_key(ALGORITHM, parameters={"kid": "test-key"})
ISSUER = AUDIENCE = "triton"
ROOM = 4 * 2**30  # bytes of memory: a Postgres of tests takes a few hundred million


class AsUser(Protocol):
    """Headers of a request by somebody with this role."""

    def __call__(
        self, role: str = "admin", *, client_id: UUID | None = None, scopes: set[str] | None = None, **claims: object
    ) -> dict[str, str]:
        """`scopes` in place of the role's; `claims` in place of any of the token's."""
        ...


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on, below those that the kernel gives to connections."""

    def is_free(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    while True:
        first = random.randrange(20_000, 32_000, 10)  # noqa: S311  no secret
        if all(is_free(port) for port in range(first, first + count)):
            return first


def eventually(condition: Callable[[], Any], *, within: float = 10.0) -> Any:
    """The condition's first true answer; fails the test when there is none in `within` seconds."""
    deadline = time.monotonic() + within
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it did not come to pass in time"  # noqa: S101
        time.sleep(0.02)
    return answer


class Wire:
    """A TCP proxy in front of a port of this machine, whose connections can go deaf: half-open, as after a failover."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._generation = 0
        self._swallows = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._server]
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """From now on, nothing that either end sends arrives, and neither is told; the same for new connections."""
        self._generation += 1
        self._swallows = True

    def mend(self) -> None:
        """New connections work; those that were cut stay deaf for ever."""
        self._generation += 1
        self._swallows = False

    def close(self) -> None:
        """Close every connection."""
        for open_socket in self._sockets:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                self._sockets.append(near)
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except ConnectionRefusedError:
                    near.close()
                    continue
                self._sockets.append(far)
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink, self._generation), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, generation: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if generation == self._generation and not self._swallows:
                    sink.sendall(data)
            if generation == self._generation and not self._swallows:
                sink.shutdown(socket.SHUT_WR)


def recorded_events(spool: Path) -> list[AuditEvent]:
    """What lies in a spool of the audit log, the oldest first."""
    lines = [line for file in spool.glob("*.spool/*.ndjson") for line in file.read_bytes().splitlines()]
    return sorted((AuditEvent.model_validate_json(line) for line in lines), key=lambda event: event.id)


def access_token(
    claims: Mapping[str, object] | None = None, *, key: OKPKey = KEY, header: Mapping[str, object] | None = None
) -> str:
    """A token as auth-service signs them, with any claim or header replaced; a claim of None is left out."""
    now = int(time.time())
    payload = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(uuid7()),
        "iat": now,
        "exp": now + 600,
        "jti": str(uuid7()),
        "sid": str(uuid7()),
        "role": "admin",
        "scope": "",
    } | dict(claims or {})
    protected = {"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": key.kid} | dict(header or {})
    kept = {name: value for name, value in payload.items() if value is not None}
    return jwt.encode(protected, kept, key, algorithms=[str(protected["alg"])])


def test_verifier() -> TokenVerifier:
    """Trusts the test key alone."""

    async def keys() -> Any:
        return KeySet([KEY]).as_dict()

    return TokenVerifier(keys, issuer=ISSUER, audience=AUDIENCE)


test_verifier.__test__ = False  # type: ignore[attr-defined]  # its name looks like a test's


@pytest.fixture(scope="session")
def as_user() -> AsUser:
    """Headers with a real token, signed by the test key."""
    subjects: dict[tuple[str, UUID | None], str] = {}

    def headers(
        role: str = "admin", *, client_id: UUID | None = None, scopes: set[str] | None = None, **claims: object
    ) -> dict[str, str]:
        scope = " ".join(sorted(SCOPES_OF_ROLE[role] if scopes is None else scopes))
        subject = subjects.setdefault((role, client_id), str(uuid7()))
        defaults: dict[str, object] = {
            "role": role,
            "scope": scope,
            "sub": subject,
            "client_id": str(client_id) if client_id else None,
        }
        return {"Authorization": f"Bearer {access_token(defaults | claims)}"}

    return headers


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    app.state.verifier = test_verifier()
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
            yield http


@pytest.fixture(scope="session")
def running() -> Callable[[FastAPI], AbstractAsyncContextManager[httpx2.AsyncClient]]:
    """`async with running(app) as http`: the app with its lifespan, trusting the test key, without a socket."""
    return _running


@contextmanager
def _serving(app: FastAPI) -> Iterator[str]:
    app.state.verifier = test_verifier()
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False, timeout_graceful_shutdown=3)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started or not thread.is_alive())
        assert server.started, "the app did not start"  # noqa: S101
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture(scope="session")
def serving() -> Callable[[FastAPI], contextlib.AbstractContextManager[str]]:
    """`with serving(app) as url`: the app in a real server, for streams and for clients that want a socket."""
    return _serving


@pytest.fixture(scope="session")
def member_folder(request: pytest.FixtureRequest) -> Path:
    """The folder of the member whose tests run: the one with the pyproject.toml above them."""
    first = Path(request.config.args[0].split("::")[0]).resolve()
    return next(folder for folder in (first, *first.parents) if (folder / "pyproject.toml").exists())


def _quick_folder() -> str | None:
    """Where Postgres copies a database in a tenth of the time: in memory, where there is plenty; else the usual one."""
    memory = Path("/dev/shm")  # noqa: S108  a folder of our own is made there
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM
    return str(memory) if roomy else None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A real Postgres of this run's own, without fsync; it has `.url(database)`, `.stop()` and `.start()`."""
    from triton_common.embedded import Postgres  # noqa: PLC0415  see the module's docstring

    with tempfile.TemporaryDirectory(prefix="triton-pg-", dir=_quick_folder()) as folder:
        server = Postgres(Path(folder) / "data", port=free_port(), durable=False)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _psql(server: Any, *statements: str) -> None:
    import psycopg  # noqa: PLC0415  see the module's docstring

    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.fixture(scope="session")
def migrated_template(postgres_server: Any, member_folder: Path) -> str:
    """A database that the member's migrations have built; each test's own is copied from it."""
    _psql(postgres_server, "CREATE DATABASE template_migrated")
    subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=member_folder,
        env=os.environ | {"DATABASE_URL": postgres_server.url("template_migrated")},
        check=True,
        capture_output=True,
    )
    return "template_migrated"


@pytest.fixture(scope="session")
def finished_databases() -> list[str]:
    """Those of tests that are over. They are dropped before the next one is made: by then nobody is connected to them,
    else Postgres would wait for that."""
    return []


@pytest.fixture
def postgres_url(postgres_server: Any, migrated_template: str, finished_databases: list[str]) -> Iterator[str]:
    """A migrated database of the test's own: what it commits, no other test sees."""
    name = f"test_{uuid7().hex}"
    drops = [f"DROP DATABASE {finished_databases.pop()} WITH (FORCE)" for _ in list(finished_databases)]
    # a copy of files: half the time of writing it through the log, which small databases are by default
    _psql(postgres_server, *drops, f"CREATE DATABASE {name} TEMPLATE {migrated_template} STRATEGY FILE_COPY")
    yield postgres_server.url(name)
    finished_databases.append(name)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Any]:
    """A real Redis of this run's own; it has `.url`, `.stop()` and `.start()`."""
    from triton_common.embedded import Redis  # noqa: PLC0415  see the module's docstring

    with tempfile.TemporaryDirectory(prefix="triton-redis-") as folder:
        server = Redis(Path(folder), port=free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def redis_url(redis_server: Any) -> str:
    """An empty Redis."""
    import redis  # noqa: PLC0415  see the module's docstring

    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    url: str = redis_server.url
    return url


def assert_openapi_matches(app: FastAPI, name: str) -> None:
    """docs/openapi has this app's document; `just openapi` writes it."""
    if openapi_text(app) != openapi_file(name, root=WORKSPACE).read_text():
        pytest.fail(f"docs/openapi/{name}.json is old: run `uv run just openapi`")
