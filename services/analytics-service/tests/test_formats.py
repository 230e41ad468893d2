"""NDJSON and Parquet beside CSV, plain and packed: the same rows land, and what is broken is named."""

import gzip
import io
import json
import tracemalloc
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports.zstd import compress
from conftest import NewProspect, Prospect
from extracts import population
from test_ingest import GOOD, claims, places

from analytics_service import parquet
from analytics_service.unpacking import CHUNK, Arriving, plain_name
from triton_common.errors import ContentTooLarge

NDJSON = {"Content-Type": "application/x-ndjson"}
PARQUET = {"Content-Type": "application/vnd.apache.parquet"}
MONEY = ["billed", "allowed", "paid", "member_paid"]


def packed(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


def typed(frame: pl.DataFrame) -> pl.DataFrame:
    """As a database exports it: dates, decimals, lists."""
    dates = [pl.col(name).replace("", None).str.to_date() for name in ("service_date", "paid_date")]
    codes = pl.col("diagnosis_codes").str.replace_all(r"[|, ]+", ";").str.split(";")
    return frame.with_columns(*dates, codes, *(pl.col(name).cast(pl.Decimal(18, 2)) for name in MONEY))


async def test_the_same_rows_in_every_format(new_prospect: NewProspect):
    frame = population(7, pharmacy_claims=True).claims
    lines = "".join(json.dumps(row) + "\n" for row in frame.with_columns(pl.col("line_number")).to_dicts())
    arrays = "".join(json.dumps(row, default=str) + "\n\n" for row in typed(frame).to_dicts())
    bodies = [
        (frame.write_csv().encode(), {}),
        (compress(frame.write_csv().encode()), {"Content-Encoding": "zstd"}),
        (lines.encode(), NDJSON),
        (gzip.compress(arrays.encode()), NDJSON | {"Content-Encoding": "gzip"}),
        (packed(frame), PARQUET),
        (packed(typed(frame)), PARQUET),
        (compress(packed(typed(frame))), PARQUET | {"Content-Encoding": "zstd"}),
    ]
    reports = []
    for body, headers in bodies:
        prospect = new_prospect()
        answer = await prospect.send("claims", body, headers=headers)
        assert answer.status_code == 201, answer.text
        assert (await prospect.send("claims", body, headers=headers)).status_code == 200
        reports.append([await prospect.get("reports/summary"), await prospect.get("reports/conditions")])
    assert all(report == reports[0] for report in reports)


async def test_files_of_several_formats_in_one_call(prospect: Prospect):
    row = dict(zip(claims().strip().split(","), GOOD.replace("C-1", "C-2").split(","), strict=True))
    third = pl.DataFrame([row | {"claim_id": "C-3", "paid": 7.5, "note": {"a": 1, "b": 2}}])
    parts = [
        ("a", ("one.csv.gz", gzip.compress(claims(GOOD).encode()), "application/gzip")),
        ("b", ("two.ndjson.zst", compress(json.dumps(row).encode()), "application/octet-stream")),
        ("c", ("three.parquet", packed(third), "application/octet-stream")),
    ]
    answer = await prospect.http.post(f"{prospect.path}/claims", files=parts, headers=prospect.headers)
    assert (answer.status_code, answer.json()["rows"]) == (201, 3)
    assert (await prospect.get("reports/summary"))["total_paid"] == "222.70"


async def test_bad_rows_of_ndjson_are_named_by_line(prospect: Prospect):
    row = dict(zip(claims().strip().split(","), GOOD.split(","), strict=True))
    lines = [row, row | {"paid": None}, row | {"paid": "x"}, row | {"paid": 1e2, "claim_id": 7}]
    body = "\n\n".join(json.dumps(line) for line in lines)
    answer = await prospect.send("claims", body, headers=NDJSON)
    assert places(answer) == [("line 3, column paid", "missing_value"), ("line 5, column paid", "invalid_number")]


async def test_bad_rows_of_parquet_are_named_by_row(prospect: Prospect):
    row = dict(zip(claims().strip().split(","), GOOD.split(","), strict=True))
    answer = await prospect.send("claims", packed(pl.DataFrame([row, row | {"paid": "x"}])), headers=PARQUET)
    assert places(answer) == [("row 2, column paid", "invalid_number")]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "empty_file"),
        ("[1, 2]", "invalid_ndjson"),
        ("{", "invalid_ndjson"),
        ("[" * 100_000, "invalid_ndjson"),
        ('{"member_id": "M-1"}', "missing_column"),
        ("\n".join([*[json.dumps(dict.fromkeys(claims().strip().split(","), "1"))] * 200, "{"]), "invalid_ndjson"),
        ("\n".join([*[json.dumps(dict.fromkeys(claims().strip().split(","), "1"))] * 200, "[]"]), "invalid_ndjson"),
    ],
)
async def test_what_is_no_ndjson(prospect: Prospect, body: str, code: str):
    answer = await prospect.send("claims", body, headers=NDJSON)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


@pytest.mark.parametrize(
    ("lines", "place", "issue"),
    [
        (["{}", "{", "{}"], "line 2", "is not a JSON object"),
        (["{}", "", '{"x": "' + "y" * (1 << 20) + '"}'], "line 3", "is longer than 1048576 bytes"),
    ],
)
async def test_a_line_among_the_first_that_is_no_ndjson_is_named(prospect, lines: list[str], place: str, issue: str):
    answer = await prospect.send("claims", "\n".join(lines), headers=NDJSON)
    assert [(one["field"], one["issue"]) for one in answer.json()["details"]] == [(place, issue)]


