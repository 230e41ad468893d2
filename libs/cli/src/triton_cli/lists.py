"""How lists and single things of the platform are shown, and what is done to a thing that is named: the commands that
differ in a few words."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
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
    """A kind of thing: where the API has it, what its columns are, and how the one that is named is found."""

    path: str
    columns: Sequence[str]
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
        table=lambda items: table_of(items, noun.columns),
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
    """For people."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(name.removesuffix("_at").replace("_", " "), overflow="fold", no_wrap=name in ("id", "kid"))
    for item in items:
        table.add_row(*(Text(clean(_short(item.get(name)))) for name in names))
    return table


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


def _short(value: Any) -> str:
    """A value in a table: a time to the minute, in this machine's zone."""
    match value:
        case None:
            return ""
        case str() if len(value) > len("2026-11-22T18:30") and value[10:11] == "T":
            try:
                return datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M")
            except ValueError:
                return value
        case _:
            return _shown(value)
