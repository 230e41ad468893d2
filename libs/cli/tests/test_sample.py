"""The generated population: the same bytes for the same seed, codes of the right shape, parts that agree."""

import csv
import re
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from triton_cli.main import app
from triton_cli.population import CONDITIONS, DIAGNOSES, DRUGS, MEASUREMENTS, VISITS
from triton_cli.sample import DATASETS, OUT_OF_POCKET_LIMIT, write_sample

MEMBERS = 3000
ICD10CM = re.compile(r"^[A-TV-Z][0-9][0-9A-Z](\.[0-9A-Z]{1,4})?$")
CPT_OR_HCPCS = re.compile(r"^([0-9]{5}|[A-Z][0-9]{4})$")

Rows = dict[str, list[dict[str, str]]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Rows:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, members=MEMBERS, seed=11)
    found = {}
    for dataset in DATASETS:
        with (folder / f"{dataset}.csv").open() as file:
            found[dataset] = list(csv.DictReader(file))
    return found


def money(row: dict[str, str]) -> Decimal:
    return Decimal(row["paid"]) + Decimal(row["member_paid"])


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_sample(tmp_path / name, members=300, seed=seed)
    assert read(tmp_path / "a") == read(tmp_path / "b")
    assert read(tmp_path / "a") != read(tmp_path / "c")


def test_codes_have_the_shape_of_their_systems(rows):
    for row in rows["claims"]:
        assert CPT_OR_HCPCS.match(row["procedure_code"]), row
        assert all(ICD10CM.match(code) for code in row["diagnosis_codes"].split("|")), row
        assert re.fullmatch("[0-9]{2}", row["place_of_service"])
    assert all(re.fullmatch("[0-9]{11}", row["drug_code"]) for row in rows["pharmacy"])
    observed = {row["code"] for row in rows["clinical"] if row["kind"] == "observation"}
    assert observed == {what.code for what in MEASUREMENTS}
    assert "4548-4" in observed
    assert {row["kind"] for row in rows["clinical"]} == {"condition", "observation", "procedure"}


def test_what_a_visit_is_for_has_a_name():
    chronic = {condition.key for condition in CONDITIONS}
    assert {visit.dx for visit in VISITS} - chronic == set(DIAGNOSES)
    assert {drug.condition for drug in DRUGS} <= chronic


def test_every_claim_has_its_encounter(rows):
    billed: dict[str, Decimal] = defaultdict(Decimal)
    claims: dict[str, dict[str, str]] = {}
    for row in rows["claims"]:
        billed[row["claim_id"]] += money(row)
        claims[row["claim_id"]] = row
    assert len(claims) == len(rows["utilization"])
    for encounter in rows["utilization"]:
        claim = claims["C" + encounter["encounter_id"][1:]]
        assert claim["member_id"] == encounter["member_id"]
        assert claim["service_date"] == encounter["start"][:10]
        assert claim["diagnosis_codes"].split("|")[0] == encounter["reason_code"]
        assert billed[claim["claim_id"]] == Decimal(encounter["total_cost"])
        assert (claim["claim_type"] == "inpatient") == (encounter["encounter_class"] == "inpatient")
        assert (claim["place_of_service"] == "23") == (encounter["encounter_class"] == "emergency")
        assert encounter["start"] < encounter["end"] <= "2024-12-31T24"


def test_lines_are_numbered_and_add_up(rows):
    seen: dict[str, int] = defaultdict(int)
    for row in rows["claims"]:
        seen[row["claim_id"]] += 1
        assert int(row["line_number"]) == seen[row["claim_id"]]
        assert Decimal(row["billed"]) >= Decimal(row["allowed"]) == money(row)
        assert "2023-01-01" <= row["service_date"] <= "2024-12-31"
        assert row["paid_date"] > row["service_date"]


def test_no_member_pays_more_than_the_limit_for_care(rows):
    paid: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for row in rows["claims"]:
        paid[row["member_id"], row["service_date"][:4]] += Decimal(row["member_paid"])
    assert max(paid.values()) == Decimal(OUT_OF_POCKET_LIMIT) / 100


def test_prevalence_is_plausible(rows):
    having: dict[str, set[str]] = defaultdict(set)
    for row in rows["clinical"]:
        if row["kind"] == "condition":
            having[row["code"].split(".")[0]].add(row["member_id"])
    for code, least, most in (("I10", 0.15, 0.28), ("E11", 0.04, 0.10), ("E66", 0.12, 0.25), ("E78", 0.12, 0.25)):
        assert least < len(having[code]) / MEMBERS < most, code
    share = len(having["I10"] & having["E11"]) / len(having["E11"])
    assert share > 2 * len(having["I10"]) / MEMBERS, "people with diabetes have high blood pressure more often"
    assert not having["E11"] & having["R73"], "who has diabetes is past prediabetes"


def test_cost_is_plausible_and_its_tail_heavy(rows):
    by_member: dict[str, Decimal] = defaultdict(Decimal)
    plan = Decimal(0)
    months: dict[str, set[str]] = defaultdict(set)
    for dataset, day in (("claims", "service_date"), ("pharmacy", "fill_date")):
        for row in rows[dataset]:
            by_member[row["member_id"]] += money(row)
            plan += Decimal(row["paid"])
            months[row["member_id"]].add(row[day][:7])

    def span(used: set[str]) -> int:
        first, last = (int(month[:4]) * 12 + int(month[5:]) for month in (min(used), max(used)))
        return last - first + 1

    pmpm = plan / sum(span(used) for used in months.values())
    assert 300 < pmpm < 700
    costs = sorted(by_member.values(), reverse=True)
    assert sum(costs[: MEMBERS // 100]) > sum(costs) / 6, "one member in a hundred"
    assert sum(costs[: MEMBERS // 20]) > sum(costs) / 3, "one member in twenty"


def test_one_member_is_enough(tmp_path):
    answer = CliRunner().invoke(app, ["sample", "--members", "1", "--seed", "5", "--out", str(tmp_path / "out")])
    assert answer.exit_code == 0, answer.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"{name}.csv" for name in DATASETS)


def test_a_folder_that_cannot_be_written_is_told_of(tmp_path):
    (tmp_path / "file").touch()
    answer = CliRunner().invoke(app, ["sample", "--out", str(tmp_path / "file")])
    assert answer.exit_code == 1
    assert "cannot be written" in answer.output
