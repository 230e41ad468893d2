"""A job from claim to outcome, whatever its type: what is made of it is the business of its type's maker."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from loguru import logger
from uuid_utils.compat import uuid7

from agent_runner import attempts, collecting
from agent_runner.attempts import Attempt, NotNow
from agent_runner.calls import Calls
from agent_runner.desk import Desk
from agent_runner.heart import Heart
from agent_runner.models import Models
from agent_runner.recorder import Recorder
from agent_runner.settings import Settings
from agent_runner.stop import Stopped
from triton_common.client import SyncServiceClient, SyncServiceToken
from triton_common.errors import AppError, Internal, Unavailable, Unprocessable
from triton_common.logging import log_context, log_line
from triton_common.schemas import DocumentContent, JobError, JobStatus

Ended = Literal["completed", "failed", "cancelled", "released", "lost", "not_claimed", "not_taken"]


class JobTypeUnknown(Unprocessable):
    """No worker knows jobs of this type."""


class JobCrashed(Internal):
    """The job failed for a reason that nobody foresaw."""


@dataclass
class Worker:
    """What all jobs of a worker process share."""

    settings: Settings
    makers: "Mapping[str, Maker]"
    jobs: SyncServiceClient
    calls: Calls
    heart: Heart
    analytics: SyncServiceClient
    models: Models
    token: SyncServiceToken
    recorder: Recorder
    running: set[Attempt] = field(default_factory=set)
    draining: threading.Event = field(default_factory=threading.Event)
    releasing: bool = False

    @classmethod
    def start(cls, settings: Settings, *, makers: "Mapping[str, Maker]") -> "Worker":
        """Opens no connection yet. Raises ValueError for an AGENT_MODEL that no provider has."""
        token = SyncServiceToken(settings.auth_url, client_id=settings.client_id, client_secret=settings.client_secret)
        jobs = SyncServiceClient(settings.jobs_url, token=token)
        return cls(
            settings=settings,
            makers=makers,
            jobs=jobs,
            calls=Calls(jobs),
            heart=Heart(Calls(jobs)),
            analytics=SyncServiceClient(settings.analytics_url, token=token, timeout=collecting.CALL_TIMEOUT),
            models=Models(settings),
            token=token,
            recorder=Recorder(settings.database_url.get_secret_value()),
        )

    def desk(self, attempt: Attempt) -> Desk:
        """What the agents of an attempt share."""
        return Desk(
            settings=self.settings,
            models=self.models,
            stop=attempt.stop,
            job=attempt.job,
            worker=attempt.worker,
            record=self.recorder.keep,
        )

    def drain(self) -> None:
        """Claim nothing more, and release what still runs after the grace. A signal handler calls it, so it only starts
        a timer."""
        self.draining.set()
        timer = threading.Timer(self.settings.shutdown_grace.total_seconds(), self._release)
        timer.daemon = True
        timer.start()

    def _release(self) -> None:
        self.releasing = True
        for attempt in list(self.running):
            self.hurry(attempt)

    def hurry(self, attempt: Attempt) -> None:
        """Release a job; its worker tries to say so for as long as the grace was."""
        attempt.hurry(patience=self.settings.shutdown_grace.total_seconds())

    def close(self) -> None:
        """Close all connections, the records of runs written; leases end by themselves."""
        for connected in (self.heart, self.jobs, self.analytics, self.token, self.models, self.recorder):
            connected.close()


Maker = Callable[[Worker, Attempt], DocumentContent]
"""Makes a job's document. It reports through the attempt and waits through its `stop`; the AppError it raises is the
job's failure, an Unavailable one worth another attempt; NotNow gives the job back. It may be stopped at any point, and
run again."""


def run(worker: Worker, job_id: UUID, *, name: str, task_id: str | None) -> Ended:
    """Claim the job, run it, and report its outcome. Never raises: whatever goes wrong is the job's outcome.

    Safe to call any number of times, at the same time too: jobs-service gives a job to one claim alone.
    """
    if worker.draining.is_set():
        return "not_taken"
    attempt = attempts.claim(worker.calls, worker.heart, job_id, worker=name, task_id=task_id, draining=worker.draining)
    if attempt is None:
        return "not_claimed"
    with log_context(request_id=attempt.job.request_id, attempt=str(attempt.job.attempt)), attempt:
        log_line("INFO", "job claimed", {})
        worker.running.add(attempt)
        if worker.releasing:  # the claim outlasted the grace
            worker.hurry(attempt)
        try:
            ended = _run(worker, attempt)
        finally:
            worker.running.discard(attempt)
        log_line("INFO", "job ended", {"outcome": ended})
        return ended


def _run(worker: Worker, attempt: Attempt) -> Ended:
    try:
        return _complete(worker, attempt)
    except Stopped as stopped:
        if stopped.reason == "lost":
            return "lost"
        return stopped.reason if attempt.finish(stopped.reason) else "lost"
    except NotNow as later:
        return "released" if attempt.finish("released", retry_after=later.seconds) else "lost"
    except AppError as error:
        logger.bind(code=error.code, retryable=isinstance(error, Unavailable)).warning("job failed")
        return _fail(attempt, error, retryable=isinstance(error, Unavailable))
    except Exception as error:  # noqa: BLE001  the outermost place of a job
        traceback_id = str(uuid7())
        logger.opt(exception=error).bind(traceback_id=traceback_id).error("job crashed")
        return _fail(
            attempt,
            JobCrashed("Something went wrong on our side. The log has it under traceback_id."),
            traceback_id=traceback_id,
        )


def _complete(worker: Worker, attempt: Attempt) -> Ended:
    status = attempt.finish("completed", document=_maker(worker, attempt.job.job_type)(worker, attempt))
    if status is None:
        return "lost"
    return "cancelled" if status is JobStatus.CANCELLED else "completed"  # somebody cancelled it after our last report


def _maker(worker: Worker, job_type: str) -> Maker:
    if job_type not in worker.makers:
        raise JobTypeUnknown(f"This worker runs {', '.join(sorted(worker.makers))} jobs, not {job_type}.")
    return worker.makers[job_type]


def _fail(attempt: Attempt, error: AppError, *, retryable: bool = False, traceback_id: str | None = None) -> Ended:
    told = JobError(
        code=error.code,
        message=error.message[:2000],
        details=error.details,
        attempt=attempt.job.attempt,
        traceback_id=traceback_id,
    )
    return "failed" if attempt.finish("failed", error=told, retryable=retryable) else "lost"
