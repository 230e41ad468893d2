"""The API of agent-runner: what is plugged in, nothing else. The work is done in worker.py."""

from importlib.metadata import version

from fastapi import FastAPI

from agent_runner import routes
from agent_runner.settings import Settings
from triton_common.app import create_app


def build(settings: Settings | None = None) -> FastAPI:
    """The app; `uvicorn --factory agent_runner.main:build`."""
    return create_app(
        settings or Settings(),
        name="agent-runner",
        version=version("agent-runner"),
        description="The agents that write value proposition documents.",
        routers=[routes.router],
    )
