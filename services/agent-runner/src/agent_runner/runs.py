"""A generation job from claim to outcome: collecting → modelling → writing → checking."""

import threading
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from loguru import logger
from pydantic import ValidationError
from uuid_utils.compat import uuid7

from agent_runner import attempts, collecting, document, gathering, value_model, writing
from agent_runner.attempts import Attempt
from agent_runner.checking import Grounding
from agent_runner.models import Models
from agent_runner.settings import Settings
from agent_runner.stop import Stopped
from triton_common.client import SyncServiceClient, SyncServiceToken
from triton_common.errors import AppError, Internal, Unavailable, Unprocessable
from triton_common.logging import log_context
from triton_common.schemas import DocumentContent, JobError, JobParameters, JobStage, JobStatus, ProblemDetail

JOB_TYPE = "value_proposition"

Ended = Literal["completed", "failed", "cancelled", "released", "lost", "not_claimed"]


class JobTypeUnknown(Unprocessable):
    """No worker knows jobs of this type."""


class ParametersInvalid(Unprocessable):
    """The job's parameters are not valid."""


class JobCrashed(Internal):
    """The job failed for a reason that nobody foresaw."""


@dataclass
class Worker:
    """What all jobs of a worker process share."""

    settings: Settings
    jobs: SyncServiceClient
    analytics: SyncServiceClient
    models: Models
    token: SyncServiceToken
    running: set[Attempt] = field(default_factory=set)
    draining: bool = False

    @classmethod
    def start(cls, settings: Settings) -> "Worker":
        """Opens no connection yet. Raises ValueError for an AGENT_MODEL that no provider has."""
        token = SyncServiceToken(settings.auth_url, client_id=settings.client_id, client_secret=settings.client_secret)
        return cls(
            settings=settings,
            jobs=SyncServiceClient(settings.jobs_url, token=token),
            analytics=SyncServiceClient(settings.analytics_url, token=token, timeout=collecting.CALL_TIMEOUT),
            models=Models(settings),
            token=token,
        )

    def drain(self) -> None:
        """Claim nothing more, and release what still runs after the grace. A signal handler calls it, so it only starts
        a timer."""
        self.draining = True
        grace = self.settings.shutdown_grace.total_seconds()
        timer = threading.Timer(grace, self._release, [grace])
        timer.daemon = True
        timer.start()

    def _release(self, patience: float) -> None:
        for attempt in list(self.running):
            attempt.hurry(patience=patience)

    def close(self) -> None:
        """Close all connections."""
        for connected in (self.jobs, self.analytics, self.token, self.models):
            connected.close()


def run(worker: Worker, job_id: UUID, *, name: str, task_id: str | None) -> Ended:
    """Claim the job, run it, and report its outcome. Never raises: whatever goes wrong is the job's outcome.

    Safe to call any number of times, at the same time too: jobs-service gives a job to one claim alone.
    """
    if worker.draining:
        return "released"
    attempt = attempts.claim(worker.jobs, job_id, worker=name, task_id=task_id)
    if attempt is None:
        return "not_claimed"
    with log_context(request_id=attempt.job.request_id, attempt=str(attempt.job.attempt)), attempt:
        worker.running.add(attempt)
        try:
            ended = _run(worker, attempt)
        finally:
            worker.running.discard(attempt)
        logger.bind(outcome=ended).info("job ended")
        return ended


def _run(worker: Worker, attempt: Attempt) -> Ended:
    try:
        return _complete(worker, attempt)
    except Stopped as stopped:
        if stopped.reason == "lost":
            return "lost"
        return stopped.reason if attempt.finish(stopped.reason) else "lost"
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
    status = attempt.finish("completed", document=_make(worker, attempt))
    if status is None:
        return "lost"
    return "cancelled" if status is JobStatus.CANCELLED else "completed"  # somebody cancelled it after our last report


def _fail(attempt: Attempt, error: AppError, *, retryable: bool = False, traceback_id: str | None = None) -> Ended:
    told = JobError(
        code=error.code,
        message=error.message[:2000],
        details=error.details,
        attempt=attempt.job.attempt,
        traceback_id=traceback_id,
    )
    return "failed" if attempt.finish("failed", error=told, retryable=retryable) else "lost"


def _make(worker: Worker, attempt: Attempt) -> DocumentContent:
    """The four stages. Raises the AppError that is the job's failure, or Stopped."""
    job = attempt.job
    if job.job_type != JOB_TYPE:
        raise JobTypeUnknown(f"This worker runs {JOB_TYPE} jobs, not {job.job_type}.")
    parameters = _parameters(job.parameters)

    attempt.report(5, JobStage.COLLECTING, "Reading the prospect's reports")
    reports = collecting.collect(worker.analytics, job, stop=attempt.stop)

    attempt.report(30, JobStage.MODELLING, "Computing savings, fees and return")
    terms = job.value_proposition
    model = value_model.calculate(reports.cohort, reports.summary, terms, horizon_months=parameters.horizon_months)
    facts = gathering.gather(job, reports, model)
    grounding = Grounding.of(job, facts)

    attempt.report(40, JobStage.WRITING, "Describing the population")
    draft = writing.write(
        job,
        facts,
        grounding,
        models=worker.models,
        settings=worker.settings,
        stop=attempt.stop,
        written=lambda agent: attempt.report(
            60 if agent is writing.ANALYST else 80, JobStage.WRITING, f"{agent.name} is done"
        ),
    )

    attempt.report(90, JobStage.CHECKING, "Checking every figure against the facts")
    document.check(draft, grounding)
    return document.assemble(job, draft, facts, reports=reports, model=model)


def _parameters(given: dict[str, object]) -> JobParameters:
    try:
        return JobParameters.model_validate(given)
    except ValidationError as error:
        details = [
            ProblemDetail(field=".".join(["parameters", *map(str, e["loc"])]), issue=e["msg"], code=e["type"])
            for e in error.errors(include_input=False)
        ]
        raise ParametersInvalid("Correct the parameters named in details.", details=details) from error
