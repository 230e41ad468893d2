"""AgentOS, agno's runtime and inspection API, as a process of its own: `uvicorn --factory agent_runner.agentos:build`.

It has the same agents as the worker, with the same models, and shows each run of a job as a trace. Its tables are its
own, in the schema `agentos` of DATABASE_URL. Nothing of it is open: staff read, the platform's admins run agents, each
with an access token of auth-service. Nothing is sent to its vendor.
"""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from agno.db.postgres import PostgresDb
from agno.models.base import Model
from agno.models.response import ModelResponse
from agno.os import AgentOS
from agno.os.settings import AgnoAPISettings
from starlette.requests import HTTPConnection

from agent_runner import agentos_traces, providers
from agent_runner.budget import Budget
from agent_runner.meter import Call, Meter
from agent_runner.models import Models
from agent_runner.settings import Settings
from agent_runner.stop import Stop
from agent_runner.writing import AGENTS
from triton_common.app import create_app
from triton_common.auth import InsufficientScope, Principal, require
from triton_common.background import in_background
from triton_common.db import Database, postgres, sqlalchemy_url

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

SCHEMA: Final = "agentos"
FOREIGN: Final = ("OS_SECURITY_KEY", "AUTHORIZATION_ENABLED", "JWT_VERIFICATION_KEY", "JWT_JWKS_FILE")
"""With one of these in the environment agno's routes would ask for other tokens than ours."""
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_READ: Final = require("agents:read").dependency
_ADMIN: Final = require("service-accounts:admin").dependency
"""A scope that only the platform's own admins have."""


class Closed:
    """Lets staff read, and admins of the platform do the rest."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Raises what the app around it answers: MissingToken, InsufficientScope, …"""
        reads = scope["type"] == "http" and scope["method"] in READING
        principal: Principal = await (_READ if reads else _ADMIN)(HTTPConnection(scope))
        if not principal.is_staff:
            raise InsufficientScope("AgentOS shows the runs of all clients, so it is for staff.")
        await self._app(scope, receive, send)


class NoModel(Model):
    """Stands in for a model where there is none: offline, agents compose their output from a job's facts."""

    def invoke(self, *_: Any, **__: Any) -> ModelResponse:
        """The sentence that says so."""
        return ModelResponse(
            role="assistant", content="No model is set up (AGENT_MODEL=offline:template): there is nothing to talk to."
        )

    async def ainvoke(self, *_: Any, **__: Any) -> ModelResponse:
        """The same."""
        return self.invoke()

    def invoke_stream(self, *_: Any, **__: Any) -> Any:
        """The same as one piece."""
        yield self.invoke()

    async def ainvoke_stream(self, *_: Any, **__: Any) -> Any:
        """The same as one piece."""
        yield self.invoke()

    def _parse_provider_response(self, response: Any, **_: Any) -> ModelResponse:
        raise NotImplementedError

    def _parse_provider_response_delta(self, response: Any) -> ModelResponse:
        raise NotImplementedError


def build(settings: Settings | None = None) -> "FastAPI":
    """The app. Ours are `/health/live`, `/health/ready` and Prometheus' `/metrics`; everything else is AgentOS'."""
    chosen = settings or Settings()
    os.environ["AGNO_TELEMETRY"] = "false"
    for name in FOREIGN:
        os.environ.pop(name, None)
    providers.silence()
    models = Models(chosen)
    database_url = chosen.database_url.get_secret_value()
    db = PostgresDb(db_url=sqlalchemy_url(database_url), db_schema=SCHEMA, id="agents")
    inside = AgentOS(
        id="triton",
        name="Triton",
        description="The agents that write value proposition documents.",
        version=version("agent-runner"),
        db=db,
        agents=[agent.build(_model(agent.name, models, chosen)) for agent in AGENTS],
        # not from the environment, where these names are nobody's: ENV, DOCS_ENABLED, CORS_ORIGIN_LIST, …
        settings=AgnoAPISettings(
            env="prd", docs_enabled=False, os_security_key=None, authorization_enabled=False, cors_origin_list=[]
        ),
        tracing=False,  # its set-up does nothing once there is a tracer provider; agentos_traces.py does
        telemetry=False,
    ).get_app()

    @asynccontextmanager
    async def lifespan(app: "FastAPI") -> AsyncIterator[None]:
        async with (
            Database.connect(database_url, pool_size=2) as database,
            inside.router.lifespan_context(inside),  # a mounted app's own is not run by who mounts it
        ):
            app.state.database = database
            try:
                async with in_background(agentos_traces.run(database, db)):
                    yield
            finally:
                models.close()

    app = create_app(
        chosen,
        name="agentos",
        version=version("agent-runner"),
        description="AgentOS of Triton.",
        lifespan=lifespan,
        readiness=[postgres],
        openapi_url=None,
    )
    app.mount("/", Closed(inside))
    return app


def _model(agent: str, models: Models, settings: Settings) -> Model:
    if models.offline:
        return NoModel(id=models.name)
    return models.metered(
        models.name,
        _EachCall(agent=agent, limit=1, budget=Budget(), stop=Stop(), trace_prompts=settings.trace_prompts),
    )


class _EachCall(Meter):
    """Of an agent that all runs share, so it counts no run's calls."""

    @contextmanager
    def call(self, model: str, messages: Sequence[Any]) -> Iterator[Call]:
        self.calls = []
        with super().call(model, messages) as call:
            yield call
