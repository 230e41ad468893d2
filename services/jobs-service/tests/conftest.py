"""An app on a database of the test's own, and its API in the words of the tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import psycopg
import pytest
from fastapi import FastAPI
from psycopg.rows import dict_row
from uuid_utils.compat import uuid7

from jobs_service.main import build
from jobs_service.settings import Settings

pytest_plugins = ["triton_common.testing"]

CONTENT: dict[str, Any] = {
    "summary": "Coaching for people with type 2 diabetes.",
    "programme": "Twelve months of coaching by nurses.",
    "eligibility": [{"system": "icd10cm", "code": "E11*"}],
    "engagement": {"low": "0.2", "base": "0.3", "high": "0.4"},
    "effects": [
        {
            "driver": "inpatient",
            "reduction": {"low": "0.05", "base": "0.1", "high": "0.15"},
            "evidence": "A trial.",
        }
    ],
    "fees": {"per_engaged_member_per_month": "45.00", "one_time": "1000.00"},
    "ramp_up_months": 3,
    "currency": "USD",
}

DOCUMENT: dict[str, Any] = {
    "title": "Coaching for <Acme> & friends",
    "model": "offline:template",
    "notice": "No model wrote this.",
    "currency": "USD",
    "sections": [
        {"key": "population", "title": "Your population", "paragraphs": [{"text": "27 members.", "facts": ["members"]}]}
    ],
    "facts": [
        {
            "id": "members",
            "label": "Members",
            "value": "27",
            "unit": "members",
            "display": "27",
            "source": "report summary",
        }
    ],
    "charts": [
        {
            "key": "population",
            "title": "Cost by category",
            "kind": "bar",
            "unit": "USD",
            "points": [{"label": "inpatient", "value": "1250000.50"}, {"label": "pharmacy", "value": "-42"}],
        },
        {
            "key": "trend",
            "title": "Cost by month",
            "kind": "line",
            "unit": "USD",
            "points": [{"label": "2024-01", "value": "10"}, {"label": "2024-02", "value": "1200"}],
        },
        {"key": "empty", "title": "Nothing", "kind": "line", "unit": "USD", "points": []},
    ],
}

ERROR: dict[str, Any] = {"code": "model_failed", "message": "The model gave up."}


@dataclass
class Api:
    """The service over HTTP. Every call is made by `user`, an admin unless another's headers are given."""

    http: httpx2.AsyncClient
    as_user: Callable[..., dict[str, str]]
    database_url: str
    app: FastAPI
    content: dict[str, Any] = field(default_factory=lambda: deepcopy(CONTENT))
    document: dict[str, Any] = field(default_factory=lambda: deepcopy(DOCUMENT))
    worker: dict[str, str] = field(init=False)
    admin: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.admin = self.as_user("admin")
        self.worker = self.as_user("service")

    async def call(self, method: str, path: str, *, user: dict[str, str] | None = None, **options: Any) -> Any:
        headers = (self.admin if user is None else user) | options.pop("headers", {})
        return await self.http.request(method, path, headers=headers, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Any:
        return await self.call("POST", path, json=body, **options)

    async def get(self, path: str, **options: Any) -> Any:
        return await self.call("GET", path, **options)

    async def made(self, path: str, body: Any, **options: Any) -> dict[str, Any]:
        answer = await self.post(path, body, **options)
        assert answer.is_success, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def client(self, name: str = "Acme") -> dict[str, Any]:
        return await self.made("/api/v1/clients", {"name": name})

    async def prospect(self, client: dict[str, Any]) -> dict[str, Any]:
        return await self.made("/api/v1/prospects", {"client_id": client["id"], "name": "A health plan"})

    async def value_proposition(self, client: dict[str, Any]) -> dict[str, Any]:
        body = {"client_id": client["id"], "name": "Coaching", "content": CONTENT}
        return await self.made("/api/v1/value-propositions", body)

    async def order(self, client: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """The body of a job's submission, with a prospect and a value proposition of its own."""
        client = client or await self.client()
        return {
            "job_type": "value_proposition",
            "prospect_id": (await self.prospect(client))["id"],
            "value_proposition_id": (await self.value_proposition(client))["id"],
        } | changes

    async def job(self, client: dict[str, Any] | None = None) -> dict[str, Any]:
        return await self.made("/api/v1/jobs", await self.order(client))

    async def read(self, job: dict[str, Any]) -> dict[str, Any]:
        answer = await self.get(f"/api/v1/jobs/{job['id']}")
        known: dict[str, Any] = answer.json()
        return known

    async def claim(self, job: dict[str, Any], **options: Any) -> Any:
        body = {"worker": "w1", "task_id": "t1"}
        return await self.post(f"/internal/v1/jobs/{job['id']}/claim", body, **({"user": self.worker} | options))

    async def progress(self, job: dict[str, Any], *, attempt: int = 1, progress: int = 10, **changes: Any) -> Any:
        body = {"attempt": attempt, "progress": progress, "stage": "collecting"} | changes
        return await self.post(f"/internal/v1/jobs/{job['id']}/progress", body, user=self.worker)

    async def finish(self, job: dict[str, Any], outcome: str = "completed", *, attempt: int = 1, **changes: Any) -> Any:
        body: dict[str, Any] = {"attempt": attempt, "outcome": outcome} | changes
        if outcome == "completed":
            body.setdefault("document", DOCUMENT)
        if outcome == "failed":
            body.setdefault("error", ERROR)
        return await self.post(f"/internal/v1/jobs/{job['id']}/finish", body, user=self.worker)

    async def calls(self, *calls: dict[str, Any]) -> Any:
        return await self.post("/internal/v1/jobs/calls", {"calls": list(calls)}, user=self.worker)

    async def sent(self, count: int) -> list[tuple[int, str]]:
        """(lane, job) of what the dispatcher sends, once it is so many messages; it sends from a task of its own."""
        queue = self.app.state.queue
        async with asyncio.timeout(10):
            while len(queue.sent) < count:  # noqa: ASYNC110  nothing tells of it
                await asyncio.sleep(0.002)
        return [(message.priority, message.payload["job_id"]) for message in queue.sent]

    async def kinds(self, job: dict[str, Any]) -> list[str]:
        """The kinds of a job's events, in order."""
        answer = await self.get(f"/api/v1/jobs/{job['id']}/events")
        return [event["kind"] for event in answer.json()["items"]]

    def sql(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        """Past the service, at the database: to look, and to let time pass."""
        # the app's tasks wait meanwhile, with what they have locked
        waiting = "-c lock_timeout=10s"
        with psycopg.connect(self.database_url, autocommit=True, row_factory=dict_row, options=waiting) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def let_lease_end(self, job: dict[str, Any]) -> None:
        self.sql(
            "UPDATE generation_jobs SET lease_expires_at = now() - interval '1 ms' WHERE id = %(id)s", id=job["id"]
        )

    def make_due(self, job: dict[str, Any]) -> None:
        self.sql("UPDATE generation_jobs SET run_after = now(), dispatch_at = now() WHERE id = %(id)s", id=job["id"])

    def bound(self, client: dict[str, Any], role: str = "editor") -> dict[str, str]:
        """Headers of somebody who is bound to this client."""
        return self.as_user(role, client_id=UUID(client["id"]))


@pytest.fixture
def settings(postgres_url: str, tmp_path: Path) -> Settings:
    """No sweep but the one at the start: tests call theirs."""
    return Settings(
        database_url=postgres_url,
        task_queue_url="memory://",
        sweep_interval=timedelta(hours=1),
        log_level="WARNING",
        audit_spool=tmp_path / "audit",
    )


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for seconds for a Postgres that is away. To be asked for before `api`."""
    monkeypatch.setattr("triton_common.db.POOL_TIMEOUT", 0.5)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return build(settings)


@pytest.fixture
async def api(
    app: FastAPI, running: Callable[..., Any], as_user: Callable[..., dict[str, str]], postgres_url: str
) -> AsyncIterator[Api]:
    async with running(app) as http:
        yield Api(http, as_user, postgres_url, app)


@pytest.fixture
def nobody() -> str:
    """An id that nothing has."""
    return str(uuid7())
