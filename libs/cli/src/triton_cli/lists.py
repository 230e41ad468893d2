"""How lists and single things of the platform are shown, and what is done to a thing that is named: the commands that
differ in a few words."""

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from triton_cli.command import (
    DEFAULT_STATE,
    JsonOption,
    StateOption,
    UrlOption,
    YesOption,
    clean,
    columns,
    confirmed,
    output,
    platform,
    say,
    sentences,
    until_signal,
)
from triton_cli.filters import Json
from triton_cli.state import CommandFailed

if TYPE_CHECKING:
    from triton_cli.api import Api

LIMIT: Final = 50
UNBROKEN: Final = ("id", "kid", "at", "role", "method", "outcome", "status", "current")
NARROWEST: Final = 10  # characters that a column keeps which is broken into lines
LONGEST: Final = 44  # characters of a text in a table: a whole key id, and as much of a browser's name

LimitOption = Annotated[
    int | None, typer.Option("--limit", "-n", min=1, help="How many of the newest.", show_default=str(LIMIT))
]
AllOption = Annotated[bool, typer.Option("--all", help="All there are.")]
CursorOption = Annotated[str | None, typer.Option("--cursor", help="Go on at the next_cursor of an answer.")]


@dataclass(frozen=True)
class Extent:
    """What part of a list is wanted, as the options say."""

    limit: int | None = None
    everything: bool = False
    cursor: str | None = None


@dataclass(frozen=True)
class Noun:
    """A kind of thing: where the API has it, its columns for programs, those that a terminal has room for, and how the
    one that is named is found."""

    path: str
    columns: Sequence[str]
    shown: Sequence[str]
    find: "Callable[[Api, str], Awaitable[str]]"
    metavar: str


async def listed(
    api: "Api",
    path: str,
    filters: Json,
    *,
    extent: Extent,
    as_json: bool,
    cells: Callable[[Json], Sequence[Any]],
    table: Callable[[list[Json]], Table],
) -> None:
    """Print a list: a table on a terminal, elsewhere a line each with columns between tabs, as the pages come; or one
    JSON object. Says when there is more than was asked for."""
    from triton_cli.api import pages  # noqa: PLC0415  see platform

    found: list[Json] = []
    cursor = extent.cursor
    limit = None if extent.everything else extent.limit or LIMIT
    async for page in pages(api, path, filters, limit=limit, cursor=cursor):
        cursor = page["next_cursor"]
        if as_json or output.is_terminal:
            found.extend(page["items"])
        else:
            print("".join(f"{columns(cells(item))}\n" for item in page["items"]), end="", flush=True)
    if as_json:
        print(json.dumps({"items": found, "next_cursor": cursor}))
        return
    if output.is_terminal:
        output.print(table(found) if found else "There are none.")
    if cursor and extent.limit is None:
        say(f"There are more than these {LIMIT}: --limit, or --all.")


async def list_of(api: "Api", noun: Noun, filters: Json, *, extent: Extent, as_json: bool, path: str = "") -> None:
    """Print the things of a kind, newest first."""
    await listed(
        api,
        path or noun.path,
        filters,
        extent=extent,
        as_json=as_json,
        cells=lambda item: cells_of(item, noun.columns),
        table=lambda items: table_of(items, noun.shown),
    )


def show(record: Json, *, as_json: bool) -> None:
    """All that is known of a thing, a line each."""
    if as_json:
        print(json.dumps(record))
        return
    for name, value in record.items():
        if value not in (None, {}, []):
            print(f"{clean(name.replace('_', ' ')):<22}{clean(_shown(value))}")


def cells_of(item: Json, names: Sequence[str]) -> list[Any]:
    """For programs: as the API has them, the members of a list with blanks between."""
    values = (item.get(name) for name in names)
    return [_shown(value) if isinstance(value, list | bool) else value for value in values]


