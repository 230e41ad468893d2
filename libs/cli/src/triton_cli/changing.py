"""What is done to jobs, named by their ids or chosen by filters: `triton jobs cancel` and `retry`."""

import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from triton_cli.command import (
    DEFAULT_STATE,
    JsonOption,
    StateOption,
    UrlOption,
    platform,
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
    PriorityOption,
    ProspectOption,
    ScheduleOption,
    StatusOption,
    TypeOption,
    chosen,
    resolved,
)
from triton_cli.lists import ask
from triton_cli.state import WrongUsage

if TYPE_CHECKING:
    from triton_cli.api import Api, Verb


def _change(verb: "Verb", explained: str, past: str) -> Callable[..., None]:
    """The command `cancel` or `retry`, which differ in a word."""

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
        api = platform(url, state)
        if jobs and not dry_run:
            until_signal(_change_each(api, verb, jobs, past=past, as_json=as_json))
            return
        selection, found = until_signal(_count(api, verb, {"ids": [str(job) for job in jobs]} if jobs else wanted))
        if dry_run:
            print(json.dumps(found) if as_json else f"{_jobs(found)} would be {past}.")
            return
        if found["matched"]:
            ask(f"{verb.capitalize()} {_jobs(found)}", api, yes=yes)
        until_signal(_change_found(api, verb, selection, found, past=past, as_json=as_json))

    change.__doc__ = explained
    return sentences(change)


cancel = _change(
    "cancel",
    "Cancel jobs, named by their ids or chosen by filters. A waiting one is over at once, a running one within ten "
    'seconds.\n\n--json answers {"items", "errors"} for ids, {"matched", "changed", "complete"} for filters.',
    "cancelled",
)
retry = _change(
    "retry",
    "Run failed or cancelled jobs again, named by their ids or chosen by filters.\n\n--json answers "
    '{"items", "errors"} for ids, {"matched", "changed", "complete"} for filters.',
    "retried",
)


async def _change_each(api: "Api", verb: "Verb", jobs: list[uuid.UUID], *, past: str, as_json: bool) -> None:
    """Change jobs one after another; what is refused is told, and the others are changed all the same."""
    from triton_cli.api import Refused  # noqa: PLC0415  see platform

    items: list[Json] = []
    errors: list[Json] = []
    try:
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
    finally:
        if as_json:
            print(json.dumps({"items": items, "errors": errors}))
    if errors:
        raise typer.Exit(1)


async def _count(api: "Api", verb: "Verb", wanted: Json) -> tuple[Json, Json]:
    """The selection with ids for names, and how many jobs it matches."""
    async with api:
        selection = await resolved(api, wanted)
        return selection, await api.post(f"/api/v1/jobs/{verb}", json=selection | {"dry_run": True})


async def _change_found(api: "Api", verb: "Verb", selection: Json, found: Json, *, past: str, as_json: bool) -> None:
    """Change what a selection has been found to match."""
    from triton_cli.api import change_all  # noqa: PLC0415  see platform

    if found["matched"]:
        async with api:
            if found["complete"]:
                found = await api.post(f"/api/v1/jobs/{verb}", json=selection)
            else:
                found = await change_all(api, verb, selection)
    print(json.dumps(found) if as_json else f"{found['changed']:,} of {_jobs(found)} {past}.")


def _jobs(answer: Json) -> str:
    """How many a selection matches; a call looks at so many at most."""
    more = "" if answer["complete"] else "more than "
    return f"{more}{answer['matched']:,} job{'' if answer['matched'] == 1 else 's'}"
