"""`triton jobs`: generation jobs on any platform, through its gateway like any user. Here are submit, and what follows
a job to its end: its outcome becomes an exit status."""

import asyncio
import json
import uuid
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import typer

from triton_cli import changing, reading
from triton_cli.command import (
    DEFAULT_STATE,
    INTERRUPTED,
    JobArgument,
    JsonOption,
    StateOption,
    UrlOption,
    clean,
    output,
    platform,
    progress,
    say,
    sentences,
)
from triton_cli.filters import Json, Priority, duration, key, pair, time_limit
from triton_cli.lists import span
from triton_cli.state import CommandFailed, WrongUsage

if TYPE_CHECKING:
    from triton_cli.api import Api

T = TypeVar("T")

EXITS: Final = {"completed": 0, "failed": 3, "cancelled": 4}
TIMED_OUT: Final = 5
LAST_LOOK: Final = 5.0  # seconds that a job is asked for once nobody waits for it any longer

TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", parser=duration, metavar="TIME", help="Wait no longer than this: 90s, 15m, 2h."),
]


@sentences
async def submit(
    *,
    prospect: Annotated[str, typer.Option("--prospect", metavar="ID|NAME", help="For whom.", show_default=False)],
    value_proposition: Annotated[
        str, typer.Option("--value-proposition", metavar="ID|NAME", help="Of what.", show_default=False)
    ],
    horizon: Annotated[
        Literal["24", "36"] | None, typer.Option("--horizon", help="Months that the projection covers.")
    ] = None,
    priority: Annotated[Priority | None, typer.Option("--priority", help="Which waiting job goes first.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--time-limit", parser=time_limit, metavar="TIME", help="Fail the job if it takes longer: 10m, 2h."
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key",
            parser=key,
            metavar="KEY",
            help="The same key submits one job, however often.",
            show_default="a new one",
        ),
    ] = None,
    watch_it: Annotated[bool, typer.Option("--watch", help="Show its progress on stderr until it is over.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Say nothing until it is over.")] = False,
    patience: TimeoutOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Have a document made. Prints the job's id; with --json the job, as it is at the end of --watch or --wait."""
    waits = watch_it or wait
    if patience is not None and not waits:
        raise WrongUsage("--timeout ends --watch or --wait: give one of them.")
    from triton_cli.api import submit_once  # noqa: PLC0415  see platform

    options = {
        "parameters": {"horizon_months": int(horizon)} if horizon else None,
        "priority": priority,
        "time_limit_seconds": limit,
    }
    body: Json = {"job_type": "value_proposition"}
    body |= {name: value for name, value in options.items() if value is not None}
    async with platform(url, state) as api:
        body["prospect_id"], body["value_proposition_id"] = await pair(api, prospect, value_proposition)
        job = await submit_once(api, body, key=idempotency_key or str(uuid.uuid4()))
        if not as_json:
            print(f"Submitted job {clean(job['id'])}." if output.is_terminal else clean(job["id"]), flush=True)
        if waits:
            try:
                followed = _follow(api, job["id"], how="bar" if watch_it else "nothing")
                job = await _waited(job["id"], followed, patience)
            except (CommandFailed, typer.Exit):
                if as_json:
                    print(json.dumps(await _as_it_stands(api, job)))
                raise
    if as_json:
        print(json.dumps(job))
    if waits:
        _end(job)


@sentences
async def watch(
    job: JobArgument,
    *,
    patience: TimeoutOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Follow a job until it is over: a bar on a terminal, elsewhere a line for each event, as `events` prints them.

    The exit status tells the outcome. Ctrl-C ends the watching, not the job. --json prints a line of JSON an event.
    """

    async def until_over() -> Json:
        async with platform(url, state) as api:
            return await _follow(api, str(job), how="json" if as_json else "lines")

    _end(await _waited(str(job), until_over(), patience))


@sentences
async def events(
    job: JobArgument,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
    patience: TimeoutOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Print what happened to a job, oldest first.

    Not on a terminal, a line has columns between tabs: number, time, kind, status, progress, stage, message.
    --json prints a line of JSON for each event. The exit status is 0 whatever became of the job: `watch` tells that.
    """
    if patience is not None and not follow:
        raise WrongUsage("--timeout ends --follow: give both.")
    from triton_cli import progress as events_of  # noqa: PLC0415  see platform

    shown = events_of.for_json if as_json else events_of.for_people if output.is_terminal else events_of.for_programs

    def show(event: Mapping[str, Any]) -> None:
        print(shown(event), flush=follow)

    async def read() -> None:
        async with platform(url, state) as api:
            if follow:
                await events_of.follow(api, str(job), show=show, tell=say)
                return
            async for event in events_of.history(api, str(job)):
                show(event)

    await (_waited(str(job), read(), patience) if follow else read())


async def _follow(api: "Api", job_id: str, *, how: Literal["bar", "lines", "json", "nothing"]) -> Json:
    """The job once it is over. Its events are shown as a bar on stderr, as lines or JSON on stdout, or not at all."""
    from triton_cli import progress as events_of  # noqa: PLC0415  see platform

    if how == "nothing":
        return await events_of.follow(api, job_id, show=lambda _: None, tell=say)
    if how == "json":
        return await events_of.follow(
            api, job_id, show=lambda event: print(events_of.for_json(event), flush=True), tell=say
        )
    console = output if how == "lines" and not (output.is_terminal and progress.is_terminal) else progress
    with events_of.shown(console, lines=events_of.for_programs) as show:
        return await events_of.follow(api, job_id, show=show, tell=say)


async def _waited(job_id: str, follow: Coroutine[Any, Any, T], patience: float | None) -> T:
    """What `follow` answers in the end. After `patience`, or interrupted, says that the job goes on and exits."""
    try:
        async with asyncio.timeout(patience):
            return await follow
    except TimeoutError:
        say(f"Job {job_id} is not over after {span(patience or 0)}; it goes on: `triton jobs watch {job_id}`.")
        raise typer.Exit(TIMED_OUT) from None
    except asyncio.CancelledError:
        say(f"Job {job_id} goes on: `triton jobs watch {job_id}` shows it, `triton jobs cancel {job_id}` stops it.")
        raise typer.Exit(INTERRUPTED) from None


async def _as_it_stands(api: "Api", job: Json) -> Json:
    """A job as it is now, or as it was last known where nobody tells soon."""
    with suppress(CommandFailed, TimeoutError):
        async with asyncio.timeout(LAST_LOOK):
            now: Json = await api.get(f"/api/v1/jobs/{job['id']}")
            return now
    return job


def _end(job: Json) -> None:
    """Say how it ended; exit with what that means."""
    match job:
        case {"status": "completed"}:
            say(f"Job {job['id']} is completed: document {job['document_id']}.")
        case {"error": {"code": code, "message": message}}:
            say(f"Job {job['id']} {job['status']} in attempt {job['attempt']}: {clean(message)} ({code})", style="red")
        case _:
            say(f"Job {job['id']} was {job['status']}.")
    if code := EXITS[job["status"]]:
        raise typer.Exit(code)


app = typer.Typer(
    no_args_is_help=True,
    help="Submit, follow, list and change generation jobs.",
    epilog="Exit status: 0 completed, or the command is done · 1 an error, told in a sentence · 2 wrong usage · "
    "3 the job failed · 4 it was cancelled · 5 --timeout was over first · 130 interrupted: the job goes on. "
    "The platform is --url or TRITON_URL, else that of the last `triton login`, else the one that `triton up` started "
    "here. The user is TRITON_TOKEN or TRITON_API_KEY, or TRITON_EMAIL and TRITON_PASSWORD, else who is logged in "
    "there, else the admin of the platform that runs here.",
)
app.command("submit")(submit)
app.command("list")(reading.list_jobs)
app.command("get")(reading.get)
app.command("watch")(watch)
app.command("events")(events)
app.command("cancel")(changing.cancel)
app.command("retry")(changing.retry)
app.command("stats")(reading.stats)
