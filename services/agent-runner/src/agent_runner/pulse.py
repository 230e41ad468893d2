"""Whether this worker takes messages: its metrics, and the port that shows them and answers the health check."""

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from triton_common.telemetry import exposition

SILENCE: Final = 20.0  # seconds; Redis answers a waiting worker each second, and a dead connection is noticed in 11

TASKS: Final = Counter("celery_tasks_total", "Tasks that ended, by their state in Celery", ["task", "state"])
TASK_SECONDS: Final = Histogram(
    "celery_task_duration_seconds",
    "A task from its start to its end",
    ["task"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800),
)
THREADS: Final = Gauge("celery_worker_threads", "Tasks that the worker runs at once")
BUSY: Final = Gauge("celery_worker_busy_threads", "Tasks that it runs now")
SILENT: Final = Gauge(
    "celery_worker_silence_seconds",
    "Since Redis last answered the worker, which waits for messages; 0 while all its threads are busy",
)


class Pulse:
    """A worker's: which tasks run, and when Redis last answered. Any thread may tell."""

    def __init__(self, *, threads: int, heard: Callable[[], float]) -> None:
        """`heard` answers when Redis last did, by the monotonic clock."""
        self._threads = threads
        self._heard = heard
        self._began_at = monotonic()
        self._running: dict[str, float] = {}
        THREADS.set(threads)
        BUSY.set_function(lambda: len(self._running))
        SILENT.set_function(self.silence)

    def begin(self, task_id: str) -> None:
        """A task starts."""
        self._running[task_id] = monotonic()

    def end(self, task_id: str, task: str, state: str) -> None:
        """It is over."""
        now = monotonic()
        TASK_SECONDS.labels(task).observe(now - self._running.pop(task_id, now))
        TASKS.labels(task, state.lower()).inc()

    def silence(self) -> float:
        """Seconds since Redis last answered. A worker whose threads are all busy asks for nothing."""
        if len(self._running) >= self._threads:
            return 0.0
        return monotonic() - max(self._heard(), self._began_at)

    def show(self, port: int, *, host: str) -> None:
        """Serve /metrics, and /health/ready: 503 when the worker takes no messages."""
        pulse = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, kind, body = pulse.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Scrapes are no news."""

        server = ThreadingHTTPServer((host, port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, name="pulse", daemon=True).start()

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """(status, content type, body)"""
        match path:
            case "/metrics":
                return HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, exposition()
            case "/health/ready":
                silence = self.silence()
                status = HTTPStatus.OK if silence < SILENCE else HTTPStatus.SERVICE_UNAVAILABLE
                body = {"status": "ok" if status is HTTPStatus.OK else "down", "silence_seconds": round(silence, 1)}
                return status, "application/json", json.dumps(body).encode()
            case _:
                return HTTPStatus.NOT_FOUND, "text/plain", b""
