"""`triton jobs`: generation jobs on any platform, through its gateway like any user."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import typer
from rich.table import Table
from rich.text import Text

from triton_cli.command import (
    DEFAULT_STATE,
    INTERRUPTED,
    JsonOption,
    StateOption,
    confirmed,
    output,
    progress,
    say,
    sentences,
    until_signal,
)
from triton_cli.filters import (
    AfterOption,
    BeforeOption,
    ClientOption,
    ErrorCodeOption,
    Json,
    Priority,
    PriorityOption,
    ProspectOption,
    ScheduleOption,
    StatusOption,
    TypeOption,
    chosen,
    duration,
    key,
    pair,
    resolved,
    time_limit,
)
from triton_cli.state import CommandFailed, State, WrongUsage

if TYPE_CHECKING:
    from triton_cli.api import Api  # its HTTP client takes a while to import: each command does when it runs

T = TypeVar("T")

EXITS: Final = {"completed": 0, "failed": 3, "cancelled": 4}
TIMED_OUT: Final = 5
LIMIT: Final = 50

app = typer.Typer(
    no_args_is_help=True,
    help="Submit, follow, list and change generation jobs.",
    epilog="Exit status: 0 completed, or the command is done · 1 an error, told in a sentence · 2 wrong usage · "
    "3 the job failed · 4 it was cancelled · 5 --timeout was over first · 130 interrupted: the job goes on. "
    "The platform is --url or TRITON_URL, else the one that `triton up` started here. The user is TRITON_TOKEN, or "
    "TRITON_EMAIL and TRITON_PASSWORD, else the admin of the platform that runs here.",
)


JobArgument = Annotated[uuid.UUID, typer.Argument(metavar="JOB", help="The job's id.", show_default=False)]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="TRITON_URL", help="The platform.", show_default="the one that runs here"),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", parser=duration, metavar="TIME", help="Wait no longer than this: 90s, 15m, 2h."),
]


@app.command()
@sentences
def submit(
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
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Have a document made. Prints the job's id; with --json the job, as it is at the end of --watch or --wait."""
    if timeout is not None and not (watch_it or wait):
        raise WrongUsage("--timeout ends --watch or --wait: give one of them.")
    from triton_cli.api import submit_once  # noqa: PLC0415  see Api

    api = _api(url, state)
    body: Json = {"job_type": "value_proposition"}
    if horizon is not None:
        body["parameters"] = {"horizon_months": int(horizon)}
    if priority is not None:
        body["priority"] = priority
    if limit is not None:
        body["time_limit_seconds"] = limit

    async def send() -> Json:
        async with api:
            body["prospect_id"], body["value_proposition_id"] = await pair(api, prospect, value_proposition)
            return await submit_once(api, body, key=idempotency_key or str(uuid.uuid4()))

    job = until_signal(send())
    if not as_json:
        print(f"Submitted job {job['id']}." if output.is_terminal else job["id"], flush=True)
    if watch_it or wait:
        job = _until_over(api, job["id"], how="bar" if watch_it else "nothing", timeout=timeout)
    if as_json:
        print(json.dumps(job))
    if watch_it or wait:
        _end(job)


