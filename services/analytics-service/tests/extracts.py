"""Made-up extracts in Triton's own columns, and what polars makes of them."""

import random
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

import polars as pl

TYPES = ["inpatient", "outpatient", "professional", "other"]
CODES = ["E11.9", "E11.65", "I10", "E78.5", "J45.909", "E10.9"]
CLASSES = ["inpatient", "emergency", "ambulatory", "outpatient", "urgentcare", "wellness", "virtual"]
MONEY = pl.Decimal(18, 2)


def csv_of(frame: pl.DataFrame) -> str:
    """As a file."""
    return frame.write_csv()


@dataclass
class Population:
    """The four datasets of one prospect."""

    claims: pl.DataFrame
    clinical: pl.DataFrame
    utilization: pl.DataFrame
    pharmacy: pl.DataFrame


def population(seed: int, *, pharmacy_claims: bool) -> Population:
    """Members over three years; some only in utilization, some only with fills, some with nothing but a diagnosis."""
    rng = random.Random(seed)

    def day() -> str:
        return str(date(2021, 1, 1) + timedelta(days=rng.randrange(1000)))

    def money(most: int) -> str:
        return f"{rng.randrange(most)}.{rng.randrange(100):02}"

    types = [*TYPES, "pharmacy"] if pharmacy_claims else TYPES
    claims = [
        {
            "member_id": f"M-{rng.randrange(40):03}",
            "claim_id": f"C-{number // 3}",
            "line_number": number % 3 + 1,
            "service_date": day(),
            "paid_date": day() if number % 4 else "",
            "claim_type": rng.choice(types),
            "place_of_service": rng.choice(["11", "22", "23", ""]),
            "diagnosis_codes": rng.choice([";", "|", ", "]).join(rng.sample(CODES, rng.randrange(4))),
            "code_system": "ICD-10-CM",
            "procedure_code": rng.choice(["99213", "J1815", "0001A"]),
            "provider_id": f"P-{rng.randrange(9)}",
            "billed": money(9000),
            "allowed": money(5000),
            "paid": money(4000),
            "member_paid": money(300),
        }
        for number in range(400)
    ]
    clinical = [
        {
            "member_id": f"M-{rng.randrange(60):03}",
            "recorded_date": day(),
            "kind": rng.choice(["condition", "condition", "observation"]),
            "code": (code := rng.choice(CODES)).replace(".", rng.choice([".", ""])),
            "code_system": "icd10cm",
            "description": f"About {code}",
            "value_number": "",
            "value_text": "",
            "unit": "",
            "end_date": "",
        }
        for _ in range(150)
    ]
    utilization = [
        {
            "member_id": f"M-{rng.randrange(30, 50):03}",
            "encounter_id": f"E-{number // 2}",
            "start": f"{day()}T{rng.randrange(24):02}:30:00Z",
            "end": "",
            "encounter_class": rng.choice(CLASSES),
            "reason_code": "",
            "facility_id": "F-1",
            "length_of_stay_days": str(rng.randrange(9)),
            "total_cost": money(900),
        }
        for number in range(90)
    ]
    pharmacy = [
        {
            "member_id": f"M-{rng.randrange(20, 55):03}",
            "fill_id": f"R-{number}",
            "fill_date": day(),
            "drug_code": "00093-1048-01",
            "code_system": "ndc",
            "drug_name": "Metformin 500 MG",
            "therapeutic_class": "biguanides",
            "quantity": "60.5",
            "days_supply": "30",
            "dispenses": "",
            "paid": money(90),
            "member_paid": money(20),
        }
        for number in range(120)
    ]
    return Population(*(pl.DataFrame(rows) for rows in (claims, clinical, utilization, pharmacy)))


def month(column: str) -> pl.Expr:
    """Months since year 0."""
    text = pl.col(column).str.slice(0, 7)
    return text.str.slice(0, 4).cast(pl.Int64) * 12 + text.str.slice(5, 2).cast(pl.Int64) - 1


def total() -> pl.Expr:
    """What plan and member paid."""
    return pl.col("paid").cast(MONEY) + pl.col("member_paid").cast(MONEY)


def spans(data: Population) -> pl.DataFrame:
    """member_id, first, last."""
    events = pl.concat(
        [
            data.claims.select("member_id", month=month("service_date")),
            data.utilization.select("member_id", month=month("start")),
            data.pharmacy.select("member_id", month=month("fill_date")),
        ]
    )
    return events.group_by("member_id").agg(first=pl.col("month").min(), last=pl.col("month").max())


def costs(data: Population) -> pl.DataFrame:
    """member_id, month, category, cost: pharmacy counted once."""
    lines = data.claims.select(
        "member_id",
        month=month("service_date"),
        category=pl.when(pl.col("place_of_service") == "23").then(pl.lit("emergency")).otherwise("claim_type"),
        cost=total(),
    )
    fills = data.pharmacy.select("member_id", month=month("fill_date"), category=pl.lit("pharmacy"), cost=total())
    in_claims = (data.claims["claim_type"] == "pharmacy").any()
    return lines if in_claims else pl.concat([lines, fills])


def diagnosed(data: Population) -> pl.DataFrame:
    """Distinct member_id, code; codes with their dot."""
    of_claims = data.claims.select(
        "member_id", code=pl.col("diagnosis_codes").str.replace_all(r"[|, ]+", ";").str.split(";")
    ).explode("code")
    of_records = data.clinical.filter(pl.col("kind") == "condition").select("member_id", "code")
    bare = pl.col("code").str.replace_all(".", "", literal=True)
    dotted = pl.when(bare.str.len_chars() > 3).then(bare.str.slice(0, 3) + "." + bare.str.slice(3)).otherwise(bare)
    return pl.concat([of_claims, of_records]).filter(pl.col("code") != "").with_columns(code=dotted).unique()


def cents(value: object) -> Decimal:
    """A sum as it came from polars."""
    return Decimal(str(value)).quantize(Decimal("0.01"))
