"""One attempt at a job: claimed from jobs-service, held by a lease that is renewed, and ended with an outcome.

jobs-service decides everything: who holds a job, and whether an answer still counts. Here is what a worker owes it.
"""

import contextvars
import threading
from collections.abc import Callable
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, Final, Literal, Self
from uuid import UUID

from loguru import logger
from uuid_utils.compat import uuid4

from agent_runner.stop import Stop
from triton_common.client import SyncServiceClient
from triton_common.errors import AppError, Conflict, NotFound, TooManyRequests, Unauthorized
from triton_common.schemas import (
    ClaimedJob,
    DocumentContent,
    JobClaim,
    JobError,
    JobFinish,
    JobFinishAnswer,
    JobProgress,
    JobProgressAnswer,
    JobStage,
    JobStatus,
)

HEARTBEAT: Final = 5.0  # seconds; half of the ten in which a cancelled job must stop
# seconds that a claim is repeated: messages stay in the queue meanwhile, and a claim that was heard is answered at last
CLAIM_PATIENCE: Final = 20.0
PAUSE: Final = 0.2  # seconds before a call to jobs-service is repeated; it doubles
LONGEST_PAUSE: Final = 5.0
# seconds; jobs-service takes no job away in the first lease after its start, so an outcome still counts after minutes
# without it. Later than this, another attempt is under way.
PATIENCE: Final = 300.0

Outcome = Literal["completed", "failed", "cancelled", "released"]


class NotNow(Exception):
    """Somebody whom the job needs is busy: it goes back, due again after `seconds`, and the attempt does not count."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(seconds)


class Attempt:
    """A job this worker holds. As a context it renews the lease in a thread of its own until the job is over.

    `stop` tells the job's thread when to end: cancelled by somebody, or the lease is lost.
    """

    def __init__(self, jobs: SyncServiceClient, job: ClaimedJob) -> None:
        self.job = job
        self.stop = Stop()
        self._jobs = jobs
        self._path = f"/internal/v1/jobs/{job.job_id}"
        self._last = JobProgress(attempt=job.attempt, progress=0, stage=JobStage.COLLECTING)
        self._reporting = threading.Lock()  # reports leave in the order they were made
        self._over = threading.Event()
        self._give_up_at = inf
        self._heart: threading.Thread

    def __enter__(self) -> Self:
        """Begin to renew the lease."""
        context = contextvars.copy_context()  # so that the thread's lines tell whose lease it is
        self._heart = threading.Thread(
            target=context.run, args=(self._beat,), name=f"lease-{self.job.job_id}", daemon=True
        )
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop renewing it. A job that was not finished goes to another worker when the lease ends."""
        self._over.set()
        self._heart.join()

    def report(self, progress: int, stage: JobStage, message: str = "") -> None:
        """Tell how far the job is. Raises Stopped when it should end; jobs-service being away is no reason to."""
        self._send(lambda _: JobProgress(attempt=self.job.attempt, progress=progress, stage=stage, message=message))
        self.stop.check()

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
        stays cancelled, whatever came of it. None when the outcome came too late, or nobody takes it.

        Safe to repeat: the same answer twice is one change, and that of an attempt which lost its lease is refused.
        """
        body = JobFinish(
            attempt=self.job.attempt,
            outcome=outcome,
            document=document,
            error=error,
            retryable=retryable,
            retry_after_seconds=retry_after,
        ).model_dump(mode="json")
        give_up_at, pause = monotonic() + PATIENCE, PAUSE
        while True:
            try:
                with self._reporting:
                    answer: Any = self._jobs.post(f"{self._path}/finish", json=body)
                    self._over.set()
            except (Conflict, NotFound) as refused:
                logger.bind(outcome=outcome, code=refused.code).info("outcome came too late")
                return None
            except AppError as failed:
                if not _passes(failed):
                    raise
                if monotonic() > min(give_up_at, self._give_up_at):
                    logger.bind(outcome=outcome, code=failed.code).error("outcome could not be reported")
                    return None
                logger.bind(outcome=outcome, code=failed.code).warning("jobs-service does not take the outcome yet")
                self._over.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                return JobFinishAnswer.model_validate(answer).status

    def _beat(self) -> None:
        """Repeat the last report often enough that the lease never ends while we work."""
        interval = min(HEARTBEAT, self.job.lease_seconds / 3)
        while not self._over.wait(interval):
            self._send(lambda last: last.model_copy(update={"message": ""}))

    def _send(self, report: Callable[[JobProgress], JobProgress]) -> None:
        with self._reporting:
            if self._over.is_set() or self.stop.reason == "lost":
                return
            self._last = report(self._last)
            try:
                answer: Any = self._jobs.post(f"{self._path}/progress", json=self._last.model_dump(mode="json"))
            except (Conflict, NotFound) as refused:
                logger.bind(code=refused.code).info("the job is no longer ours")
                self.stop.set("lost")
            except AppError as failed:
                logger.bind(code=failed.code).warning("progress could not be reported")
            else:
                if JobProgressAnswer.model_validate(answer).cancelled:
                    self.stop.set("cancelled")


def claim(
    jobs: SyncServiceClient, job_id: UUID, *, worker: str, task_id: str | None, draining: threading.Event
) -> Attempt | None:
    """The job, if it is to be had. None when another worker has it, when it is over, or when nobody answers: the
    message is dropped then, and jobs-service sends it again for as long as the job is pending.

    A claim without an answer is repeated under its id, so that one that was heard is answered with the same attempt
    again; once the worker drains, one time more.
    """
    body = JobClaim(worker=worker, task_id=task_id, claim_id=uuid4()).model_dump(mode="json")
    give_up_at, pause = monotonic() + CLAIM_PATIENCE, PAUSE
    while True:
        is_last = draining.is_set() or monotonic() > give_up_at
        try:
            answer: Any = jobs.post(f"/internal/v1/jobs/{job_id}/claim", json=body)
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
            return Attempt(jobs, ClaimedJob.model_validate(answer))


def _passes(error: AppError) -> bool:
    """Whether repeating a call may help: anything but a refusal of its content."""
    return error.status >= 500 or isinstance(error, TooManyRequests | Unauthorized)
