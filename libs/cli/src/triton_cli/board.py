"""How the start of the stack looks: a live line per part on a terminal, a plain line per change elsewhere."""

import time
from collections.abc import Iterable
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from triton_cli.stack import Phase, Status

MARKS: Final = {
    Phase.WAITING: ("·", "dim"),
    Phase.READY: ("✔", "green"),
    Phase.DONE: ("✔", "green"),
    Phase.RESTARTING: ("↻", "yellow"),
    Phase.FAILED: ("✘", "red"),
    Phase.STOPPING: ("·", "dim"),
    Phase.STOPPED: ("·", "dim"),
}


class Board:
    """The parts of a stack and their phases, on `console`. As a context it is live; later it prints what changes."""

    def __init__(self, console: Console, names: Iterable[str]) -> None:
        self._console = console
        self._statuses = {name: Status() for name in names}
        self._spinner = Spinner("dots")
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Begin the live display, where there is a terminal."""
        if self._console.is_terminal:
            self._live = Live(self, console=self._console, auto_refresh=False)
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state standing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def tick(self) -> None:
        """Draw again: time has passed."""
        if self._live is not None:
            self._live.refresh()

    def report(self, name: str, status: Status) -> None:
        """Take in a change."""
        before = self._statuses[name]
        if before.phase is status.phase and before.reason == status.reason:
            return
        self._statuses[name] = status
        if self._live is not None:
            self._live.refresh()
        elif status.phase not in (Phase.WAITING, Phase.STOPPING, Phase.STOPPED):
            self._console.print(f"{name}: {words(status)}", style=MARKS.get(status.phase, ("", ""))[1], highlight=False)

    def __rich__(self) -> Table:
        """The table of parts."""
        table = Table.grid(padding=(0, 1))
        width = max(len(name) for name in self._statuses)
        for name, status in self._statuses.items():
            mark, style = MARKS.get(status.phase, ("", "cyan"))
            shown = Text(mark, style) if mark else self._spinner
            table.add_row(shown, Text(name.ljust(width)), Text(words(status), style))
        return table


def words(status: Status) -> str:
    """A status in words."""
    match status.phase:
        case Phase.STARTING:
            waited = time.monotonic() - status.since
            return f"starting, {waited:.0f} s" if waited >= 1 else "starting"
        case Phase.READY | Phase.DONE if status.took is not None:
            return f"{status.phase} in {status.took:.1f} s"
        case _ if status.reason:
            return f"{status.phase}: {status.reason}"
        case _:
            return str(status.phase)
