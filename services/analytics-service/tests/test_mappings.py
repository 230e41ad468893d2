"""Mappings that come with a call, and previews: what they show, and what they are refused for."""

import json

import httpx2
import pytest
from conftest import JobsService, NewProspect, Prospect
from test_ingest import GOOD, claims
from uuid_utils.compat import uuid7

OWN = """
[[claims]]
rows = "*"
where = { state = ["paid"] }

[claims.columns]
member_id = "Subscriber"
claim_id = "Claim No."
service_date = { ymd = "Date" }
claim_type = [{ from = "Kind", map = "kinds" }, { value = "other" }]
paid = { plus = ["Plan", "Stop `loss"] }
member_paid = { minus = ["All", "Plan"] }

[maps.kinds]
IP = "inpatient"
"""
HEADER = "Subscriber,Claim No.,Date,Kind,Plan,All,Stop `loss,state,Name"
ROWS = ["S-1,C-1,20240131,IP,10.00,15.00,2.50,paid,Canary Smith", "S-2,C-2,20240201,XX,1.00,1.00,,open,Canary Jones"]
ROW = dict(zip(HEADER.split(","), ROWS[0].split(","), strict=True))


async def send(prospect: Prospect, mapping: str, body: str, *, path: str = "claims", name: str = "x.csv"):
    parts = [("mapping", ("mapping.toml", mapping.encode())), ("file", (name, body.encode()))]
    return await prospect.http.post(f"{prospect.path}/{path}", files=parts, headers=prospect.headers)


@pytest.mark.parametrize(
    ("name", "body"), [("x.csv", "\n".join([HEADER, *ROWS])), ("x.ndjson", json.dumps(ROW))], ids=["csv", "ndjson"]
)
async def test_a_mapping_of_ones_own(prospect: Prospect, name: str, body: str):
    answer = await send(prospect, OWN, body, name=name)
    assert (answer.status_code, answer.json().get("rows")) == (201, 1), answer.text
    assert answer.json()["source"].startswith("own:")
    summary = await prospect.get("reports/summary")
    assert (summary["plan_paid"], summary["member_paid"]) == ("12.50", "5.00")
    assert summary["paid_by_category"]["inpatient"] == "17.50"
    assert (await send(prospect, OWN, body, name=name)).status_code == 200


async def test_a_preview_shows_rows_and_problems_and_stores_nothing(prospect: Prospect):
    bad = ROWS[0].replace("20240131", "31.1.24")
    answer = await send(prospect, OWN, "\n".join([HEADER, *ROWS, bad]), path="claims/preview")
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["good"], shown["rejected"]) == (1, 1)
    assert [(one["field"], one["code"]) for one in shown["rejects"]] == [("line 4, column Date", "invalid_date")]
    [row] = shown["rows"]
    assert (row["service_date"], row["paid"], row["member_paid"]) == ("2024-01-31T00:00:00Z", "12.50", "5.00")
    assert (len(row["member_id"]), row["claim_type"], row["paid_date"]) == (64, "inpatient", None)
    assert "Canary" not in answer.text
    assert "S-1" not in answer.text
    assert (await prospect.get("batches"))["items"] == []
    assert (await prospect.get("reports/summary"))["members"] == 0


async def test_what_is_no_number_is_not_added_to_one(prospect: Prospect):
    rows = [ROWS[0].replace("10.00,15.00,2.50", given) for given in ("1.234.567,9.00,1", "-,9.00,1", "1,1.2.3,1")]
    answer = await send(prospect, OWN, "\n".join([HEADER, *rows]))
    assert {(one["field"], one["code"]) for one in answer.json()["details"]} == {
        ("line 2, column Plan", "invalid_number"),
        ("line 2, column All", "invalid_number"),
        ("line 3, column Plan", "invalid_number"),
        ("line 3, column All", "invalid_number"),
        ("line 4, column All", "invalid_number"),
    }


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (("[[claims]]", "[[claim]]"), "mapping.claim"),
        (('"Subscriber"', '{ sql = "now()" }'), "mapping.claims.0.columns.member_id"),
        (('map = "kinds"', 'map = "sorts"'), "mapping.claims.0.columns.claim_type"),
        (('"Claim No."', '"there.Claim"'), "mapping.claims.0.columns.claim_id"),
        (("member_paid = ", "patient_paid = "), "mapping.claims.0.columns.patient_paid"),
        (('claim_id = "Claim No."\n', ""), "mapping.claims.0.columns.claim_id"),
        (("[[claims]]", "[[pharmacy]]"), "mapping"),
        (('"Subscriber"', '""'), "mapping.claims.0.columns.member_id"),
    ],
)
async def test_mappings_that_are_refused(prospect: Prospect, change: tuple[str, str], place: str):
    answer = await send(prospect, OWN.replace(*change), "\n".join([HEADER, *ROWS]))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_mapping"), answer.text
    assert any(detail["field"].startswith(place) for detail in answer.json()["details"]), answer.text


