"""console's app: what is plugged in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import httpx2
from fastapi import FastAPI

from console.health import HealthWatch
from console.openapi import OpenApiWatch
from console.routes import assets, router
from console.schemas import About
from console.services import services_of
from console.settings import Settings
from triton_common import gateway
from triton_common.app import create_app

DESCRIPTION = (
    "Triton turns a prospect's claims, clinical, utilization and pharmacy data, and what a health-care programme "
    "promises, into a value proposition document in which every figure is checked against the data."
)


def build(settings: Settings | None = None) -> FastAPI:
    """The app; settings from the environment when none are given."""
    settings = settings or Settings()
    about = About(name="Triton", version=version("console"), description=DESCRIPTION)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = services_of(settings)
        timeout = settings.ask_timeout
        async with httpx2.AsyncClient(timeout=timeout.total_seconds(), trust_env=False) as http:
            app.state.health = HealthWatch(http, services, version=about.version, timeout=timeout)
            app.state.openapi = OpenApiWatch(http, services, own=own_document, timeout=timeout)
            try:
                yield
            finally:
                await app.state.health.close()

    def own_document() -> dict[str, Any]:
        document = app.openapi()
        return {**document, "info": {**document["info"], "title": about.name}, "servers": [{"url": "/"}]}

    app = create_app(
        settings,
        name="console",
        version=about.version,
        description=about.description,
        routers=[router, gateway.router],
        lifespan=lifespan,
        openapi_url=None,  # ours is the platform's
    )
    app.state.about = about
    for path, files in assets().items():
        app.mount(path, files)
    return app
