"""Which jobs: the options that choose them, and the ids that names stand for."""

import re
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args
from urllib.parse import quote

import typer

from triton_cli.state import CommandFailed, WrongUsage

if TYPE_CHECKING:
    from triton_cli.api import Api

Json = dict[str, Any]

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def duration(text: str) -> float:
    """Seconds: 90, 90s, 15m, 2h, 3d."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhdw]?)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text} is no duration: 90s, 15m, 2h or 3d are.")
    return float(match[1]) * UNITS[match[2] or "s"]


def time_limit(text: str) -> int:
    """Seconds that a job may take."""
    seconds = duration(text)
    if seconds not in TIME_LIMITS:
        raise typer.BadParameter(f"{text} is no time limit: whole seconds from 10s to 24h are.")
    return int(seconds)


def moment(text: str) -> str:
    """RFC 3339, of a time (UTC unless it has an offset) or of how long ago it was: 2h, 3d."""
    try:
        if re.fullmatch(r"[\d.]+[smhdw]", text.strip()):
            when = datetime.now(UTC) - timedelta(seconds=duration(text))
        else:
            when = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text} is no time: 2026-11-22, 2026-11-22T18:30:00Z, or how long ago, as 2h or 3d, are."
        ) from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).isoformat()


# not those of triton_common.schemas, whose import takes longer than most commands; a test holds them equal
Status = Literal["pending", "processing", "completed", "failed", "cancelled"]
Priority = Literal["high", "normal", "low"]
JobType = Literal["value_proposition"]
TIME_LIMITS: Final = range(10, 86_401)
ERROR_CODE: Final = r"^[a-z0-9_]{0,64}\*?$"
KEY: Final = r"^[\x20-\x7e]+$"
LONGEST_KEY: Final = 255


def key(text: str) -> str:
    """An idempotency key, as a header takes it."""
    if re.fullmatch(KEY, text) is None or len(text) > LONGEST_KEY:
        raise typer.BadParameter(f"{text or 'nothing'} is no key: {LONGEST_KEY} characters of ASCII at most are.")
    return text


def states(texts: list[str] | None) -> list[str] | None:
    """The states that are named, by themselves or with commas between."""
    named = [state.strip() for text in texts or () for state in text.split(",")]
    for state in named:
        if state not in get_args(Status):
            raise typer.BadParameter(f"{state or 'nothing'} is no state: {', '.join(get_args(Status))} are.")
    return list(dict.fromkeys(named)) or None


def error_code(text: str) -> str:
    """A code, or the beginning of one and a *."""
    if not text or re.fullmatch(ERROR_CODE, text) is None:
        raise typer.BadParameter(
            f"{text or 'nothing'} is no code: no_data is, and model_* stands for all that begin so."
        )
    return text


StatusOption = Annotated[
    list[str] | None,
    typer.Option(
        "--status",
        metavar="STATE",
        callback=states,
        help=f"{', '.join(get_args(Status))}: one, or several, with commas between or in options of their own.",
    ),
]
ClientOption = Annotated[str | None, typer.Option("--client", metavar="ID|NAME", help="Of this client.")]
ProspectOption = Annotated[str | None, typer.Option("--prospect", metavar="ID|NAME", help="Of this prospect.")]
TypeOption = Annotated[JobType | None, typer.Option("--type", help="Of this type.")]
PriorityOption = Annotated[Priority | None, typer.Option("--priority", help="Of this priority.")]
AfterOption = Annotated[
    str | None,
    typer.Option(
        "--created-after", parser=moment, metavar="TIME", help="Created then or later: a time, or how long ago, as 2h."
    ),
]
BeforeOption = Annotated[
    str | None, typer.Option("--created-before", parser=moment, metavar="TIME", help="Created earlier than that.")
]
ErrorCodeOption = Annotated[
    str | None,
    typer.Option(
        "--error-code",
        parser=error_code,
        metavar="CODE",
        help="Failed with this code; with a trailing *, one that begins so.",
    ),
]
ScheduleOption = Annotated[uuid.UUID | None, typer.Option("--schedule", metavar="ID", help="Made by this schedule.")]


def chosen(  # noqa: PLR0917  in the order of the options
    status: list[str] | None,
    client: str | None,
    prospect: str | None,
    job_type: str | None,
    priority: str | None,
    created_after: str | None,
    created_before: str | None,
    error_code: str | None,
    schedule: uuid.UUID | None,
) -> Json:
    """The filters that were given, as the API names them; client and prospect still as they were given."""
    filters = {
        "status": status,
        "client": client,
        "prospect": prospect,
        "job_type": job_type,
        "priority": priority,
        "created_after": created_after,
        "created_before": created_before,
        "error_code": error_code,
        "schedule_id": str(schedule) if schedule else None,
    }
    return {name: value for name, value in filters.items() if value not in (None, [])}


async def resolved(api: "Api", chosen: Json) -> Json:
    """The filters with ids for names."""
    filters = dict(chosen)
    if (client := filters.pop("client", None)) is not None:  # an empty one is a mistake, not all clients
        filters["client_id"] = await id_of(api, "clients", client)
    if (prospect := filters.pop("prospect", None)) is not None:
        within = {"client_id": filters["client_id"]} if "client_id" in filters else {}
        filters["prospect_id"] = await id_of(api, "prospects", prospect, **within)
    return filters


async def pair(api: "Api", prospect: str, proposition: str) -> tuple[str, str]:
    """The ids of a prospect and a value proposition; the latter's name is one of the same client's."""
    prospect_id = await id_of(api, "prospects", prospect)
    if is_id(proposition):
        return prospect_id, proposition
    client_id = (await api.get(f"/api/v1/prospects/{prospect_id}"))["client_id"]
    return prospect_id, await id_of(api, "value-propositions", proposition, client_id=client_id)


async def id_of(api: "Api", noun: str, text: str, **filters: str) -> str:
    """An id as it is; of a name, the one thing that has it. Raises CommandFailed when it is not one."""
    if is_id(text):
        return text
    found = [item async for item in api.items(f"/api/v1/{noun}", **filters) if item["name"] == text]
    what = noun.rpartition("/")[2].replace("-", " ").removesuffix("s")
    if not found:
        raise CommandFailed(f"There is no {what} named {text or 'nothing at all'}.")
    if len(found) > 1:
        ids = ", ".join(item["id"] for item in found)
        raise CommandFailed(f"There are {len(found)} of the name {text}: give the {what}'s id, one of {ids}.")
    return str(found[0]["id"])


async def quoted(_: "Api", text: str) -> str:
    """An id that only the platform knows, safe in a path. Raises WrongUsage for what would be another path."""
    if text in {"", ".", ".."}:
        raise WrongUsage(f"{text or 'nothing'} is no id.")
    return quote(text, safe="")


def is_id(text: str) -> bool:
    """True for a UUID."""
    with suppress(ValueError):
        uuid.UUID(text)
        return True
    return False
