"""Rows that are refused, and what the answer says of them; amounts and times as they are kept."""

import pytest
from conftest import Prospect
from test_ingest import CLAIMS, GOOD, PHARMACY, claims, places, total


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
