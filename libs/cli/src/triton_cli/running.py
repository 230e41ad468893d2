"""The stack of this machine from its start to its end: the lock, the ports, the status lines, the signals."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, Final

from rich.console import Console

from triton_cli.board import Board
from triton_cli.parts import parts_of
from triton_cli.stack import Phase, Stack, Status, check_ports
from triton_cli.state import CommandFailed, State, url_of

FRAME: Final = 0.125  # seconds between two drawings of the status lines


@asynccontextmanager
async def running(state: State, *, port: int, console: Console) -> AsyncIterator[Stack]:
    """The stack, ready; supervised as long as the context lasts, stopped at its end, whatever ends it.

    Raises CommandFailed: it runs already, a port is taken, a part did not start.
    """
    with state.locked():
        parts = parts_of(state, port, secrets=state.secrets())
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


async def follow_start(state: State, console: Console, *, alive: Callable[[], bool]) -> dict[str, Any]:
    """Show how the stack that another process starts here becomes ready; answers what that says of itself.

    `alive` tells whether the process is there. Raises CommandFailed when it ends before.
    """
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
