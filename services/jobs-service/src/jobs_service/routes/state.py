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
    """The one of these that the Accept header likes best, by its q values, then its order; the first without. A
    range such as text/* comes after the types that the header names, and stands for the first of the others."""
    wanted = [
        [piece.strip().lower() for piece in part.split(";")]
        for part in ",".join(request.headers.getlist("accept")).split(",")
    ]
    named = {media_type for media_type, *_ in wanted}
    best, chosen = (0.0, True), media_types[0]
    for media_type, *parameters in wanted:
        quality = next((_quality(piece[2:]) for piece in parameters if piece.startswith("q=")), 1.0)
        in_range = (
            offered
            for offered in media_types
            if offered not in named and media_type in ("*/*", f"{offered.partition('/')[0]}/*")
        )
        match = media_type if media_type in media_types else next(in_range, None)
        if match and (rank := (quality, match == media_type)) > best:
            best, chosen = rank, match
    return chosen


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0
