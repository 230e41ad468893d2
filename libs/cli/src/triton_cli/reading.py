"""What is known of jobs: `triton jobs list`, `get` and `stats`."""

import json
from datetime import UTC, datetime
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from triton_cli.command import (
    DEFAULT_STATE,
    JobArgument,
    JsonOption,
    StateOption,
    UrlOption,
    clean,
    platform,
    sentences,
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
from triton_cli.lists import AllOption, CursorOption, Extent, LimitOption, listed, show, span

STYLES: Final = {"completed": "green", "failed": "red", "cancelled": "dim", "processing": "cyan"}


@sentences
async def list_jobs(
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
    limit: LimitOption = None,
    everything: AllOption = False,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """List jobs, newest first: a table on a terminal, elsewhere a line each with columns between tabs.

    The columns are id, status, progress, priority, attempt, time of creation, stage or error code, document.
    --json answers one object, {"items": […], "next_cursor": …}.
    """
    wanted = chosen(status, client, prospect, job_type, priority, created_after, created_before, error_code, schedule)
    extent = Extent(limit, everything, cursor)
    async with platform(url, state) as api:
        filters = await resolved(api, wanted)
        await listed(api, "/api/v1/jobs", filters, extent=extent, as_json=as_json, cells=_cells, table=_table)


@sentences
async def get(
    job: JobArgument, *, as_json: JsonOption = False, url: UrlOption = None, state: StateOption = DEFAULT_STATE
) -> None:
    """Show all that is known of a job."""
    async with platform(url, state) as api:
        known = await api.get(f"/api/v1/jobs/{job}")
    show(known, as_json=as_json)


@sentences
async def stats(
    *,
    client: ClientOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Count jobs by state, tell how long the oldest has waited, and how many end in a minute."""
    wanted = {"client": client} if client is not None else {}
    async with platform(url, state) as api:
        found: Json = await api.get("/api/v1/jobs/stats", **await resolved(api, wanted))
    if as_json:
        print(json.dumps(found))
        return
    for name, count in found["counts"].items():
        print(f"{clean(name):<12}{count:>10,}")
    if found["oldest_pending_seconds"] is not None:
        print(f"\nThe oldest has waited for {span(found['oldest_pending_seconds'])}.")
    print()
    for window in found["throughput"]:
        print(
            f"last {span(window['window_seconds']):<8} {window['completed']:,} completed "
            f"({window['completed_per_minute']:,.1f} a minute), {window['failed']:,} failed, "
            f"{window['cancelled']:,} cancelled"
        )


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
    now = datetime.now(UTC)
    for job in jobs:
        age = max((now - datetime.fromisoformat(job["created_at"])).total_seconds(), 0)
        cells = (job["id"], job["status"], job["progress"], job.get("priority") or "", span(age), _detail(job))
        row = [Text(clean(cell)) for cell in cells]
        row[1].stylize(STYLES.get(job["status"], ""))
        table.add_row(*row)
    return table
