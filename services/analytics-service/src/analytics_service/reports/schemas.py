"""Shapes of reports that this service alone knows, and of declared queries. Definitions: docs/METRICS.md."""

import re
from datetime import date
from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from triton_common.schemas import Schema, Total

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _day(value: object) -> object:
    # pydantic would take a number for seconds since 1970
    if isinstance(value, date) or (isinstance(value, str) and _DAY.fullmatch(value)):
        return value
    raise ValueError("give a date as in 2024-05-31")


Day = Annotated[date, Field(ge=date(1900, 1, 1), le=date(2199, 12, 31)), BeforeValidator(_day)] | None
"""The first or the last day that a report is of."""
SUPPRESSED = Field(default=0, description="Rows left out: they, or what they leave, are of too few members")


class UtilizationRow(Schema):
    """Encounters of one class."""

    encounter_class: str
    members: int
    encounters: int
    per_1000: Decimal = Field(description="A year and 1,000 members, one decimal")
    length_of_stay_days: Decimal = Field(description="Mean of the encounters, one decimal")
    total_cost: Total


class UtilizationReport(Schema):
    """Encounters by class, the most first."""

    rows: list[UtilizationRow]
    suppressed: int = SUPPRESSED
    currency: str = "USD"


class PharmacyRow(Schema):
    """Fills of a therapeutic class, or of a drug."""

    code_system: str = Field(description="Empty for classes")
    code: str = Field(description="The drug's code; empty for classes")
    name: str
    members: int
    fills: int
    dispenses: int
    days_supply: int
    total_paid: Total = Field(description="As the fills tell it, even where the summary takes the claims'")


class PharmacyReport(Schema):
    """Fills, the most costly first."""

    by: Literal["class", "drug"]
    rows: list[PharmacyRow]
    suppressed: int = SUPPRESSED
    currency: str = "USD"


class HighCostRow(Schema):
    """The members who cost most: so many percent of all, rounded up."""

    top_percent: int
    members: int
    total_paid: Total
    share_percent: Decimal = Field(description="Of the cost of all members, one decimal")
    mean_paid: Total


class HighCostReport(Schema):
    """How much of the cost the most costly members make."""

    rows: list[HighCostRow]
    suppressed: int = SUPPRESSED
    currency: str = "USD"


class ReadmissionsReport(Schema):
    """Inpatient stays that follow another within 30 days of its end."""

    discharges: int = Field(description="With 30 days after them in the data")
    members: int
    readmissions: int | None = Field(description="Null where they are of too few members")
    rate_percent: Decimal | None = Field(description="readmissions / discharges, one decimal")
