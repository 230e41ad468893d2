"""The stack of this machine from its start to its end: the lock, the ports, the status lines, the signals."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, Final

import psutil
from rich.console import Console

from triton_cli.board import Board
from triton_cli.command import say
from triton_cli.doctor import check_settings
from triton_cli.parts import parts_of
from triton_cli.stack import STOP_TIMEOUT, Phase, Stack, Status, check_ports
from triton_cli.state import CommandFailed, State, url_of

SAME_START: Final = 1.0  # seconds; a clock that is set moves the times at which the kernel says processes began
FRAME: Final = 0.125  # seconds between two drawings of the status lines


@asynccontextmanager
async def running(state: State, *, port: int, console: Console, agentos: int | None = None) -> AsyncIterator[Stack]:
    """The stack, ready; supervised as long as the context lasts, stopped at its end, whatever ends it.

    Raises CommandFailed: a setting is wrong, it runs already, a port is taken, a part did not start.
    """
    check_settings()
    with state.locked() as left:
        parts = parts_of(state, port, secrets=state.secrets(), agentos=agentos)
        await end_leftovers(left.get("parts", []), console)
        check_ports(parts)
        board = Board(console, [part.name for part in parts])
        ready = False

        def report(name: str, status: Status) -> None:
            board.report(name, status)
            publish()

        def publish() -> None:
            state.publish(
                {
                    "pid": os.getpid(),
                    "port": port,
                    "url": url_of(port),
                    "ready": ready,
                    "parts": [
                        {
                            "name": part.name,
                            "phase": stack.statuses[part.name].phase,
                            "pid": stack.statuses[part.name].pid,
                            "began": _began(stack.statuses[part.name].pid),
                            "ports": list(part.ports),
                            "restarts": stack.statuses[part.name].restarts,
                            "reason": stack.statuses[part.name].reason,
                            "took": stack.statuses[part.name].took,
                        }
                        for part in parts
                    ],
                }
            )

        stack = Stack(parts, logs=state.logs, report=report)
        try:
            with board:
                async with _in_background(_tick(board)):
                    await stack.start()
            ready = True
            publish()
            async with _in_background(stack.supervise()):
                yield stack
        finally:
            console.print("Stopping …", style="dim")
            try:
                await stack.stop()
            except asyncio.CancelledError:
                stack.kill()
                raise
            console.print("Everything is stopped.", style="dim")


async def end_leftovers(parts: Iterable[Mapping[str, Any]], console: Console, *, grace: float = STOP_TIMEOUT) -> None:
    """Wait for the parts of a stack that was killed: the kernel has asked each to stop, and a worker gives its jobs
    back first. What is there after `grace` seconds is killed with its group, if it is the process that was recorded and
    not a later one of its number.
    """
    left = leftovers(parts, console)
    deadline = time.monotonic() + grace
    while left := [part for part in left if _is_there(part)]:
        if time.monotonic() > deadline:
            for part in left:
                with suppress(ProcessLookupError):
                    os.killpg(part["pid"], signal.SIGKILL)
        await asyncio.sleep(FRAME)


def leftovers(parts: Iterable[Mapping[str, Any]], console: Console) -> list[Mapping[str, Any]]:
    """Those of a killed stack's parts that are still there; says so, if there are any."""
    left = [part for part in parts if _is_there(part)]
    if left:
        names = ", ".join(part["name"] for part in left)
        say(f"An earlier start was killed; waiting for what is left of it: {names}.", console=console, style="dim")
    return left


def _is_there(part: Mapping[str, Any]) -> bool:
    """Whether the process that was recorded for a part still runs: that one, by when it began."""
    began = _began(part["pid"])
    return began is not None and abs(began - part.get("began", 0.0)) < SAME_START


def _began(pid: int | None) -> float | None:
    """When a process began, in seconds since 1970; None when it is no more."""
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        return process.create_time() if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


async def follow_start(
    state: State, console: Console, *, alive: Callable[[], bool], left: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Show how the stack that another process starts here becomes ready; answers what that says of itself.

    `alive` tells whether the process is there; `left` are the parts of a stack that was killed here, for which it waits
    first. Raises CommandFailed when it ends before.
    """
    leftovers(left, console)
    board: Board | None = None
    with ExitStack() as shown:
        while True:
            there = alive()  # asked first: what it published last must not be missed
            stack = state.running()
            if stack and "parts" in stack:
                if board is None:
                    board = shown.enter_context(Board(console, [part["name"] for part in stack["parts"]]))
                for part in stack["parts"]:
                    board.report(part["name"], Status(Phase(part["phase"]), reason=part["reason"], took=part["took"]))
                if stack["ready"]:
                    return stack
            if not there:
                raise CommandFailed("The stack ended before it was ready.")
            await asyncio.sleep(FRAME)


async def for_ever() -> None:
    """Until a signal cancels it."""
    await asyncio.get_running_loop().create_future()


async def _tick(board: Board) -> None:
    while True:
        board.tick()
        await asyncio.sleep(FRAME)


@asynccontextmanager
async def _in_background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
