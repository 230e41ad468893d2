"""Small groups: no answer tells clients' own people of a few members, nor does what it leaves out."""

import itertools
import random
from collections import defaultdict
from typing import Any
from uuid import uuid4

import pytest
from conftest import Prospect
from test_guards import COHORT, REPORTS

from analytics_service.reports import suppression

ONE_ENGINE = True


@pytest.mark.parametrize("seed", range(200))
def test_what_is_hidden_cannot_be_computed(seed: int):
    rng = random.Random(seed)
    counts, smallest = [rng.randrange(60) for _ in range(rng.randrange(12))], rng.randrange(1, 21)
    rows = [(count, uuid4()) for count in counts]
    kept = suppression.shown(rows, lambda row: row[0], smallest=smallest)
    hidden = [row[0] for row in rows if row not in kept]
    assert all(row[0] == 0 or row[0] >= smallest for row in kept)
    assert not hidden or (len(hidden) > 1 and sum(hidden) >= smallest) or not any(row[0] for row in kept)
    assert kept == [row for row in rows if row in kept]


@pytest.mark.parametrize("seed", range(100))
def test_no_sum_over_a_dimension_tells_of_a_hidden_cell(seed: int):
    rng = random.Random(seed)
    sizes, smallest = [rng.randrange(1, 5) for _ in range(rng.randrange(1, 4))], rng.randrange(1, 21)
    table = {cell: rng.randrange(60) for cell in itertools.product(*map(range, sizes)) if rng.random() < 0.9}
    hidden = suppression.hidden_cells(table, smallest=smallest)
    assert all(cell in hidden or count == 0 or count >= smallest for cell, count in table.items())
    for axis in range(len(sizes)):
        lines = defaultdict(list)
        for cell in table:
            lines[cell[:axis] + cell[axis + 1 :]].append(cell)
        for line in lines.values():
            gone = [table[cell] for cell in line if cell in hidden]
            left = [cell for cell in line if cell not in hidden and table[cell]]
            assert not gone or not left or (len(gone) > 1 and sum(gone) >= smallest)


@pytest.fixture
def as_client(prospect: Prospect, as_user: Any) -> Prospect:
    """The prospect as its client's own people see it."""
    prospect.staff = prospect.headers  # type: ignore[attr-defined]
    prospect.headers = as_user("editor", client_id=prospect.client_id)
    return prospect


def few(members: int, code: str, first: int = 0) -> str:
    rows = [f"M-{first + n},C-{first + n},2024-01-0{n % 9 + 1},other,{code},10.00,0" for n in range(members)]
    return "\n".join(["member_id,claim_id,service_date,claim_type,diagnosis_codes,paid,member_paid", *rows])


async def test_a_population_of_ten_is_shown_to_staff_alone(as_client: Prospect, as_user: Any):
    await as_client.send("claims", few(10, "E11.9"))
    for name in REPORTS:
        answer = await as_client.http.get(f"{as_client.path}/reports/{name}", headers=as_client.headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "group_too_small"), name
        export = await as_client.http.get(f"{as_client.path}/reports/{name}/export", headers=as_client.headers)
        assert export.status_code == 422, name
    for path, body in (("reports/cohort", COHORT), ("query", {"dataset": "claims", "measures": ["members"]})):
        answer = await as_client.http.post(f"{as_client.path}/{path}", json=body, headers=as_client.headers)
        assert answer.json()["code"] == "group_too_small"
    as_client.headers = as_client.staff  # type: ignore[attr-defined]
    assert (await as_client.get("reports/summary"))["members"] == 10


