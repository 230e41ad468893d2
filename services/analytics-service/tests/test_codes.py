"""Codes and their systems: what people write, what is kept, what is refused."""

import pytest
from conftest import Prospect
from test_ingest import CLAIMS, CLINICAL, GOOD, VISIT, claims, places

from analytics_service.codes import SYSTEMS

ONE_ENGINE = True
CODES = {
    "icd10cm": "E11.9",
    "icd9cm": "250.00",
    "snomed": "44054006",
    "cpt": "99213",
    "hcpcs": "J1815",
    "loinc": "4548-4",
    "ndc": "00093104801",
    "rxnorm": "860975",
}


async def test_diagnosis_codes_must_be_codes(prospect: Prospect):
    answer = await prospect.send("claims", f"{CLAIMS},diagnosis_codes\n{GOOD},E11.9;John Smith (self)\n")
    assert places(answer) == [("line 2, column diagnosis_codes", "invalid_code")]
    assert "Smith" not in answer.text


@pytest.mark.parametrize("written", ["ICD-10", "ICD10", "icd-10-cm", "ICD10CM", "ICD 10 CM", "Icd_10", ""])
async def test_icd_10_by_any_name_qualifies_members(prospect: Prospect, written: str):
    answer = await prospect.send("claims", f"{CLAIMS},code_system,diagnosis_codes\n{GOOD},{written},E119\n")
    assert answer.status_code == 201, answer.text
    assert await cohort_members(prospect, "icd10cm", "E11.9") == 1
    [row] = (await prospect.get("reports/conditions"))["rows"]
    assert (row["code_system"], row["code"]) == ("icd10cm", "E11.9")


@pytest.mark.parametrize("written", ["SNOMED", "SNOMED CT", "SNOMED-CT", "snomedct", "SCT", "SNOMED CT (US)"])
async def test_snomed_by_any_name_qualifies_members(prospect: Prospect, written: str):
    await prospect.send("claims", claims(GOOD))
    body = f"{CLINICAL}\n{VISIT},condition,{written},44054006\n"
    answer = await prospect.send("clinical", body)
    assert answer.status_code == 201, answer.text
    assert await cohort_members(prospect, "snomed", "44054006") == 1


async def cohort_members(prospect: Prospect, system: str, code: str) -> int:
    return (await prospect.post("reports/cohort", {"codes": [{"system": system, "code": code}]}))["cohort"]["members"]


async def test_systems_land_on_their_canonical_names(app, prospect: Prospect):
    written = {
        "CPT-4": "cpt",
        "HCPCS Level II": "hcpcs",
        "HCPC": "hcpcs",
        "LN": "loinc",
        "LOINC": "loinc",
        "NDC-11": "ndc",
        "RxNorm": "rxnorm",
        "RxCUI": "rxnorm",
        "ICD-10-PCS": "icd10pcs",
    } | {system: system for system in SYSTEMS}
    rows = [f"{VISIT},procedure,{name},{CODES.get(system, '0FB03ZX')},{name}" for name, system in written.items()]
    answer = await prospect.send("clinical", "\n".join([f"{CLINICAL},description", *rows]))
    assert answer.status_code == 201, answer.text
    stored = await app.state.clickhouse.read(
        "SELECT description, code_system FROM clinical WHERE prospect_id = {id:UUID}", {"id": prospect.id}
    )
    assert {row["description"]: row["code_system"] for row in stored} == written


@pytest.mark.parametrize(
    ("dataset", "body"),
    [
        ("claims", f"{CLAIMS},code_system\n{GOOD},icd10cm\n{GOOD},read-codes\n"),
        ("clinical", f"{CLINICAL}\n{VISIT},observation,read-codes,8302-2\n{VISIT},Condition,read-codes,C10\n"),
    ],
)
async def test_an_unknown_system_of_diagnoses_is_named(prospect: Prospect, dataset: str, body: str):
    answer = await prospect.send(dataset, body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_rows")
    assert places(answer) == [("line 3, column code_system", "unknown_system")]
    assert "icd10cm, icd9cm, snomed" in answer.json()["details"][0]["issue"]
    assert "read" not in answer.text


@pytest.mark.parametrize(
    ("system", "given", "kept"),
    [
        ("icd10cm", "e1165", "E11.65"),
        ("icd9cm", "25000", "250.00"),
        ("icd9cm", "V5867", "V58.67"),
        ("icd9cm", "E8490", "E849.0"),
        ("ndc", "0093-1048-01", "00093104801"),
        ("ndc", "50580-449-05", "50580044905"),
        ("ndc", "50242-0040-2", "50242004002"),
        ("ndc", "00093-1048-01", "00093104801"),
        ("snomed", "44054006", "44054006"),
    ],
)
async def test_codes_land_in_one_form(app, prospect: Prospect, system: str, given: str, kept: str):
    answer = await prospect.send(
        "clinical",
        f"{CLINICAL}\n{VISIT},condition,{system},{given}\n".replace(
            "condition", "condition" if system in ("icd10cm", "icd9cm", "snomed") else "procedure"
        ),
    )
    assert answer.status_code == 201, answer.text
    rows = await app.state.clickhouse.read(
        "SELECT code FROM clinical WHERE prospect_id = {id:UUID}", {"id": prospect.id}
    )
    assert rows == [{"code": kept}]


@pytest.mark.parametrize(
    ("system", "code"),
    [
        ("icd10cm", "1234"),
        ("icd10cm", "Smith"),
        ("icd9cm", "E11.9"),
        ("snomed", "E11.9"),
        ("cpt", "9921"),
        ("hcpcs", "99213"),
        ("loinc", "4548"),
        ("ndc", "665078"),
        ("ndc", "123-45-6789"),
    ],
)
async def test_codes_that_are_none_of_their_system(prospect: Prospect, system: str, code: str):
    answer = await prospect.send("clinical", f"{CLINICAL}\n{VISIT},procedure,{system},{code}\n")
    if system in ("icd10cm", "icd9cm", "snomed"):
        answer = await prospect.send("claims", f"{CLAIMS},code_system,diagnosis_codes\n{GOOD},{system},{code}\n")
        assert places(answer) == [("line 2, column diagnosis_codes", "invalid_code")]
    else:
        assert places(answer) == [("line 2, column code", "invalid_code")]
