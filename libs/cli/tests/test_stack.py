"""The supervisor, with small parts of its own."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from triton_cli.board import Board
from triton_cli.stack import Part, PartFailed, Phase, PortInUse, Stack, Status, check_ports
from triton_common.testing import free_port


@asynccontextmanager
async def stack_of(*parts: Part, logs: Path, **options) -> AsyncIterator[Stack]:
    stack = Stack(parts, logs=logs, **options)
    try:
        yield stack
    finally:
        await stack.stop()


async def until(condition: Callable[[], bool], within: float = 15.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  processes set no Event
            await asyncio.sleep(0.05)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_parts_start_after_what_they_need_and_stop_before_it(stand_in, tmp_path):
    seen: list[tuple[str, Phase]] = []

    def report(name: str, status: Status) -> None:
        if not seen or seen[-1] != (name, status.phase):
            seen.append((name, status.phase))

    first = stand_in.server("first", free_port())
    second = stand_in.server("second", free_port(), layer=1, after=("first",))
    async with stack_of(second, first, logs=tmp_path, report=report) as stack:
        await stack.start()
        assert all(status.phase is Phase.READY and status.pid for status in stack.statuses.values())
    assert seen.index(("first", Phase.READY)) < seen.index(("second", Phase.STARTING))
    assert seen.index(("second", Phase.STOPPED)) < seen.index(("first", Phase.STOPPING))


async def test_a_failing_part_shows_the_last_lines_of_its_log(stand_in, tmp_path):
    never = stand_in.server("x", 1).ready
    broken = Part(name="broken", layer=0, command=[sys.executable, "-c", stand_in.FAILING], ready=never)
    (tmp_path / "broken.log").write_text("a line of an earlier run\n")
    async with stack_of(broken, logs=tmp_path) as stack:
        with pytest.raises(PartFailed, match="broken ended with exit code 3 before it was ready") as failure:
            await stack.start()
    assert "no such table: users" in str(failure.value)
    assert "earlier run" not in str(failure.value)
    assert stack.statuses["broken"].phase is Phase.FAILED


async def test_a_part_that_is_never_ready_is_ended_and_told_of(stand_in, tmp_path):
    silent = Part(
        name="silent",
        layer=0,
        command=[sys.executable, "-c", "import time; time.sleep(60)"],
        ready=stand_in.server("x", free_port()).ready,
    )
    async with stack_of(silent, logs=tmp_path, start_timeout=1.0) as stack:
        with pytest.raises(PartFailed, match="was not ready within 1 s"):
            await stack.start()
        assert stack.statuses["silent"].pid is None


async def test_a_program_that_is_not_there_is_a_failure_in_words(stand_in, tmp_path):
    missing = Part(name="missing", layer=0, command=["/nonexistent/program"])
    async with stack_of(missing, logs=tmp_path) as stack:
        with pytest.raises(PartFailed, match=r"missing could not be started: .*No such file"):
            await stack.start()


async def test_a_part_that_dies_is_started_again(stand_in, tmp_path):
    part = stand_in.server("fragile", free_port())
    async with stack_of(part, logs=tmp_path) as stack:
        await stack.start()
        watching = asyncio.create_task(stack.supervise())
        pid = stack.statuses["fragile"].pid
        assert pid is not None
        psutil.Process(pid).kill()
        await until(lambda: stack.statuses["fragile"].phase is Phase.RESTARTING)
        assert "ended by SIGKILL; starts again in 1 s" in stack.statuses["fragile"].reason
        await until(lambda: stack.statuses["fragile"].phase is Phase.READY)
        assert stack.statuses["fragile"].pid != pid
        assert stack.statuses["fragile"].restarts == 1
        watching.cancel()


async def test_what_does_not_end_in_time_is_killed_with_its_children(stand_in, tmp_path):
    script = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "signal.pause()\n"
    )

    async def started() -> None:
        assert (tmp_path / "stubborn.log").read_text()

    part = Part(name="stubborn", layer=0, command=[sys.executable, "-c", script], ready=started)
    async with stack_of(part, logs=tmp_path, stop_timeout=0.3) as stack:
        await stack.start()
        pid = stack.statuses["stubborn"].pid
        child = int((tmp_path / "stubborn.log").read_text())
        assert alive(child)
    assert pid is not None
    assert not alive(pid)
    await until(lambda: not alive(child), within=3)


async def test_only_the_main_process_is_asked_to_stop(stand_in, tmp_path):
    """A signal to the group would take its children from a part that is waiting for them."""
    script = (
        "import signal, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(0.5)'])\n"
        "def stop(*_):\n"
        "    print('child ended with', child.wait(), flush=True)\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    log = tmp_path / "parent.log"

    async def started() -> None:
        assert "ready" in log.read_text()

    async with stack_of(
        Part(name="parent", layer=0, command=[sys.executable, "-c", script], ready=started), logs=tmp_path
    ) as stack:
        await stack.start()
    assert "child ended with 0" in log.read_text()


async def test_a_stamped_command_runs_once_for_the_same_stamp(stand_in, tmp_path):
    command = [sys.executable, "-c", "print('ran')"]
    part = Part(name="once", layer=0, command=command, stamp=(tmp_path / "once.stamp", "1"))
    for stamp in ("1", "1", "2"):
        async with stack_of(replace(part, stamp=(tmp_path / "once.stamp", stamp)), logs=tmp_path) as stack:
            await stack.start()
            assert stack.statuses["once"].phase is Phase.DONE
    assert (tmp_path / "once.log").read_text() == "ran\nran\n"


async def test_a_port_in_use_is_named_with_its_holder_and_the_option(stand_in, tmp_path):
    port = free_port()
    async with stack_of(stand_in.server("holder", port), logs=tmp_path) as stack:
        await stack.start()
        with pytest.raises(PortInUse) as refused:
            check_ports([stand_in.server("gateway", port), stand_in.server("unhindered", free_port())])
        text = str(refused.value)
        assert f"port {port}, which gateway needs, is used by" in text
        assert f"(process {stack.statuses['holder'].pid})" in text
        assert "--port" in text
        assert "unhindered" not in text


async def test_a_long_log_is_put_aside(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr("triton_cli.stack.LOG_LIMIT", 10)
    (tmp_path / "noisy.log").write_text("more than ten bytes\n")
    async with stack_of(
        Part(name="noisy", layer=0, command=[sys.executable, "-c", "print('new')"]), logs=tmp_path
    ) as stack:
        await stack.start()
    assert (tmp_path / "noisy.log").read_text() == "new\n"
    assert (tmp_path / "noisy.log.1").exists()


def test_signals_that_end_parts_are_named():
    from triton_cli.stack import _how  # noqa: PLC0415  the one place that needs it

    assert _how(-signal.SIGSEGV) == "by SIGSEGV"
    assert _how(2) == "with exit code 2"


def test_a_board_is_a_live_table_on_a_terminal_and_a_line_a_change_elsewhere():
    for terminal in (True, False):
        said = StringIO()
        board = Board(Console(file=said, force_terminal=terminal, width=80, color_system=None), ["redis", "gateway"])
        with board:
            board.report("redis", Status(phase=Phase.STARTING))
            board.report("redis", Status(phase=Phase.READY, took=1.25))
            board.report("gateway", Status(phase=Phase.RESTARTING, reason="it ended by SIGKILL"))
            board.tick()
        board.report("gateway", Status(phase=Phase.STOPPED))  # nobody looks at a stop part by part
        lines = [" ".join(line.split()) for line in said.getvalue().splitlines()]
        if terminal:  # drawn anew at each change: what follows moves the cursor first
            for shown in ("· gateway waiting", "✔ redis ready in 1.2 s", "↻ gateway restarting: it ended by SIGKILL"):
                assert any(line.endswith(shown) for line in lines), shown
        else:
            assert lines == ["redis: starting", "redis: ready in 1.2 s", "gateway: restarting: it ended by SIGKILL"]