async def test_small_groups_and_what_would_tell_them_are_not_shown(as_client: Prospect):
    for first, members, code in ((0, 5, "E11.9"), (100, 20, "I10"), (200, 30, "J45.909")):
        assert (await as_client.send("claims", few(members, code, first))).status_code == 201
    conditions = await as_client.get("reports/conditions")
    assert {row["code"] for row in conditions["rows"]} == {"I10", "J45.909"}
    for chosen in (COHORT, {"codes": [{"system": "icd10cm", "code": "I10"}, {"system": "icd10cm", "code": "J45*"}]}):
        answer = await as_client.http.post(f"{as_client.path}/reports/cohort", json=chosen, headers=as_client.headers)
        assert answer.json()["code"] == "group_too_small"
    answer = await as_client.http.get(
        f"{as_client.path}/reports/summary", params={"condition": "icd10cm:E11*"}, headers=as_client.headers
    )
    assert answer.json()["code"] == "group_too_small"
    assert (await as_client.post("reports/cohort", {"codes": [{"system": "icd10cm", "code": "I10"}]}))["cohort"][
        "members"
    ] == 20


async def test_a_months_few_members_hide_a_second_month(as_client: Prospect):
    header = "member_id,claim_id,service_date,claim_type,paid,member_paid"
    members = {"2024-01": 30, "2024-02": 4, "2024-03": 12, "2024-04": 20}
    rows = [
        f"M-{month}-{n},C-{month}-{n},{month}-05,other,1.00,0" for month, count in members.items() for n in range(count)
    ]
    await as_client.send("claims", "\n".join([header, *rows]))
    trend = await as_client.get("reports/cost-trend")
    assert [row["month"] for row in trend["rows"]] == ["2024-01-01", "2024-04-01"]
    assert trend["suppressed"] == 2
    asked = {"dataset": "claims", "dimensions": ["month"], "measures": ["rows"]}
    answer = await as_client.post("query", asked)
    assert (answer["rows"], answer["suppressed"]) == ([["2024-01", 30], ["2024-04", 20]], 2)


async def test_what_a_month_cost_few_members_is_not_shown_however_many_count_in_it(as_client: Prospect):
    header = "member_id,claim_id,service_date,claim_type,paid,member_paid"
    months = {"2024-01": 30, "2024-02": 3, "2024-03": 30, "2024-04": 40}
    rows = [f"M-{n},C-{month}-{n},{month}-05,other,1.00,0" for month, count in months.items() for n in range(count)]
    await as_client.send("claims", "\n".join([header, *rows]))
    trend = await as_client.get("reports/cost-trend")
    assert [row["month"] for row in trend["rows"]] == ["2024-03-01", "2024-04-01"]
    as_client.headers = as_client.staff  # type: ignore[attr-defined]
    assert len((await as_client.get("reports/cost-trend"))["rows"]) == 4


async def test_pharmacy_of_few_members_is_not_shown(as_client: Prospect):
    await as_client.send("claims", few(30, "I10"))
    fills = [f"M-{n},F-{n},2024-01-05,00093104801,5.00,0" for n in range(3)]
    await as_client.send("pharmacy", "\n".join(["member_id,fill_id,fill_date,drug_code,paid,member_paid", *fills]))
    summary = await as_client.get("reports/summary")
    assert summary["pharmacy_paid"] is summary["medical_paid"] is None
    assert "pharmacy" not in summary["paid_by_category"]
    assert (await as_client.get("reports/pharmacy"))["rows"] == []


async def refused(prospect: Prospect, path: str, **params: str) -> bool:
    answer = await prospect.http.get(f"{prospect.path}/{path}", params=params, headers=prospect.headers)
    return answer.status_code == 422 and answer.json()["code"] == "group_too_small"


def lines_of(members: dict[tuple[str, str], int]) -> str:
    """Claims of so many members each, by type and day."""
    header = "member_id,claim_id,service_date,claim_type,paid,member_paid"
    rows = [
        f"M-{n},{kind}-{day}-{n},{day},{kind},1.00,0" for (kind, day), count in members.items() for n in range(count)
    ]
    return "\n".join([header, *rows])


async def test_dates_that_leave_out_a_few_members_rows_are_refused(as_client: Prospect):
    """All forty have rows within the dates; those on the day before are of three."""
    await as_client.send("claims", lines_of({("other", "2024-01-01"): 3, ("other", "2024-02-01"): 40}))
    assert await refused(as_client, "reports/summary", since="2024-01-02")
    assert await refused(as_client, "reports/summary", until="2024-01-31")
    assert (await as_client.get("reports/summary", until="2024-02-01"))["total_paid"] == "43.00"
    assert (await as_client.get("reports/summary", since="2024-01-01"))["total_paid"] == "43.00"
    await as_client.send("claims", lines_of({("professional", "2024-01-01"): 20}))
    assert (await as_client.get("reports/summary", since="2024-01-02"))["total_paid"] == "40.00"


