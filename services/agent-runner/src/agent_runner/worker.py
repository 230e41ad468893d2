"""The Celery worker: takes messages from the queue "agent-runner" and runs the jobs they name, each in a thread.

`celery -A agent_runner.worker worker`. Importing this opens nothing; the worker process does when it starts. A module
that imports `app` and puts a maker into MAKERS is a worker for another type of job: `celery -A that.module worker`.
"""

import logging
from importlib.metadata import version
from typing import Any, Final

from celery import Task, signals
from kombu.exceptions import OperationalError
from loguru import logger
from opentelemetry.trace import SpanKind, use_span

from agent_runner import runs, value_proposition
from agent_runner.pulse import Pulse
from agent_runner.runs import Maker, Worker
from agent_runner.settings import Settings
from triton_common.logging import configure_logging, log_context
from triton_common.messages import Ping, RunJob
from triton_common.queue.celery import celery_app
from triton_common.queue.heard import last_heard
from triton_common.telemetry import configure_tracing, span_below

NAME: Final = "agent-runner"

settings = Settings()
app = celery_app(settings.task_queue_url.get_secret_value(), name="agent_runner")
app.conf.update(
    task_default_queue=RunJob.queue,
    worker_concurrency=32,  # threads: jobs wait for models, and a fork would need its own clients
)

MAKERS: Final[dict[str, Maker]] = {value_proposition.JOB_TYPE: value_proposition.make}
"""What this worker makes of a job, by the job's type."""

_worker: Worker | None = None
_pulse: Pulse | None = None


@app.task(name=RunJob.name, bind=True)  # type: ignore[untyped-decorator]
def run_job(self: Task, **message: Any) -> None:
    """Run a job to its outcome.

    Twice is safe: the claim answers one of two messages alone, and the other is dropped. A message that comes after the
    job is over, or whose worker dies, changes nothing either: the job's row and its lease decide.
    """
    command = RunJob.model_validate(message)
    span = span_below(RunJob.name, traceparent=command.traceparent, kind=SpanKind.CONSUMER)
    with (
        log_context(request_id=command.request_id, job_id=str(command.job_id), task_name=RunJob.name),
        use_span(span, end_on_exit=True),
    ):
        ended = runs.run(_started(), command.job_id, name=self.request.hostname or NAME, task_id=self.request.id)
        if ended == "not_taken":
            _put_back(self, message)


def _put_back(task: Task, message: dict[str, Any]) -> None:
    """Leave a message that came while this worker shuts down to another; else jobs-service sends it again, later."""
    lane = task.request.delivery_info.get("priority")
    try:
        task.apply_async(kwargs=message, task_id=task.request.id, queue=RunJob.queue, priority=lane, retry=False)
    except OperationalError:
        logger.warning("message could not be put back")


@app.task(name=Ping.name, ignore_result=False)  # type: ignore[untyped-decorator]
def ping(**message: Any) -> str:
    """Answer, to show that the queue is consumed. Twice is safe: it changes nothing."""
    with log_context(request_id=Ping.model_validate(message).request_id, task_name=Ping.name):
        logger.info("ping answered")
    return "pong"


def _started() -> Worker:
    assert _worker is not None  # noqa: S101  tasks run only after worker_init
    return _worker


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _log(**_: Any) -> None:
    """In place of Celery's own logging, whose lines on each task name no job: ours do, and say the same."""
    configure_logging(settings, service=NAME)
    for theirs in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(theirs).setLevel(logging.WARNING)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def _start(**_: Any) -> None:
    global _worker  # noqa: PLW0603  one worker a process; Celery's signals leave no other place for it
    configure_tracing(service=NAME, version=version(NAME))
    try:
        _worker = Worker.start(settings, makers=MAKERS)
    except ValueError as error:  # Celery would log it and go on without
        raise SystemExit(str(error)) from error


@signals.celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def _show(instance: Any, **_: Any) -> None:
    global _pulse  # noqa: PLW0603  same
    _pulse = Pulse(threads=instance.concurrency, heard=last_heard)
    if settings.metrics_port:
        _pulse.show(settings.metrics_port, host=settings.metrics_host)


@signals.task_prerun.connect  # type: ignore[untyped-decorator]
def _begin(task_id: str, **_: Any) -> None:
    if _pulse is not None:
        _pulse.begin(task_id)


@signals.task_postrun.connect  # type: ignore[untyped-decorator]
def _end(task_id: str, task: Task, state: str, **_: Any) -> None:
    if _pulse is not None:
        _pulse.end(task_id, task.name, state)


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _drain(**_: Any) -> None:
    """SIGTERM: Celery takes no more messages and waits for the running tasks."""
    if _worker is not None:
        _worker.drain()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _stop(**_: Any) -> None:
    if _worker is not None:
        _worker.close()
