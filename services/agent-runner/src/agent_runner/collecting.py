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
    Schema,
    SummaryReport,
)

R = TypeVar("R", bound=Schema)

CALL_TIMEOUT: Final = httpx2.Timeout(60.0, connect=2.0)  # a report over millions of rows takes its time
TIMEOUT: Final = 150.0  # seconds; for all of them, repeated calls included
BUSY_TRIES: Final = 4  # of one report, while analytics-service says when to come again
BUSY_BREAK: Final = 15.0  # seconds at least that a job is given back for after that
CONDITIONS: Final = 100  # a document shows ten; many rows of an extract are no conditions


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


def collect(analytics: SyncServiceClient, job: ClaimedJob, *, stop: Stop) -> Reports:
    """Every report of the job's prospect.

    Raises NoData when there is none to report on, analytics-service's own error, NotNow while it is busy, ReportsLate,
    or Stopped.
    """
    reports = f"/api/v1/analytics/prospects/{job.prospect_id}/reports"

    def get(name: str, cls: type[R], **params: Any) -> Callable[[], R]:
        return lambda: cls.model_validate(analytics.get(f"{reports}/{name}", **params))

    def cohort() -> CohortReport:
        asked = CohortRequest(codes=job.value_proposition.eligibility)
        return CohortReport.model_validate(analytics.post(f"{reports}/cohort", json=asked.model_dump(mode="json")))

    def patiently(call: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: _waiting(call, stop=stop)

    calls: list[Callable[[], Any]] = [
        get("summary", SummaryReport),
        get("cost-trend", CostTrendReport),
        get("conditions", ConditionsReport, order="prevalence", limit=CONDITIONS),
        get("conditions", ConditionsReport, order="cost", limit=CONDITIONS),
        cohort,
    ]
    try:
        summary, trend, by_prevalence, by_cost, cohort_report = stop.gather(
            [patiently(call) for call in calls], timeout=TIMEOUT
        )
    except TimeoutError as error:
        raise ReportsLate("analytics-service took too long to report on the prospect's data.") from error
    if not summary.members:
        raise NoData("There is no data for this prospect: load its claims first, then submit the job again.")
    return Reports(summary=summary, trend=trend, by_prevalence=by_prevalence, by_cost=by_cost, cohort=cohort_report)


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
