"""The sample population: four CSV files in Triton's own columns, plausible, and the same bytes for the same seed.

24 months that end on a fixed day. Every claim has its encounter: C0000001 is the bill of E0000001, of the same day, the
same member and the same cost.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triton_cli.population import (
    ACUTE_DRUG,
    ACUTE_DX,
    AGE_KNOTS,
    CONDITIONS,
    DIAGNOSES,
    DRUGS,
    MEASUREMENTS,
    VISITS,
    Condition,
    Drug,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

DATASETS: Final = ("claims", "clinical", "utilization", "pharmacy")
FIRST_DAY: Final = np.datetime64("2023-01-01")
LAST_DAY: Final = np.datetime64("2024-12-31")
DAYS: Final = int((LAST_DAY - FIRST_DAY).astype(int)) + 1
YEAR: Final = 365.25

AGES: Final = ((0, 2, 0.03), (2, 18, 0.20), (18, 35, 0.24), (35, 50, 0.24), (50, 65, 0.21), (65, 90, 0.08))
"""From, to, share: an employer's plan with dependants and some retirees."""
WOMEN: Final = 0.51
PARTIAL: Final = 0.12  # share of members who join or leave within the two years
OUT_OF_POCKET_LIMIT: Final = 700_000  # cents a member and calendar year; the plan pays what is above
FRAILTY: Final = 0.6  # shape of the gamma distribution of how often a member falls ill; smaller is more unequal
ADHERENCE: Final = 0.82
DRUG_COINSURANCE: Final = 0.15
PROCEDURES: Final = frozenset(
    {"45378", "45385", "47562", "66984", "43775", "43239", "92941", "27447", "44970", "44204"}
)


@dataclass(frozen=True)
class Members:
    """The population: one entry a member in each array."""

    age: Ints
    female: Bools
    frailty: Floats
    start: Ints
    """First day covered, counted from FIRST_DAY; `end` is the day after the last."""
    end: Ints
    has: dict[str, Bools]
    code: dict[str, NDArray[np.str_]]
    """The ICD-10-CM code of each condition, for those who have it."""
    mask: Ints
    """The conditions as bits, in the order of CONDITIONS."""

    def group(self, name: str) -> Bools:
        """Who is in a group of `population.Visit.rate`: one of these, or those who have a condition."""
        age, female = self.age, self.female
        groups = {
            "all": age >= 0,
            "newborn": age < 1,
            "infant": age < 2,
            "child": (age >= 2) & (age < 18),
            "adult": (age >= 18) & (age < 65),
            "senior": age >= 65,
            "women": female & (age >= 15),
            "childbearing": female & (age >= 18) & (age < 45),
            "screened": (age >= 45) & (age < 76),
            "screened women": female & (age >= 40) & (age < 75),
        }
        return groups[name] if name in groups else self.has[name]


@dataclass(frozen=True)
class Claims:
    """All claims, one entry each, in the order of their ids; and their lines, which name the claim by its index."""

    member: Ints
    day: Ints
    visit: Ints
    stay: Ints
    line_claim: Ints
    line_code: NDArray[np.str_]
    allowed: Ints
    """Cents; what plan and member pay together."""
    member_paid: Ints


def write_sample(folder: Path, *, members: int, seed: int) -> dict[str, Path]:
    """Write `claims.csv`, `clinical.csv`, `utilization.csv` and `pharmacy.csv`; answers their paths by dataset."""
    random = np.random.default_rng(seed)
    people = _members(random, members)
    claims = _claims(random, people)
    folder.mkdir(parents=True, exist_ok=True)
    files = {dataset: folder / f"{dataset}.csv" for dataset in DATASETS}
    _write_claims(files["claims"], random, people, claims)
    _write_utilization(files["utilization"], random, people, claims)
    _write_pharmacy(files["pharmacy"], random, people, claims)
    _write_clinical(files["clinical"], random, people, claims)
    return files


def _members(random: np.random.Generator, count: int) -> Members:
    band = random.choice(len(AGES), count, p=[share for _, _, share in AGES])
    lows, highs = (np.array([ages[side] for ages in AGES]) for side in (0, 1))
    age = random.integers(lows[band], highs[band])
    female = random.random(count) < WOMEN
    partial = random.random(count) < PARTIAL
    joins = random.random(count) < 0.5
    cut = random.integers(60, DAYS - 60, count)
    has: dict[str, Bools] = {}
    code: dict[str, NDArray[np.str_]] = {}
    for condition in CONDITIONS:
        has[condition.key] = random.random(count) < _chance(condition, age, female, has)
        names = np.array([name for name, _, _ in condition.codes])
        code[condition.key] = names[random.choice(len(names), count, p=[share for _, _, share in condition.codes])]
    mask = sum(
        (has[condition.key].astype(np.int64) << bit for bit, condition in enumerate(CONDITIONS)), np.zeros(count, int)
    )
    return Members(
        age=age,
        female=female,
        frailty=random.gamma(FRAILTY, 1 / FRAILTY, count),
        start=np.where(partial & joins, cut, 0),
        end=np.where(partial & ~joins, cut, DAYS),
        has=has,
        code=code,
        mask=mask,
    )