@pytest.mark.parametrize("mapping", [b"\xff", b"not toml", b"a = " + b"[" * 5000, b"claims = 7", b"claims = [7]"])
async def test_what_is_no_mapping(prospect: Prospect, mapping: bytes):
    parts = [("mapping", ("mapping.toml", mapping)), ("file", ("x.csv", claims(GOOD).encode()))]
    answer = await prospect.http.post(f"{prospect.path}/claims", files=parts, headers=prospect.headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_mapping")


async def test_names_that_would_be_sql_are_names(prospect: Prospect):
    name = "x`; DROP TABLE claims; --\\'"
    mapping = OWN.replace('"Subscriber"', json.dumps(name)).replace("[claims.columns]", "[claims.columns]", 1)
    answer = await send(prospect, mapping, json.dumps({name: "S-9", **ROW}), name="x.ndjson")
    assert (answer.status_code, answer.json().get("rows")) == (201, 1), answer.text
    lookups = '[claims.lookups."x ON 1 JOIN y"]\nfile = "y"\non = { a = "b" }\n[claims.columns]'
    answer = await send(prospect, OWN.replace("[claims.columns]", lookups), "\n".join([HEADER, *ROWS]))
    assert answer.json()["code"] == "invalid_mapping"


async def test_a_mapping_that_is_too_long(prospect: Prospect):
    answer = await send(prospect, OWN + "#" * (1 << 17), "\n".join([HEADER, *ROWS]))
    assert (answer.status_code, answer.json()["code"]) == (413, "content_too_large")


async def test_progress_is_read_while_the_body_comes(prospect: Prospect):
    batch_id = uuid7()
    seen = []

    async def body():
        yield claims(*[GOOD] * 30_000).encode()
        seen.append(await prospect.get(f"batches/{batch_id}"))
        seen.append((await prospect.get("batches"))["items"])
        yield GOOD.encode()

    answer = await prospect.http.post(
        f"{prospect.path}/claims",
        content=body(),
        headers=prospect.headers | {"Content-Type": "text/csv", "Batch-Id": str(batch_id)},
    )
    assert answer.status_code == 201, answer.text
    assert answer.json()["id"] == str(batch_id)
    loading, listed = seen
    assert (loading["status"], loading["rows"], loading["content_sha256"]) == ("loading", 0, "")
    assert [one["id"] for one in listed] == [str(batch_id)]
    assert answer.json()["bytes"] > 1_000_000
    assert (await prospect.get(f"batches/{batch_id}"))["status"] == "completed"


async def test_a_load_that_failed_says_why(prospect: Prospect):
    batch_id = str(uuid7())
    answer = await prospect.send("claims", claims(GOOD.replace("100.10", "x")), headers={"Batch-Id": batch_id})
    assert answer.status_code == 422
    batch = await prospect.get(f"batches/{batch_id}")
    assert (batch["status"], batch["rows"], batch["error"]["code"]) == ("failed", 0, "invalid_rows")
    assert batch["error"]["details"] == answer.json()["details"]
    assert (await prospect.get("batches"))["items"] == []


async def test_a_batch_id_is_one_batchs(new_prospect: NewProspect):
    one, other = new_prospect(), new_prospect()
    headers = {"Batch-Id": str(uuid7())}
    assert (await one.send("claims", claims(GOOD), headers=headers)).status_code == 201
    assert (await one.send("claims", claims(GOOD), headers=headers)).status_code == 200  # an answer that was lost
    for prospect in (one, other):
        answer = await prospect.send("claims", claims(GOOD.replace("C-1", "C-2")), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (409, "batch_id_taken")
    answer = await one.send("claims", claims(GOOD), headers={"Batch-Id": "7"})
    assert answer.status_code == 422


async def test_an_archived_prospect_takes_no_data(prospect: Prospect, jobs_service: JobsService):
    assert (await prospect.send("claims", claims(GOOD))).status_code == 201
    jobs_service.archived.add(prospect.id)
    answer: httpx2.Response = await prospect.send("claims", claims(GOOD.replace("C-1", "C-2")))
    assert (answer.status_code, answer.json()["code"]) == (409, "prospect_closed")
    assert (await prospect.get("reports/summary"))["claims"] == 1
