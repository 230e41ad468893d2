"""The app on a database of each test's own, spoken to over HTTP; every refusal must be one that its route declares."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from typing import Any

import httpx2
import psycopg
import pytest
from fastapi import FastAPI

from auth_service.main import build
from auth_service.settings import Settings

pytest_plugins = ["triton_common.testing"]

EMAIL = "ada@triton.local"
PASSWORD = "a long enough password"
AGENT_SECRET = "agent-secret-of-the-tests"

Running = Callable[[FastAPI], AbstractAsyncContextManager[httpx2.AsyncClient]]


@pytest.fixture
def make_settings(postgres_url: str) -> Callable[..., Settings]:
    """Settings for the test's database, with hashes that cost next to nothing; any of them replaced by keyword."""

    def make(**values: Any) -> Settings:
        defaults = {
            "database_url": postgres_url,
            "bootstrap_email": EMAIL,
            "bootstrap_password": PASSWORD,
            "key_secret": "key-secret-of-the-tests",
            "agent_client_secret": AGENT_SECRET,
            "argon2_memory_kib": 8,
            "argon2_passes": 1,
        }
        return Settings(**(defaults | values))

    return make


@cache
def _documented() -> dict[str, Any]:
    """The paths of the app's document, which no setting changes."""
    paths: dict[str, Any] = build(Settings()).openapi()["paths"]
    return paths


async def _must_be_declared(response: httpx2.Response) -> None:
    await response.aread()
    if response.status_code < 400 or response.status_code == 500:
        return
    path = response.request.url.path
    method = response.request.method.lower()
    known = _documented()
    # the template with the fewest parameters is the route's: /users/{user_id} is not /users/x/sessions
    template = min(
        (one for one in known if method in known[one] and re.fullmatch(re.sub(r"{\w+}", "[^/]+", one), path)),
        key=lambda one: one.count("{"),
    )
    declared = known[template][method]["responses"]
    code = response.json()["code"]
    assert f"`{code}`" in declared[str(response.status_code)]["description"], f"{path} does not declare {code}"


@pytest.fixture
def starting() -> Running:
    """`async with starting(app) as http`: the app, trusting its own keys."""

    @asynccontextmanager
    async def start(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
        async with app.router.lifespan_context(app):
            transport = httpx2.ASGITransport(app=app)
            hooks = {"response": [_must_be_declared]}
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://test/api/v1/auth", event_hooks=hooks
            ) as http:
                yield http

    return start


@pytest.fixture
def app(make_settings: Callable[..., Settings]) -> FastAPI:
    """The app with the settings of the tests."""
    return build(make_settings())


@pytest.fixture
async def http(app: FastAPI, starting: Running) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the running app."""
    async with starting(app) as client:
        yield client


@pytest.fixture
async def pair(http: httpx2.AsyncClient) -> dict[str, Any]:
    """The tokens of the first admin's login."""
    answer = await http.post("/login", json={"email": EMAIL, "password": PASSWORD})
    assert answer.status_code == 200
    tokens: dict[str, Any] = answer.json()
    return tokens


@pytest.fixture
def bearer(pair: dict[str, Any]) -> dict[str, str]:
    """The first admin's headers."""
    return {"Authorization": f"Bearer {pair['access_token']}"}


@pytest.fixture
def rows(postgres_url: str) -> Callable[..., list[tuple[Any, ...]]]:
    """Rows of a statement, by a connection of the test's own."""

    def run(statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(postgres_url) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    return run
