"""analytics-service: what is plugged in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from loguru import logger

from analytics_service import batches, schema
from analytics_service.clickhouse import ClickHouse
from analytics_service.loads import Loads
from analytics_service.prospects import Prospects
from analytics_service.routes import ingest, reports
from analytics_service.settings import Settings
from analytics_service.uploads import spool_folder
from triton_common.app import create_app
from triton_common.client import ServiceClient


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Temporary files, ClickHouse (migrated, and without what a killed process left), jobs-service."""
    settings: Settings = app.state.settings
    if not settings.member_key.get_secret_value():
        logger.warning("ANALYTICS_MEMBER_KEY is empty: whoever has source ids can find their members")
    with spool_folder(settings.spool_dir):
        async with (
            ClickHouse.connect(
                settings.clickhouse_url.get_secret_value(),
                readers=settings.readers,
                waiting=settings.waiting,
                query_timeout=settings.query_timeout,
                query_limits={
                    "max_memory_usage": settings.query_memory_bytes,
                    "max_bytes_before_external_group_by": settings.query_memory_bytes // 2,
                    "max_rows_to_read": settings.query_rows,
                },
                cluster=settings.clickhouse_cluster,
            ) as app.state.clickhouse,
            ServiceClient(settings.jobs_url) as jobs,
        ):
            await app.state.clickhouse.write(partial(schema.migrate, cluster=settings.clickhouse_cluster))
            await app.state.clickhouse.write(
                partial(schema.retain, retention=settings.retention, cluster=settings.clickhouse_cluster)
            )
            await app.state.clickhouse.write(batches.sweep)
            app.state.prospects = Prospects(jobs)
            app.state.loads = Loads()
            yield


async def clickhouse(app: FastAPI) -> None:
    """Readiness: the engine answers."""
    engine: ClickHouse = app.state.clickhouse
    await engine.ping()


def build(settings: Settings | None = None) -> FastAPI:
    """The app; the factory uvicorn is given."""
    settings = settings or Settings()
    return create_app(
        settings,
        name="analytics-service",
        version=version("analytics-service"),
        description="The prospects' data: ingest and reports",
        routers=[reports.router, ingest.router],
        lifespan=lifespan,
        readiness=[clickhouse],
        uploads=(ingest.UPLOAD_PATHS, settings.max_upload_bytes),
    )
