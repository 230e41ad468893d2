"""The demo against a small platform that answers as the real one does."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from rich.console import Console

from triton_cli.api import Api
from triton_cli.demo import Outcome, fetching, show, synthea_extract, walk
from triton_cli.state import ADMIN_EMAIL, CommandFailed, State
from triton_common.settings import CommonSettings
from triton_common.testing import free_port

FACTS = [
    {"id": "members", "value": "27", "display": "27"},
    {"id": "member_months", "value": "8393", "display": "8,393"},
    {"id": "total_paid", "value": "1103503.95", "display": "$1,103,504"},
    {"id": "pmpm", "value": "131.48", "display": "$131.48"},
    {"id": "payback_month.base", "value": "not within 36 months", "display": "not within 36 months"},
]
STEPS = [
    ("pending", None, 0),
    ("processing", "collecting", 5),
    ("processing", "modelling", 30),
    ("processing", "writing", 60),
    ("completed", None, 100),
]


class Platform:
    """What the demo needs of the platform, with things that go wrong on order."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.created: list[tuple[str, dict[str, Any]]] = []
        self.loaded: list[tuple[str, str, list[str]]] = []
        self.resumed: list[str | None] = []
        self.keys: list[str] = []
        self.breaks_after: int | None = None
        self.status = "completed"
        for noun in ("clients", "value-propositions", "prospects"):
            self._catalogue(noun)
        self._rest()

    def _catalogue(self, noun: str) -> None:
        items: list[dict[str, Any]] = []

        @self.app.get(f"/api/v1/{noun}")
        async def several(cursor: str = "") -> dict[str, Any]:
            start = int(cursor or 0)  # a page of one, so that pages are turned
            more = len(items) > start + 1
            return {"items": items[start : start + 1], "next_cursor": str(start + 1) if more else None}

        @self.app.post(f"/api/v1/{noun}", status_code=201)
        async def create(body: dict[str, Any]) -> dict[str, Any]:
            item = body | {"id": f"{noun}-{len(items)}"}
            items.append(item)
            self.created.append((noun, body))
            return item

        @self.app.patch(f"/api/v1/{noun}/{{item_id}}")
        async def update(item_id: str, body: dict[str, Any]) -> dict[str, Any]:
            item = next(item for item in items if item["id"] == item_id)
            item.update(body)
            return item

    def _rest(self) -> None:
        @self.app.post("/api/v1/auth/login")
        async def login(body: dict[str, str]) -> Any:
            if body["email"] != ADMIN_EMAIL or body["password"] == "wrong":
                problem = {"title": "x", "type": "x", "status": 401, "code": "invalid_credentials", "message": "No."}
                return JSONResponse(problem, status_code=401)
            return {"access_token": "token"}

        @self.app.post("/api/v1/analytics/prospects/{prospect}/{dataset}", status_code=201)
        async def load(prospect: str, dataset: str, request: Request, source: str = "triton") -> dict[str, Any]:
            names = re.findall(rb'name="(\w+)"; filename=', await request.body())
            self.loaded.append((dataset, source, [name.decode() for name in names]))
            return {"rows": 1234}

        @self.app.post("/api/v1/jobs", status_code=202)
        async def submit(body: dict[str, Any], idempotency_key: str = Header()) -> dict[str, Any]:
            self.keys.append(idempotency_key)
            return {"id": "job-1"}

        @self.app.get("/api/v1/jobs/{job}")
        async def job(job: str) -> dict[str, Any]:
            error = {"message": "The model gave up."} if self.status == "failed" else None
            return {"id": job, "status": self.status, "document_id": "doc-1", "error": error}

        @self.app.get("/api/v1/jobs/{job}/events")
        async def events(job: str, last_event_id: str | None = Header(default=None)) -> Response:
            if last_event_id == str(len(STEPS)):
                return Response(status_code=204)
            self.resumed.append(last_event_id)
            return StreamingResponse(self._events(int(last_event_id or 0)), media_type="text/event-stream")

        @self.app.get("/api/v1/documents/{document}")
        async def document(
            document: str,
            format: str = "json",  # noqa: A002  the query's own name
            authorization: str = Header(default=""),
        ) -> Response:
            if authorization != "Bearer token":
                return Response("no token", status_code=401)
            content = {"content": {"facts": FACTS}}
            return Response(json.dumps(content) if format == "json" else f"the {format}")

    async def _events(self, seen: int) -> AsyncIterator[str]:
        yield ": welcome\n\n"
        for number, (status, stage, progress) in enumerate(STEPS, start=1):
            if number <= seen:
                continue
            if self.breaks_after is not None and number > self.breaks_after:
                self.breaks_after = None
                return
            status = self.status if status == "completed" else status  # noqa: PLW2901  as ordered
            data = json.dumps({"seq": number, "status": status, "stage": stage, "progress": progress, "message": ""})
            yield f"event: progress\nid: {number}\ndata: {data}\n\n"
            await asyncio.sleep(0.01)


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "synthea"
    folder.mkdir()
    for name in ("claims_transactions", "claims", "encounters", "conditions", "patients"):
        (folder / f"{name}.csv").write_text("Id\n1\n")
    return folder


