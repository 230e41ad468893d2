"""Fixtures of the shared library's own tests."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import httpx2
import pytest
import pytest_asyncio
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from triton_common.app import Degraded, create_app
from triton_common.auth import CurrentPrincipal, Principal, require
from triton_common.errors import (
    BadRequest,
    Conflict,
    ContentTooLarge,
    Forbidden,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unprocessable,
    problems,
)
from triton_common.schemas import ProblemDetail, Schema
from triton_common.settings import CommonSettings

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode has no folder of tests on the path

pytest_plugins = ["triton_common.testing"]


class WidgetCreate(Schema):
    """A body."""

    name: str = Field(min_length=2)
    size: int = Field(ge=0)


class WidgetBroken(Conflict):
    """The widget is broken."""


BY_STATUS = {
    cls.status.value: cls
    for cls in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        WidgetBroken,
        ContentTooLarge,
        Unprocessable,
        Unavailable,
    )
}
router = APIRouter()


@router.post("/widgets", status_code=201, responses=problems(WidgetBroken))
async def create_widget(body: WidgetCreate) -> WidgetCreate:
    """Answers what it got."""
    return body


@router.get("/raise/{status}")
async def raise_status(status: int) -> None:
    """Raises the error of a status."""
    if status == 429:
        raise TooManyRequests("Wait.", retry_after=7)
    raise BY_STATUS[status]("Do this.", details=[ProblemDetail(field="a", issue="b", code="c")])


@router.get("/crash")
async def crash() -> None:
    """Raises what nobody expects, with a secret in its text."""
    raise RuntimeError("canary-999-17-5017")


@router.get("/me")
async def me(principal: CurrentPrincipal) -> dict[str, str]:
    """Who asks."""
    return {"subject": principal.subject}


@router.get("/jobs-only")
async def jobs_only(principal: Annotated[Principal, require("jobs:write")]) -> dict[str, bool]:
    """Needs a scope."""
    return {"staff": principal.is_staff}


@router.post("/raw")
async def raw(request: Request) -> dict[str, int]:
    """Reads its body piece by piece."""
    return {"bytes": sum([len(chunk) async for chunk in request.stream()])}


@router.get("/breaks-off")
async def breaks_off() -> StreamingResponse:
    """Begins an answer, and fails."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        raise RuntimeError

    return StreamingResponse(pieces())


@router.get("/stream")
async def stream() -> StreamingResponse:
    """A short stream of events."""

    async def events() -> AsyncIterator[bytes]:
        yield b"data: x\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def brick(app: FastAPI) -> None:
    """A dependency that tests can break."""
    match app.state.brick:
        case "down":
            raise ConnectionError("host db.internal user root")
        case "degraded":
            raise Degraded("works with less")


@pytest.fixture
def app() -> FastAPI:
    """A service with every kind of answer."""
    built = create_app(
        CommonSettings(cors_origins="https://app.example", max_body_bytes=2048),
        name="widget-service",
        version="1.2.3",
        description="Widgets.",
        routers=[router],
        readiness=[brick],
    )
    built.state.brick = "ok"
    return built


@pytest_asyncio.fixture
async def http(app: FastAPI, running) -> AsyncIterator[httpx2.AsyncClient]:
    """Speaks to the app."""
    async with running(app) as client:
        yield client
