"""jobs-service: catalogue, generation jobs, documents. Run by `uvicorn --factory jobs_service.main:build`."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from jobs_service import firing, sweeps
from jobs_service.addresses import Reach
from jobs_service.backlog import Backlog
from jobs_service.deliveries import Sender
from jobs_service.dispatch import Dispatcher
from jobs_service.events import Follower
from jobs_service.press import Press
from jobs_service.routes import clients, documents, internal, jobs, prospects, schedules, value_propositions, webhooks
from jobs_service.settings import Settings
from jobs_service.statements import check_version
from jobs_service.webhooks import Vault
from triton_common.app import create_app
from triton_common.db import Database
from triton_common.db import postgres as postgres_answers
from triton_common.queue.factory import create_task_queue, task_queue


def build(settings: Settings | None = None) -> FastAPI:
    """The app. Its settings come from the environment unless given."""
    chosen = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            Database.connect(chosen.database_url.get_secret_value(), pool_size=chosen.pool_size) as database,
            create_task_queue(chosen.task_queue_url.get_secret_value()) as queue,
        ):
            app.state.database = database
            app.state.queue = queue
            app.state.backlog = backlog = Backlog(limit=chosen.max_pending_per_client)
            app.state.dispatcher = Dispatcher(database, queue, backlog, per_client=chosen.concurrent_per_client)
            app.state.press = Press()
            app.state.follower = Follower(database, app.state.draining)
            sender = Sender(
                database,
                vault=Vault(chosen.encryption_keys),
                reach=Reach.of(chosen),
                disable_after=chosen.webhook_disable_after,
                kept=chosen.webhook_deliveries_kept,
            )
            background = {
                asyncio.create_task(sender.run(interval=chosen.sweep_interval), name="webhooks"),
                asyncio.create_task(app.state.dispatcher.run(), name="dispatcher"),
                asyncio.create_task(app.state.follower.run(), name="follower"),
                asyncio.create_task(
                    sweeps.run(database, backlog, interval=chosen.sweep_interval, lease=chosen.lease), name="sweeps"
                ),
                asyncio.create_task(
                    firing.keep_firing(database, backlog, interval=chosen.sweep_interval, policies=chosen.policies),
                    name="schedules",
                ),
            }
            try:
                yield
            finally:
                await _stop(background)

    return create_app(
        chosen,
        name="jobs-service",
        version=version("jobs-service"),
        description="Clients, value propositions, prospects, generation jobs and their documents.",
        routers=[
            clients.router,
            value_propositions.router,
            prospects.router,
            jobs.router,
            schedules.router,
            documents.router,
            webhooks.router,
            internal.router,
        ],
        lifespan=lifespan,
        readiness=[postgres, redis],
    )


async def _stop(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended. redis-py sends by asyncio.wait_for, which in Python 3.11 hides a cancellation
    that comes together with a result (python/cpython#86296): one in a hundred was lost when this was measured."""
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=0.2)


async def postgres(app: FastAPI) -> None:
    """Readiness: Postgres answers, and is new enough."""
    await postgres_answers(app)
    await check_version(app.state.database)


async def redis(app: FastAPI) -> None:
    """Readiness: without the queue jobs are taken all the same, and run when it is back."""
    await task_queue(app)