async def test_a_condition_within_dates_leaves_out_none_or_many(as_client: Prospect):
    for first, members, code in ((0, 35, "I10"), (100, 5, "E11.9")):
        await as_client.send("claims", few(members, code, first))
    assert await refused(as_client, "reports/summary", condition="icd10cm:I10")
    assert await refused(as_client, "reports/summary", condition="icd10cm:I10", since="2024-01-01")
    assert (await as_client.get("reports/summary", since="2024-01-01"))["members"] == 40


async def test_a_filter_of_a_query_does_not_tell_of_what_it_leaves_out(as_client: Prospect):
    kinds = {"other": 40, "outpatient": 20, "inpatient": 3}
    await as_client.send("claims", lines_of({(kind, "2024-01-01"): count for kind, count in kinds.items()}))

    async def rows(*kinds: str, by: tuple[str, ...] = ()) -> list[Any]:
        filters = {"claim_type": list(kinds)} if kinds else {}
        asked = {"dataset": "claims", "measures": ["total_paid"], "dimensions": by, "filters": filters}
        return (await as_client.post("query", asked))["rows"]

    assert await rows() == [["63.00"]]
    assert await rows("other") == [["40.00"]]
    assert await rows("inpatient") == await rows("outpatient") == await rows("other", "outpatient") == []
    assert await rows(by=("claim_type",)) == [["other", "40.00"]]
    assert await rows("outpatient", "other", by=("month",)) == []
    assert await rows("other", by=("month",)) == [["2024-01", "40.00"]]
    assert await rows("nothing of the kind", by=("month",)) == []


async def test_a_dimension_more_does_not_tell_of_a_group_that_is_hidden(as_client: Prospect):
    months = ("2024-01-01", "2024-02-01")
    table = {("other", months[0]): 40, ("other", months[1]): 40, ("inpatient", months[0]): 4}
    await as_client.send("claims", lines_of(table | {("inpatient", months[1]): 30}))
    asked = {"dataset": "claims", "measures": ["rows"], "dimensions": ["claim_type", "month"]}
    answer = await as_client.post("query", asked)
    assert (answer["rows"], answer["suppressed"]) == ([], 4)  # one alone would be what its row and its column leave


async def test_the_drugs_of_a_class_do_not_tell_of_the_one_that_is_hidden(as_client: Prospect):
    drugs = {("A", "00093104801"): 40, ("A", "00093104802"): 3, ("B", "00093104803"): 20, ("B", "00093104804"): 15}
    await as_client.send("claims", few(50, "I10"))
    fills = [
        f"M-{n},F-{code}-{n},2024-01-05,{code},{name},1.00,0"
        for (name, code), count in drugs.items()
        for n in range(count)
    ]
    header = "member_id,fill_id,fill_date,drug_code,therapeutic_class,paid,member_paid"
    await as_client.send("pharmacy", "\n".join([header, *fills]))
    by_drug = await as_client.get("reports/pharmacy", by="drug")
    assert ({row["code"] for row in by_drug["rows"]}, by_drug["suppressed"]) == ({"00093104803"}, 3)
    assert {row["name"] for row in (await as_client.get("reports/pharmacy"))["rows"]} == {"A", "B"}
    as_client.headers = as_client.staff  # type: ignore[attr-defined]
    assert len((await as_client.get("reports/pharmacy", by="drug"))["rows"]) == 4


async def test_the_top_five_percent_do_not_tell_of_the_next_ten_people(as_client: Prospect):
    await as_client.send("claims", few(205, "I10"))
    assert [row["members"] for row in (await as_client.get("reports/high-cost"))["rows"]] == [11]
    await as_client.send("claims", few(15, "I10", 1000))
    assert [row["members"] for row in (await as_client.get("reports/high-cost"))["rows"]] == [11, 22]
