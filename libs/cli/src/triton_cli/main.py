"""The `triton` command: the platform on this machine without Docker, and a walk through its main job."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from triton_cli import account, agents, auditing, backup, data, databases, environment, jobs, machines, people
from triton_cli.command import (
    DEFAULT_STATE,
    JsonOption,
    StateOption,
    confirmed,
    output,
    progress,
    say,
    sentences,
    until_signal,
)
from triton_cli.logs import readable
from triton_cli.state import ADMIN_EMAIL, CHECKOUT, DEFAULT_PORT, CommandFailed, State, url_of
from triton_common.embedded import tail

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Triton on this machine, with real Postgres, Redis, ClickHouse and Traefik, without Docker and without root; "
    "and its jobs and accounts, here or on another platform.",
    pretty_exceptions_show_locals=False,  # among them are passwords and tokens
    epilog="Begin with `triton demo`. Data, logs and documents live in .triton of the checkout.",
)
ACCOUNTS: Final = "Accounts"
DOWN_TIMEOUT: Final = 90.0
MAX_PORT: Final = 65_535 - 9
AGENTOS_PORT: Final = 7777

PortOption = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=1024,
        max=MAX_PORT,
        help="Where the platform answers; the nine ports after it are the parts' own.",
        show_default=str(DEFAULT_PORT),
    ),
]

app.add_typer(jobs.app, name="jobs")
app.add_typer(data.app, name="data")
app.add_typer(agents.app, name="agents")
app.add_typer(environment.app, name="secrets")
app.add_typer(databases.app, name="db")
app.add_typer(backup.app, name="backup")
app.command(rich_help_panel=ACCOUNTS)(account.login)
app.command(rich_help_panel=ACCOUNTS)(account.logout)
app.command(rich_help_panel=ACCOUNTS)(account.whoami)
app.command(rich_help_panel=ACCOUNTS)(account.change_password)
for group, name in (
    (people.users, "users"),
    (people.sessions, "sessions"),
    (machines.accounts, "service-accounts"),
    (machines.api_keys, "api-keys"),
    (machines.keys, "keys"),
    (auditing.app, "audit"),
):
    app.add_typer(group, name=name, rich_help_panel=ACCOUNTS)


@app.command()
@sentences
def up(
    port: PortOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all is ready; `triton down` stops it.")
    ] = False,
    agentos: Annotated[
        bool, typer.Option("--agentos", help=f"Start AgentOS too, at port {AGENTOS_PORT}: agents and their runs.")
    ] = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Start the platform and keep it running until Ctrl-C. Data of earlier runs is kept."""
    from triton_cli.running import for_ever, running  # noqa: PLC0415  the servers' drivers take a second to import

    home = State(state)
    if detach:
        _start_detached(home, port, agentos=agentos)
        return
    ready = False

    async def stay() -> None:
        nonlocal ready
        wanted = AGENTOS_PORT if agentos else None
        async with running(home, port=port or DEFAULT_PORT, console=progress, agentos=wanted):
            ready = True
            _say_ready(home)
            await for_ever()

    try:
        until_signal(stay())
    except KeyboardInterrupt:
        if not ready:
            raise


@app.command()
@sentences
def down(state: StateOption = DEFAULT_STATE) -> None:
    """Stop the platform. Its data stays."""
    home = State(state)
    if not home.is_locked():
        output.print("Nothing runs here.")
        return
    pid = home.holder()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_TIMEOUT
    while home.is_locked():
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"Process {pid} did not stop within {DOWN_TIMEOUT:.0f} s. `kill -9 {pid}` ends it and its parts."
            )
        time.sleep(0.1)
    output.print("Everything is stopped.")


@app.command()
@sentences
def status(as_json: JsonOption = False, state: StateOption = DEFAULT_STATE) -> None:
    """Show each part: its phase, port and process. Exit code 1 unless all are ready."""
    found = State(state).running()
    parts = (found or {}).get("parts", [])
    ready = bool(found) and all(part["phase"] in ("ready", "done") for part in parts)
    if as_json:
        print(json.dumps({"running": found is not None, "ready": ready} | (found or {}) | {"ready": ready}))
    elif found is None:
        output.print("Nothing runs here. `triton up` starts it.")
    else:
        table = Table("part", "phase", "ports", "process", "restarts", "", box=None, header_style="bold")
        for part in parts:
            ports = " ".join(str(number) for number in part["ports"])
            pid = str(part["pid"] or "")
            table.add_row(part["name"], part["phase"], ports, pid, str(part["restarts"] or ""), part["reason"])
        output.print(table)
        output.print(f"\n{found.get('url', 'The stack')} is {'ready' if ready else 'not ready'}.", highlight=False)
    if not ready:
        raise typer.Exit(1)


