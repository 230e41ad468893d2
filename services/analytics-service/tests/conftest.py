"""What the tests share: the service on the real engine, a stand-in for jobs-service in a real server, uploads."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI
from loguru import logger
from pydantic import SecretStr
from uuid_utils.compat import uuid7

from analytics_service.main import build
from analytics_service.settings import Settings
from triton_common.app import create_app
from triton_common.auth import CurrentPrincipal
from triton_common.errors import NotFound
from triton_common.settings import CommonSettings

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode has no folder of tests on the path

pytest_plugins = ["triton_common.testing"]

SECRET = SecretStr("a key that only these tests know")


class JobsService:
    """Knows whose prospect is whose, and how often it was asked."""

    def __init__(self) -> None:
        self.clients: dict[UUID, UUID] = {}
        self.archived: set[UUID] = set()
        self.asked: list[UUID] = []
        self.app = create_app(CommonSettings(), name="jobs-stand-in", version="0", description="")
        self.app.get("/api/v1/prospects/{prospect_id}")(self.read)

    async def read(self, prospect_id: UUID, principal: CurrentPrincipal) -> dict[str, str | None]:
        """As jobs-service answers: 404 for a foreign prospect too."""
        self.asked.append(prospect_id)
        client_id = self.clients.get(prospect_id)
        if client_id is None or not principal.can_see(client_id):
            raise NotFound
        archived_at = "2026-01-01T00:00:00Z" if prospect_id in self.archived else None
        return {"id": str(prospect_id), "client_id": str(client_id), "archived_at": archived_at}


class Prospect:
    """A prospect of a client of its own, and calls about it."""

    def __init__(self, http: httpx2.AsyncClient, headers: dict[str, str], jobs: JobsService) -> None:
        self.http = http
        self.headers = headers
        self.id, self.client_id = uuid7(), uuid7()
        jobs.clients[self.id] = self.client_id
        self.path = f"/api/v1/analytics/prospects/{self.id}"

    async def send(
        self, dataset: str, body: bytes | str, *, headers: dict[str, str] | None = None, **params: str
    ) -> httpx2.Response:
        """One CSV body."""
        return await self.http.post(
            f"{self.path}/{dataset}",
            content=body,
            params=params,
            headers=self.headers | {"Content-Type": "text/csv"} | (headers or {}),
        )

    async def send_files(self, dataset: str, files: dict[str, str], *, source: str, **params: str) -> httpx2.Response:
        """Several files, by name."""
        parts = [(name, (f"{name}.csv", text.encode(), "text/csv")) for name, text in files.items()]
        return await self.http.post(
            f"{self.path}/{dataset}", files=parts, params={"source": source, **params}, headers=self.headers
        )

    async def get(self, path: str, **params: Any) -> Any:
        """The answer's JSON."""
        answer = await self.http.get(f"{self.path}/{path}", params=params, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, json: Any) -> Any:
        """The answer's JSON."""
        answer = await self.http.post(f"{self.path}/{path}", json=json, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


class NewProspect(Protocol):
    """Makes a prospect."""

    def __call__(self, role: str = "admin") -> Prospect:
        """With headers of this role."""
        ...


@pytest.fixture(scope="session")
def jobs_service() -> JobsService:
    """The stand-in's books."""
    return JobsService()


@pytest.fixture(scope="session")
def jobs_url(jobs_service: JobsService, serving: Callable[[FastAPI], AbstractContextManager[str]]) -> Iterator[str]:
    """The stand-in in a real server."""
    with serving(jobs_service.app) as url:
        yield url


@pytest.fixture(scope="session", params=["embedded", "server"])
def engine_kind(request: pytest.FixtureRequest) -> str:
    """The engine inside this process, and one behind HTTP: every test runs on both that asks either for something."""
    return str(request.param)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files that say ONE_ENGINE are about what comes before the engine, or after it: they run on one."""
    spared = [item for item in items if _is_spared(item)]
    items[:] = [item for item in items if item not in spared]
    config.hook.pytest_deselected(items=spared)


def _is_spared(item: pytest.Item) -> bool:
    known = getattr(item, "callspec", None)
    one = getattr(getattr(item, "module", None), "ONE_ENGINE", False)
    return bool(one and known and known.params.get("engine_kind") == "server")


@pytest.fixture(scope="session")
def clickhouse_folder(engine_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the engine keeps its files, in `db`."""
    return tmp_path_factory.mktemp(engine_kind)


@pytest.fixture(scope="session")
def clickhouse_url(engine_kind: str, clickhouse_folder: Path) -> Iterator[str]:
    """Where the engine is."""
    if engine_kind == "embedded":
        yield f"chdb://{clickhouse_folder}/db"
        return
    command = [sys.executable, str(Path(__file__).with_name("clickhouse_server.py")), str(clickhouse_folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.communicate(timeout=30)


@pytest.fixture(scope="session")
def settings(clickhouse_url: str, jobs_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The service's settings."""
    return Settings(
        clickhouse_url=SecretStr(clickhouse_url),
        jobs_url=jobs_url,
        member_key=SECRET,
        query_timeout=timedelta(seconds=5),
        spool_dir=tmp_path_factory.mktemp("spool"),
        audit_spool=tmp_path_factory.mktemp("audit"),
    )


@pytest.fixture(scope="session")
def app(settings: Settings) -> FastAPI:
    """The service."""
    return build(settings)


@pytest_asyncio.fixture(scope="session")
async def http(app: FastAPI, running: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Speaks to the service."""
    async with running(app) as client:
        client.timeout = httpx2.Timeout(60)
        yield client


@pytest.fixture
def new_prospect(http: httpx2.AsyncClient, as_user: Any, jobs_service: JobsService) -> NewProspect:
    """Makes prospects without data."""
    return lambda role="admin": Prospect(http, as_user(role), jobs_service)


@pytest.fixture
def prospect(new_prospect: NewProspect) -> Prospect:
    """A prospect without data."""
    return new_prospect()


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """What is logged meanwhile, every field of it."""
    lines: list[str] = []

    def write(message: Any) -> None:
        lines.append(f"{message} {message.record['extra']}")

    sink = logger.add(write, level="TRACE", diagnose=False)
    yield lines
    logger.remove(sink)
