"""Files in Triton's own columns: what is taken, what is refused, and where the answer says so."""

import asyncio
import gzip
import random

import polars as pl
import pytest
from conftest import NewProspect, Prospect
from extracts import csv_of, population

CLAIMS = "member_id,claim_id,service_date,claim_type,paid,member_paid"
GOOD = "M-1,C-1,2024-01-31,inpatient,100.10,5"
CLINICAL = "member_id,recorded_date,kind,code_system,code"
VISIT = "M-1,2024-01-01"
PHARMACY = "member_id,fill_id,fill_date,drug_code,quantity,paid,member_paid"


def claims(*rows: str) -> str:
    return "\n".join([CLAIMS, *rows]) + "\n"


def places(answer) -> list[tuple[str, str]]:
    return [(detail["field"], detail["code"]) for detail in answer.json()["details"]]


async def total(prospect: Prospect) -> str:
    return (await prospect.get("reports/summary"))["total_paid"]


async def test_an_extract_becomes_a_batch(prospect: Prospect):
    answer = await prospect.send("claims", claims(GOOD, GOOD.replace("C-1", "C-2")))
    assert answer.status_code == 201
    batch = answer.json()
    assert answer.headers["location"] == f"{prospect.path}/batches/{batch['id']}"
    assert (batch["rows"], batch["rejected"], batch["rejects"], batch["status"]) == (2, 0, [], "completed")
    assert (batch["dataset"], batch["source"]) == ("claims", "triton")
    assert (batch["client_id"], batch["prospect_id"]) == (str(prospect.client_id), str(prospect.id))
    assert await prospect.get(f"batches/{batch['id']}") == batch
    assert await total(prospect) == "210.20"


