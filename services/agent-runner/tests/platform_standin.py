"""A stand-in for auth-, jobs- and analytics-service: their protocol as the worker sees it, with trouble on request.

It keeps jobs in memory by the rules of jobs-service: one claim a pending job, the same claim again the same attempt,
attempts fenced by their number.
"""

import asyncio
import base64
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import UUID

import examples
from fastapi import APIRouter, Depends, FastAPI, Request, Response

from agent_runner.collecting import Reports
from triton_common.errors import (
    AppError,
    Conflict,
    NotFound,
    Unauthorized,
    Unavailable,
    install_error_handlers,
    problem,
)
from triton_common.schemas import (
    ClaimCall,
    ClaimedJob,
    CohortRequest,
    DocumentContent,
    FinishCall,
    JobClaim,
    JobFinish,
    JobFinishAnswer,
    JobProgress,
    JobProgressAnswer,
    JobStatus,
    ProgressCall,
    Schema,
    WorkerAnswer,
    WorkerAnswers,
    WorkerCalls,
)

CLIENT_SECRET = "the service account's secret"
TOKEN = "the service account's token"


class JobNotClaimable(Conflict):
    """The job is not waiting for a worker."""


class StaleAttempt(Conflict):
    """The job is no longer this attempt's."""


class AnalyticsBusy(Unavailable):
    """Too many reports are asked for at the same time."""


class JobNotFound(NotFound):
    """There is no such job."""


@dataclass
class Row:
    """A job, and all that was said of it."""

    job: ClaimedJob
    status: str = "pending"
    attempt: int = 0
    cancel: bool = False
    claims: list[JobClaim] = field(default_factory=list)
    reports: list[JobProgress] = field(default_factory=list)
    finishes: list[JobFinish] = field(default_factory=list)
    request_ids: set[str] = field(default_factory=set)

    @property
    def document(self) -> DocumentContent:
        """Of the one finish that brought one."""
        [document] = [finish.document for finish in self.finishes if finish.document]
        return document


