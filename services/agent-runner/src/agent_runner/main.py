"""The API of agent-runner: what is plugged in, nothing else. The work is done in worker.py."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from agent_runner import routes, sweeps
from agent_runner.health import WorkerWatch, postgres, worker
from agent_runner.settings import Settings
from triton_common.app import create_app
from triton_common.background import in_background
from triton_common.db import Database
from triton_common.queue.factory import create_task_queue, task_queue


def build(settings: Settings | None = None) -> FastAPI:
    """The app; `uvicorn --factory agent_runner.main:build`."""
    chosen = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            Database.connect(chosen.database_url.get_secret_value(), pool_size=chosen.pool_size) as database,
            create_task_queue(chosen.task_queue_url.get_secret_value()) as queue,
        ):
            app.state.database = database
            app.state.queue = queue
            app.state.worker_watch = watch = WorkerWatch(queue)
            try:
                async with in_background(sweeps.run(database, kept=chosen.runs_kept), sweeps.keep_counting(queue)):
                    yield
            finally:
                await watch.close()

    return create_app(
        chosen,
        name="agent-runner",
        version=version("agent-runner"),
        description="The agents that write value proposition documents.",
        routers=[routes.router],
        lifespan=lifespan,
        readiness=[postgres, task_queue, worker],
    )