def table_of(items: list[Json], names: Sequence[str]) -> Table:
    """For people: without the columns that are empty, and times by how long ago they were, or in how long they are."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    now = datetime.now(UTC)
    rows = [[_short(item.get(name), now) for name in names] for item in items]
    kept = [number for number in range(len(names)) if any(row[number] for row in rows)]
    for number in kept:
        name = names[number]
        title = name.removesuffix("_at").replace("_", " ")
        whole = name in UNBROKEN or name.endswith("_at")
        table.add_column(title, overflow="fold", no_wrap=whole, min_width=None if whole else NARROWEST)
    for row in rows:
        table.add_row(*(Text(clean(row[number])) for number in kept))
    return table


def span(seconds: float) -> str:
    """How long, to about one part in a hundred: 12 s, 15 min, 30 h, 9 d."""
    for unit, length, most in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if seconds < length * most:
            amount = seconds / length
            return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.2g} {unit}"
    return f"{seconds / 86_400:.0f} d"


def listing(noun: Noun, explained: str) -> Callable[..., None]:
    """The command that lists things of a kind; it has no filters."""

    async def run(
        *,
        limit: LimitOption = None,
        everything: AllOption = False,
        cursor: CursorOption = None,
        as_json: JsonOption = False,
        url: UrlOption = None,
        state: StateOption = DEFAULT_STATE,
    ) -> None:
        async with platform(url, state) as api:
            await list_of(api, noun, {}, extent=Extent(limit, everything, cursor), as_json=as_json)

    return _command(run, f"{explained} {_columns(noun)}")


def listing_of(owner: Noun, noun: Noun, explained: str) -> Callable[..., None]:
    """The command that lists what one of another kind has."""

    async def run(
        name: Annotated[str, typer.Argument(metavar=owner.metavar, show_default=False)],
        *,
        limit: LimitOption = None,
        everything: AllOption = False,
        cursor: CursorOption = None,
        as_json: JsonOption = False,
        url: UrlOption = None,
        state: StateOption = DEFAULT_STATE,
    ) -> None:
        async with platform(url, state) as api:
            path = f"{owner.path}/{await owner.find(api, name)}/{noun.path.rpartition('/')[2]}"
            await list_of(api, noun, {}, extent=Extent(limit, everything, cursor), as_json=as_json, path=path)

    return _command(run, f"{explained} {_columns(noun)}")


def showing(noun: Noun, explained: str) -> Callable[..., None]:
    """The command that shows one thing."""

    async def run(
        name: Annotated[str, typer.Argument(metavar=noun.metavar, show_default=False)],
        *,
        as_json: JsonOption = False,
        url: UrlOption = None,
        state: StateOption = DEFAULT_STATE,
    ) -> None:
        async with platform(url, state) as api:
            found = await api.get(f"{noun.path}/{await noun.find(api, name)}")
        show(found, as_json=as_json)

    return _command(run, explained)


def changing(
    noun: Noun, method: str, verb: str, explained: str, *, done: str, question: str | None = None
) -> Callable[..., None]:
    """The command that does something to one thing, at `path/id` or `path/id/verb`; it asks the question first.

    Prints the id and what was done; with --json what the API answers, or the id alone.
    """

    def run(
        name: Annotated[str, typer.Argument(metavar=noun.metavar, show_default=False)],
        *,
        yes: YesOption = False,
        as_json: JsonOption = False,
        url: UrlOption = None,
        state: StateOption = DEFAULT_STATE,
    ) -> None:
        api = platform(url, state)

        async def find() -> str:
            async with api:
                return await noun.find(api, name)

        async def change(found: str) -> None:
            async with api:
                answer = await api.call(method, f"{noun.path}/{found}{verb and f'/{verb}'}")
            print(json.dumps(answer or {"id": found}) if as_json else columns([found, done]))

        found = until_signal(find())
        if question:
            ask(question.format(clean(name)), api, yes=yes)
        until_signal(change(found))

    return _command(run, explained)


def ask(question: str, api: "Api", *, yes: bool) -> None:
    """Raises CommandFailed unless somebody says yes. It is asked between two runs of the loop, whose signal handlers
    would keep Ctrl-C from whoever reads a line."""
    if not (yes or confirmed(f"{question.removesuffix('?')} at {api.url}?")):
        raise CommandFailed("Nothing was changed.")


def given(**values: Any) -> Json:
    """Those that are there."""
    return {name: value for name, value in values.items() if value is not None}


def _command(run: Callable[..., Any], explained: str) -> Callable[..., None]:
    run.__doc__ = explained
    return sentences(run)


def _columns(noun: Noun) -> str:
    return (
        "A table on a terminal, elsewhere a line each with columns between tabs: "
        f'{", ".join(noun.columns)}.\n\n--json answers one object, {{"items": […], "next_cursor": …}}.'
    )


def _shown(value: Any) -> str:
    match value:
        case {"code": code, "message": message}:
            return f"{code}: {message}"
        case dict():
            return ", ".join(f"{key} {item}" for key, item in value.items())
        case list():
            return " ".join(map(str, value))
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)


def _short(value: Any, now: datetime) -> str:
    """A value in a table."""
    if value is None:
        return ""
    text = _shown(value)
    if re.match(r"\d{4}-\d\d-\d\dT", text):
        try:
            ago = (now - datetime.fromisoformat(text)).total_seconds()
        except (ValueError, TypeError):
            return text
        return f"{span(ago)} ago" if ago >= 0 else f"in {span(-ago)}"
    return text if isinstance(value, list) or len(text) <= LONGEST else f"{text[:LONGEST]}…"