WHOLE = packed(pl.DataFrame({"member_id": ["M-1"]}))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_parquet"),
        (b"PAR1PAR1", "invalid_parquet"),
        (b"PK\x03\x04 a spreadsheet", "invalid_parquet"),
        (WHOLE[:-20] + WHOLE[-8:], "invalid_parquet"),
        (WHOLE[:-60] + b"\xff" * 52 + WHOLE[-8:], "invalid_parquet"),
        (WHOLE, "missing_column"),
    ],
)
async def test_what_is_no_parquet(prospect: Prospect, body: bytes, code: str):
    answer = await prospect.send("claims", body, headers=PARQUET)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_parquet_whose_pages_are_broken(prospect: Prospect):
    row = dict(zip(claims().strip().split(","), GOOD.split(","), strict=True))
    whole = packed(pl.DataFrame([row] * 100))
    answer = await prospect.send("claims", whole[:4] + b"\xff" * 60 + whole[64:], headers=PARQUET)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parquet")
    assert (await prospect.get("batches"))["items"] == []


def test_a_footer_tells_columns_rows_and_sizes(tmp_path: Path):
    frame = pl.DataFrame({"a": [1, 2], "codes": [["x"], []], "who": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]})
    frame.write_parquet(tmp_path / "file")
    footer = parquet.footer(tmp_path / "file")
    assert (footer.columns, footer.lists, footer.unread) == (("a", "codes", "who"), {"codes"}, {"who"})
    assert footer.rows == 2
    assert 0 < footer.largest_group == footer.unpacked
    with pytest.raises(ContentTooLarge):
        footer.check(limit=1)


async def test_a_column_that_parquet_knows_no_type_of_is_empty(prospect: Prospect):
    """What pandas writes of a column that holds nothing; the engine would read zeros."""
    rows = [dict(zip(claims().strip().split(","), GOOD.split(","), strict=True))] * 2
    empty = pa.Table.from_pylist(rows).append_column("paid_date", pa.nulls(2)).append_column("billed", pa.nulls(2))
    assert (await prospect.send("claims", written(empty), headers=PARQUET)).status_code == 201
    answer = await prospect.send(
        "claims", written(empty.drop("paid").append_column("paid", pa.nulls(2))), headers=PARQUET
    )
    assert places(answer) == [("row 1, column paid", "missing_column")]


async def test_a_structure_is_no_list_however_few_fields_it_has(prospect: Prospect):
    row = dict(zip(claims().strip().split(","), GOOD.split(","), strict=True)) | {"member_id": {"id": "M-1"}}
    answer = await prospect.send("claims", written(pa.Table.from_pylist([row])), headers=PARQUET)
    assert places(answer) == [("row 1, column member_id", "missing_column")]


def written(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


@pytest.mark.parametrize(
    "footer",
    [
        b"\x15" + b"\x80" * 200_000,  # a number of 175 kB
        b"\x29\xfc" + b"\xff\xff\x7f" + b"\0" * (2 << 20),  # two million columns
        b"\x29\x1c\0\x1c\0\x19\x0c\0",  # the number of rows is a structure
        b"\x29\x1c\0\x18\x01x\x19\x0c\0",  # it is a text
    ],
)
def test_footers_made_to_harm(tmp_path: Path, footer: bytes):
    (tmp_path / "file").write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(parquet.InvalidParquet, match="footer"):
        parquet.footer(tmp_path / "file")


def test_a_footer_of_many_columns_and_groups_takes_little_memory(tmp_path: Path):
    pq.write_table(pa.table({f"c{n}": [0] * 50 for n in range(200)}), tmp_path / "file", row_group_size=1)
    tracemalloc.start()
    assert len(parquet.footer(tmp_path / "file").columns) == 200
    assert tracemalloc.get_traced_memory()[1] < 2 * (tmp_path / "file").stat().st_size
    tracemalloc.stop()


def test_a_parquet_bomb_is_refused_unread(tmp_path: Path):
    pl.DataFrame({"a": ["x" * 1000] * 10_000}).write_parquet(tmp_path / "file", use_pyarrow=False, statistics=False)
    footer = parquet.footer(tmp_path / "file")
    with pytest.raises(ContentTooLarge, match="unpacks to more than"):
        footer.check(limit=footer.unpacked // 8 - 1)


def test_a_zstd_bomb_meets_the_limit_first():
    arriving = Arriving("csv", packed="zstd", limit=2 * CHUNK)
    try:
        with pytest.raises(ContentTooLarge):
            arriving.write(compress(b"\0" * 64 * CHUNK))
        assert arriving.path.stat().st_size <= 3 * CHUNK
    finally:
        arriving.discard()


@pytest.mark.parametrize("body", [b"no zstd at all", compress(b"x" * 100)[:-5], b""])
async def test_broken_zstd(prospect: Prospect, body: bytes):
    answer = await prospect.send("claims", body, headers={"Content-Encoding": "zstd"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_zstd")


@pytest.mark.parametrize(
    ("given", "name"),
    [("claims.csv", "claims"), (r"C:\x\claims.csv.gz", "claims"), ("../../etc/x", "x"), ("a<b>.parquet", "a_b_")],
)
def test_names_of_files(given: str, name: str):
    assert plain_name(given) == name
