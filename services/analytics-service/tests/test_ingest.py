"""Files in Triton's own columns: what is taken, what is refused, and where the answer says so."""

import asyncio
import gzip
import random

import polars as pl
import pytest
from conftest import NewProspect, Prospect
from extracts import csv_of, population

from analytics_service.codes import SYSTEMS

CLAIMS = "member_id,claim_id,service_date,claim_type,paid,member_paid"
GOOD = "M-1,C-1,2024-01-31,inpatient,100.10,5"
CLINICAL = "member_id,recorded_date,kind,code_system,code"
VISIT = "M-1,2024-01-01"
PHARMACY = "member_id,fill_id,fill_date,drug_code,quantity,paid,member_paid"


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


@pytest.mark.parametrize(
    ("row", "column", "code"),
    [
        ("M-1,C-1,31.12.2024,inpatient,1,1", "service_date", "invalid_date"),
        ("M-1,C-1,2024-02-30,inpatient,1,1", "service_date", "invalid_date"),
        ("M-1,C-1,2024-01-01T25:00:00Z,inpatient,1,1", "service_date", "invalid_date"),
        ("M-1,C-1,1704067200,inpatient,1,1", "service_date", "invalid_date"),
        ("M-1,C-1,0024-01-01,inpatient,1,1", "service_date", "invalid_date"),
        ("M-1,C-1,,inpatient,1,1", "service_date", "missing_value"),
        ("M-1,C-1,2024-01-01,inpatient,-0.01,1", "paid", "negative"),
        ("M-1,C-1,2024-01-01,inpatient,12 dollars,1", "paid", "invalid_number"),
        ("M-1,C-1,2024-01-01,inpatient,NaN,1", "paid", "invalid_number"),
        ("M-1,C-1,2024-01-01,inpatient,1,1e30", "member_paid", "too_large"),
        ("M-1,C-1,2024-01-01,inpatient,10000000000.01,1", "paid", "too_large"),
        ("M-1,C-1,2024-01-01,inpatient,1,99999999999999.99", "member_paid", "too_large"),
        ("M-1,C-1,2024-01-01,surgery,1,1", "claim_type", "unknown_value"),
        (",C-1,2024-01-01,inpatient,1,1", "member_id", "missing_value"),
        ("M-1,,2024-01-01,inpatient,1,1", "claim_id", "missing_value"),
    ],
)
async def test_a_bad_row_is_named_and_nothing_is_stored(prospect: Prospect, row: str, column: str, code: str):
    answer = await prospect.send("claims", claims(GOOD, GOOD, row, GOOD))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_rows")
    assert places(answer) == [(f"line 4, column {column}", code)]
    assert (await prospect.get("batches"))["items"] == []
    assert await total(prospect) == "0.00"


async def test_what_the_engines_parsers_take_for_numbers_and_dates_is_refused(prospect: Prospect):
    amounts = ["1.234.567", "1..2", "1.2.", ".", "-", "+", "e5", ".e1", "1,234.5", "0x10", "1_000", "1e400"]
    dates = ["2024-05-31T13:45:00+99:99", "2024-05-31T13:45:00+00:99", "2024-05-31T24:00:00Z", "2024-05-31Z"]
    rows = [GOOD.replace("100.10", f'"{amount}"') for amount in amounts]
    rows += [GOOD.replace("2024-01-31", date) for date in dates]
    answer = await prospect.send("claims", claims(*rows))
    assert places(answer) == [
        *((f"line {line}, column paid", "invalid_number") for line in range(2, 14)),
        *((f"line {line}, column service_date", "invalid_date") for line in range(14, 18)),
    ]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("-1", "negative"),
        ("many", "invalid_number"),
        ("10000000001", "too_large"),
        ("99999999999999999999", "too_large"),
    ],
)
async def test_a_bad_quantity(prospect: Prospect, text: str, code: str):
    answer = await prospect.send("pharmacy", f"{PHARMACY}\nM-1,R-1,2024-01-01,00093104801,{text},1.00,0\n")
    assert places(answer) == [("line 2, column quantity", code)]


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("days_supply", "1.5", "not_whole"),
        ("days_supply", "1000000000", "too_large"),
        ("drug_name", "x" * 501, "too_long"),
        ("code_system", "ndc; drop", "invalid_code"),
    ],
)
async def test_optional_columns_are_checked_where_they_are_filled(prospect, header: str, value: str, code: str):
    body = f"{PHARMACY},{header}\nM-1,R-1,2024-01-01,00093104801,1,1,1,{value}\nM-1,R-2,2024-01-01,00093104801,1,1,1,\n"
    answer = await prospect.send("pharmacy", body)
    assert places(answer) == [(f"line 2, column {header}", code)]


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


async def test_a_measurement_must_be_a_finite_number(prospect: Prospect):
    row = "M-1,2024-01-01,observation,loinc,8302-2"
    body = f"member_id,recorded_date,kind,code_system,code,value_number\n{row},-1.5e1\n{row},inf\n{row},\n"
    answer = await prospect.send("clinical", body)
    assert places(answer) == [("line 3, column value_number", "invalid_number")]


async def test_several_columns_of_a_row_are_named(prospect: Prospect):
    answer = await prospect.send("claims", claims("M-1,C-1,soon,surgery,-1,1"))
    assert [place for place, _ in places(answer)] == [
        "line 2, column service_date",
        "line 2, column claim_type",
        "line 2, column paid",
    ]
    assert answer.json()["message"] == "1 row is not valid, and none was stored; see details."


