"""Claims taken in, and reports, beside the engine by itself; what a file of two gigabytes takes of memory."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from triton_trials.benchmarks import ingest, reports
from triton_trials.benchmarks.report import Report, Wanted, console
from triton_trials.benchmarks.stack import Stack, stack

Part = Callable[[Report, Stack, Wanted, Path], Awaitable[None]]
PARTS: Final[Mapping[str, Part]] = {"memory": ingest.memory, "ingest": ingest.ingest, "reports": reports.reports}
"""In this order: what a process has once taken from the system, it may keep, and the last stops the platform."""


async def measure(report: Report, wanted: Wanted, folder: Path) -> None:
    """Measure the parts. `count` is of rows."""
    report.say("the platform starts")
    async with stack(folder) as platform:
        for name, part in PARTS.items():
            if name in wanted.parts:
                console.print(f"[bold]{name}[/]  {part.__doc__}")
                await part(report, platform, wanted, folder)
