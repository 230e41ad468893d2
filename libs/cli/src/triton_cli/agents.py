"""The agents that write documents: `triton agents list`, `runs` and `run`.

`run` tries an agent with the model and the credentials of this shell: in a process of its own, since it needs neither a
platform nor, in this one, agno, which takes a second to import.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from triton_cli.command import (
    DEFAULT_STATE,
    JsonOption,
    StateOption,
    UrlOption,
    clean,
    columns,
    output,
    platform,
    sentences,
)
from triton_cli.filters import Json
from triton_cli.lists import AllOption, CursorOption, Extent, LimitOption, cells_of, listed, table_of
from triton_cli.state import CommandFailed

RUN_COLUMNS: Final = (
    *("id", "agent", "status", "model", "attempt", "started_at", "seconds", "model_calls", "input_tokens"),
    *("output_tokens", "cost", "job_id"),
)
RUN_SHOWN: Final = ("id", "agent", "status", "model", "started_at", "seconds", "model_calls", "cost")

app = typer.Typer(no_args_is_help=True, help="The agents that write documents: which there are, what they did, a try.")


@app.command("list")
@sentences
async def list_agents(as_json: JsonOption = False, url: UrlOption = None, state: StateOption = DEFAULT_STATE) -> None:
    """List the agents in the order they work, with their model and the version of their instructions."""
    async with platform(url, state) as api:
        agents = await api.get("/api/v1/agents")
    if as_json:
        print(json.dumps(agents))
    elif output.is_terminal:
        table = Table("name", "model", "prompt", "", box=None, header_style="bold")
        for agent in agents:
            table.add_row(*(clean(agent[name]) for name in ("name", "model", "prompt_version", "description")))
        output.print(table)
    else:
        for agent in agents:
            print(columns(agent[name] for name in ("name", "model", "prompt_version", "description")))


@app.command("runs")
@sentences
async def list_runs(
    *,
    job: Annotated[str | None, typer.Option("--job", help="Of this job.")] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="running, completed, failed, cancelled, released or lost.")
    ] = None,
    limit: LimitOption = None,
    everything: AllOption = False,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """List runs of agents, newest first: a table on a terminal, elsewhere a line each with columns between tabs."""
    filters: Json = {name: value for name, value in (("job_id", job), ("status", status)) if value}
    async with platform(url, state) as api:
        await listed(
            api,
            "/api/v1/agents/runs",
            filters,
            extent=Extent(limit, everything, cursor),
            as_json=as_json,
            cells=lambda item: cells_of(item, RUN_COLUMNS),
            table=lambda items: table_of(items, RUN_SHOWN),
        )


@app.command("run")
@sentences
def try_agent(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    facts: Annotated[
        Path,
        typer.Option(
            "--input",
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="A document as JSON, or anything with its facts.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Run one agent here, on the facts of a document, with the model that AGENT_MODEL of this shell names.

    No platform takes part, and nothing is kept. --json answers the output, with calls, tokens, cost and time.
    """
    done = subprocess.run(
        [sys.executable, "-m", "agent_runner.trying", name, str(facts)], stdout=subprocess.PIPE, check=False
    )
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise CommandFailed("The agent's process ended without an answer.") from None
    if as_json:
        print(json.dumps(told))
    if error := told.get("error"):
        raise CommandFailed(f"{error['message']} ({error['code']})")
    if not as_json:
        print(json.dumps(told["output"], indent=2, ensure_ascii=False))
        paid = f", {told['cost']} {told['currency']}" if told["cost"] else ""
        tokens = f"{told['input_tokens']} + {told['output_tokens']} tokens{paid}"
        print(f"{told['model']}, {told['calls']} calls, {tokens}, {told['seconds']:.1f} s", file=sys.stderr)