def _chance(condition: Condition, age: Ints, female: Bools, has: dict[str, Bools]) -> Floats:
    """Each member's probability to have a condition, given those it has already."""
    base = np.interp(age, AGE_KNOTS, condition.prevalence)
    odds = base / (1 - base)
    for other, factor in condition.odds.items():
        odds = np.where(has[other], odds * factor, odds)
    if condition.sex:
        odds = np.where(female == (condition.sex == "F"), odds, 0.0)
    chance: Floats = odds / (1 + odds)
    return chance


def _claims(random: np.random.Generator, people: Members) -> Claims:
    members, days, visits = [], [], []
    exposure = (people.end - people.start) / YEAR
    for index, visit in enumerate(VISITS):
        rate = sum((per_year * people.group(name) for name, per_year in visit.rate.items()), np.zeros(len(people.age)))
        rate = rate * exposure * (people.frailty if visit.frail else 1.0)
        member = np.repeat(np.arange(len(rate)), random.poisson(rate))
        members.append(member)
        days.append(people.start[member] + _within(random, (people.end - people.start)[member]))
        visits.append(np.full(len(member), index))
    member, day, visit_of = np.concatenate(members), np.concatenate(days), np.concatenate(visits)
    order = np.lexsort((visit_of, member, day))
    member, day, visit_of = member[order], day[order], visit_of[order]
    length = np.array([visit.days for visit in VISITS])[visit_of]
    stay = np.where(length > 0, 1 + random.poisson(np.maximum(length - 1, 0)), 0)
    stay = np.minimum(stay, DAYS - 1 - day)  # nobody is discharged after the data ends
    line_claim, line_code, allowed = _lines(random, visit_of)
    coinsurance = np.array([visit.coinsurance for visit in VISITS])[visit_of[line_claim]]
    share = np.rint(allowed * coinsurance).astype(np.int64)
    year = (FIRST_DAY + day[line_claim]).astype("datetime64[Y]").astype(np.int64)
    return Claims(
        member=member,
        day=day,
        visit=visit_of,
        stay=stay,
        line_claim=line_claim,
        line_code=line_code,
        allowed=allowed,
        member_paid=_capped(share, member[line_claim] * 10_000 + year),
    )


def _lines(random: np.random.Generator, visit_of: Ints) -> tuple[Ints, NDArray[np.str_], Ints]:
    """The lines of each claim: claim, code, allowed amount in cents; in the order of the claims."""
    claims, codes, amounts, positions = [], [], [], []
    for index, visit in enumerate(VISITS):
        mine = np.flatnonzero(visit_of == index)
        severity = random.lognormal(0.0, 0.25, len(mine))  # a costly day is costly on each of its lines
        for position, line in enumerate(visit.lines):
            there = random.random(len(mine)) < line.chance
            price = line.price * random.lognormal(0.0, line.spread, len(mine)) * severity
            claims.append(mine[there])
            codes.append(np.full(there.sum(), line.code))
            amounts.append(np.maximum(np.rint(price[there] * 100), 1).astype(np.int64))
            positions.append(np.full(there.sum(), position))
    claim = np.concatenate(claims)
    order = np.lexsort((np.concatenate(positions), claim))
    return claim[order], np.concatenate(codes)[order], np.concatenate(amounts)[order]


def _capped(share: Ints, account: Ints) -> Ints:
    """What members pay of `share`, line by line, until an account (a member's year) has paid the limit."""
    order = np.argsort(account, kind="stable")
    ordered = share[order]
    before = np.cumsum(ordered) - ordered
    first = np.r_[True, account[order][1:] != account[order][:-1]]
    before = before - np.maximum.accumulate(np.where(first, before, 0))
    paid = np.empty_like(share)
    paid[order] = np.clip(OUT_OF_POCKET_LIMIT - before, 0, ordered)
    return paid


