"""Example jobs and reports. Every function takes what a test wants different."""

from datetime import date
from decimal import Decimal
from typing import Any
from uuid import uuid4

from agent_runner.collecting import Reports
from triton_common.schemas import (
    ClaimedJob,
    CodePattern,
    CodeSystem,
    CohortPart,
    CohortReport,
    ConditionRow,
    ConditionsReport,
    CostCategory,
    CostTrendReport,
    CostTrendRow,
    Effect,
    Fees,
    Range,
    SummaryReport,
    ValuePropositionContent,
)

SHARES = {
    CostCategory.INPATIENT: Decimal("0.4"),
    CostCategory.EMERGENCY: Decimal("0.1"),
    CostCategory.OUTPATIENT: Decimal("0.2"),
    CostCategory.PROFESSIONAL: Decimal("0.1"),
    CostCategory.PHARMACY: Decimal("0.2"),
}


def spread(low: str, base: str, high: str) -> Range:
    return Range(low=Decimal(low), base=Decimal(base), high=Decimal(high))


def terms(**different: Any) -> ValuePropositionContent:
    return ValuePropositionContent(
        **(
            {
                "summary": "A 12-week coaching programme for people with type 2 diabetes.",
                "programme": "A nurse calls every week. Devices are sent home.",
                "eligibility": [CodePattern(system=CodeSystem.ICD10CM, code="E11*")],
                "engagement": spread("0.2", "0.4", "0.5"),
                "effects": [
                    Effect(
                        driver=CostCategory.INPATIENT,
                        reduction=spread("0.05", "0.1", "0.2"),
                        evidence="Smith et al., 2019.",
                    ),
                    Effect(
                        driver=CostCategory.EMERGENCY,
                        reduction=spread("0.1", "0.2", "0.25"),
                        evidence="A study of 300 members",
                    ),
                ],
                "fees": Fees(per_engaged_member_per_month=Decimal("20.00"), one_time=Decimal("1000.00")),
                "ramp_up_months": 3,
            }
            | different
        )
    )


def job(*, value_proposition: ValuePropositionContent | None = None, **different: Any) -> ClaimedJob:
    return ClaimedJob(
        **(
            {
                "job_id": uuid4(),
                "job_type": "value_proposition",
                "attempt": 1,
                "max_attempts": 3,
                "lease_seconds": 30.0,
                "client_id": uuid4(),
                "client_name": "Glucare",
                "prospect_id": uuid4(),
                "prospect_name": "Acme Health",
                "value_proposition_id": uuid4(),
                "value_proposition_name": "Diabetes 360",
                "value_proposition": value_proposition or terms(),
                "parameters": {},
                "request_id": "request-1",
            }
            | different
        )
    )


def part(members: int, months: int, total: str, shares: dict[CostCategory, Decimal] = SHARES) -> CohortPart:
    paid = Decimal(total)
    return CohortPart(
        members=members,
        member_months=months,
        total_paid=paid,
        pmpm=(paid / months).quantize(Decimal("0.01")) if months else Decimal("0.00"),
        paid_by_category={category: (paid * share).quantize(Decimal("0.01")) for category, share in shares.items()},
    )


def summary(**different: Any) -> SummaryReport:
    return SummaryReport(
        **(
            {
                "members": 1000,
                "member_months": 24_000,
                "first_month": date(2023, 1, 1),
                "last_month": date(2024, 12, 1),
                "total_paid": Decimal("12000000.00"),
                "plan_paid": Decimal("11000000.00"),
                "member_paid": Decimal("1000000.00"),
                "medical_paid": Decimal("9600000.00"),
                "pharmacy_paid": Decimal("2400000.00"),
                "pharmacy_source": "fills",
                "pmpm": Decimal("500.00"),
                "claims": 30_000,
                "encounters": 20_000,
                "fills": 40_000,
                "paid_by_category": {
                    category: (Decimal("12000000.00") * share).quantize(Decimal("0.01"))
                    for category, share in SHARES.items()
                },
            }
            | different
        )
    )


def trend(months: int = 24, *, start: int = 40_000, step: int = 100) -> CostTrendReport:
    return CostTrendReport(
        rows=[
            CostTrendRow(
                month=date(2023 + month // 12, month % 12 + 1, 1),
                members=100,
                total_paid=Decimal(start + step * month),
                pmpm=(Decimal(start + step * month) / 100).quantize(Decimal("0.01")),
            )
            for month in range(months)
        ]
    )


def condition(description: str, members: int, paid: str, *, code: str = "E11.9") -> ConditionRow:
    return ConditionRow(
        code_system="icd10cm",
        code=code,
        description=description,
        members=members,
        prevalence_per_1000=Decimal(members),
        total_paid=Decimal(paid),
    )


CONDITIONS = ConditionsReport(
    rows=[
        condition("Essential hypertension", 300, "4000000.00", code="I10"),
        condition("Type 2 diabetes mellitus", 100, "3000000.00"),
        condition("Asthma (disorder)", 80, "900000.00", code="J45"),
    ]
)
NO_CONDITIONS = ConditionsReport(rows=[])


def cohort(members: int = 100, months: int = 2400, total: str = "3600000.00", **different: Any) -> CohortReport:
    return CohortReport(
        **(
            {
                "cohort": part(members, months, total),
                "rest": part(1000 - members, 24_000 - months, str(Decimal("12000000.00") - Decimal(total))),
            }
            | different
        )
    )


def nobody() -> CohortReport:
    return cohort(members=0, months=0, total="0.00")


def recent(**different: Any) -> CohortReport:
    """Half of the cohort's money and months: the last of its two years."""
    return cohort(
        **(
            {
                "cohort": part(100, 1200, "1800000.00"),
                "rest": part(900, 10_800, "4200000.00"),
                "first_month": date(2024, 1, 1),
                "last_month": date(2024, 12, 1),
            }
            | different
        )
    )


def reports(**different: Any) -> Reports:
    return Reports(
        **(
            {
                "summary": summary(),
                "trend": trend(),
                "by_prevalence": CONDITIONS,
                "by_cost": CONDITIONS,
                "cohort": cohort(),
                "recent": recent(),
            }
            | different
        )
    )


TODAY = date(2025, 2, 10)
"""Two months after the data's end."""

NO_DATA = summary(
    members=0,
    member_months=0,
    first_month=None,
    last_month=None,
    total_paid=Decimal(0),
    plan_paid=Decimal(0),
    member_paid=Decimal(0),
    medical_paid=Decimal(0),
    pharmacy_paid=Decimal(0),
    pharmacy_source="none",
    pmpm=Decimal(0),
    claims=0,
    encounters=0,
    fills=0,
    paid_by_category={},
)
NO_PHARMACY = summary(
    pharmacy_source="none",
    pharmacy_paid=Decimal(0),
    fills=0,
    paid_by_category={
        category: paid for category, paid in summary().paid_by_category.items() if category is not CostCategory.PHARMACY
    },
)
