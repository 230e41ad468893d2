"""One attempt at a job: claimed from jobs-service, held by a lease that is renewed, and ended with an outcome.

jobs-service decides everything: who holds a job, and whether an answer still counts. Here is what a worker owes it.
"""

import contextvars
import threading
from contextlib import ExitStack
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self
from uuid import UUID

from loguru import logger
from pydantic import ValidationError
from uuid_utils.compat import uuid4

from agent_runner.calls import Calls
from agent_runner.stop import Stop
from triton_common.errors import AppError, Conflict, NotFound, TooManyRequests, Unauthorized, Unavailable
from triton_common.schemas import (
    ClaimCall,
    ClaimedJob,
    DocumentContent,
    FinishCall,
    JobClaim,
    JobError,
    JobFinish,
    JobFinishAnswer,
    JobProgress,
    JobProgressAnswer,
    JobStage,
    JobStatus,
    ProblemDetail,
    ProgressCall,
)
from triton_common.telemetry import tracer

HEARTBEAT: Final = 5.0  # seconds; half of the ten in which a cancelled job must stop
# seconds that a claim is repeated: messages stay in the queue meanwhile, and a claim that was heard is answered at last
CLAIM_PATIENCE: Final = 20.0
PAUSE: Final = 0.2  # seconds before a call to jobs-service is repeated; it doubles
LONGEST_PAUSE: Final = 5.0
# seconds; jobs-service takes no job away in the first lease after its start, so an outcome still counts after minutes
# without it. Later than this, another attempt is under way.
PATIENCE: Final = 300.0

FAULTS: Final = 20  # that are told of an answer which is not understood

Outcome = Literal["completed", "failed", "cancelled", "released"]


class NotNow(Exception):
    """Somebody whom the job needs is busy: it goes back, due again after `seconds`, and the attempt does not count."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(seconds)


class JobNotUnderstood(Unavailable):
    """The worker does not understand the job."""


class Heart(Protocol):
    """Renews the leases of attempts (heart.py)."""

    def add(self, attempt: "Attempt") -> None:
        """Renew its lease from now on."""
        ...

    def discard(self, attempt: "Attempt") -> None:
        """Renew it no more."""
        ...


class Attempt:
    """A job this worker holds. As a context it has its lease renewed, until the job is over.

    `stop` tells the job's thread when to end: cancelled by somebody, or the lease is lost.
    """

    def __init__(self, calls: Calls, heart: Heart, job: ClaimedJob, *, worker: str = "") -> None:
        self.job = job
        self.worker = worker
        self.stop = Stop()
        self.renew_at = inf
        """When the lease is to be renewed, by `monotonic`."""
        self._calls = calls
        self._heart = heart
        self._interval = min(HEARTBEAT, job.lease_seconds / 3)
        self._last = JobProgress(attempt=job.attempt, progress=0, stage=JobStage.COLLECTING)
        self._reporting = threading.Lock()  # reports leave in the order they were made
        self._over = threading.Event()
        self._give_up_at = inf
        self._context = contextvars.Context()
        self._stage: ExitStack | None = None

    def __enter__(self) -> Self:
        """Begin to have the lease renewed."""
        self._context = contextvars.copy_context()  # so that lines about the lease tell whose it is
        self.renew_at = monotonic() + self._interval
        self._heart.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Have it renewed no more. A job that was not finished goes to another worker when the lease ends."""
        if self._stage is not None:
            self._stage.close()
        self._over.set()
        self._heart.discard(self)

    def report(self, progress: int, stage: JobStage, message: str = "") -> None:
        """Tell how far the job is. Raises Stopped when it should end; jobs-service being away is no reason to."""
        report = JobProgress(attempt=self.job.attempt, progress=progress, stage=stage, message=message)
        if self._stage is None or stage is not self._last.stage:
            self._begin(stage)
        with self._reporting:
            if call := self._reports(report):
                [answer] = self._calls.make_all([call])
                self._hear(answer)
        self.stop.check()

    def _begin(self, stage: JobStage) -> None:
        """The span of a stage, until the next one begins; the job's thread works within it."""
        if self._stage is not None:
            self._stage.close()
        self._stage = ExitStack()
        self._stage.enter_context(
            tracer.start_as_current_span(stage, attributes={"job_id": str(self.job.job_id)}, record_exception=False)
        )

    def hurry(self, *, patience: float) -> None:
        """The worker shuts down: release the job, and try to say so for `patience` seconds at most."""
        self._give_up_at = monotonic() + patience
        self.stop.set("released")

    def finish(
        self,
        outcome: Outcome,
        *,
        document: DocumentContent | None = None,
        error: JobError | None = None,
        retryable: bool = False,
        retry_after: float = 0,
    ) -> JobStatus | None:
        """End the attempt; repeated until jobs-service has answered. The status that the job has now: a cancelled one
        stays cancelled, whatever came of it. None when the outcome came too late, or nobody takes it. A document that
        is refused raises the refusal.

        Safe to repeat: the same answer twice is one change, and that of an attempt which lost its lease is refused.
        """
        body = JobFinish(
            attempt=self.job.attempt,
            outcome=outcome,
            document=document,
            error=error,
            retryable=retryable,
            retry_after_seconds=retry_after,
        )
        call = FinishCall(job_id=self.job.job_id, body=body)
        give_up_at, pause = monotonic() + PATIENCE, PAUSE
        while True:
            try:
                with self._reporting:
                    answer = self._calls.make(call)
                    self._over.set()
            except (Conflict, NotFound) as refused:
                logger.bind(outcome=outcome, code=refused.code).info("outcome came too late")
                return None
            except AppError as failed:
                if not _passes(failed):
                    logger.bind(outcome=outcome, code=failed.code).error("the outcome is refused")
                    if outcome == "completed":
                        raise  # what refuses a document is why the job failed
                    if error is None or not error.details:
                        return None  # its lease ends, and jobs-service decides
                    bare = error.model_copy(update={"details": []})  # there may be too many, or too long ones
                    return self.finish(outcome, error=bare, retryable=retryable, retry_after=retry_after)
                if monotonic() > min(give_up_at, self._give_up_at):
                    logger.bind(outcome=outcome, code=failed.code).error("outcome could not be reported")
                    return None
                logger.bind(outcome=outcome, code=failed.code).warning("jobs-service does not take the outcome yet")
                self._over.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                try:
                    return JobFinishAnswer.model_validate(answer).status
                except ValidationError as unread:
                    logger.bind(outcome=outcome, faults=_faults(unread)).error(
                        "jobs-service's answer is not understood"
                    )
                    return None

    def renewal(self) -> ProgressCall | None:
        """The last report again, to renew the lease: `renewed` has to follow, with its answer. None while another
        report is under way, which renews it just as well, and once the job is over."""
        self.renew_at = monotonic() + self._interval
        if not self._reporting.acquire(blocking=False):
            return None
        call = None
        try:
            call = self._context.run(self._reports, self._last.model_copy(update={"message": ""}))
        finally:
            if call is None:
                self._reporting.release()
        return call

    def renewed(self, answer: dict[str, Any] | AppError) -> None:
        """Take the answer to `renewal`."""
        try:
            self._context.run(self._hear, answer)
        finally:
            self._reporting.release()

    def _reports(self, report: JobProgress) -> ProgressCall | None:
        """The call to make; None when nobody wants to hear it any more."""
        if self._over.is_set() or self.stop.reason == "lost":
            self.renew_at = inf
            return None
        self._last = report
        self.renew_at = monotonic() + self._interval
        return ProgressCall(job_id=self.job.job_id, body=report)

    def _hear(self, answer: dict[str, Any] | AppError) -> None:
        if isinstance(answer, Conflict | NotFound):
            logger.bind(code=answer.code).info("the job is no longer ours")
            self.stop.set("lost")
        elif isinstance(answer, AppError):
            logger.bind(code=answer.code).warning("progress could not be reported")
        else:
            try:
                if JobProgressAnswer.model_validate(answer).cancelled:
                    self.stop.set("cancelled")
            except ValidationError as error:
                logger.bind(faults=_faults(error)).error("jobs-service's answer is not understood")


