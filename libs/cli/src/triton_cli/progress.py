"""A job followed to its end: its events as they happen, over streams that break, as a bar, lines or JSON."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from triton_cli.api import PAGE, Api, NoStream, NothingFollows, Refused, Unreachable
from triton_cli.command import clean, columns, say
from triton_cli.filters import Json
from triton_cli.state import CommandFailed

Event = Mapping[str, Any]
Show = Callable[[Event], None]

FINAL: Final = frozenset({"completed", "failed", "cancelled"})
RECONNECTS: Final = 60  # in a row, without an event between; a second apart
TOLD: Final = 2  # breaks in a row; the first is a service that starts again
STEADY: Final = 5.0  # seconds; gateways end streams that last: one closed in order after that did not break
REFUSALS: Final = 3  # of a stream that was never open, before the history is asked for instead
POLL_INTERVAL: Final = 2.0  # seconds
ORDINARY: Final = frozenset({"submitted", "claimed", "progress", "completed"})
"""What a bar shows by itself; of the other events it leaves a line."""


class Over(Exception):
    """A job is over, and its last event was seen."""

    def __init__(self, job: Json) -> None:
        self.job = job
        super().__init__()


async def follow(api: Api, job_id: str, *, show: Show, tell: Callable[[str], None]) -> Json:
    """Show each event of a job once, in order, until the job is over; answers the job.

    A stream that breaks is taken up after the last event seen; one that was never open is replaced by asking. An event
    of a final state need not be the last: a failed job may have been retried. Raises CommandFailed after a minute
    without an answer.
    """
    path = f"/api/v1/jobs/{job_id}"
    last = misses = refusals = 0
    page: dict[str, str] = {}
    while True:
        problem: CommandFailed | None = None
        began, status = time.monotonic(), ""
        asking = refusals == REFUSALS
        try:
            async for event in _asked(api, path, last, page) if asking else _streamed(api, path, last):
                last, misses, status = event["seq"], 0, event["status"]
                show(event)
        except Over as end:
            return end.job
        except NoStream as error:
            problem = error
            refusals += not last
            if refusals == REFUSALS:
                tell(f"The stream of events cannot be opened: {error}. Asking every {POLL_INTERVAL:.0f} s instead.")
        except (Unreachable, Refused) as error:
            if not error.passing:
                raise
            problem = error
        if problem is None and (asking or status in FINAL or time.monotonic() - began > STEADY):
            misses = 0
        else:
            misses += 1
            await _pause(misses, f"job {job_id} broke off after event {last}", problem, tell=tell)


async def _pause(misses: int, what: str, problem: CommandFailed | None, *, tell: Callable[[str], None]) -> None:
    """Before the next try. Raises CommandFailed when there were enough."""
    if misses > RECONNECTS:
        reason = f"The last answer: {problem}" if problem else ""
        raise CommandFailed(f"The events of {what}; it may still end well. {reason}".rstrip())
    if misses == TOLD:
        tell(f"The events of {what}; trying again for a minute.")
    await asyncio.sleep(min(1.0, 0.2 * misses))


async def _streamed(api: Api, path: str, last: int) -> AsyncIterator[Event]:
    """The events after number `last`, as they happen, until the stream ends. Raises Over when the job has."""
    try:
        async for event in api.events(f"{path}/events", last):
            yield event
    except NothingFollows:
        if job := await _over(api, path):
            raise Over(job) from None


async def _asked(api: Api, path: str, last: int, page: dict[str, str]) -> AsyncIterator[Event]:
    """The events after number `last` that there are; then a pause. Raises Over when the job is. `page` keeps where the
    last page of them begins."""
    job = await _over(api, path)  # asked first: what is over has written its last event
    while True:
        answer = await api.get(f"{path}/events", limit=PAGE, **page)
        for event in answer["items"]:
            if event["seq"] > last:
                yield event
        if not answer["next_cursor"]:
            break
        page["cursor"] = answer["next_cursor"]
    if job and answer["items"][-1]["status"] in FINAL:  # else somebody has just retried it
        raise Over(job)
    await asyncio.sleep(POLL_INTERVAL)


async def _over(api: Api, path: str) -> Json | None:
    """The job if it is over."""
    job: Json = await api.get(path)
    return job if job["status"] in FINAL else None


async def history(api: Api, job_id: str) -> AsyncIterator[Event]:
    """What has happened to a job, oldest first."""
    async for event in api.items(f"/api/v1/jobs/{job_id}/events"):
        yield event


@contextmanager
def shown(console: Console, *, lines: Callable[[Event], str] | None = None) -> Iterator[Show]:
    """A way to show events: a bar on a terminal, elsewhere a line for each, or for each stage without `lines`."""
    if not console.is_terminal:
        yield _stages(console) if lines is None else lambda event: print(lines(event), file=console.file, flush=True)
        return
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("pending", total=100, message="")

        def show(event: Event) -> None:
            bar.update(
                task,
                completed=event["progress"],
                description=_what(event),
                message=clean(event["message"]),
                refresh=True,
            )
            if event.get("kind", "progress") not in ORDINARY:
                say(f"  {for_people(event)}", console=bar.console, style="yellow")

        yield show


def _stages(console: Console) -> Show:
    before = ""

    def show(event: Event) -> None:
        nonlocal before
        what = _what(event)
        if what != before:
            before = what
            say(f"  {what}, {event['progress']} %", console=console)

    return show


def _what(event: Event) -> str:
    return str(event["stage"] or event["status"]) if event["status"] == "processing" else str(event["status"])


def for_people(event: Event) -> str:
    """An event on a terminal."""
    words = (event["at"][11:19], f"{event['kind']:<16}", f"{event['progress']:>3} %", event["stage"], event["message"])
    return "  ".join(clean(word) for word in words if word)


def for_programs(event: Event) -> str:
    """An event as a line of columns between tabs: number, time, kind, status, progress, stage, message."""
    names = ("seq", "at", "kind", "status", "progress", "stage", "message")
    return columns(event[name] for name in names)


def for_json(event: Event) -> str:
    """An event as a line of JSON."""
    return json.dumps(event)