@app.command("list")
@sentences
def list_jobs(
    *,
    status: StatusOption = None,
    client: ClientOption = None,
    prospect: ProspectOption = None,
    job_type: TypeOption = None,
    priority: PriorityOption = None,
    created_after: AfterOption = None,
    created_before: BeforeOption = None,
    error_code: ErrorCodeOption = None,
    schedule: ScheduleOption = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="How many of the newest.", show_default=str(LIMIT))
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Go on at the next_cursor of an answer.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """List jobs, newest first: a table on a terminal, elsewhere a line each with columns between tabs.

    The columns are id, status, progress, priority, attempt, time of creation, stage or error code, document.
    --json answers one object, {"items": […], "next_cursor": …}.
    """
    from triton_cli.api import pages  # noqa: PLC0415  see Api
    from triton_cli.progress import columns  # noqa: PLC0415  see Api

    api = _api(url, state)
    wanted = chosen(status, client, prospect, job_type, priority, created_after, created_before, error_code, schedule)
    found: list[Json] = []

    async def read() -> str | None:
        async with api:
            next_cursor = cursor
            async for page in pages(
                api, await resolved(api, wanted), limit=None if everything else limit or LIMIT, cursor=cursor
            ):
                next_cursor = page["next_cursor"]
                if as_json or output.is_terminal:
                    found.extend(page["items"])
                else:
                    print("".join(f"{columns(_cells(job))}\n" for job in page["items"]), end="", flush=True)
            return next_cursor

    next_cursor = until_signal(read())
    if as_json:
        print(json.dumps({"items": found, "next_cursor": next_cursor}))
        return
    if output.is_terminal:
        output.print(_table(found) if found else "There are none.")
    if next_cursor and limit is None:
        say(f"There are more than these {LIMIT}: --limit, or --all.")


@app.command()
@sentences
def get(
    job: JobArgument, *, as_json: JsonOption = False, url: UrlOption = None, state: StateOption = DEFAULT_STATE
) -> None:
    """Show all that is known of a job."""
    from triton_cli.progress import clean  # noqa: PLC0415  see Api

    api = _api(url, state)
    known = until_signal(_ask(api, lambda: api.get(f"/api/v1/jobs/{job}")))
    if as_json:
        print(json.dumps(known))
        return
    for name, value in known.items():
        if value in (None, {}):
            continue
        match value:
            case {"code": code, "message": message}:
                shown = f"{code}: {message}"
            case dict():
                shown = ", ".join(f"{key} {item}" for key, item in value.items())
            case _:
                shown = str(value)
        print(f"{name.replace('_', ' '):<22}{clean(shown)}")


