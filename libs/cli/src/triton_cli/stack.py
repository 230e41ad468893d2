"""The supervisor: starts each part once those it comes after are ready, restarts one that dies, stops them layer by
layer. What the parts are is `parts.py`'s matter.

Everything runs in one thread: the kernel ends a child with the thread that started it (see `embedded.spawn`).
"""

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Final

import psutil

from triton_cli.logs import readable
from triton_cli.state import CommandFailed
from triton_common import embedded

START_TIMEOUT: Final = 180.0  # seconds; the first start of all compiles every module of every service
STOP_TIMEOUT: Final = 15.0  # a part that is still there after that is killed
CHECK_INTERVAL: Final = 0.2
FIRST_PAUSE: Final = 1.0  # before a restart; doubled each time
LONGEST_PAUSE: Final = 30.0
STEADY: Final = 60.0  # a part that ran that long starts again after the first pause
LOG_LINES: Final = 20
LOG_LIMIT: Final = 20_000_000  # bytes; a longer log is put aside at the next start


class Phase(StrEnum):
    """Where a part is."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DONE = "done"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Status:
    """A part's phase, since when, its process, and a reason where there is one."""

    phase: Phase = Phase.WAITING
    since: float = field(default_factory=time.monotonic)
    pid: int | None = None
    reason: str = ""
    took: float | None = None
    restarts: int = 0


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process of the stack. It starts once those in `after` are ready. Layers stop one after another, the highest
    first, so that a part can speak to those below until its end."""

    name: str
    layer: int
    after: Sequence[str] = ()
    command: Sequence[str | Path]
    ready: Callable[[], Awaitable[None]] | None = None
    """Raises while it is not; None for a command that is done when it ends."""
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    ports: Sequence[int] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    prepare: Callable[[], int | None] | None = None
    """Runs before each start; answers the user to run as, None for our own."""
    stamp: tuple[Path, str] | None = None
    """A file and what it says once the command is done: it need not run again until it would say something else."""


class PartFailed(CommandFailed):
    """A part did not become ready."""

    def __init__(self, name: str, reason: str, log: Path, *, since: int) -> None:
        self.name = name
        self.reason = reason
        lines = readable(embedded.tail(log, LOG_LINES, since=since)).splitlines()[-LOG_LINES:]
        shown = "\n".join([f"The last lines of {log}:\n", *lines]) if lines else f"It wrote nothing to {log}."
        super().__init__(f"{name} {reason}. {shown}")


class PortInUse(CommandFailed):
    """Somebody listens where a part wants to."""


class Stack:
    """Parts that run together. `report` hears of every change of a part's status."""

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        logs: Path,
        report: Callable[[str, Status], None] = lambda _name, _status: None,
        start_timeout: float = START_TIMEOUT,
        stop_timeout: float = STOP_TIMEOUT,
    ) -> None:
        self.parts = parts
        self.statuses = {part.name: Status() for part in self.parts}
        self._logs = logs
        self._report = report
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._written: dict[str, int] = {}  # how long each log was at its part's last start

    async def start(self) -> None:
        """Start all parts. Raises PartFailed for the first that does not become ready; the others keep running."""
        ready = {part.name: asyncio.Event() for part in self.parts}

        async def start(part: Part) -> None:
            for name in part.after:
                await ready[name].wait()
            await self._start(part)
            ready[part.name].set()

        try:
            async with asyncio.TaskGroup() as group:
                for part in self.parts:
                    group.create_task(start(part))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def supervise(self) -> None:
        """Restart what dies, for ever."""
        async with asyncio.TaskGroup() as group:
            for part in self.parts:
                if part.ready is not None:
                    group.create_task(self._keep(part))

    async def stop(self) -> None:
        """Stop the parts, the highest layer first; what does not end in time is killed."""
        falling = sorted(self.parts, key=lambda part: -part.layer)
        for _, layer in groupby(falling, key=lambda part: part.layer):
            await asyncio.gather(*(self._stop(part) for part in layer))

    def kill(self) -> None:
        """End everything at once."""
        for part in self.parts:
            self._end(part)

    async def _start(self, part: Part) -> None:
        started = time.monotonic()
        if part.stamp and _stamped(*part.stamp):
            return self._set(part, Phase.DONE, took=0.0)
        log = self._logs / f"{part.name}.log"
        self._set(part, Phase.STARTING)
        try:
            user = await asyncio.to_thread(part.prepare) if part.prepare else None
            self._written[part.name] = _put_aside(log)
            process = embedded.spawn(
                part.command,
                log=log,
                environment=part.environment or None,
                folder=part.folder,
                user=user,
                stop_signal=part.stop_signal,
            )
        except (OSError, subprocess.SubprocessError, embedded.ServerNotStarted) as error:
            raise self._failed(part, f"could not be started: {error}", log) from error
        self._processes[part.name] = process
        self._set(part, Phase.STARTING)
        problem: object = "no answer yet"
        while time.monotonic() < started + self._start_timeout:
            if process.poll() is not None:
                if part.ready is None and process.returncode == 0:
                    if part.stamp:
                        part.stamp[0].write_text(part.stamp[1])
                    return self._set(part, Phase.DONE, took=time.monotonic() - started)
                raise self._failed(part, f"ended {_how(process.returncode)} before it was ready", log)
            if part.ready is not None:
                try:
                    await part.ready()
                    return self._set(part, Phase.READY, took=time.monotonic() - started)
                except Exception as error:  # noqa: BLE001  whatever a client says of a server that is not there yet
                    problem = error
            await asyncio.sleep(CHECK_INTERVAL)
        raise self._failed(part, f"was not ready within {self._start_timeout:.0f} s ({problem})", log)

    async def _keep(self, part: Part) -> None:
        pause = 0.0
        while True:
            watched = time.monotonic()
            process = self._processes.get(part.name)
            while process is not None and process.poll() is None:  # noqa: ASYNC110  a process sets no Event
                await asyncio.sleep(CHECK_INTERVAL)
            steady = time.monotonic() - watched > STEADY
            pause = FIRST_PAUSE if steady or not pause else min(2 * pause, LONGEST_PAUSE)
            ended = f"ended {_how(process.returncode)}" if process is not None else "did not start"
            self._end(part)
            restarts = self.statuses[part.name].restarts + 1
            self._set(part, Phase.RESTARTING, reason=f"{ended}; starts again in {pause:.0f} s", restarts=restarts)
            await asyncio.sleep(pause)
            with suppress(PartFailed):  # reported; the next round tries again
                await self._start(part)

    async def _stop(self, part: Part) -> None:
        process = self._processes.get(part.name)
        if process is None:
            return
        if process.poll() is None:
            self._set(part, Phase.STOPPING)
            process.send_signal(part.stop_signal)
            deadline = time.monotonic() + self._stop_timeout
            while process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110  same
                await asyncio.sleep(CHECK_INTERVAL / 4)
        self._end(part)
        self._set(part, Phase.STOPPED)

    def _end(self, part: Part) -> None:
        """Kill what is left of a part: its own process, or what that left behind, which may hold its port."""
        process = self._processes.pop(part.name, None)
        if process is not None:
            embedded.kill_group(process)

    def _failed(self, part: Part, reason: str, log: Path) -> PartFailed:
        self._end(part)
        self._set(part, Phase.FAILED, reason=reason)
        return PartFailed(part.name, reason, log, since=self._written.get(part.name, 0))

    def _set(
        self, part: Part, phase: Phase, *, reason: str = "", took: float | None = None, restarts: int | None = None
    ) -> None:
        process = self._processes.get(part.name)
        before = self.statuses[part.name]
        self.statuses[part.name] = Status(
            phase=phase,
            pid=process.pid if process is not None and process.returncode is None else None,
            reason=reason,
            took=took,
            restarts=before.restarts if restarts is None else restarts,
        )
        self._report(part.name, self.statuses[part.name])


def check_ports(parts: Iterable[Part]) -> None:
    """Raise PortInUse, which names every port that is taken, who wants it and who has it."""
    taken = [f"port {port}, which {part.name} needs, {holder}" for part, port, holder in ports_in_use(parts)]
    if taken:
        raise PortInUse(
            f"{'; '.join(taken)}. Stop that, or choose another block of ten ports with --port, for example --port 8100."
        )


def ports_in_use(parts: Iterable[Part]) -> list[tuple[Part, int, str]]:
    """The ports somebody listens on: who wants each, and who has it in words."""
    return [(part, port, _holder(port)) for part in parts for port in part.ports if not _is_free(port)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection in TIME_WAIT is nobody
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    """Which process listens on a port. Others' processes only root may see."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
                return f"is used by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return "is used by a process of another user"


def _how(code: int) -> str:
    """A return code in words."""
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def _put_aside(log: Path) -> int:
    """Begin a log anew when it has become long; answers its length."""
    size = log.stat().st_size if log.exists() else 0
    if size <= LOG_LIMIT:
        return size
    log.replace(log.with_suffix(".log.1"))
    return 0


def _stamped(file: Path, text: str) -> bool:
    return file.exists() and file.read_text() == text
