"""jobs-service: catalogue, generation jobs, documents. Run by `uvicorn --factory jobs_service.main:build`."""

from collections.abc import AsyncIterator
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
from triton_common.background import in_background
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
            async with in_background(
                sender.run(interval=chosen.sweep_interval),
                app.state.dispatcher.run(),
                app.state.follower.run(),
                sweeps.run(database, backlog, interval=chosen.sweep_interval, lease=chosen.lease),
                firing.keep_firing(database, backlog, interval=chosen.sweep_interval, policies=chosen.policies),
            ):
                yield

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


async def postgres(app: FastAPI) -> None:
    """Readiness: Postgres answers, and is new enough."""
    await postgres_answers(app)
    await check_version(app.state.database)


async def redis(app: FastAPI) -> None:
    """Readiness: without the queue jobs are taken all the same, and run when it is back."""
    await task_queue(app)
