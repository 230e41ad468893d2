"""`just bench jobs`: how fast the job engine is, as ratios to others in the same run on the same machine.

Who is compared takes turns, round after round; what is printed are medians. All that was measured is kept as JSON.
"""

import json
import platform as machine
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from triton_common.testing import WORKSPACE
from triton_trials import reads, speed
from triton_trials.platform import Platform
from triton_trials.speed import percentiles

WORKER_THREADS: Final = 32  # as agent-runner has by itself
RESULTS: Final = WORKSPACE / ".bench"  # git-ignored
NUMBERED: Final = re.compile("00000000-0000-7000-[89ab]000-0*")  # what is left of an id is its number
MIB: Final = 1024 * 1024

console = Console(width=None if sys.stdout.isatty() else 140)


@dataclass(frozen=True)
class Goal:
    """Something measured, and what it is to be: at least, or at most."""

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is so."""
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    jobs: int = 4000
    rounds: int = 3
    seconds: float = 3.0
    rows: int = 1_000_000
    asked: int = 100
    lost: int = 10_000


QUICK: Final = Size(jobs=200, rounds=1, seconds=0.3, rows=2_000, asked=10, lost=300)


@dataclass
class Run:
    """One run: where, how much, and what came of it."""

    platform: Platform
    size: Size
    raw: dict[str, Any]
    goals: list[Goal]


def say(text: str) -> None:
    """What is being measured just now."""
    console.print(f"  {text}", style="dim", highlight=False)


async def engine(run: Run) -> None:
    """Submit, drain and end-to-end rates, latencies and memory beside raw Celery and procrastinate."""
    speeds = await speed.measure(run.platform, jobs=run.size.jobs, rounds=run.size.rounds, say=say)
    run.raw["engine"] = {name: asdict(one) for name, one in speeds.items()}
    celery, procrastinate = speeds["Celery"], speeds["procrastinate"]
    table = Table("", "submit/s", "drain/s", "min to max", "both at once/s", "drain x Celery", "drain x procrastinate")
    for name, one in speeds.items():
        drained = median(one.drained)
        table.add_row(
            name,
            f"{median(one.submitted):.0f}",
            f"{drained:.0f}",
            f"{min(one.drained):.0f} to {max(one.drained):.0f}",
            f"{median(one.through):.0f}",
            f"{drained / median(celery.drained):.2f}",
            f"{drained / median(procrastinate.drained):.2f}",
        )
    console.print(table)
    columns = [f"{load} {p}" for load in ("idle", "loaded") for p in ("p50", "p95", "p99")]
    table = Table("ms from submission to done", *columns)
    for name, one in speeds.items():
        table.add_row(name, *(f"{1000 * value:.1f}" for kept in (one.idle, one.loaded) for value in percentiles(kept)))
        if one.seen:
            table.add_row("  … until GET says so", *(f"{1000 * value:.1f}" for value in percentiles(one.seen)))
    console.print(table)
    table = Table("processor ms a job, submission to done", "in all", "of which")
    for name, one in speeds.items():
        parts = ", ".join(f"{part} {1000 * seconds:.2f}" for part, seconds in one.computed.items())
        table.add_row(name, f"{1000 * sum(one.computed.values()):.2f}", parts)
    console.print(table)
    table = Table("memory, MiB", "in all", "of which, children included")
    for name, one in speeds.items():
        parts = ", ".join(f"{part} {size / MIB:.0f}" for part, size in one.memory.items())
        table.add_row(name, f"{sum(one.memory.values()) / MIB:.0f}", parts)
    console.print(table)
    for name in (name for name in speeds if name.startswith("Triton")):
        drained = median(speeds[name].drained)
        run.goals.append(Goal(f"drain / raw Celery ({name})", drained / median(celery.drained), at_least=1.0))
        run.goals.append(Goal(f"drain / procrastinate ({name})", drained / median(procrastinate.drained), at_least=2.0))
    p50, p95, _ = percentiles(speeds["Triton"].idle)
    run.goals.append(Goal("idle POST to completed, p50, ms", 1000 * p50, at_most=8))
    run.goals.append(Goal("idle POST to completed, p95, ms", 1000 * p95, at_most=15))


async def read(run: Run) -> None:
    """GET /jobs/{id} beside FastAPI without a database; a route with a token beside one without."""
    say("one job, read over 16 connections")
    found = await reads.one_job(run.platform, rounds=run.size.rounds, seconds=run.size.seconds)
    run.raw["read"] = found
    table = Table("answers/s", "median", "min to max")
    for name, values in found.items():
        table.add_row(name, f"{median(values):.0f}", f"{min(values):.0f} to {max(values):.0f}")
    console.print(table)
    rate = {name: median(values) for name, values in found.items()}
    run.goals.append(Goal("GET /jobs/{id} / bare FastAPI", rate["GET /jobs/{id}"] / rate["bare FastAPI"], at_least=0.8))
    run.goals.append(Goal("with a token / without", rate["with a token"] / rate["without a token"], at_least=0.9))


async def page(run: Run) -> None:
    """A page of 50 from a million jobs beside one from a thousand, by every filter."""
    found = await reads.lists(run.platform, large=run.size.rows, asked=run.size.asked, say=say)
    run.raw["page"] = found
    table = Table(
        "GET /jobs?limit=50&…", "asks", "jobs", f"p95 ms of {reads.SMALL:,}", f"of {run.size.rows:,}", "ratio"
    )
    ratios = reads.compared(found)
    for one, ratio in ratios:
        small, large = (f"{1000 * seconds:.1f}" for seconds in one["p95"])
        table.add_row(
            NUMBERED.sub("", one["filter"]),
            one["who"],
            " / ".join(map(str, one["items"])),
            small,
            large,
            f"{ratio:.2f}",
        )
    console.print(table)
    run.goals.append(
        Goal("list of 1,000,000 / of 1,000 jobs, p95, worst filter", max(ratio for _, ratio in ratios), at_most=3)
    )


async def lost(run: Run) -> None:
    """Ten thousand messages, sent again after FLUSHALL."""
    say(f"{run.size.lost:,} messages lost")
    found = await reads.recovery(run.platform, jobs=run.size.lost)
    run.raw["lost"] = found
    console.print(
        f"after FLUSHALL {found['jobs']:,} messages were back in {found['messages back']:.2f} s; "
        f"once workers were started, all was done in {found['done after']:.1f} s"
    )
    run.goals.append(Goal("re-enqueue of 10,000 jobs after FLUSHALL, s", found["messages back"], at_most=2))


PARTS: Final[Mapping[str, Callable[[Run], Awaitable[None]]]] = {
    "engine": engine,
    "read": read,
    "page": page,
    "lost": lost,
}


async def jobs(parts: Sequence[str], size: Size, folder: Path) -> Run:
    """The benchmark of the job engine: Triton, raw Celery, procrastinate."""
    platform = Platform(folder, services=0, workers=0, threads=WORKER_THREADS)
    run = Run(platform, size, {"machine": this_machine(), "size": asdict(size)}, [])
    async with platform:
        for part in parts:
            console.print(f"[bold]{part}[/]  {(PARTS[part].__doc__ or '').splitlines()[0]}")
            await PARTS[part](run)
    run.raw["goals"] = [asdict(goal) | {"met": goal.met} for goal in run.goals]
    return run


BENCHMARKS: Final = {"jobs": jobs}


def this_machine() -> dict[str, Any]:
    """What numbers of this run stand for."""
    names = ("celery", "fastapi", "procrastinate", "psycopg", "redis", "uvicorn")
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "load": psutil.getloadavg()[0],
        "system": machine.platform(),
        "python": machine.python_version(),
        "versions": {name: version(name) for name in names},
    }


def goals_of(run: Run) -> Table:
    """What was to be reached, and was it."""
    table = Table("goal", "measured", "to be", "", title="Goals", title_justify="left")
    for goal in run.goals:
        bound = f"≥ {goal.at_least:g}" if goal.at_least is not None else f"≤ {goal.at_most:g}"
        table.add_row(goal.name, f"{goal.value:.2f}", bound, "[green]met[/]" if goal.met else "[red]missed[/]")
    return table


def keep(name: str, run: Run) -> Path:
    """Write all that was measured to a file."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    file.write_text(json.dumps(run.raw, indent=1) + "\n")
    return file


