"""Stand-in parts: small processes that listen, wait or fail, in place of the platform's."""

import os
import random
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

pytest_plugins = ["triton_common.testing"]

STAND_IN = Path(__file__).with_name("stand_in.py")


def pytest_configure(config: pytest.Config) -> None:
    """The marker of the walk through the real platform, which takes a minute: leave it out with -m 'not demo'."""
    config.addinivalue_line("markers", "demo: starts the real platform")


@pytest.fixture
def triton(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a `triton` command on the stand-in parts, in a session of its own; what it leaves running is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, state: Path | None = None, **environment: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, STAND_IN, *arguments, "--state", state or tmp_path / "state"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        children = []
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
        process.communicate()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


@pytest.fixture(scope="session")
def stand_in() -> SimpleNamespace:
    """What stand_in.py has: test folders are no packages, so tests cannot import it."""
    return SimpleNamespace(**runpy.run_path(str(STAND_IN)))


@pytest.fixture
def answer_of(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run a `triton` command on the stand-in parts to its end."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(STAND_IN), *arguments, "--state", str(tmp_path / "state")]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture(scope="session")
def free_block() -> Callable[[], int]:
    """A port with nine free ones after it, below those that the kernel gives to outgoing connections."""

    def is_free(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    def find() -> int:
        while True:
            first = random.randrange(20_000, 32_000, 10)
            if all(is_free(port) for port in range(first, first + 10)):
                return first

    return find
