"""What routes take from the running app and from every request."""

from typing import Annotated

from fastapi import Depends, Header, Request

from jobs_service.backlog import Backlog
from jobs_service.events import Follower
from jobs_service.settings import Settings
from triton_common.auth import TOKEN_ERRORS, InsufficientScope, KeysUnavailable
from triton_common.db import DatabaseUnavailable

ERRORS = (*TOKEN_ERRORS, InsufficientScope, KeysUnavailable, DatabaseUnavailable)
"""What every route may answer. A route that declares a status of these itself replaces it, and must name them again."""


async def _backlog(request: Request) -> Backlog:
    backlog: Backlog = request.app.state.backlog
    return backlog


async def _follower(request: Request) -> Follower:
    follower: Follower = request.app.state.follower
    return follower


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


BacklogDep = Annotated[Backlog, Depends(_backlog)]
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


def accepted(request: Request, *media_types: str) -> str:
    """The one of these that the Accept header likes best, by its q values, then its order; the first without."""
    best, chosen = 0.0, media_types[0]
    for part in ",".join(request.headers.getlist("accept")).split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((_quality(piece[2:]) for piece in parameters if piece.startswith("q=")), 1.0)
        if media_type in media_types and quality > best:
            best, chosen = quality, media_type
    return chosen


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
