"""The job engine beside raw Celery and procrastinate; reads beside bare FastAPI; lists; lost messages."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from rich.table import Table

from triton_trials import reads, speed
from triton_trials.benchmarks.report import MIB, Report, Wanted, console
from triton_trials.platform import Platform
from triton_trials.speed import percentiles

WORKER_THREADS: Final = 32  # as agent-runner has by itself
NUMBERED: Final = re.compile("00000000-0000-7000-[89ab]000-0*")  # what is left of an id is its number


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


@dataclass(frozen=True)
class Run:
    """One run: where, how much, and what came of it."""

    report: Report
    platform: Platform
    size: Size


async def engine(run: Run) -> None:
    """Submit, drain and end-to-end rates, latencies and memory beside raw Celery and procrastinate."""
    speeds = await speed.measure(run.platform, jobs=run.size.jobs, rounds=run.size.rounds, say=run.report.say)
    run.report.raw["engine"] = {name: asdict(one) for name, one in speeds.items()}
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
        run.report.goal(f"drain / raw Celery ({name})", drained / median(celery.drained), at_least=1.0)
        run.report.goal(f"drain / procrastinate ({name})", drained / median(procrastinate.drained), at_least=2.0)
    p50, p95, _ = percentiles(speeds["Triton"].idle)
    run.report.goal("idle POST to completed, p50, ms", 1000 * p50, at_most=8)
    run.report.goal("idle POST to completed, p95, ms", 1000 * p95, at_most=15)


async def read(run: Run) -> None:
    """GET /jobs/{id} beside FastAPI without a database; a route with a token beside one without."""
    run.report.say("one job, read over 16 connections")
    found = await reads.one_job(run.platform, rounds=run.size.rounds, seconds=run.size.seconds)
    run.report.raw["read"] = found
    run.report.rates("answers/s", found)
    rate = {name: median(values) for name, values in found.items()}
    run.report.goal("GET /jobs/{id} / bare FastAPI", rate["GET /jobs/{id}"] / rate["bare FastAPI"], at_least=0.8)
    run.report.goal("with a token / without", rate["with a token"] / rate["without a token"], at_least=0.9)


async def page(run: Run) -> None:
    """A page of 50 from a million jobs beside one from a thousand, by every filter."""
    found = await reads.lists(run.platform, large=run.size.rows, asked=run.size.asked, say=run.report.say)
    run.report.raw["page"] = found
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
    worst = max(ratio for _, ratio in ratios)
    run.report.goal("list of 1,000,000 / of 1,000 jobs, p95, worst filter", worst, at_most=3)


async def lost(run: Run) -> None:
    """Ten thousand messages, sent again after FLUSHALL."""
    run.report.say(f"{run.size.lost:,} messages lost")
    found = await reads.recovery(run.platform, jobs=run.size.lost)
    run.report.raw["lost"] = found
    console.print(
        f"after FLUSHALL {found['jobs']:,} messages were back in {found['messages back']:.2f} s; "
        f"once workers were started, all was done in {found['done after']:.1f} s"
    )
    run.report.goal("re-enqueue of 10,000 jobs after FLUSHALL, s", found["messages back"], at_most=2)


PARTS: Final[Mapping[str, Callable[[Run], Awaitable[None]]]] = {
    "engine": engine,
    "read": read,
    "page": page,
    "lost": lost,
}


async def measure(report: Report, wanted: Wanted, folder: Path) -> None:
    """Measure the parts on one platform. `count` is of jobs, submitted and done by each in a turn."""
    size = QUICK if wanted.quick else Size(jobs=wanted.count or Size.jobs, rounds=wanted.rounds)
    report.raw["size"] = asdict(size)
    async with Platform(folder, services=0, workers=0, threads=WORKER_THREADS) as platform:
        run = Run(report, platform, size)
        for part in wanted.parts:
            console.print(f"[bold]{part}[/]  {(PARTS[part].__doc__ or '').splitlines()[0]}")
            await PARTS[part](run)
