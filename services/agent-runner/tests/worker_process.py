"""The worker as the stack starts it: a process of its own."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

START = 30  # seconds; a worker imports celery and httpx


class WorkerProcess:
    """A worker as the stack starts it. `output` grows as it logs."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-A", "agent_runner.worker", "worker", "--concurrency", "4"),
                *("--without-gossip", "--without-mingle"),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.output.append(line)
                self._changed.notify_all()

    def says(self, words: str) -> None:
        """Wait until it has logged this."""
        with self._changed:
            found = self._changed.wait_for(lambda: any(words in line for line in self.output), START)
        assert found, "".join(self.output)

    def send_signal(self, number: signal.Signals, *, group: bool = False) -> None:
        if group:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        code = self._process.wait(START)
        self._reader.join(START)
        return code

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(START)
        assert self._process.stdout is not None
        self._process.stdout.close()


Start = Callable[..., WorkerProcess]
