"""HTTP shapes that two or more services use."""

from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints, model_validator

T = TypeVar("T")

Money = Annotated[
    Decimal, Field(max_digits=18, decimal_places=2), PlainSerializer(lambda value: f"{value:.2f}", when_used="json")
]
"""An amount, two decimals, a decimal string in JSON; its currency stands beside it."""

Total = Annotated[
    Decimal, Field(max_digits=28, decimal_places=2), PlainSerializer(lambda value: f"{value:.2f}", when_used="json")
]
"""A sum of amounts, as long as Decimal computes exactly: 10**15 lines of 10**10 each, the most that ingest takes."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[^\x00]*$")]
"""A string that is not blank and has no NUL, which Postgres cannot store."""


class Schema(BaseModel):
    """Base of request and response bodies: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Schema, Generic[T]):
    """A page of a list, newest first."""

    items: list[T]
    next_cursor: str | None = Field(description="Pass as ?cursor= for the next page; null on the last one")


class ProblemDetail(Schema):
    """One thing that is wrong."""

    field: str = Field(description="Where: body.prospect_id, query.limit, or line 12, column paid")
    issue: str
    code: str


class Problem(BaseModel):
    """What every error looks like (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str = Field(description="Stable; each is explained in docs/ERRORS.md")
    message: str
    details: list[ProblemDetail] = []
    request_id: str = ""

    @staticmethod
    def ref() -> dict[str, str]:
        """Where OpenAPI finds this schema."""
        return {"$ref": "#/components/schemas/Problem"}


class DependencyHealth(Schema):
    """One dependency of a service, as readiness saw it."""

    status: Literal["ok", "degraded", "down"]
    latency_ms: float
    message: str | None = None


class Health(Schema):
    """Readiness or liveness of one service."""

    service: str
    version: str
    status: Literal["ok", "degraded", "down", "stopping"]
    dependencies: dict[str, DependencyHealth] = {}


# --- the value proposition: written by a client, stored by jobs-service, computed with by agent-runner


class CodeSystem(StrEnum):
    """Code systems of conditions."""

    ICD10CM = "icd10cm"
    SNOMED = "snomed"


class CodePattern(Schema):
    """A diagnosis code, or with a trailing * every code that begins so: E11*."""

    system: CodeSystem
    code: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9][A-Z0-9.]{0,19}\*?$")]


class Range(Schema):
    """A low, base and high assumption; each a share between 0 and 1."""

    low: Annotated[Decimal, Field(ge=0, le=1)]
    base: Annotated[Decimal, Field(ge=0, le=1)]
    high: Annotated[Decimal, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def ordered(self) -> "Range":
        """Low is not above base, base not above high."""
        if not self.low <= self.base <= self.high:
            raise ValueError("low, base and high must not decrease")
        return self


class CostCategory(StrEnum):
    """What a cost was for; `total` stands for all of them together."""

    TOTAL = "total"
    INPATIENT = "inpatient"
    EMERGENCY = "emergency"
    OUTPATIENT = "outpatient"
    PROFESSIONAL = "professional"
    PHARMACY = "pharmacy"
    OTHER = "other"


class Effect(Schema):
    """How much of a cost the programme takes away from an engaged member, and who found that."""

    driver: CostCategory
    reduction: Range
    evidence: Text = Field(max_length=500, description="The source: a study, a trial, an earlier client")


class Fees(Schema):
    """What the programme costs its buyer."""

    per_engaged_member_per_month: Annotated[Money, Field(ge=0)]
    one_time: Annotated[Money, Field(ge=0)] = Decimal("0.00")


class ValuePropositionContent(Schema):
    """What a programme does, for whom, with what effect, and at what price."""

    summary: Text = Field(max_length=2000)
    programme: Text = Field(max_length=10_000)
    eligibility: list[CodePattern] = Field(
        min_length=1, max_length=200, description="A member with any of these codes is eligible"
    )
    engagement: Range = Field(description="Share of the eligible members who take part")
    effects: list[Effect] = Field(min_length=1, max_length=20)
    fees: Fees
    ramp_up_months: int = Field(default=3, ge=0, le=24, description="Months until the full effect; it grows evenly")
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "USD"

    @model_validator(mode="after")
    def distinct_drivers(self) -> "ValuePropositionContent":
        """A cost is reduced once: one effect a driver, and `total` only alone."""
        drivers = [effect.driver for effect in self.effects]
        if len(set(drivers)) < len(drivers) or (CostCategory.TOTAL in drivers and len(drivers) > 1):
            raise ValueError("name each driver once, and total only alone")
        return self


# --- a job, between jobs-service and its workers


class JobStatus(StrEnum):
    """States of a job; the last three are final."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobStage(StrEnum):
    """What a worker is doing for a job, in this order."""

    COLLECTING = "collecting"
    MODELLING = "modelling"
    WRITING = "writing"
    CHECKING = "checking"