async def test_what_stands_there_is_told_by_its_kind(prospect: Prospect):
    given = {
        "12 dollars": "text",
        "John Smith": "words",
        "1/31/2024": "a date",
        "-7": "a whole number",
        "1e30": "a number",
    }
    answer = await prospect.send("claims", claims(*(GOOD.replace("100.10", text) for text in given), ",,,,,"))
    told = [detail["issue"].rpartition("; what stands there is ")[2] for detail in answer.json()["details"][:5]]
    assert told == list(given.values())
    assert {detail["issue"] for detail in answer.json()["details"][5:]} == {"must not be empty"}


async def test_lines_are_those_of_the_file(prospect: Prospect):
    """Quoted fields span lines; blank lines and the end's are no rows; the header is line 1."""
    bad = GOOD.replace("100.10", "-3")
    body = f'note,{CLAIMS}\r\n"one\r\ntwo\r\nthree",{GOOD}\r\n\r\n,{bad}\r\n\r\n'
    answer = await prospect.send("claims", body)
    assert places(answer) == [("line 6, column paid", "negative")]


async def test_lines_of_a_long_file(prospect: Prospect):
    rows = [GOOD] * 300_000
    rows[287_654] = GOOD.replace("100.10", "x")
    answer = await prospect.send("claims", claims(*rows))
    assert places(answer) == [("line 287656, column paid", "invalid_number")]


async def test_rows_of_another_length_are_refused(prospect: Prospect):
    answer = await prospect.send("claims", claims(GOOD, "M-1,C-1,2024-01-01,inpatient,1", f"{GOOD},7,8", GOOD))
    assert places(answer) == [("line 3", "too_few_fields"), ("line 4", "too_many_fields")]


async def test_quotes_that_do_not_end_where_the_field_does(prospect: Prospect):
    answer = await prospect.send("claims", claims(GOOD, f'"M-1"x{GOOD[3:]}', GOOD))
    assert answer.json()["code"] == "invalid_csv"
    assert places(answer) == [("line 3", "malformed")]
    assert (await prospect.get("batches"))["items"] == []


async def test_a_quote_that_never_ends(prospect: Prospect):
    answer = await prospect.send("claims", claims(GOOD, f'"{GOOD}', GOOD))
    assert places(answer) == [("line 3", "too_few_fields")]


async def test_skip_stores_the_good_and_lists_the_bad(prospect: Prospect):
    rows = [GOOD.replace("C-1", f"C-{n}") if n % 2 else f"M-1,C-{n},never,inpatient,1,1" for n in range(3000)]
    answer = await prospect.send("claims", claims(*rows), on_error="skip")
    assert answer.status_code == 201
    batch = answer.json()
    assert (batch["rows"], batch["rejected"], len(batch["rejects"])) == (1500, 1500, 1000)
    assert batch["rejects"][0]["field"] == "line 2, column service_date"
    assert batch["rejects"][-1]["field"] == "line 2000, column service_date"
    assert await prospect.get(f"batches/{batch['id']}") == batch
    assert (await prospect.get("reports/summary"))["claims"] == 1500


async def test_skip_with_nothing_good_stores_nothing(prospect: Prospect):
    answer = await prospect.send("claims", claims("M-1,C-1,never,inpatient,1,1"), on_error="skip")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_rows")
    assert (await prospect.get("batches"))["items"] == []


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


async def test_amounts_are_rounded_half_up(prospect: Prospect):
    rows = [f"M-1,C-{n},2024-01-01,other,{paid},0" for n, paid in enumerate(["1.005", "1e2", "+3.10", " 7.0049 "])]
    await prospect.send("claims", claims(*rows))
    assert await total(prospect) == "111.11"


async def test_times_with_an_offset_fall_on_their_day_in_utc(app, prospect: Prospect):
    times = ["2024-01-31T23:30:00-05:00", "2024-01-31 23:30", "1968-02-29", "2024-01-31T23:30:59.123456Z"]
    await prospect.send("claims", claims(*(f"M-1,C-{n},{time},other,1,0" for n, time in enumerate(times))))
    rows = await app.state.clickhouse.read(
        "SELECT service_date FROM claims WHERE prospect_id = {id:UUID} ORDER BY service_date", {"id": prospect.id}
    )
    assert [row["service_date"].isoformat() for row in rows] == [
        "1968-02-29T00:00:00+00:00",
        "2024-01-31T23:30:00+00:00",
        "2024-01-31T23:30:59.123000+00:00",
        "2024-02-01T04:30:00+00:00",
    ]
    months = (await prospect.get("reports/cost-trend"))["rows"]
    assert [months[0]["month"], months[-1]["month"], len(months)] == ["1968-02-01", "2024-02-01", 673]


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


async def test_a_service_date_in_the_future_is_refused(prospect: Prospect):
    answer = await prospect.send("claims", claims(GOOD.replace("2024-01-31", "2101-01-01")))
    assert places(answer) == [("line 2, column service_date", "future_date")]


async def test_strict_after_skip_is_told_of_the_bad_rows(prospect: Prospect):
    body = claims(GOOD, GOOD.replace("100.10", "x"))
    assert (await prospect.send("claims", body, on_error="skip")).json()["rejected"] == 1
    strict = await prospect.send("claims", body)
    assert (strict.status_code, places(strict)) == (422, [("line 3, column paid", "invalid_number")])
    assert (await prospect.send("claims", body, on_error="skip")).status_code == 200
    assert await total(prospect) == "105.10"


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