def _write_claims(file: Path, random: np.random.Generator, people: Members, claims: Claims) -> None:
    claim = claims.line_claim
    paid_day = claims.day + claims.stay + 7 + np.rint(random.gamma(2.0, 9.0, len(claims.day))).astype(np.int64)
    charge = np.rint(claims.allowed * random.uniform(1.5, 2.8, len(claim))).astype(np.int64)
    provider = random.integers(0, 40 + len(people.age) // 25, len(claims.day))
    diagnoses = _diagnoses(people, claims)
    header = (
        "claim_id,line_number,member_id,service_date,paid_date,claim_type,place_of_service,diagnosis_codes,code_system,"
        "procedure_code,provider_id,billed,allowed,paid,member_paid"
    )
    days, paid_days = _dates(claims.day), _dates(paid_day)
    members = _ids("M", claims.member)
    number, previous = 0, -1
    rows = []
    for index, code, billed, allowed, own in zip(
        claim.tolist(),
        claims.line_code.tolist(),
        charge.tolist(),
        claims.allowed.tolist(),
        claims.member_paid.tolist(),
        strict=True,
    ):
        number = number + 1 if index == previous else 1
        previous = index
        visit = VISITS[claims.visit[index]]
        rows.append(
            (
                f"C{index + 1:07}",
                number,
                members[index],
                days[index],
                paid_days[index],
                visit.claim_type,
                visit.place,
                diagnoses[index],
                "icd10cm",
                code,
                f"P{provider[index]:05}",
                _money(billed),
                _money(allowed),
                _money(allowed - own),
                _money(own),
            )
        )
    _write(file, header, rows)


def _diagnoses(people: Members, claims: Claims) -> list[str]:
    """Each claim's codes: what it was for, then up to three conditions that the member has beside it."""
    known = {condition.key for condition in CONDITIONS}
    texts = []
    for member, visit in zip(claims.member.tolist(), claims.visit.tolist(), strict=True):
        dx = VISITS[visit].dx
        first = str(people.code[dx][member]) if dx in known else dx
        mask = int(people.mask[member])
        beside = [
            str(people.code[condition.key][member])
            for bit, condition in enumerate(CONDITIONS)
            if mask >> bit & 1 and condition.key != dx
        ]
        texts.append("|".join([first, *beside[:3]]))
    return texts


def _write_utilization(file: Path, random: np.random.Generator, people: Members, claims: Claims) -> None:
    cost = np.bincount(claims.line_claim, weights=claims.allowed, minlength=len(claims.day)).astype(np.int64)
    minute = random.integers(7 * 12, 19 * 12, len(claims.day)) * 5
    length = random.integers(3, 13, len(claims.day)) * 5
    facility = random.integers(0, 12, len(claims.day))
    starts = FIRST_DAY + claims.day + minute.astype("timedelta64[m]")
    ends = np.where(
        claims.stay > 0,
        FIRST_DAY + claims.day + claims.stay + np.timedelta64(11, "h").astype("timedelta64[m]"),
        starts + length.astype("timedelta64[m]"),
    )
    members, reasons = _ids("M", claims.member), _diagnoses(people, claims)
    header = "encounter_id,member_id,start,end,encounter_class,reason_code,facility_id,length_of_stay_days,total_cost"
    rows = zip(
        _ids("E", np.arange(len(claims.day)) + 1, width=7),
        members,
        _times(starts),
        _times(ends),
        [VISITS[visit].encounter_class for visit in claims.visit.tolist()],
        [codes.split("|", 1)[0] for codes in reasons],
        [f"F{number:03}" for number in facility.tolist()],
        claims.stay.tolist(),
        [_money(cents) for cents in cost.tolist()],
        strict=True,
    )
    _write(file, header, rows)


def _write_pharmacy(file: Path, random: np.random.Generator, people: Members, claims: Claims) -> None:
    fills = [_regimen(random, people, drug) for drug in DRUGS]
    acute = np.isin(claims.visit, [index for index, visit in enumerate(VISITS) if visit.dx in ACUTE_DX])
    treated = np.flatnonzero(acute & (random.random(len(claims.day)) < ACUTE_DRUG.share))
    fills.append((claims.member[treated], claims.day[treated], np.full(len(treated), 10)))
    member, day, supply = (np.concatenate([fill[part] for fill in fills]) for part in range(3))
    drug = np.repeat(np.arange(len(fills)), [len(fill[0]) for fill in fills])
    order = np.lexsort((drug, member, day))
    member, day, supply, drug = member[order], day[order], supply[order], drug[order]
    table = (*DRUGS, ACUTE_DRUG)
    price = np.array([item.price for item in table])[drug] * np.where(supply == 10, 1.0, supply / 30)
    price = np.maximum(np.rint(price * random.lognormal(0.0, 0.12, len(drug)) * 100), 1).astype(np.int64)
    own = _capped(
        np.rint(price * DRUG_COINSURANCE).astype(np.int64),
        member * 10_000 + (FIRST_DAY + day).astype("datetime64[Y]").astype(np.int64),
    )
    header = (
        "fill_id,member_id,fill_date,drug_code,code_system,drug_name,therapeutic_class,quantity,days_supply,dispenses,"
        "paid,member_paid"
    )
    rows = (
        (
            fill_id,
            member_id,
            date,
            table[item].ndc,
            "ndc",
            table[item].name,
            table[item].therapeutic_class,
            table[item].units * max(days // 30, 1),
            days,
            1,
            _money(cost - share),
            _money(share),
        )
        for fill_id, member_id, date, item, days, cost, share in zip(
            _ids("R", np.arange(len(drug)) + 1, width=7),
            _ids("M", member),
            _dates(day),
            drug.tolist(),
            supply.tolist(),
            price.tolist(),
            own.tolist(),
            strict=True,
        )
    )
    _write(file, header, rows)


def _regimen(random: np.random.Generator, people: Members, drug: Drug) -> tuple[Ints, Ints, Ints]:
    """The fills of a drug that is taken all the time: member, day, days supplied (30, or 90 for a third of them)."""
    takes = np.flatnonzero(people.has[drug.condition] & (random.random(len(people.age)) < drug.share))
    supply = np.where(random.random(len(takes)) < 1 / 3, 90, 30)
    first = people.start[takes] + random.integers(0, 30, len(takes))
    number = np.arange(DAYS // 30 + 1)
    day = first[:, None] + number * supply[:, None] + random.integers(0, 6, (len(takes), len(number)))
    there = (day < people.end[takes][:, None]) & (random.random(day.shape) < ADHERENCE)
    row, column = np.nonzero(there)
    return takes[row], day[row, column], supply[row]


def _write_clinical(file: Path, random: np.random.Generator, people: Members, claims: Claims) -> None:
    rows: list[tuple[Any, ...]] = []
    for condition in CONDITIONS:
        names = {code: description for code, description, _ in condition.codes}
        mine = np.flatnonzero(people.has[condition.key])
        day = people.start[mine] + random.integers(0, 60, len(mine))
        codes = people.code[condition.key][mine].tolist()
        rows += [
            (member, date, "condition", code, "icd10cm", names[code], "", "", "", "")
            for member, date, code in zip(_ids("M", mine), _dates(day), codes, strict=True)
        ]
    own = [DIAGNOSES.get(visit.dx, "") for visit in VISITS]
    acute = np.flatnonzero(np.isin(claims.visit, [index for index, description in enumerate(own) if description]))
    rows += [
        (member, date, "condition", VISITS[visit].dx, "icd10cm", own[visit], "", "", "", "")
        for member, date, visit in zip(
            _ids("M", claims.member[acute]), _dates(claims.day[acute]), claims.visit[acute].tolist(), strict=True
        )
    ]
    for what in MEASUREMENTS:
        rate = sum((per_year * people.group(name) for name, per_year in what.rate.items()), np.zeros(len(people.age)))
        member = np.repeat(np.arange(len(rate)), random.poisson(rate * (people.end - people.start) / YEAR))
        day = people.start[member] + _within(random, (people.end - people.start)[member])
        usual = random.normal(what.mean, what.spread, len(people.age))
        usual += sum(shift * people.has[name] for name, shift in what.shifts.items())
        scale = 10**what.decimals
        value = np.rint(np.maximum(usual[member] + random.normal(0, what.spread / 3, len(member)), what.least) * scale)
        rows += [
            (member_id, date, "observation", what.code, "loinc", what.description, number, "", what.unit, "")
            for member_id, date, number in zip(
                _ids("M", member),
                _dates(day),
                [_decimal(n, what.decimals) for n in value.astype(int).tolist()],
                strict=True,
            )
        ]
    done = np.flatnonzero(np.isin(claims.line_code, list(PROCEDURES)))
    claim = claims.line_claim[done]
    rows += [
        (member, date, "procedure", code, "cpt", "", "", "", "", "")
        for member, date, code in zip(
            _ids("M", claims.member[claim]), _dates(claims.day[claim]), claims.line_code[done].tolist(), strict=True
        )
    ]
    rows.sort(key=lambda row: (row[1], row[0], row[2], row[3], row[6]))
    header = "member_id,recorded_date,kind,code,code_system,description,value_number,value_text,unit,end_date"
    _write(file, header, rows)


def _within(random: np.random.Generator, length: Ints) -> Ints:
    """A day of each of these spans."""
    return np.floor(random.random(len(length)) * length).astype(np.int64)


def _ids(letter: str, numbers: Ints, width: int = 6) -> list[str]:
    return [f"{letter}{number:0{width}}" for number in numbers.tolist()]


def _dates(day: Ints) -> list[str]:
    return [str(date) for date in FIRST_DAY + day]


def _times(moment: NDArray[np.datetime64]) -> list[str]:
    return [f"{time}:00Z" for time in np.datetime_as_string(moment, unit="m").tolist()]


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


def _decimal(number: int, decimals: int) -> str:
    return f"{number // 10**decimals}.{number % 10**decimals:0{decimals}}" if decimals else str(number)


def _write(file: Path, header: str, rows: Iterable[Sequence[Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as output:
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(header.split(","))
        writer.writerows(rows)
