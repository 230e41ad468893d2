"""What a programme would save a prospect: low, base and high, month by month. Plain decimal arithmetic on what the
prospect's data and the client's value proposition say; no language model has a part in it.

Each month's saving a driver, and each month's fees, is rounded to cents. Every other amount is a sum of those, so
totals equal the sum of their parts to the cent, over drivers, months and years alike.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cached_property
from typing import Final, Literal, get_args

from triton_common.errors import Unprocessable
from triton_common.schemas import (
    CohortPart,
    CohortReport,
    CostCategory,
    JobParameters,
    ValuePropositionContent,
)

Case = Literal["low", "base", "high"]
CASES: Final[tuple[Case, ...]] = get_args(Case)
HORIZON_MONTHS: Final = JobParameters().horizon_months
CENT: Final = Decimal("0.01")
ZERO: Final = Decimal("0.00")


class CurrencyMismatch(Unprocessable):
    """The value proposition's prices and the prospect's data are in different currencies."""


def cents(amount: Decimal) -> Decimal:
    """Rounded to cents, half to even, so that rounding favours nobody."""
    return amount.quantize(CENT, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True)
class Month:
    """One month of a case, counted from 1."""

    number: int
    savings: dict[CostCategory, Decimal]
    fees: Decimal

    @property
    def gross(self) -> Decimal:
        """Savings of all drivers."""
        return sum(self.savings.values(), ZERO)

    @property
    def net(self) -> Decimal:
        """Savings less fees."""
        return self.gross - self.fees


@dataclass(frozen=True)
class Scenario:
    """One case over the whole horizon."""

    case: Case
    engaged: Decimal
    months: tuple[Month, ...]
    one_time_fee: Decimal

    @cached_property
    def savings(self) -> Decimal:
        """Gross savings: of all drivers and months."""
        return sum((month.gross for month in self.months), ZERO)

    @cached_property
    def fees(self) -> Decimal:
        """The one-time fee and every month's."""
        return self.one_time_fee + sum((month.fees for month in self.months), ZERO)

    @property
    def net(self) -> Decimal:
        """Savings less fees."""
        return self.savings - self.fees

    @property
    def roi(self) -> Decimal | None:
        """Return on investment: net / fees, a share (0.5 = half as much again); None when nothing is paid."""
        return self.net / self.fees if self.fees else None

    @property
    def payback_month(self) -> int | None:
        """The first month at whose end the savings so far cover the fees so far; None when that is beyond the horizon,
        or when nothing is saved. Monthly net results never fall (fees are constant, the effect grows), so savings that
        have caught up stay ahead."""
        if not self.savings:
            return None
        return next((number for number, net in enumerate(self.cumulative_net) if number and net >= 0), None)

    @cached_property
    def cumulative_net(self) -> tuple[Decimal, ...]:
        """Net so far at the end of months 0, 1, …; month 0 is the start, when the one-time fee is due."""
        running = -self.one_time_fee
        sums = [running]
        for month in self.months:
            running += month.net
            sums.append(running)
        return tuple(sums)

    def savings_of(self, driver: CostCategory) -> Decimal:
        """Gross savings of one driver."""
        return sum((month.savings.get(driver, ZERO) for month in self.months), ZERO)

    def year(self, number: int) -> tuple[Decimal, Decimal, Decimal]:
        """(savings, fees, net) of a year, counted from 1; the one-time fee is the first year's."""
        months = self.months[12 * (number - 1) : 12 * number]
        savings = sum((month.gross for month in months), ZERO)
        fees = sum((month.fees for month in months), self.one_time_fee if number == 1 else ZERO)
        return savings, fees, savings - fees

    @property
    def savings_per_engaged_month(self) -> Decimal:
        """Gross savings / (engaged members * months of the horizon); 0 when nobody is engaged."""
        return cents(self.savings / (self.engaged * len(self.months))) if self.engaged else ZERO


@dataclass(frozen=True)
class ValueModel:
    """All cases, and what they start from."""

    members: int
    """Everybody who was seen in the baseline period."""
    eligible: int
    """Who of them qualifies."""
    horizon_months: int
    baseline: dict[CostCategory, Decimal]
    """Cost of each driver per eligible member and month, unrounded."""
    cases: dict[Case, Scenario]

    def net_pmpm(self, case: Case) -> Decimal:
        """Net result spread over everyone: net / (all members * months of the horizon); 0 without members."""
        return cents(self.cases[case].net / (self.members * self.horizon_months)) if self.members else ZERO


def calculate(
    recent: CohortReport, terms: ValuePropositionContent, *, horizon_months: int = HORIZON_MONTHS
) -> ValueModel:
    """Every case of a value proposition for a prospect, from the cohort report of the baseline period: the data's last
    twelve months (collecting.BASELINE_MONTHS). Who was not seen in them is counted as gone.

    eligible           = qualifying members seen in the period
    engaged            = eligible * engagement
    baseline(driver)   = what their care of this kind cost in the period / their member months in it
    saving(driver, m)  = engaged * baseline(driver) * reduction(driver) * ramp(m)
    fees(m)            = engaged * fee per engaged member per month, from the first month on

    Engagement, reductions with their evidence, fees and ramp-up are the client's (ValuePropositionContent). Why these
    formulas: docs/VALUE_MODEL.md. Raises CurrencyMismatch: nothing here knows an exchange rate.
    """
    if terms.currency != recent.currency:
        raise CurrencyMismatch(f"Prices are in {terms.currency}, the data is in {recent.currency}: use one currency.")
    eligible = recent.cohort.members
    baseline = {effect.driver: _cost_per_month(recent.cohort, effect.driver) for effect in terms.effects}
    cases: dict[Case, Scenario] = {}
    for case in CASES:
        engaged = eligible * getattr(terms.engagement, case)
        monthly = {
            effect.driver: engaged * baseline[effect.driver] * getattr(effect.reduction, case)
            for effect in terms.effects
        }
        fees = cents(engaged * terms.fees.per_engaged_member_per_month)
        months = tuple(
            Month(
                number=number,
                savings={
                    driver: cents(full * ramp(number, months=terms.ramp_up_months)) for driver, full in monthly.items()
                },
                fees=fees,
            )
            for number in range(1, horizon_months + 1)
        )
        cases[case] = Scenario(case=case, engaged=engaged, months=months, one_time_fee=cents(terms.fees.one_time))
    return ValueModel(
        members=eligible + recent.rest.members,
        eligible=eligible,
        horizon_months=horizon_months,
        baseline=baseline,
        cases=cases,
    )


def ramp(month: int, *, months: int) -> Decimal:
    """The part of the full effect in a month: its mean over that month when the effect grows evenly from nothing at the
    start to all of it at the end of the last ramp-up month. (m - 0.5) / months, and 1 after them."""
    return Decimal(1) if month > months else (Decimal(month) - Decimal("0.5")) / months


def _cost_per_month(part: CohortPart, driver: CostCategory) -> Decimal:
    cost = part.total_paid if driver is CostCategory.TOTAL else part.paid_by_category.get(driver, ZERO)
    return cost / part.member_months if part.member_months else ZERO
