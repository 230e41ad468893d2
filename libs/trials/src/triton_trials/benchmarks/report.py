"""What a benchmark measured: tables, goals, and all of its numbers in a file."""

import json
import platform as machine
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median
from typing import Any, Final

import psutil
from rich.console import Console
from rich.table import Table

from triton_common.testing import WORKSPACE

RESULTS: Final = WORKSPACE / ".bench"  # git-ignored
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
class Wanted:
    """How much is measured: `count` of whatever a benchmark counts, by itself unless given."""

    parts: Sequence[str]
    quick: bool = False
    rounds: int = 3
    count: int | None = None


def this_machine() -> dict[str, Any]:
    """What numbers of this run stand for."""
    names = ("celery", "fastapi", "psycopg", "redis", "uvicorn")
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "load": psutil.getloadavg()[0],
        "system": machine.platform(),
        "python": machine.python_version(),
        "versions": {name: version(name) for name in names},
    }


@dataclass
class Report:
    """What came of a run. Put numbers into `raw`, what was to be reached by `goal`."""

    raw: dict[str, Any] = field(default_factory=lambda: {"machine": this_machine()})
    goals: list[Goal] = field(default_factory=list)

    def goal(self, name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        """Say what was to be reached."""
        self.goals.append(Goal(name, value, at_least=at_least, at_most=at_most))

    def say(self, text: str) -> None:
        """What is being measured just now."""
        console.print(f"  {text}", style="dim", highlight=False)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print numbers."""
        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        console.print(table)

    def rates(self, name: str, found: Mapping[str, Sequence[float]]) -> None:
        """Print rates of several rounds: the median and how far they lie apart."""
        rows = [
            (key, f"{median(values):,.0f}", f"{min(values):,.0f} to {max(values):,.0f}")
            for key, values in found.items()
        ]
        self.table([name, "median", "min to max"], rows)

    def end(self, name: str) -> None:
        """Print the goals, and keep all that was measured."""
        table = Table("goal", "measured", "to be", "", title="Goals", title_justify="left")
        for goal in self.goals:
            bound = f"≥ {goal.at_least:g}" if goal.at_least is not None else f"≤ {goal.at_most:g}"
            table.add_row(goal.name, f"{goal.value:.2f}", bound, "[green]met[/]" if goal.met else "[red]missed[/]")
        console.print(table)
        self.raw["goals"] = [asdict(goal) | {"met": goal.met} for goal in self.goals]
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
        file.write_text(json.dumps(self.raw, indent=1) + "\n")
        at = self.raw["machine"]
        console.print(f"{at['cores']} cores, load {at['load']:.1f} before, Python {at['python']}; all numbers: {file}")