class Platform:
    """The three services. `trouble[name] = n` makes the next n calls of that name fail with 503; `busy` the same, with
    analytics-service's wish to come again later."""

    def __init__(self) -> None:
        self.url = ""
        self._changed = threading.Condition()
        self.reset()
        self.app = FastAPI()
        install_error_handlers(self.app)
        self.app.include_router(self._auth())
        self.app.include_router(self._jobs(), dependencies=[Depends(self._token)])
        self.app.include_router(self._analytics(), dependencies=[Depends(self._token)])

    def reset(self) -> None:
        """Forget everything, and let go of whoever waits."""
        if hasattr(self, "gate"):
            self.gate.set()
        with self._changed:
            self.rows: dict[UUID, Row] = {}
            self.reports: Reports = examples.reports()
            self.trouble: Counter[str] = Counter()
            self.order: list[UUID] = []  # of the claims
            self.busy: Counter[str] = Counter()
            self.calls: Counter[str] = Counter()
            self.hooks: dict[str, Callable[[], None]] = {}
            self.gate = threading.Event()
            self.gate.set()

    def add(self, job: ClaimedJob) -> Row:
        """A pending job."""
        self.rows[job.job_id] = row = Row(job)
        return row

    def sweep(self, row: Row) -> None:
        """What happens when a lease is over: the job waits for another attempt."""
        with self._changed:
            row.status = "pending"

    def wait(self, condition: Callable[[], Any], *, within: float = 30) -> None:
        """Until a call has made `condition` true."""
        with self._changed:
            assert self._changed.wait_for(condition, within), "it did not come to pass in time"

    def _called(self, name: str) -> None:
        with self._changed:
            self.calls[name] += 1
            self._changed.notify_all()
        if name in self.hooks:
            self.hooks[name]()
        if self.trouble[name] > 0:
            self.trouble[name] -= 1
            raise Unavailable(f"{name} has trouble")
        if self.busy[name] > 0:
            self.busy[name] -= 1
            raise AnalyticsBusy(retry_after=0)

    async def _token(self, request: Request) -> None:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Unauthorized

    def _auth(self) -> APIRouter:
        router = APIRouter()

        @router.post("/api/v1/auth/token")
        async def token(request: Request) -> dict[str, Any]:
            self._called("token")
            expected = base64.b64encode(f"agent-runner:{quote(CLIENT_SECRET, safe='')}".encode()).decode()
            if request.headers.get("Authorization") != f"Basic {expected}":
                raise Unauthorized
            return {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}

        return router

    def _jobs(self) -> APIRouter:
        router = APIRouter(prefix="/internal/v1/jobs")

        @router.post("/calls")
        async def calls(body: WorkerCalls) -> WorkerAnswers:
            self._called("calls")
            return WorkerAnswers(answers=[self._answer(call) for call in body.calls])

        return router

    def _answer(self, call: ClaimCall | ProgressCall | FinishCall) -> WorkerAnswer:
        try:
            match call:
                case ClaimCall():
                    return WorkerAnswer(status=200, body=self._claim(call))
                case ProgressCall():
                    return WorkerAnswer(status=200, body=self._progress(call))
                case FinishCall():
                    return WorkerAnswer(status=200, body=self._finish(call))
        except AppError as error:
            return WorkerAnswer(status=error.status, problem=problem(error))

    def _claim(self, call: ClaimCall) -> ClaimedJob:
        self._called("claim")
        row = self.rows.get(call.job_id)
        if row is None:
            raise JobNotFound
        again = row.status == "processing" and row.claims[-1].claim_id == call.body.claim_id
        if row.status != "pending" and not again:
            raise JobNotClaimable
        with self._changed:
            row.attempt += not again
            row.status = "processing"
            row.claims.append(call.body)
            self.order.append(call.job_id)
            self._changed.notify_all()
        self._called("answer to claim")
        return row.job.model_copy(update={"attempt": row.attempt})

    def _progress(self, call: ProgressCall) -> JobProgressAnswer:
        self._called("progress")
        row = self._held(call.job_id, call.body.attempt)
        with self._changed:
            row.reports.append(call.body)
            row.request_ids.add(call.request_id)
            self._changed.notify_all()
        return JobProgressAnswer(cancelled=row.cancel)

    def _finish(self, call: FinishCall) -> JobFinishAnswer:
        self._called("finish")
        row = self._held(call.job_id, call.body.attempt)
        outcome = call.body.outcome
        with self._changed:
            row.finishes.append(call.body)
            row.status = "cancelled" if row.cancel else "pending" if outcome == "released" else outcome
            self._changed.notify_all()
        return JobFinishAnswer(status=JobStatus(row.status), document_id=None)

    def _held(self, job_id: UUID, attempt: int) -> Row:
        row = self.rows.get(job_id)
        if row is None:
            raise JobNotFound
        if row.status != "processing" or row.attempt != attempt:
            raise StaleAttempt
        return row

    def _analytics(self) -> APIRouter:
        router = APIRouter(prefix="/api/v1/analytics/prospects/{prospect_id}/reports")

        async def answer(name: str, report: Schema) -> Response:
            await asyncio.to_thread(self.gate.wait, 30)
            self._called(name)
            return Response(report.model_dump_json(), media_type="application/json")

        @router.get("/summary")
        async def summary(prospect_id: UUID) -> Response:
            return await answer("summary", self.reports.summary)

        @router.get("/cost-trend")
        async def trend(prospect_id: UUID) -> Response:
            return await answer("trend", self.reports.trend)

        @router.get("/conditions")
        async def conditions(prospect_id: UUID, order: str, limit: int) -> Response:
            return await answer(order, self.reports.by_cost if order == "cost" else self.reports.by_prevalence)

        @router.post("/cohort")
        async def cohort(prospect_id: UUID, body: CohortRequest) -> Response:
            if body.last_months:
                return await answer("cohort_recent", self.reports.recent)
            return await answer("cohort", self.reports.cohort)

        return router
