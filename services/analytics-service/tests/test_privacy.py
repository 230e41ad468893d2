"""Nothing that names a person, and no id of the source, can be found afterwards: tables, disk, logs, answers."""

import hmac
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import SECRET, NewProspect, Prospect
from fastapi import FastAPI
from synthea_export import FILES, Export

from analytics_service.engine import Engine
from analytics_service.members import key_of

NAMED = "member_id,name,ssn,address,claim_id,service_date,claim_type,paid,member_paid,provider_id,diagnosis_codes"


def everything(engine: Engine) -> str:
    """All rows of all tables of the database, as text."""
    tables = engine.rows("SELECT name FROM system.tables WHERE database = currentDatabase()")
    rows = [engine.rows(f"SELECT * FROM {table['name']}") for table in tables]
    assert len(tables) == 6
    return json.dumps(rows, default=lambda value: value.decode("latin-1") if isinstance(value, bytes) else str(value))


@dataclass
class Places:
    """Where something could have been left."""

    app: FastAPI
    folders: list[Path]
    log_lines: list[str]
    capfd: pytest.CaptureFixture[str]

    async def assert_empty_of(self, canaries: set[str], answers: list[str]) -> None:
        """None of the canaries is anywhere."""
        texts = {
            "tables": await self.app.state.clickhouse.write(everything),
            "log": "".join(self.log_lines),
            "output": "".join(self.capfd.readouterr()),
            "answers": "".join(answers),
        }
        assert all(texts.values())
        files = [path for folder in self.folders for path in folder.rglob("*") if path.is_file()]
        texts |= {str(path): path.read_bytes().decode("latin-1") for path in files}
        found = [(name, canary) for name, text in texts.items() for canary in canaries if canary in text]
        assert found == []


@pytest.fixture
def places(app, settings, clickhouse_folder, log_lines, capfd) -> Places:
    return Places(app, [clickhouse_folder, settings.spool_dir], log_lines, capfd)


async def test_an_export_of_synthea(app, places: Places, prospect: Prospect):
    export = Export(11)
    answers = []
    for dataset in FILES:
        answer = await prospect.send_files(dataset, export.of(dataset), source="synthea")
        assert answer.status_code == 201
        answers.append(answer.text)
    for report in ("summary", "cost-trend", "conditions"):
        answers += [json.dumps(await prospect.get(f"reports/{report}"))]
    encounters = {str(row[0]) for row in export.rows["encounters"]}
    claims = {str(row[0]) for row in export.rows["claims"]}
    providers = {str(row[-1]) for row in export.rows["claims_transactions"]}
    addresses = {str(row[6]) for row in export.rows["observations"] if "Canary" in str(row[6])}
    assert min(len(ids) for ids in (encounters, claims, providers, addresses)) > 10
    canaries = {*export.patients, *encounters, *claims, *providers, *addresses, "Canary Lane"}
    await places.assert_empty_of(canaries, answers)
    kept = await app.state.clickhouse.read(
        "SELECT DISTINCT value_text FROM clinical WHERE prospect_id = {id:UUID} AND value_text != ''",
        {"id": prospect.id},
    )
    assert kept == [{"value_text": "Never smoker"}]


@pytest.mark.parametrize("on_error", ["abort", "skip"])
async def test_columns_and_rows_that_are_refused(places: Places, prospect: Prospect, on_error: str):
    canary = f"Canaria-{on_error}"
    rows = [
        f"{canary}-77,{canary} Smith,999-17-5017,1 {canary} Road,{canary}-C,2024-01-01,inpatient,1,1,{canary}-P,E11.9",
        f"{canary}-78,{canary} Jones,999-17-5018,2 {canary} Road,{canary}-D,{canary},{canary},{canary},1,,{canary} x",
        f'"{canary}-79"',
    ]
    answer = await prospect.send("claims", "\n".join([NAMED, *rows]), on_error=on_error)
    assert answer.status_code == (422 if on_error == "abort" else 201)
    assert "line 3, column service_date" in answer.text
    malformed = await prospect.send("claims", f'{NAMED}\n"{canary}"x,1\n')
    assert malformed.json()["code"] == "invalid_csv"
    await places.assert_empty_of({canary, "999-17-501"}, [answer.text, malformed.text])


@pytest.mark.parametrize(
    ("question", "value", "kept"),
    [
        ("Tobacco smoking status", "Never smoker", True),
        ("What address do you live at?", "455 Underpass Suite 69", False),
        ("Patient e-mail", "unknown", False),
        ("Remark", "reach me at 617-555-0123", False),
        ("Remark", "jane@example.org", False),
        ("Remark", "ssn 999-17-5017", False),
        ("Remark", "120 over 80", True),
    ],
)
async def test_answers_that_may_name_a_person_are_not_kept(app, prospect, question: str, value: str, kept: bool):
    header = "member_id,recorded_date,kind,code_system,code,description,value_text"
    body = f"{header}\nM-1,2024-01-01,observation,loinc,72166-2,{question},{value}\n"
    assert (await prospect.send("clinical", body)).status_code == 201
    rows = await app.state.clickhouse.read(
        "SELECT value_text FROM clinical WHERE prospect_id = {id:UUID}", {"id": prospect.id}
    )
    assert rows == [{"value_text": value if kept else None}]


@pytest.mark.parametrize("number", ["999-17-5017", "617-555-0123"])
async def test_a_number_of_a_person_is_no_code(prospect: Prospect, number: str):
    visit = "M-1,E-1,2024-01-01,wellness"
    bodies = {
        "utilization": f"member_id,encounter_id,start,encounter_class,reason_code\n{visit},{number}\n",
        "clinical": f"member_id,recorded_date,kind,code_system,code\nM-1,2024-01-01,procedure,ours,{number}\n",
        "pharmacy": "member_id,fill_id,fill_date,code_system,drug_code,paid,member_paid\n"
        f"M-1,F-1,2024-01-01,{number},1234,1,1\n",
    }
    for dataset, body in bodies.items():
        answer = await prospect.send(dataset, body)
        assert [detail["code"] for detail in answer.json()["details"]] == ["invalid_code"], dataset
        assert number not in answer.text


async def test_ids_are_keyed_hashes_by_client_and_kind(app, new_prospect: NewProspect):
    hashes = []
    for prospect in (new_prospect(), new_prospect()):
        header = "member_id,claim_id,provider_id,service_date,claim_type,paid,member_paid"
        await prospect.send("claims", f"{header}\nsame,same,,2024-01-01,other,1,1\n")
        [row] = await app.state.clickhouse.read(
            "SELECT lower(hex(member_id)) AS member, lower(hex(claim_id)) AS claim, "
            "lower(hex(provider_id)) AS provider FROM claims WHERE prospect_id = {id:UUID}",
            {"id": prospect.id},
        )
        expected = {
            kind: hmac.digest(key_of(SECRET, prospect.client_id, kind), b"same", "sha256").hex()
            for kind in ("member", "claim")
        }
        assert row == {"member": expected["member"], "claim": expected["claim"][:32], "provider": "00" * 16}
        hashes += [row["member"], row["claim"]]
    assert len(set(hashes)) == 4


async def test_a_member_is_one_in_every_dataset(prospect: Prospect):
    await prospect.send(
        "claims", "member_id,claim_id,service_date,claim_type,paid,member_paid\nM-1,C-1,2024-01-01,other,1,1\n"
    )
    await prospect.send("utilization", "member_id,encounter_id,start,encounter_class\n M-1 ,E-1,2024-01-01,wellness\n")
    assert (await prospect.get("reports/summary"))["members"] == 1
