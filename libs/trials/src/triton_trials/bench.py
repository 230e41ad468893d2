"""`just bench NAME`: how fast it is, as ratios to others in the same run on the same machine.

Who is compared takes turns, round after round; what is printed are medians. All that was measured is kept as JSON.
"""

import shutil
import tempfile
from collections.abc import Collection, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol

import typer
import uvloop

from triton_trials.benchmarks import agents, auth, jobs
from triton_trials.benchmarks.report import Report, Wanted, console


class Benchmark(Protocol):
    """A module of `benchmarks`: its docstring's first line says what it measures."""

    @property
    def PARTS(self) -> Collection[str]:  # noqa: N802  a module's constant
        """The names of what can be measured alone."""
        ...

    def measure(self, report: Report, wanted: Wanted, folder: Path, /) -> Coroutine[Any, Any, None]:
        """Put what the wanted parts come to into the report; files go into `folder`, which is deleted."""
        ...


BENCHMARKS: Final[dict[str, Benchmark]] = {"jobs": jobs, "auth": auth, "agents": agents}


def main(
    name: str | None = typer.Argument(None, metavar="[NAME]", help="Which benchmark; without it, those there are"),
    only: list[str] = typer.Option([], help="Parts of it; without this, all"),  # noqa: B008  typer's way
    quick: bool = typer.Option(False, "--quick", help="A minute, to see that it runs: its numbers mean nothing"),
    rounds: int = typer.Option(3, min=1, help="Turns of each"),
    count: int | None = typer.Option(None, min=1, help="Of what is measured in a turn: jobs, rows, tokens"),
) -> None:
    """Benchmarks: ratios between parts that ran in turn on the same machine."""
    benchmark = BENCHMARKS.get(name or "")
    if name is None or benchmark is None:
        for known, one in BENCHMARKS.items():
            about = (one.__doc__ or "").splitlines()[0]
            console.print(f"{known:10} {about}\n{'':10} parts: {', '.join(one.PARTS)}", highlight=False)
        raise typer.Exit(0 if name is None else 2)
    if unknown := set(only) - set(benchmark.PARTS):
        raise typer.BadParameter(f"{', '.join(unknown)}: {name} has {', '.join(benchmark.PARTS)}", param_hint="--only")
    report = Report()
    wanted = Wanted(only or list(benchmark.PARTS), quick=quick, rounds=1 if quick else rounds, count=count)
    folder = Path(tempfile.mkdtemp(prefix="triton-bench-"))
    try:
        uvloop.run(benchmark.measure(report, wanted, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.end(name)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(main)

if __name__ == "__main__":
    app()