def claim(
    calls: Calls, heart: Heart, job_id: UUID, *, worker: str, task_id: str | None, draining: threading.Event
) -> Attempt | None:
    """The job, if it is to be had. None when another worker has it, when it is over, or when nobody answers: the
    message is dropped then, and jobs-service sends it again for as long as the job is pending.

    A claim without an answer is repeated under its id, so that one that was heard is answered with the same attempt
    again; once the worker drains, one time more. None, too, of a job that we do not understand: it has failed then.
    """
    call = ClaimCall(job_id=job_id, body=JobClaim(worker=worker, task_id=task_id, claim_id=uuid4()))
    give_up_at, pause = monotonic() + CLAIM_PATIENCE, PAUSE
    while True:
        is_last = draining.is_set() or monotonic() > give_up_at
        try:
            answer = calls.make(call)
        except (Conflict, NotFound) as refused:
            logger.bind(code=refused.code).info("job is not to be had")
            return None
        except AppError as failed:
            if is_last or not _passes(failed):
                logger.bind(code=failed.code).error("job could not be claimed")
                return None
            logger.bind(code=failed.code).warning("claim got no answer")
            draining.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            try:
                return Attempt(calls, heart, ClaimedJob.model_validate(answer), worker=worker)
            except ValidationError as error:
                _fail_unread(calls, heart, job_id, answer, error)
                return None


def _fail_unread(calls: Calls, heart: Heart, job_id: UUID, answer: Any, error: ValidationError) -> None:
    """End the attempt at a job that we do not understand, rather than leave it to the end of its lease. Another attempt
    may come to a worker that does: the job may be of another release."""
    number = answer.get("attempt") if isinstance(answer, dict) else None
    logger.bind(faults=_faults(error), attempt=number).error("the claimed job is not understood")
    if isinstance(number, int):
        failed = JobNotUnderstood("The worker does not understand the job; another release's may.")
        told = JobError(code=failed.code, message=failed.message, details=_faults(error), attempt=number)
        known: dict[str, Any] = {"job_id": job_id, "attempt": number, "lease_seconds": inf}
        Attempt(calls, heart, ClaimedJob.model_construct(**known)).finish("failed", error=told, retryable=True)


def _faults(error: ValidationError) -> list[ProblemDetail]:
    """What is wrong where, without what is there."""
    return [
        ProblemDetail(field=".".join(map(str, fault["loc"])), issue=fault["msg"], code=fault["type"])
        for fault in error.errors(include_input=False, include_url=False, include_context=False)
    ][:FAULTS]


def _passes(error: AppError) -> bool:
    """Whether repeating a call may help: anything but a refusal of its content."""
    return error.status >= 500 or isinstance(error, TooManyRequests | Unauthorized)
