"""The databases' schemas: `triton db status` and `migrate`, of the stack that runs here or of what URLs name.

Each service knows its own migrations, so each is asked in a process of its own, with its URL in the environment.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from http.client import HTTPException
from typing import Final, Literal

import typer
from rich.table import Table

from triton_cli.command import DEFAULT_STATE, JsonOption, StateOption, clean, columns, output, sentences
from triton_cli.parts import answers, parts_of
from triton_cli.stack import Part
from triton_cli.state import CHECKOUT, CommandFailed, State

Action = Literal["status", "migrate"]

SERVICES: Final = {
    "auth": "auth-service",
    "jobs": "jobs-service",
    "agents": "agent-runner",
    "analytics": "analytics-service",
}
SETTINGS: Final = {
    "auth": "AUTH_DATABASE_URL",
    "jobs": "JOBS_DATABASE_URL",
    "agents": "AGENT_DATABASE_URL",
    "analytics": "CLICKHOUSE_URL",
}
ANALYTICS: Final = "analytics"
TIMEOUTS: Final[Mapping[Action, float]] = {"status": 60.0, "migrate": 3600.0}  # seconds; a large table takes its time
RUNS: Final = "analytics-service runs, and migrates its own before it serves"
NOTHING: Final = (
    "Nothing runs here: `triton up` starts the databases and migrates them. Other databases are named by "
    f"{', '.join(SETTINGS.values())}, those of them that are meant."
)

app = typer.Typer(no_args_is_help=True, help="The databases' schemas: which migrations each has, and those it lacks.")


@dataclass(frozen=True)
class Schema:
    """A database, the migrations of this checkout that it has, and those that it lacks."""

    name: str
    state: Literal["current", "behind", "ahead", "failed"]
    applied: list[str] | None = None
    """None where a service that runs holds it: it is asked for its health, not for its migrations."""
    pending: list[str] | None = None
    message: str = ""


@app.command()
@sentences
def status(as_json: JsonOption = False, state: StateOption = DEFAULT_STATE) -> None:
    """Show which migrations each database has and lacks. Exit code 1 unless all have all.

    AUTH_DATABASE_URL, JOBS_DATABASE_URL, AGENT_DATABASE_URL and CLICKHOUSE_URL name other databases than this stack's.
    """
    _tell("status", State(state), as_json=as_json)


@app.command()
@sentences
def migrate(as_json: JsonOption = False, state: StateOption = DEFAULT_STATE) -> None:
    """Apply what each database lacks; one at a time, whoever else tries. Exit code 1 unless all have all then.

    AUTH_DATABASE_URL, JOBS_DATABASE_URL, AGENT_DATABASE_URL and CLICKHOUSE_URL name other databases than this stack's.
    """
    _tell("migrate", State(state), as_json=as_json)


def _tell(action: Action, state: State, *, as_json: bool) -> None:
    asked = _asked(state)
    with ThreadPoolExecutor(len(asked)) as threads:
        found = list(threads.map(lambda ask: ask(action), asked))
    current = all(schema.state == "current" for schema in found)
    if as_json:
        print(json.dumps({"current": current, "databases": [asdict(schema) for schema in found]}))
    elif output.is_terminal:
        table = Table("database", "state", "applied", "pending", "", box=None, header_style="bold")
        for schema in found:
            table.add_row(*_cells(schema))
        output.print(table)
    else:
        for schema in found:
            print(columns(_cells(schema)))
    if not current:
        raise typer.Exit(1)


def _cells(schema: Schema) -> list[str]:
    applied = "" if schema.applied is None else str(len(schema.applied))
    return [schema.name, schema.state, applied, " ".join(schema.pending or ()), clean(schema.message)]


def _asked(state: State) -> list[Callable[[Action], Schema]]:
    """Who is asked, of each database that is meant. Raises CommandFailed."""
    named = {name: os.environ[setting] for name, setting in SETTINGS.items() if os.environ.get(setting)}
    if named:
        return [
            partial(_of_service, name, os.environ | {"CLICKHOUSE_URL" if name == ANALYTICS else "DATABASE_URL": url})
            for name, url in named.items()
        ]
    port, secrets = (state.running() or {}).get("port"), state.known_secrets()
    if port is None or secrets is None:
        raise CommandFailed(NOTHING)
    parts = {part.name: part for part in parts_of(state, port, secrets=secrets)}
    return [
        *(
            partial(_of_service, name, parts[f"{name}-migrations"].environment)
            for name in SERVICES
            if name != ANALYTICS
        ),
        partial(_of_running, parts[ANALYTICS]),
    ]


def _of_service(name: str, environment: Mapping[str, str], action: Action) -> Schema:
    module = "analytics_service.schema" if name == ANALYTICS else "triton_common.migrations"
    answer = ""
    # analytics tells what it applied; where it stands then, a second question tells
    for each in dict.fromkeys((action, "status")) if name == ANALYTICS else (action,):
        try:
            ran = subprocess.run(
                [sys.executable, "-m", module, each],
                cwd=CHECKOUT / "services" / SERVICES[name],
                env=dict(environment),
                capture_output=True,
                text=True,
                timeout=TIMEOUTS[each],
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Schema(name, "failed", message=f"it did not answer within {TIMEOUTS[each]:.0f} s")
        if ran.returncode:
            return Schema(name, "failed", message=_last_line(ran.stderr))
        answer = ran.stdout
    return _standing(name, answer)


def _of_running(part: Part, _: Action) -> Schema:
    """The embedded engine opens for one process: the service that has it open answers for it."""

    async def ready() -> None:
        await answers(f"http://127.0.0.1:{part.ports[0]}/health/ready")()

    try:
        asyncio.run(ready())
    except (OSError, HTTPException):
        return Schema(part.name, "failed", message="analytics-service, which holds it, is not ready")
    return Schema(part.name, "current", message=RUNS)


def _standing(name: str, answer: str) -> Schema:
    if name == ANALYTICS:
        lines = [line.split() for line in answer.splitlines()]
        applied, pending = ([line[1] for line in lines if line[0] == state] for state in ("applied", "pending"))
        return Schema(name, "behind" if pending else "current", applied, pending)
    found = json.loads(answer)
    if found["unknown"]:
        message = f"it is at {found['unknown']}, which this release does not know: a newer one has migrated it"
        return Schema(name, "ahead", message=message)
    return Schema(name, "behind" if found["pending"] else "current", found["applied"], found["pending"])


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
