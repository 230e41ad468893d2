"""What routes take from the running app and from every request."""

from typing import Annotated

from fastapi import Depends, Header, Request

from jobs_service.dispatch import Dispatcher
from jobs_service.events import Follower
from jobs_service.settings import Settings
from triton_common.auth import TOKEN_ERRORS, InsufficientScope, KeysUnavailable
from triton_common.db import DatabaseUnavailable

ERRORS = (*TOKEN_ERRORS, InsufficientScope, KeysUnavailable, DatabaseUnavailable)
"""What every route may answer. A route that declares a status of these itself replaces it, and must name them again."""


async def _dispatcher(request: Request) -> Dispatcher:
    dispatcher: Dispatcher = request.app.state.dispatcher
    return dispatcher


async def _follower(request: Request) -> Follower:
    follower: Follower = request.app.state.follower
    return follower


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


DispatcherDep = Annotated[Dispatcher, Depends(_dispatcher)]
FollowerDep = Annotated[Follower, Depends(_follower)]
SettingsDep = Annotated[Settings, Depends(_settings)]

IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="The same key with the same body gets the first answer again, for 24 hours",
    ),
]