@app.command()
@sentences
def watch(
    job: JobArgument,
    *,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Follow a job until it is over: a bar on a terminal, elsewhere a line for each event, as `events` prints them.

    The exit status tells the outcome. Ctrl-C ends the watching, not the job. --json prints a line of JSON an event.
    """
    _end(_until_over(_api(url, state), str(job), how="json" if as_json else "lines", timeout=timeout))


@app.command()
@sentences
def events(
    job: JobArgument,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Print what happened to a job, oldest first.

    Not on a terminal, a line has columns between tabs: number, time, kind, status, progress, stage, message.
    --json prints a line of JSON for each event. The exit status is 0 whatever became of the job: `watch` tells that.
    """
    if timeout is not None and not follow:
        raise WrongUsage("--timeout ends --follow: give both.")
    from triton_cli import progress as events_of  # noqa: PLC0415  see Api

    api = _api(url, state)
    shown = events_of.for_json if as_json else events_of.for_people if output.is_terminal else events_of.for_programs

    def show(event: Mapping[str, Any]) -> None:
        print(shown(event), flush=follow)

    async def read() -> None:
        async with api:
            async for event in events_of.history(api, str(job)):
                show(event)

    if follow:
        _waited(api, str(job), lambda: events_of.follow(api, str(job), show=show, tell=say), timeout=timeout)
    else:
        until_signal(read())


def _change(verb: Literal["cancel", "retry"], explained: str, past: str) -> None:
    """The command `cancel` or `retry`, which differ in a word."""

    @app.command(verb, help=explained)
    @sentences
    def change(
        jobs: Annotated[
            list[uuid.UUID] | None, typer.Argument(metavar="[JOB]...", help="Their ids.", show_default=False)
        ] = None,
        *,
        status: StatusOption = None,
        client: ClientOption = None,
        prospect: ProspectOption = None,
        job_type: TypeOption = None,
        priority: PriorityOption = None,
        created_after: AfterOption = None,
        created_before: BeforeOption = None,
        error_code: ErrorCodeOption = None,
        schedule: ScheduleOption = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
        as_json: JsonOption = False,
        url: UrlOption = None,
        state: StateOption = DEFAULT_STATE,
    ) -> None:
        wanted = chosen(
            status, client, prospect, job_type, priority, created_after, created_before, error_code, schedule
        )
        if jobs and wanted:
            raise WrongUsage(f"Which jobs to {verb}? Ids and filters exclude each other: give the ones or the others.")
        if not (jobs or wanted):
            raise WrongUsage(f"Which jobs to {verb}? Name their ids, or choose by --status and the like.")
        from triton_cli.api import change_all  # noqa: PLC0415  see Api

        api = _api(url, state)
        if jobs and not dry_run:
            _change_each(api, verb, jobs, past=past, as_json=as_json)
            return
        selection = (
            {"ids": [str(job) for job in jobs]} if jobs else until_signal(_ask(api, lambda: resolved(api, wanted)))
        )
        answer = until_signal(_ask(api, lambda: api.post(f"/api/v1/jobs/{verb}", json=selection | {"dry_run": True})))
        if not dry_run and answer["matched"]:
            if not (yes or confirmed(f"{verb.capitalize()} {_jobs(answer)}?")):
                raise CommandFailed("Nothing was changed.")
            answer = until_signal(_ask(api, lambda: change_all(api, verb, selection)))
        if as_json:
            print(json.dumps(answer))
        elif dry_run:
            print(f"{_jobs(answer)} would be {past}.")
        else:
            print(f"{answer['changed']:,} of {_jobs(answer)} {past}.")


_change(
    "cancel",
    "Cancel jobs, named by their ids or chosen by filters. A waiting one is over at once, a running one within ten "
    'seconds.\n\n--json answers {"items", "errors"} for ids, {"matched", "changed", "complete"} for filters.',
    "cancelled",
)
_change(
    "retry",
    "Run failed or cancelled jobs again, named by their ids or chosen by filters.\n\n--json answers "
    '{"items", "errors"} for ids, {"matched", "changed", "complete"} for filters.',
    "retried",
)


@app.command()
@sentences
def stats(
    *,
    client: ClientOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Count jobs by state, tell how long the oldest has waited, and how many end in a minute."""
    api = _api(url, state)
    wanted = {"client": client} if client is not None else {}

    async def read() -> Json:
        async with api:
            found: Json = await api.get("/api/v1/jobs/stats", **await resolved(api, wanted))
            return found

    found = until_signal(read())
    if as_json:
        print(json.dumps(found))
        return
    for name, count in found["counts"].items():
        print(f"{name:<12}{count:>10,}")
    if found["oldest_pending_seconds"] is not None:
        print(f"\nThe oldest has waited for {_span(found['oldest_pending_seconds'])}.")
    print()
    for window in found["throughput"]:
        print(
            f"last {_span(window['window_seconds']):<8} {window['completed']:,} completed "
            f"({window['completed_per_minute']:,.1f} a minute), {window['failed']:,} failed, "
            f"{window['cancelled']:,} cancelled"
        )


def _api(url: str | None, state: Path) -> "Api":
    from triton_cli.api import api_of  # noqa: PLC0415  its HTTP client takes a while to import

    return api_of(url, State(state))


async def _ask(api: "Api", question: Callable[[], Awaitable[T]]) -> T:
    async with api:
        return await question()


def _until_over(api: "Api", job_id: str, *, how: str, timeout: float | None) -> Json:
    """The job once it is over. Its events are shown as a bar on stderr, as lines or JSON on stdout, or not at all."""
    from triton_cli import progress as events_of  # noqa: PLC0415  see Api

    async def follow() -> Json:
        if how == "nothing":
            return await events_of.follow(api, job_id, show=lambda _: None, tell=say)
        if how == "json":
            return await events_of.follow(
                api, job_id, show=lambda event: print(events_of.for_json(event), flush=True), tell=say
            )
        console = output if how == "lines" and not (output.is_terminal and progress.is_terminal) else progress
        with events_of.shown(console, lines=events_of.for_programs) as show:
            return await events_of.follow(api, job_id, show=show, tell=say)

    return _waited(api, job_id, follow, timeout=timeout)


def _waited(api: "Api", job_id: str, follow: Callable[[], Coroutine[Any, Any, Json]], *, timeout: float | None) -> Json:
    """What `follow` answers in the end. After `timeout`, or interrupted, exits and says that the job goes on."""

    async def wait() -> Json:
        async with api, asyncio.timeout(timeout):
            return await follow()

    try:
        return until_signal(wait())
    except TimeoutError:
        say(f"Job {job_id} is not over after {_span(timeout or 0)}; it goes on: `triton jobs watch {job_id}`.")
        raise typer.Exit(TIMED_OUT) from None
    except KeyboardInterrupt:
        say(f"Job {job_id} goes on: `triton jobs watch {job_id}` shows it, `triton jobs cancel {job_id}` stops it.")
        raise typer.Exit(INTERRUPTED) from None


def _end(job: Json) -> None:
    """Say how it ended; exit with what that means."""
    from triton_cli.progress import clean  # noqa: PLC0415  see Api

    match job:
        case {"status": "completed"}:
            say(f"Job {job['id']} is completed: document {job['document_id']}.")
        case {"error": {"code": code, "message": message}}:
            say(f"Job {job['id']} {job['status']} in attempt {job['attempt']}: {clean(message)} ({code})", style="red")
        case _:
            say(f"Job {job['id']} was {job['status']}.")
    if code := EXITS[job["status"]]:
        raise typer.Exit(code)


def _cells(job: Json) -> list[Any]:
    names = ("id", "status", "progress", "priority", "attempt", "created_at")
    return [*(job.get(name) for name in names), _detail(job), job["document_id"]]


def _detail(job: Json) -> str:
    """What a state leaves to say: an error's code, or the stage."""
    if job["error"]:
        return str(job["error"]["code"])
    return str(job["stage"] or "") if job["status"] == "processing" else ""


def _table(jobs: list[Json]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("job", no_wrap=True, min_width=36)
    table.add_column("status", no_wrap=True)
    table.add_column("%", justify="right")
    table.add_column("priority")
    table.add_column("age", justify="right", no_wrap=True)
    table.add_column("", overflow="ellipsis", no_wrap=True)
    styles = {"completed": "green", "failed": "red", "cancelled": "dim", "processing": "cyan"}
    now = datetime.now(UTC)
    for job in jobs:
        age = max((now - datetime.fromisoformat(job["created_at"])).total_seconds(), 0)
        status = Text(job["status"], styles.get(job["status"], ""))
        table.add_row(job["id"], status, str(job["progress"]), job.get("priority"), _span(age), Text(_detail(job)))
    return table


def _span(seconds: float) -> str:
    """How long, to about one part in a hundred: 12 s, 15 min, 30 h, 9 d."""
    for unit, length, most in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if seconds < length * most:
            amount = seconds / length
            return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.2g} {unit}"
    return f"{seconds / 86_400:.0f} d"


def _jobs(answer: Json) -> str:
    """How many a selection matches; a call looks at so many at most."""
    more = "" if answer["complete"] else "more than "
    return f"{more}{answer['matched']:,} job{'' if answer['matched'] == 1 else 's'}"


def _change_each(api: "Api", verb: str, jobs: list[uuid.UUID], *, past: str, as_json: bool) -> None:
    """Change jobs one after another; what is refused is told, and the others are changed all the same."""
    from triton_cli.api import Refused  # noqa: PLC0415  see Api

    items: list[Json] = []
    errors: list[Json] = []

    async def change() -> None:
        async with api:
            for job in jobs:
                try:
                    items.append(await api.post(f"/api/v1/jobs/{job}/{verb}"))
                except Refused as error:
                    errors.append({"id": str(job), "code": error.code, "message": error.message})
                    errors[-1]["request_id"] = error.request_id
                    say(f"error: {error}", style="red")
                else:
                    if not as_json:
                        asked = verb == "cancel" and items[-1]["status"] == "processing"
                        print(f"{job}\t{'stopping' if asked else past}", flush=True)

    try:
        until_signal(change())
    finally:
        if as_json:
            print(json.dumps({"items": items, "errors": errors}))
    if errors:
        raise typer.Exit(1)
