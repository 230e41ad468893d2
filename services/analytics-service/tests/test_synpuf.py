"""CMS's DE-SynPUF files, several in one call, as their codebook has them."""

import synpuf
from conftest import Prospect


async def test_claims_of_four_files(app, prospect: Prospect):
    files = {
        synpuf.INPATIENT: synpuf.facility("inpatient"),
        synpuf.OUTPATIENT: synpuf.facility("outpatient"),
        synpuf.CARRIER.format("A"): synpuf.carrier("A"),
        synpuf.CARRIER.format("B"): synpuf.carrier("B"),
    }
    answer = await prospect.send_files("claims", files, source="cms-synpuf")
    assert answer.status_code == 201, answer.text
    lines = sum(range(1, 14))
    assert (answer.json()["rows"], answer.json()["rejected"]) == (20 + 20 + 2 * lines, 0)
    summary = await prospect.get("reports/summary")
    assert summary["members"] == 12
    assert summary["claims"] == 20 + 20 + 26
    assert summary["plan_paid"] == f"{40 * 4000 + 2 * lines * 50}.00"
    assert summary["member_paid"] == f"{40 * 1024 + 2 * lines * 10}.00"
    assert summary["first_month"] == "2008-01-01"
    conditions = {row["code"]: row["members"] for row in (await prospect.get("reports/conditions"))["rows"]}
    assert set(conditions) == {"250.00", "401.9", "V58.67", "272.4", "E849.0"}
    rows = await app.state.clickhouse.read(
        "SELECT DISTINCT claim_type, code_system FROM claims WHERE prospect_id = {id:UUID}", {"id": prospect.id}
    )
    assert {row["code_system"] for row in rows} == {"icd9cm"}
    assert {row["claim_type"] for row in rows} == {"inpatient", "outpatient", "professional"}


async def test_flags_of_beneficiaries_are_conditions_of_their_year(app, prospect: Prospect):
    files = {synpuf.BENEFICIARIES.format(year): synpuf.beneficiaries(year) for year in (2008, 2009)}
    answer = await prospect.send_files("clinical", files, source="cms-synpuf")
    assert answer.status_code == 201, answer.text
    rows = await app.state.clickhouse.read(
        "SELECT code, toDate(recorded_date) AS day, count() AS members FROM clinical "
        "WHERE prospect_id = {id:UUID} GROUP BY code, day",
        {"id": prospect.id},
    )
    found = {(row["code"], str(row["day"])): row["members"] for row in rows}
    assert found == {
        (code, f"{year}-12-31"): members
        for year in (2008, 2009)
        for code, members in {"73211009": 6, "42343007": 4}.items()
    }


async def test_stays_and_visits(prospect: Prospect):
    files = {synpuf.INPATIENT: synpuf.facility("inpatient"), synpuf.OUTPATIENT: synpuf.facility("outpatient")}
    answer = await prospect.send_files("utilization", files, source="cms-synpuf")
    assert (answer.status_code, answer.json()["rows"]) == (201, 40)
    assert (await prospect.get("reports/summary"))["encounters"] == 40


async def test_drug_events(prospect: Prospect):
    answer = await prospect.send_files("pharmacy", {synpuf.DRUGS: synpuf.drugs()}, source="cms-synpuf")
    assert (answer.status_code, answer.json()["rows"]) == (201, 20)
    summary = await prospect.get("reports/summary")
    assert (summary["plan_paid"], summary["member_paid"]) == ("600.00", "200.00")