class JobPriority(StrEnum):
    """Which of the waiting jobs goes first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class JobParameters(Schema):
    """What a submitter may ask for."""

    horizon_months: Literal[24, 36] = Field(
        default=36, description="How far the projection goes; 36 is a usual term of programme contracts"
    )


class JobClaim(Schema):
    """Who wants to work on a job."""

    worker: Text = Field(max_length=200)
    task_id: str | None = Field(default=None, max_length=200)
    claim_id: UUID | None = Field(
        default=None, description="Made for this claim: repeated with it, a claim whose answer was lost is one claim"
    )


class Told(Schema):
    """Base of what jobs-service tells workers, which may be of an older release: what they do not know, they ignore."""

    model_config = ConfigDict(extra="ignore")


class ClaimedJob(Told):
    """All that a worker needs to know of the job it was given."""

    job_id: UUID
    job_type: str
    attempt: int
    max_attempts: int
    lease_seconds: float = Field(description="Report progress within this time, or the job goes to another")
    client_id: UUID
    client_name: str
    prospect_id: UUID
    prospect_name: str
    value_proposition_id: UUID
    value_proposition_name: str
    value_proposition: ValuePropositionContent
    parameters: dict[str, Any]
    request_id: str


class JobProgress(Schema):
    """How far an attempt is; renews its lease."""

    attempt: int
    progress: int = Field(ge=0, le=100)
    stage: JobStage
    message: str = Field(default="", max_length=500)


class JobProgressAnswer(Told):
    """Whether to go on."""

    cancelled: bool = Field(description="Somebody cancelled the job: stop, and finish with outcome cancelled")


class JobError(Schema):
    """Why a job, or an attempt of it, failed."""

    code: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    message: str = Field(max_length=2000)
    details: list[ProblemDetail] = []
    attempt: int | None = None
    traceback_id: str | None = Field(default=None, description="Find the traceback in the worker's log by this")


class JobFinish(Schema):
    """How an attempt ended. `released` gives the job back, for another worker; the attempt does not count."""

    attempt: int
    outcome: Literal["completed", "failed", "cancelled", "released"]
    document: "DocumentContent | None" = None
    error: JobError | None = None
    retryable: bool = Field(default=False, description="With outcome failed: another attempt may succeed")
    retry_after_seconds: float = Field(
        default=0, ge=0, le=3600, description="With outcome released: when the job is due again"
    )

    @model_validator(mode="after")
    def complete(self) -> "JobFinish":
        """A completed job has a document, a failed one an error."""
        if (self.outcome == "completed") != (self.document is not None):
            raise ValueError("outcome completed comes with a document, the others without")
        if (self.outcome == "failed") != (self.error is not None):
            raise ValueError("outcome failed comes with an error, the others without")
        return self


class JobFinishAnswer(Told):
    """What became of the job."""

    status: JobStatus
    document_id: UUID | None


class WorkerCall(Schema):
    """Base of one call among several; each has its own answer, and its own place in logs and traces."""

    job_id: UUID
    request_id: str = Field(default="", max_length=128)
    traceparent: str = Field(default="", max_length=100)


class ClaimCall(WorkerCall):
    """Take the job."""

    call: Literal["claim"] = "claim"
    body: JobClaim


class ProgressCall(WorkerCall):
    """Say how far the attempt is."""

    call: Literal["progress"] = "progress"
    body: JobProgress


class FinishCall(WorkerCall):
    """End the attempt."""

    call: Literal["finish"] = "finish"
    body: JobFinish


class WorkerCalls(Schema):
    """Calls that a worker's threads make at the same time."""

    calls: Annotated[
        list[Annotated[ClaimCall | ProgressCall | FinishCall, Field(discriminator="call")]],
        Field(min_length=1, max_length=100),
    ]


class WorkerAnswer(Told):
    """What the call's own route would answer: its status, and its body or its problem."""

    status: int
    body: ClaimedJob | JobProgressAnswer | JobFinishAnswer | None = None
    problem: Problem | None = None


class WorkerAnswers(Told):
    """One answer a call, in the order of the calls."""

    answers: list[WorkerAnswer]


# --- the document: made by agent-runner, stored and rendered by jobs-service


