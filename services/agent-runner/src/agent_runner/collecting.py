"""The reports a document is made of, read from analytics-service in parallel, and with patience while it is busy."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx2
from loguru import logger

from agent_runner.attempts import NotNow
from agent_runner.stop import Stop
from triton_common.client import SyncServiceClient
from triton_common.errors import TooManyRequests, Unavailable, Unprocessable
from triton_common.schemas import (
    ClaimedJob,
    CohortReport,
    CohortRequest,
    ConditionsReport,
    CostTrendReport,
    ReportQuery,
    Schema,
    SummaryReport,
)

R = TypeVar("R", bound=Schema)

CALL_TIMEOUT: Final = httpx2.Timeout(60.0, connect=2.0)  # a report over millions of rows takes its time
TIMEOUT: Final = 150.0  # seconds; for all of them, repeated calls included
BUSY_TRIES: Final = 4  # of one report, while analytics-service says when to come again
BUSY_BREAK: Final = 15.0  # seconds at least that a job is given back for after that
CONDITIONS: Final = 100  # a document shows ten; many rows of an extract are no conditions
BASELINE_MONTHS: Final = 12  # a year has all seasons; older cost says little about the next one's


class NoData(Unprocessable):
    """The prospect has no data yet."""


class ReportsLate(Unavailable):
    """The reports took too long."""


@dataclass(frozen=True)
class Reports:
    """What is known of a prospect's population."""

    summary: SummaryReport
    trend: CostTrendReport
    by_prevalence: ConditionsReport
    by_cost: ConditionsReport
    cohort: CohortReport
    recent: CohortReport
    """The cohort in the data's last BASELINE_MONTHS."""


def queries(job: ClaimedJob) -> list[tuple[ReportQuery, type[Schema]]]:
    """What is asked, and what answers: every report of the job's prospect, and no other's, in the order of Reports."""
    reports = f"/api/v1/analytics/prospects/{job.prospect_id}/reports"

    def get(key: str, name: str, cls: type[Schema], **params: str) -> tuple[ReportQuery, type[Schema]]:
        return ReportQuery(id=key, method="GET", path=f"{reports}/{name}", params=params), cls

    def cohort(key: str, *, last_months: int | None = None) -> tuple[ReportQuery, type[Schema]]:
        asked = CohortRequest(codes=job.value_proposition.eligibility, last_months=last_months)
        body = asked.model_dump(mode="json", exclude_none=True)
        return ReportQuery(id=key, method="POST", path=f"{reports}/cohort", body=body), CohortReport

    limit = str(CONDITIONS)
    return [
        get("summary", "summary", SummaryReport),
        get("cost_trend", "cost-trend", CostTrendReport),
        get("conditions_by_prevalence", "conditions", ConditionsReport, order="prevalence", limit=limit),
        get("conditions_by_cost", "conditions", ConditionsReport, order="cost", limit=limit),
        cohort("cohort"),
        cohort("cohort_recent", last_months=BASELINE_MONTHS),
    ]


def collect(analytics: SyncServiceClient, job: ClaimedJob, *, stop: Stop) -> Reports:
    """Every report of the job's prospect.

    Raises NoData when there is none to report on, analytics-service's own error, NotNow while it is busy, ReportsLate,
    or Stopped.
    """

    def patiently(query: ReportQuery, cls: type[Schema]) -> Callable[[], Schema]:
        def call() -> Schema:
            if query.method == "GET":
                return cls.model_validate(analytics.get(query.path, **query.params))
            return cls.model_validate(analytics.post(query.path, json=query.body))

        return lambda: _waiting(call, stop=stop)

    try:
        answers: list[Any] = stop.gather([patiently(*query) for query in queries(job)], timeout=TIMEOUT)
    except TimeoutError as error:
        raise ReportsLate("analytics-service took too long to report on the prospect's data.") from error
    reports = Reports(*answers)
    if not reports.summary.members:
        raise NoData("There is no data for this prospect: load its claims first, then submit the job again.")
    return reports


def _waiting(call: Callable[[], R], *, stop: Stop) -> R:
    """The call's answer, once analytics-service is no longer busy or away, as in a restart. Raises NotNow when it stays
    so, or Stopped."""
    for tries_left in reversed(range(BUSY_TRIES)):
        try:
            return call()
        except (Unavailable, TooManyRequests) as error:
            pause = error.retry_after
            if pause is None:
                raise
            logger.bind(code=error.code, pause=pause).warning("analytics-service is busy or away")
            if not tries_left:
                raise NotNow(max(pause, BUSY_BREAK) * random.uniform(1, 2)) from error  # noqa: S311  no secret
        stop.wait(pause * random.uniform(1, 2))  # noqa: S311  same; callers spread
    raise AssertionError("unreachable")
