"""`just chaos`: every accident, one after the other, on one platform.

Ends with a table and, when something was wrong, exit code 1 and the folder of the logs.
"""

import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer
from rich.console import Console
from rich.table import Table

from triton_trials.cases import CASES, Case
from triton_trials.load import LONG, SERVICES, SHORT, THREADS, WORKERS, Size
from triton_trials.platform import Platform
from triton_trials.trial import Trial
from triton_trials.verdict import Verdict, judge

LEASE: Final = 3  # seconds; half a minute by default
SETTINGS: Final = {
    "JOBS_LEASE": f"PT{LEASE}S",
    "AGENT_SHUTDOWN_GRACE": "PT0.2S",  # less than most jobs take, so that a stopping worker hands some of them back
}

console = Console(width=140 if not sys.stdout.isatty() else None, soft_wrap=True)


def platform_in(folder: Path) -> Platform:
    """All cases run on one like this."""
    return Platform(folder, services=SERVICES, workers=WORKERS, threads=THREADS // WORKERS, settings=SETTINGS)


async def run_case(case: Case, size: Size, platform: Platform, *, seed: int = 0) -> Verdict:
    """One case; what goes wrong in it is a violation, so that the others still run."""
    trial = Trial(case.name, platform, seed=seed)
    try:
        await case.run(trial, size)
    except Exception as error:  # noqa: BLE001  whatever the accident did to the case itself
        trial.violations.append(f"the case broke off: {_innermost(error)!r}")
    try:
        return await asyncio.to_thread(judge, trial)
    except Exception as error:  # noqa: BLE001  and to what it is judged by
        return Verdict(case.name, violations=[*trial.violations, f"it could not be judged: {error!r}"])


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def run(cases: Sequence[Case], size: Size, folder: Path, *, seed: int) -> list[Verdict]:
    """Run cases on a platform of their own, and say how each went."""
    verdicts = []
    async with platform_in(folder) as platform:
        for case in cases:
            console.print(f"[bold]{case.name}[/]  {case.what}")
            began = time.monotonic()
            verdict = await run_case(case, size, platform, seed=seed)
            verdicts.append(verdict)
            console.print(f"  {'[red]FAILED[/]' if verdict.violations else 'passed'}  {time.monotonic() - began:.0f} s")
            for violation in verdict.violations:
                console.print(f"  {violation}", style="red", markup=False)
    return verdicts


def table_of(verdicts: Sequence[Verdict]) -> Table:
    """What each case came to."""
    table = Table("case", title=f"Accidents, with a lease of {LEASE} s; times in seconds", title_justify="left")
    for column in ("jobs", "attempts", "in vain", "POST p99", "resumed", "retaken", "all over"):
        table.add_column(column, justify="right")
    table.add_column("")
    for one in verdicts:
        times = (one.slowest, one.resumed, one.retaken, one.over)
        table.add_row(
            one.case,
            *(str(number) for number in (one.jobs, one.attempts, one.in_vain)),
            *("" if seconds is None else f"{seconds:.2f}" for seconds in times),
            "[red]FAILED[/]" if one.violations else one.note,
        )
    return table


def main(
    names: list[str] = typer.Argument(None, metavar="[CASE]...", help="All of them by default"),  # noqa: B008  typer's way
    short: bool = typer.Option(False, "--short", help="As the tests run them"),
    seed: int | None = typer.Option(None, help="Of the dice, to throw them as another run did; drawn by default"),
) -> None:
    """Accidents in the middle of work: no job is lost, none has two results, none hangs."""
    if unknown := [name for name in names or () if name not in CASES]:
        console.print(f"There is no case {', '.join(unknown)}. There are:")
        for case in CASES.values():
            console.print(f"  {case.name:20} {case.what}")
        raise typer.Exit(2)
    cases = [CASES[name] for name in names] if names else list(CASES.values())
    folder = Path(tempfile.mkdtemp(prefix="triton-chaos-"))
    seed = random.randrange(10**6) if seed is None else seed
    console.print(f"The dice are thrown by --seed {seed}.")
    verdicts = asyncio.run(run(cases, SHORT if short else LONG, folder, seed=seed))
    if not told(verdicts, folder / "logs"):
        sys.exit(1)
    shutil.rmtree(folder, ignore_errors=True)


def told(verdicts: Sequence[Verdict], logs: Path) -> bool:
    """Print the table; whether all went well."""
    console.print()
    console.print(table_of(verdicts))
    console.print(
        "attempts: claims of all jobs.\n"
        "in vain: documents made that no job has: refused, as another attempt had the job, or gone with their worker.\n"
        "POST p99: of the submissions during the accident, from the first try to the answer that accepted it.\n"
        "resumed: the longest time from the accident's end on in which no new job was started.\n"
        "retaken: the longest from an attempt's last sign of life to the next attempt."
    )
    well = not any(verdict.violations for verdict in verdicts)
    if not well:
        console.print(f"\nThe logs are in {logs}", style="red")
    return well


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(main)

if __name__ == "__main__":
    app()