class Fact(Schema):
    """One figure of a document and where it came from."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$")]
    label: str
    value: Decimal | str
    unit: str = Field(description="members, months, USD, percent, per 1000, …")
    display: str = Field(description="As the text shows it")
    source: str = Field(description="The report or the formula it comes from, in a line")
    formula: str = Field(
        default="", description="How the value follows from the report's fields, or from other facts by their ids"
    )
    report: str | None = Field(default=None, description="Which of the document's reports it was read from")


class ReportQuery(Schema):
    """A report that a document was made of, and the request that answers it."""

    id: str
    method: Literal["GET", "POST"]
    path: str
    params: dict[str, str] = {}
    body: dict[str, Any] | None = None


class Paragraph(Schema):
    """A paragraph, and the facts its text shows."""

    text: str
    facts: list[str] = []


class Section(Schema):
    """A section of a document."""

    key: str
    title: str
    paragraphs: list[Paragraph]


class ChartPoint(Schema):
    """One bar or point."""

    label: str
    value: Decimal


class Chart(Schema):
    """A chart's data, ready to draw."""

    key: str
    title: str
    kind: Literal["bar", "line", "waterfall"] = Field(
        description="Of a waterfall the points are what is added and taken away, and at last what is left"
    )
    unit: str
    points: list[ChartPoint]
    section: str | None = Field(default=None, description="Where it stands; after the text without one")


class Highlight(Schema):
    """A figure for the first page."""

    label: str
    fact: str


class TableRow(Schema):
    """A row of facts."""

    label: str
    facts: list[str] = Field(description="One a column")


class FactTable(Schema):
    """Facts side by side."""

    title: str
    section: str
    columns: list[str]
    rows: list[TableRow]


class DocumentContent(Schema):
    """A value proposition document."""

    title: str
    model: str = Field(description="provider:id of the model that wrote it; offline:template means no model did")
    notice: str | None = Field(default=None, description="Stands on the first page, when there is something to say")
    currency: str
    sections: list[Section]
    facts: list[Fact]
    reports: list[ReportQuery] = []
    highlights: list[Highlight] = []
    tables: list[FactTable] = []
    charts: list[Chart] = []
    prompt_versions: dict[str, str] = {}
    input_tokens: int = 0
    output_tokens: int = 0


# --- reports: answered by analytics-service, read by agent-runner


class SummaryReport(Schema):
    """A prospect's population and its cost, over all the data there is. Definitions: docs/METRICS.md."""

    members: int
    member_months: int
    first_month: date | None
    last_month: date | None
    total_paid: Total = Field(description="Paid by plan and members; pharmacy counted once")
    plan_paid: Total
    member_paid: Total
    medical_paid: Total
    pharmacy_paid: Total
    pharmacy_source: Literal["claims", "fills", "none"]
    pmpm: Total = Field(description="total_paid / member_months")
    claims: int = Field(description="Distinct claims")
    encounters: int
    fills: int
    paid_by_category: dict[CostCategory, Total]
    currency: str = "USD"


class CostTrendRow(Schema):
    """One calendar month."""

    month: date = Field(description="Its first day")
    members: int = Field(description="Members who count in this month")
    total_paid: Total
    pmpm: Total


class CostTrendReport(Schema):
    """Cost by month, oldest first, months without cost included."""

    rows: list[CostTrendRow]
    currency: str = "USD"


class ConditionRow(Schema):
    """One condition in the population."""

    code_system: str
    code: str
    description: str
    members: int
    prevalence_per_1000: Decimal = Field(description="Members with it per 1,000 members, one decimal")
    total_paid: Total = Field(description="Everything paid for these members, not only for the condition")


class ConditionsReport(Schema):
    """Conditions, most prevalent or most costly first."""

    rows: list[ConditionRow]
    currency: str = "USD"


class CohortRequest(Schema):
    """Which members make the cohort: those with any of these codes."""

    codes: list[CodePattern] = Field(min_length=1, max_length=200)
    last_months: int | None = Field(
        default=None,
        ge=1,
        le=120,
        description="Count cost and member months of the data's last so many months alone, and members seen in them. "
        "Codes count whenever they were recorded",
    )


class CohortPart(Schema):
    """The cohort, or the rest of the population."""

    members: int
    member_months: int
    total_paid: Total
    pmpm: Total
    paid_by_category: dict[CostCategory, Total]


class CohortReport(Schema):
    """Members with any of the codes, against the rest."""

    cohort: CohortPart
    rest: CohortPart
    first_month: date | None = Field(default=None, description="Of the last_months asked for")
    last_month: date | None = Field(default=None, description="Likewise")
    currency: str = "USD"


JobFinish.model_rebuild()