async def test_the_same_content_again_is_the_same_batch(prospect: Prospect):
    body = claims(GOOD)
    first = await prospect.send("claims", body)
    again = await prospect.send("claims", gzip.compress(body.encode()), headers={"Content-Encoding": "gzip"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert await total(prospect) == "105.10"


async def test_two_sends_at_once_store_it_once(prospect: Prospect):
    body = claims(*(GOOD.replace("C-1", f"C-{number}") for number in range(500)))
    answers = await asyncio.gather(*(prospect.send("claims", body) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await total(prospect) == "52550.00"


async def test_the_same_content_for_another_prospect_is_another_batch(new_prospect: NewProspect):
    one, other = new_prospect(), new_prospect()
    answers = [await prospect.send("claims", claims(GOOD)) for prospect in (one, other)]
    assert [answer.status_code for answer in answers] == [201, 201]


async def test_a_batch_can_be_taken_out_and_sent_again(app, prospect: Prospect):
    kept = await prospect.send("claims", claims(GOOD))
    taken = await prospect.send("claims", claims(GOOD.replace("C-1", "C-2")))
    gone = f"{prospect.path}/batches/{taken.json()['id']}"
    assert (await prospect.http.delete(gone, headers=prospect.headers)).status_code == 204
    assert await total(prospect) == "105.10"
    assert [batch["id"] for batch in (await prospect.get("batches"))["items"]] == [kept.json()["id"]]
    rows = await app.state.clickhouse.read(
        "SELECT count() AS rows FROM claims WHERE batch_id = {id:UUID}", {"id": taken.json()["id"]}
    )
    assert rows == [{"rows": 0}]
    for method in ("GET", "DELETE"):
        answer = await prospect.http.request(method, gone, headers=prospect.headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "batch_not_found")
    assert (await prospect.send("claims", claims(GOOD.replace("C-1", "C-2")))).status_code == 201


async def test_batches_are_listed_newest_first_in_pages(prospect: Prospect):
    for number in range(5):
        await prospect.send("claims", claims(GOOD.replace("C-1", f"C-{number}")))
    everything = (await prospect.get("batches"))["items"]
    assert [batch["id"] for batch in everything] == sorted((batch["id"] for batch in everything), reverse=True)
    pages, cursor = [], {}
    while True:
        page = await prospect.get("batches", limit=2, **cursor)
        pages.append(page["items"])
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
        assert page["items"][-1]["id"] not in page["next_cursor"]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [batch for page in pages for batch in page] == everything


@pytest.mark.parametrize("missing", CLAIMS.split(","))
async def test_a_missing_column_is_named(prospect: Prospect, missing: str):
    frame = pl.DataFrame([dict(zip(CLAIMS.split(","), GOOD.split(","), strict=True))]).drop(missing)
    answer = await prospect.send("claims", csv_of(frame))
    assert (answer.status_code, answer.json()["code"]) == (422, "missing_column")
    assert places(answer) == [(f"line 1, column {missing}", "missing_column")]


async def test_a_column_given_twice_is_named(prospect: Prospect):
    answer = await prospect.send("claims", f"{CLAIMS},paid\n{GOOD},7\n")
    assert places(answer) == [("line 1, column paid", "repeated_column")]


@pytest.mark.parametrize("body", ["", "\n", claims(), CLAIMS])
async def test_an_empty_file(prospect: Prospect, body: str):
    answer = await prospect.send("claims", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "empty_file")
    assert (await prospect.get("batches"))["items"] == []


@pytest.mark.parametrize(
    "body", [b"\xff\xfe\x00", b"PAR1\x15\x04\x80", ",".join(f"c{n}" for n in range(1500)).encode()]
)
async def test_a_file_that_is_no_csv_text(prospect: Prospect, body: bytes):
    answer = await prospect.send("claims", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_header")


async def test_a_file_of_another_dialect_is_told_what_to_do(prospect: Prospect):
    answer = await prospect.send("claims", claims(GOOD).replace(",", ";"))
    assert "with commas between them" in answer.json()["message"]
    answer = await prospect.send("claims", claims(GOOD).replace("\n", "\r"))
    assert (answer.json()["code"], "LF or CR LF" in answer.json()["message"]) == ("invalid_header", True)


async def test_text_that_is_not_utf8(prospect: Prospect):
    body = f"{PHARMACY},drug_name\nM-1,R-1,2024-01-01,00093104801,1,1,1,".encode() + b"Caf\xe9\n"
    answer = await prospect.send("pharmacy", body)
    assert places(answer) == [("line 2, column drug_name", "not_utf8")]


async def test_a_byte_order_mark_is_no_part_of_the_header(prospect: Prospect):
    assert (await prospect.send("claims", b"\xef\xbb\xbf" + claims(GOOD).encode())).status_code == 201


async def test_several_files_make_one_batch(prospect: Prospect):
    files = {"january": claims(GOOD), "february": claims(GOOD.replace("C-1", "C-2"))}
    answer = await prospect.send_files("claims", files, source="triton")
    assert answer.json()["rows"] == 2
    bad = files | {"march": claims("M-1,C-1,never,inpatient,1,1")}
    answer = await prospect.send_files("claims", bad, source="triton")
    assert places(answer) == [("march.csv, line 2, column service_date", "invalid_date")]


async def test_several_files_of_one_name(prospect: Prospect):
    parts = [("file", ("claims.csv", claims(GOOD.replace("C-1", f"C-{n}")).encode(), "text/csv")) for n in range(3)]
    answer = await prospect.http.post(f"{prospect.path}/claims", files=parts, headers=prospect.headers)
    assert answer.json()["rows"] == 3


async def test_sources_that_do_not_exist(prospect: Prospect):
    answer = await prospect.send("claims", claims(GOOD), source="epic")
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_source")
    assert "synthea, triton" in answer.json()["message"]


async def test_columns_may_come_in_any_order(new_prospect: NewProspect):
    frame = population(5, pharmacy_claims=True).claims
    names = frame.columns
    random.Random(0).shuffle(names)
    one, other = new_prospect(), new_prospect()
    await one.send("claims", csv_of(frame))
    answer = await other.send("claims", csv_of(frame.select(names).with_columns(extra=pl.lit("x"))))
    assert answer.status_code == 201
    assert await one.get("reports/summary") == await other.get("reports/summary")


@pytest.mark.parametrize(
    "wrapped",
    [
        b"\xef\xbb\xbf" + claims(GOOD).encode(),
        claims(GOOD).replace("\n", "\r\n").encode(),
        claims(GOOD).rstrip("\n").encode(),
        gzip.compress(claims(GOOD).encode()),
    ],
    ids=["mark", "crlf", "no end", "gzip without saying so"],
)
async def test_the_same_content_in_another_wrapping(prospect: Prospect, wrapped: bytes):
    first = await prospect.send("claims", claims(GOOD))
    again = await prospect.send("claims", wrapped)
    assert (again.status_code, again.json()) == (200, first.json())


async def test_the_same_file_under_another_name(prospect: Prospect):
    first = await prospect.send_files("claims", {"a": claims(GOOD)}, source="triton")
    again = await prospect.send_files("claims", {"b": claims(GOOD)}, source="triton")
    assert (again.status_code, again.json()) == (200, first.json())
