"""The synthea mapping, against polars over the same files."""

import hmac
import io

import polars as pl
import pytest
from conftest import SECRET, Prospect
from extracts import MONEY, cents, month
from synthea_export import DEPARTMENTS, DRUGS, FILES, Export

from analytics_service.members import key_of

SUMS = ["medical_paid", "pharmacy_paid", "plan_paid", "member_paid", "total_paid"]


def table(export: Export, name: str) -> pl.DataFrame:
    return pl.read_csv(io.StringIO(export.files[name]), infer_schema=False)


async def load(prospect: Prospect, export: Export, dataset: str, files: dict[str, str] | None = None) -> dict:
    answer = await prospect.send_files(dataset, files or export.of(dataset), source="synthea")
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
def export() -> Export:
    return Export(3)


async def test_every_dataset_of_an_export(prospect: Prospect, export: Export):
    for dataset in FILES:
        await load(prospect, export, dataset)
    report = await prospect.get("reports/summary")
    transactions = table(export, "claims_transactions")
    payments = transactions.filter(pl.col("TYPE") == "PAYMENT").with_columns(paid=pl.col("PAYMENTS").cast(MONEY))
    by_plan = payments.filter(pl.col("METHOD") == "ECHECK")["paid"].sum()
    of_drugs = payments.filter(pl.col("PROCEDURECODE").is_in(DRUGS))["paid"].sum()
    whole = payments["paid"].sum()
    expected = [whole - of_drugs, of_drugs, by_plan, whole - by_plan, whole]
    assert [report[name] for name in SUMS] == [str(cents(paid)) for paid in expected]
    assert report["pharmacy_source"] == "claims"
    events = pl.concat(
        [
            transactions.filter(pl.col("TYPE") == "CHARGE").select(who="PATIENTID", month=month("FROMDATE")),
            table(export, "encounters").select(who="PATIENT", month=month("START")),
            table(export, "medications").select(who="PATIENT", month=month("START")),
        ]
    )
    spans = events.group_by("who").agg(months=pl.col("month").max() - pl.col("month").min() + 1)
    assert (report["members"], report["member_months"]) == (spans.height, spans["months"].sum())
    assert report["claims"] == transactions["CLAIMID"].n_unique()
    assert report["encounters"] == table(export, "encounters").height
    assert report["fills"] == table(export, "medications").height
    classes = {"ambulatory": "outpatient", "urgentcare": "outpatient", "wellness": "professional"}
    categories = (
        payments.join(table(export, "encounters"), left_on="APPOINTMENTID", right_on="Id")
        .with_columns(
            category=pl.when(pl.col("PROCEDURECODE").is_in(DRUGS))
            .then(pl.lit("pharmacy"))
            .otherwise(pl.col("ENCOUNTERCLASS").replace(classes))
        )
        .group_by("category")
        .agg(pl.col("paid").sum())
    )
    found = {name: paid for name, paid in report["paid_by_category"].items() if paid != "0.00"}
    assert found == {row["category"]: str(cents(row["paid"])) for row in categories.rows(named=True)}


@pytest.mark.parametrize("helpers", [(), ("claims",), ("encounters",)])
async def test_the_money_is_the_same_without_the_helper_files(new_prospect, export: Export, helpers: tuple[str, ...]):
    whole, part = new_prospect(), new_prospect()
    await load(whole, export, "claims")
    await load(part, export, "claims", {name: export.files[name] for name in ("claims_transactions", *helpers)})
    assert await part.get("reports/summary") == await whole.get("reports/summary")
    conditions = (await part.get("reports/conditions"))["rows"]
    assert bool(conditions) == ("claims" in helpers)


async def test_a_payment_for_a_procedure_that_a_claim_has_twice_counts_once(prospect: Prospect, export: Export):
    charges = table(export, "claims_transactions").filter(pl.col("TYPE") == "CHARGE")
    assert charges.select("CLAIMID", "PROCEDURECODE").is_duplicated().any()  # or this would show nothing
    assert (await load(prospect, export, "claims"))["rows"] == charges.height


