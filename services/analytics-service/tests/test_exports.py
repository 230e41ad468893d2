"""Reports as files: the same rows in every format, in pieces, and nothing that a spreadsheet would compute."""

import csv
import io
import itertools
import re

import polars as pl
import pyarrow as pa
import pytest
from conftest import Prospect
from extracts import population
from test_guards import REPORTS
from test_reports import loaded

from analytics_service.reports import exports
from analytics_service.reports.schemas import PharmacyReport, PharmacyRow

ONE_ENGINE = True


async def test_an_export_holds_what_the_report_holds(prospect: Prospect):
    await loaded(prospect, population(8, pharmacy_claims=True))
    for name, kind in itertools.product(REPORTS, exports.MEDIA_TYPES):
        report = await prospect.get(f"reports/{name}")
        answer = await prospect.http.get(
            f"{prospect.path}/reports/{name}/export", params={"format": kind}, headers=prospect.headers
        )
        assert answer.status_code == 200
        assert answer.headers["content-type"] == exports.MEDIA_TYPES[kind]
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}.{kind}"'
        match kind:
            case "csv":
                rows = list(csv.DictReader(io.StringIO(answer.text)))
            case "parquet":
                rows = pl.read_parquet(io.BytesIO(answer.content)).to_dicts()
            case _:
                rows = pa.ipc.open_stream(answer.content).read_all().to_pylist()
        shown = report.get("rows", [report])
        assert len(rows) == len(shown), name
        for exported, row in zip(rows, shown, strict=True):
            flat = row | {f"paid_{key}": paid for key, paid in row.get("paid_by_category", {}).items()}
            flat.pop("paid_by_category", None)
            assert exported.keys() == flat.keys()
            for key, value in flat.items():
                same = float(exported[key]) == float(value) if re.fullmatch(r"-?[\d.]+", str(value)) else None
                assert same or str(exported[key]) == str(value), (name, key)


async def test_an_export_of_a_prospect_without_data_has_its_columns(prospect: Prospect):
    path = f"{prospect.path}/reports/pharmacy/export"
    parquet = await prospect.http.get(path, params={"format": "parquet"}, headers=prospect.headers)
    assert pl.read_parquet(io.BytesIO(parquet.content)).columns == list(PharmacyRow.model_fields)
    text = (await prospect.http.get(path, headers=prospect.headers)).text
    assert text.strip().split(",") == list(PharmacyRow.model_fields)


def pharmacy_of(names: list[str]) -> PharmacyReport:
    return PharmacyReport(
        by="drug",
        rows=[
            PharmacyRow(
                code_system="ndc",
                code="1",
                name=name,
                members=1,
                fills=1,
                dispenses=1,
                days_supply=1,
                total_paid="1.00",
            )
            for name in names
        ],
    )


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_a_csv_is_a_formula(first: str):
    text = b"".join(exports.exported(pharmacy_of([f'{first}HYPERLINK("x")', "Metformin"]), "csv")).decode()
    names = [row["name"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert names == [f'\'{first}HYPERLINK("x")', "Metformin"]


@pytest.mark.parametrize("kind", exports.MEDIA_TYPES)
def test_an_export_leaves_in_pieces(kind: exports.Format):
    pieces = list(exports.exported(pharmacy_of([f"Drug {n}" for n in range(5000)]), kind))
    assert len(pieces) > 5
    assert max(map(len, pieces)) < len(b"".join(pieces)) / 2