async def walked(platform: Platform, serving: Any, tmp_path: Path, **options: Any) -> tuple[Outcome, str]:
    state = State(tmp_path / "state")
    state.prepare()
    outcome, said = Outcome(), StringIO()
    platform.app.state.settings = CommonSettings()
    with serving(platform.app) as url:
        async with Api(url) as api:
            await api.log_in(ADMIN_EMAIL, state.secrets().admin_password)
            await walk(
                api,
                kept=state.documents,
                data=options.get("data"),
                members=50,
                seed=1,
                outcome=outcome,
                console=Console(file=said, width=200),
            )
    return outcome, said.getvalue()


async def test_the_demo_walks_from_login_to_document(platform, serving, tmp_path):
    outcome, said = await walked(platform, serving, tmp_path)
    assert [noun for noun, _ in platform.created] == ["clients", "value-propositions", "prospects"]
    assert platform.loaded == [(name, "triton", [name]) for name in ("claims", "clinical", "utilization", "pharmacy")]
    assert outcome.document_file.read_text() == "the html"
    assert outcome.document_file.with_suffix(".md").read_text() == "the md"
    assert [line for line in said.splitlines() if "%" in line] == [
        "  pending, 0 %",
        "  collecting, 5 %",
        "  modelling, 30 %",
        "  writing, 60 %",
        "  completed, 100 %",
    ]
    answer = json.loads(outcome.as_json())
    assert answer["members"] == 27
    assert answer["total_paid"] == 1103503.95
    assert answer["document_url"].endswith("/api/v1/documents/doc-1?format=html")
    assert {"data", "setup", "load", "job", "document"} <= set(answer["seconds"])


async def test_a_second_run_uses_what_the_first_made_but_submits_anew(platform, serving, tmp_path):
    await walked(platform, serving, tmp_path)
    await walked(platform, serving, tmp_path)
    assert len(platform.created) == 3
    assert len(set(platform.keys)) == 2


async def test_another_extract_gets_a_prospect_of_its_own(platform, serving, tmp_path, export):
    await walked(platform, serving, tmp_path)
    await walked(platform, serving, tmp_path, data=export)
    assert [noun for noun, _ in platform.created].count("prospects") == 2


async def test_a_broken_stream_goes_on_after_the_last_event(platform, serving, tmp_path):
    platform.breaks_after = 3
    await walked(platform, serving, tmp_path)
    assert platform.resumed == [None, "3"]


async def test_a_job_that_fails_ends_in_a_sentence(platform, serving, tmp_path):
    platform.status = "failed"
    with pytest.raises(CommandFailed, match="The job failed: The model gave up"):
        await walked(platform, serving, tmp_path)


async def test_synthea_files_go_to_the_datasets_they_make(platform, serving, tmp_path, export):
    await walked(platform, serving, tmp_path, data=export)
    assert platform.loaded == [
        ("claims", "synthea", ["claims_transactions", "claims", "encounters"]),
        ("clinical", "synthea", ["conditions"]),
        ("utilization", "synthea", ["encounters"]),
    ]


def test_an_export_is_known_by_its_bytes(export):
    name = synthea_extract(export).name
    assert synthea_extract(export).name == name
    (export / "claims.csv").write_text("Id\n2\n")
    assert synthea_extract(export).name != name


def test_a_folder_without_the_files_says_which_are_expected(tmp_path):
    with pytest.raises(CommandFailed, match=r"claims_transactions\.csv, claims\.csv, encounters\.csv"):
        synthea_extract(tmp_path)
    with pytest.raises(CommandFailed, match="is not a folder"):
        synthea_extract(tmp_path / "none")


async def test_a_refusal_shows_code_and_message(platform, serving):
    with serving(platform.app) as url:
        async with Api(url) as api:
            with pytest.raises(CommandFailed, match=r"answered 401: No\. \(invalid_credentials"):
                await api.log_in(ADMIN_EMAIL, "wrong")


async def test_a_platform_that_does_not_answer_is_told_of():
    async with Api(f"http://127.0.0.1:{free_port()}") as api:
        with pytest.raises(CommandFailed, match="does not answer"):
            await api.get("/api/v1/clients")


def test_headlines_leave_out_what_the_document_does_not_have(tmp_path):
    said = StringIO()
    facts = {fact["id"]: fact for fact in FACTS}
    outcome = Outcome(facts=facts, document_file=tmp_path / "d.html", document_url="http://127.0.0.1/d")
    show(outcome, Console(file=said, width=200), secrets_file=tmp_path / "secrets.json")
    assert "$131.48" in said.getvalue()
    assert "Gross savings" not in said.getvalue()
    assert f"Open it: {tmp_path}/d.html" in said.getvalue()


def test_the_line_that_fetches_the_document_brings_it_and_shows_no_secret(platform, serving, tmp_path):
    state = State(tmp_path / "a folder")
    state.prepare()
    password = state.secrets().admin_password
    platform.app.state.settings = CommonSettings()
    with serving(platform.app) as url:
        line = fetching(f"{url}/api/v1/documents/doc-1?format=html", state.secrets_file)
        done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr) == ("the html", "")
    assert password not in line