async def test_a_payment_without_its_charge_is_refused(prospect: Prospect, export: Export):
    text = export.files["claims_transactions"]
    lines = text.splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if ",ECHECK," in line)
    cells = lines[number].split(",")
    cells[10] = "999999"
    lines[number] = ",".join(cells)
    files = export.of("claims") | {"claims_transactions": "".join(lines)}
    answer = await prospect.send_files("claims", files, source="synthea")
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_rows"
    [detail] = answer.json()["details"]
    assert detail["code"] == "no_such_row"
    assert detail["field"] == f"claims_transactions.csv, line {number + 1}, column PAYMENTS"
    assert (await prospect.get("reports/summary"))["members"] == 0


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("-5.00", "negative"),
        ("10000000000.01", "too_large"),
        ("five", "invalid_number"),
        ("1.234.567", "invalid_number"),
    ],
)
async def test_a_payment_that_is_no_amount_is_refused(prospect: Prospect, export: Export, text: str, code: str):
    lines = export.files["claims_transactions"].splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if ",ECHECK," in line)
    cells = lines[number].split(",")
    cells[-3] = text
    lines[number] = ",".join(cells)
    files = export.of("claims") | {"claims_transactions": "".join(lines)}
    answer = await prospect.send_files("claims", files, source="synthea")
    assert [detail["code"] for detail in answer.json()["details"]] == [code]
    skipped = await prospect.send_files("claims", files, source="synthea", on_error="skip")
    assert skipped.status_code == 201
    assert skipped.json()["rejected"] == 1


async def test_medications_cost_what_plan_and_member_pay(prospect: Prospect, export: Export):
    await load(prospect, export, "pharmacy")
    report = await prospect.get("reports/summary")
    orders = table(export, "medications").height
    assert report["pharmacy_source"] == "fills"
    assert [report["plan_paid"], report["total_paid"]] == [str(cents(2.10 * orders)), str(cents(21.72 * orders))]


async def test_places_classes_and_hashed_ids(app, prospect: Prospect, export: Export):
    await load(prospect, export, "claims")
    rows = await app.state.clickhouse.read(
        "SELECT DISTINCT lower(hex(member_id)) AS member, place_of_service, claim_type FROM claims "
        "WHERE prospect_id = {prospect:UUID}",
        {"prospect": prospect.id},
    )
    places = {"11", "22", "21", "23", "20", "01"}
    assert {row["place_of_service"] for row in rows} == places
    assert {row["claim_type"] for row in rows} == {"outpatient", "inpatient", "professional", "pharmacy"}
    key = key_of(SECRET, prospect.client_id, "member")
    assert {row["member"] for row in rows} == {hmac.digest(key, p.encode(), "sha256").hex() for p in export.patients}
    assert len(DEPARTMENTS) == len(places)


async def test_patients_are_not_asked_for(prospect: Prospect):
    answer = await prospect.send_files("claims", {"patients": "Id,SSN\n1,999-17-5017\n"}, source="synthea")
    assert answer.status_code == 422
    assert answer.json()["code"] == "unknown_file"
    assert "claims_transactions.csv" in answer.json()["message"]


async def test_helpers_alone_are_not_enough(prospect: Prospect, export: Export):
    answer = await prospect.send_files("claims", {"claims": export.files["claims"]}, source="synthea")
    assert answer.json()["code"] == "missing_file"


async def test_a_dataset_of_one_file_takes_it_as_a_body(prospect: Prospect, export: Export):
    answer = await prospect.send("utilization", export.files["encounters"], source="synthea")
    assert answer.status_code == 201, answer.text
    assert (await prospect.send("claims", export.files["claims"], source="synthea")).json()["code"] == "unknown_file"


async def test_a_file_given_twice_is_refused(prospect: Prospect, export: Export):
    text = export.files["encounters"].encode()
    parts = [("a", ("encounters.csv", text, "text/csv")), ("b", ("folder/encounters.csv", text, "text/csv"))]
    answer = await prospect.http.post(
        f"{prospect.path}/utilization?source=synthea", files=parts, headers=prospect.headers
    )
    assert answer.json()["code"] == "unknown_file"