@app.command()
@sentences
def logs(
    name: Annotated[str, typer.Argument(help="A part, as `triton status` names it.", show_default="all names")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 50,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Show the last lines of a part's log: readable on a terminal, as they were written elsewhere."""
    home = State(state)
    names = sorted(path.stem for path in home.logs.glob("*.log"))
    if not names:
        raise CommandFailed(f"{home.folder} has no logs yet: `triton up` starts the platform.")
    if not name:
        output.print("\n".join(names))
        return
    if name not in names:
        raise CommandFailed(f"There is no log of {name}. There are: {', '.join(names)}.")
    log = home.log(name)
    shown = readable if sys.stdout.isatty() else str  # a program wants what the services wrote
    position = (
        log.stat().st_size
    )  # before the lines are read: what is written meanwhile is shown rather twice than never
    print(shown(tail(log, lines)), flush=True)
    if follow:
        _follow_log(log, position, shown)


@app.command()
@sentences
def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False, state: StateOption = DEFAULT_STATE
) -> None:
    """Delete this stack's data, logs, secrets and documents."""
    home = State(state)
    if home.is_locked():
        raise CommandFailed(
            f"The stack of {home.folder} runs, as process {home.holder()}. Stop it with `triton down` first."
        )
    if not home.folder.exists():
        output.print("There is nothing to delete.")
        return
    if not home.is_ours():
        raise CommandFailed(
            f"{home.folder} is no folder of a stack: nothing was deleted. Name the right one with --state."
        )
    if not yes and not confirmed(f"Delete all data, logs, secrets and documents in {home.folder}?"):
        raise CommandFailed("Nothing was deleted.")
    home.delete()
    output.print("Deleted.")


@app.command()
@sentences
def doctor(as_json: JsonOption = False, port: PortOption = None, state: StateOption = DEFAULT_STATE) -> None:
    """Look at what the platform needs here: programs, ports, settings. Exit code 1 when something stops a start."""
    from triton_cli.doctor import examine  # noqa: PLC0415  the servers' drivers take a second to import

    findings = list(examine(State(state), port or DEFAULT_PORT))
    fit = all(finding.verdict != "blocked" for finding in findings)
    if as_json:
        print(json.dumps({"ok": fit, "findings": [finding.as_dict() for finding in findings]}))
    else:
        table = Table.grid(padding=(0, 2))
        marks = {"ok": "[green]✔", "warning": "[yellow]!", "blocked": "[red]✘"}
        for finding in findings:
            table.add_row(marks[finding.verdict], finding.name, finding.message)
        output.print(table)
    if not fit:
        raise typer.Exit(1)


@app.command()
@sentences
def demo(  # noqa: PLR0917  typer passes options by name
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="A Synthea CSV export, in place of the generated sample."),
    ] = None,
    members: Annotated[
        int, typer.Option("--members", min=1, max=200_000, help="Members of the generated sample.")
    ] = 2000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed, another population.")] = 7,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one line of JSON on stdout; everything else goes to stderr.")
    ] = False,
    leave: Annotated[bool, typer.Option("--exit", help="Stop the platform when the document is there.")] = False,
    port: PortOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Start the platform and make a value proposition document, from login to document, through the gateway.

    Uses the platform that runs already, if it does. Else it stays up until Ctrl-C, unless --exit.
    """
    from triton_cli.demo import Outcome, show, synthea_extract  # noqa: PLC0415  the servers' drivers take a second
    from triton_cli.demo import run as run_demo  # noqa: PLC0415  same

    if data is not None:
        synthea_extract(data)  # a wrong folder is told before anything starts
    home = State(state)
    done = False

    def told(outcome: Outcome) -> None:
        nonlocal done
        done = True
        show(outcome, progress if as_json else output, secrets_file=home.secrets_file)
        if as_json:
            print(outcome.as_json(), flush=True)
        if not leave:
            _say_ready(home, console=progress)

    try:
        until_signal(
            run_demo(home, port=port, data=data, members=members, seed=seed, leave=leave, console=progress, told=told)
        )
    except KeyboardInterrupt:
        if not done:
            raise


@app.command()
@sentences
async def smoke(  # noqa: PLR0917  typer passes options by name
    url: Annotated[str, typer.Argument(envvar="TRITON_URL", help="The platform.")] = url_of(DEFAULT_PORT),
    members: Annotated[int, typer.Option("--members", min=1, max=200_000, help="Members of the sample.")] = 200,
    within: Annotated[float, typer.Option("--timeout", min=1, help="Seconds that all of it may take.")] = 300.0,
    env_file: Annotated[
        Path,
        typer.Option("--env-file", dir_okay=False, help="Where compose has the first admin from.", show_default=".env"),
    ] = CHECKOUT / ".env",
    as_json: JsonOption = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Try a running platform: make a document through its gateway, from login to PDF. Exit code 1 when it cannot.

    As TRITON_TOKEN, TRITON_API_KEY or TRITON_EMAIL with TRITON_PASSWORD; else as who is logged in there; else, on this
    machine, as the admin of `triton up` or of compose's .env. What it makes stays: a client, its prospect, a document.
    """
    from triton_cli.smoke import api_for  # noqa: PLC0415  numpy takes a while to import
    from triton_cli.smoke import smoke as try_out  # noqa: PLC0415  same

    api = api_for(url, State(state), env_file=env_file)
    outcome = await try_out(api, members=members, within=within, console=progress)
    if as_json:
        print(outcome.as_json())
    else:
        took = outcome.seconds["total"]
        say(f"{api.url} does its main job: job {outcome.job_id}, {took:.1f} s.", console=output)


