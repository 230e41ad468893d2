"""Real HTTP backends in the place of the services."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest
from fastapi import FastAPI

from console.settings import Settings
from triton_common.app import create_app
from triton_common.settings import CommonSettings

pytest_plugins = ["triton_common.testing"]

NAMES = {"auth": "auth-service", "jobs": "jobs-service", "analytics": "analytics-service", "agents": "agent-runner"}

NOBODY = "http://127.0.0.1:9"  # nothing listens on the discard port

Platform = Callable[..., Settings]


@pytest.fixture
def services() -> dict[str, FastAPI]:
    """The services by the names of their settings: real apps, ready, with no routes of their own."""
    return {
        key: create_app(CommonSettings(), name=name, version="1.2.3", description=f"The {name}")
        for key, name in NAMES.items()
    }


@pytest.fixture
def platform(serving: Callable[[FastAPI], AbstractContextManager[str]]) -> Iterator[Platform]:
    """`platform(auth=app, …)`: the settings of a console whose services are these apps; the others do not listen."""
    with ExitStack() as stack:

        def start(**apps: FastAPI) -> Settings:
            urls = {f"{key}_url": stack.enter_context(serving(app)) for key, app in apps.items()}
            silent = {f"{key}_url": NOBODY for key in NAMES}
            return Settings.model_validate(silent | urls | {"ask_timeout": "PT0.5S"})

        yield start