def main(
    name: str | None = typer.Argument(None, metavar="[NAME]", help="Which benchmark; without it, those there are"),
    only: list[str] = typer.Option([], help=f"Parts of it: {', '.join(PARTS)}"),  # noqa: B008  typer's way
    quick: bool = typer.Option(False, "--quick", help="A minute, to see that it runs: its numbers mean nothing"),
    count: int = typer.Option(Size.jobs, "--jobs", help="Without work, submitted and done by each in a turn"),
    rounds: int = typer.Option(Size.rounds, help="Turns of each"),
) -> None:
    """Benchmarks: ratios between parts that ran in turn on the same machine."""
    if name is None or name not in BENCHMARKS:
        for known, benchmark in BENCHMARKS.items():
            console.print(f"{known:8} {(benchmark.__doc__ or '').splitlines()[0]}", highlight=False)
        raise typer.Exit(0 if name is None else 2)
    size = QUICK if quick else Size(jobs=count, rounds=rounds)
    folder = Path(tempfile.mkdtemp(prefix="triton-bench-"))
    run = uvloop.run(BENCHMARKS[name](only or list(PARTS), size, folder))
    shutil.rmtree(folder, ignore_errors=True)
    at = run.raw["machine"]
    console.print(goals_of(run))
    console.print(
        f"{at['cores']} cores, load {at['load']:.1f} before, Python {at['python']}; all numbers: {keep(name, run)}"
    )


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(main)

if __name__ == "__main__":
    app()