@app.command()
@sentences
def sample(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the four CSV files go.")],
    members: Annotated[int, typer.Option("--members", min=1, max=1_000_000, help="How many members.")] = 2000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same bytes.")] = 7,
) -> None:
    """Write a plausible invented population: claims, clinical, utilization and pharmacy CSV in Triton's own columns."""
    from triton_cli.sample import write_sample  # noqa: PLC0415  numpy takes a while to import

    try:
        files = write_sample(out, members=members, seed=seed)
    except OSError as error:
        raise CommandFailed(f"{out} cannot be written: {error.strerror}.") from error
    for path in files.values():
        output.print(str(path), highlight=False, soft_wrap=True)


def _say_ready(state: State, console: Console = output) -> None:
    found = state.running() or {}
    stops = "Ctrl-C or `triton down`" if found.get("pid") == os.getpid() else "`triton down`"
    for line in (
        f"\nTriton is ready: {found.get('url')}",
        f"  {ADMIN_EMAIL} has the admin_password of {state.secrets_file}",
        f"  {stops} stops everything; the data stays.",
    ):
        say(line, console=console)


def _start_detached(state: State, port: int | None, *, agentos: bool) -> None:
    from triton_cli.doctor import check_settings  # noqa: PLC0415  same
    from triton_cli.running import follow_start  # noqa: PLC0415  the servers' drivers take a second to import

    check_settings()
    if state.is_locked():
        with state.locked():  # raises: says who holds it
            pass
    state.prepare()
    left = state.published().get("parts", [])  # read now: the process that starts takes it away
    log = state.log("stack")
    command = [
        sys.executable,
        "-m",
        "triton_cli.main",
        "up",
        "--state",
        str(state.folder),
        "--port",
        str(port or DEFAULT_PORT),
        *(["--agentos"] if agentos else []),
    ]
    with log.open("wb") as file:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    try:
        until_signal(follow_start(state, progress, left=left, alive=lambda: child.poll() is None))
    except CommandFailed as error:
        raise CommandFailed(f"{error}\n{tail(log, 40)}") from None
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise
    _say_ready(state)


def _follow_log(log: Path, position: int, shown: Callable[[str], str]) -> NoReturn:
    while True:
        size = log.stat().st_size if log.exists() else 0
        if size < position:  # put aside, begun anew
            position = 0
        if size > position:
            with log.open("rb") as file:
                file.seek(position)
                new = file.read(size - position)
            whole = new.rpartition(b"\n")[0]  # the last line may still be on its way
            position += len(whole) + 1 if whole else 0
            if whole:
                print(shown(whole.decode(errors="replace")), flush=True)
        time.sleep(0.2)


if __name__ == "__main__":
    app()
