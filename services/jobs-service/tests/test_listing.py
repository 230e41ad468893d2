"""Lists of jobs by filter, held against a filter of the tests' own; and that they read no more rows than they show."""

import asyncio
import os
import random
import sys
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from jobs_service import listing
from jobs_service.schemas.jobs import JobFilter
from jobs_service.statements import connected, fetch
from triton_common.auth import Principal
from triton_common.db import Database
from triton_common.schemas import JobPriority, JobStatus

FINAL = {"completed", "failed", "cancelled"}
CODES = ["model_failed", "model_refused", "modelling", "timed_out", "timed_out_twice", "worker_lost"]
START = datetime(2026, 1, 1, tzinfo=UTC)
CLIENTS, PROSPECTS, SCHEDULES = (
    [UUID(int=base + n) for n in range(count)] for base, count in ((16, 3), (32, 6), (64, 6))
)
NOBODY = UUID(int=1)


def random_jobs(choice, count=240):
    """Rows of all kinds; few moments, so that many jobs have the same."""
    made = []
    for _ in range(count):
        prospect = choice.choice(range(6))
        status = choice.choice(list(JobStatus))
        has_error = status == "failed" or (status in ("pending", "cancelled") and choice.random() < 0.5)
        made.append(
            {
                "id": uuid7(),
                "client_id": CLIENTS[prospect % 3],
                "prospect_id": PROSPECTS[prospect],
                "schedule_id": SCHEDULES[prospect] if choice.random() < 0.5 else None,
                "status": str(status),
                "priority": str(choice.choice(list(JobPriority))),
                "created_at": START + timedelta(minutes=choice.randrange(20)),
                "code": choice.choice(CODES) if has_error else None,
            }
        )
    return made


@pytest.fixture
def rows(postgres_url):
    """Inserts rows as they are; what they belong to need not be there."""

    def insert(made):
        with psycopg.connect(postgres_url) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.cursor().executemany(
                """INSERT INTO generation_jobs (id, created_at, job_type, client_id, prospect_id, value_proposition_id,
                  schedule_id, created_by, request_id, priority, status, error, document_id, finished_at,
                  lease_expires_at, max_attempts, time_limit_seconds)
                VALUES (%(id)s, %(created_at)s, 'value_proposition', %(client_id)s, %(prospect_id)s, %(id)s,
                  %(schedule_id)s, '', '', %(priority)s, %(status)s, %(error)s, %(document_id)s, %(finished_at)s,
                  %(lease_expires_at)s, 3, 60)""",
                [
                    job
                    | {
                        "error": Jsonb({"code": job["code"], "message": "Why."}) if job["code"] else None,
                        "document_id": job["id"] if job["status"] == "completed" else None,
                        "finished_at": START if job["status"] in FINAL else None,
                        "lease_expires_at": START if job["status"] == "processing" else None,
                    }
                    for job in made
                ],
            )
        return made

    return insert


def meets(job, wanted, bound_to):
    """What the filter means, in plain words."""
    code = wanted.get("error_code")
    return all(
        (
            bound_to is None or job["client_id"] == bound_to,
            not wanted.get("status") or job["status"] in wanted["status"],
            *(
                wanted.get(name) in (None, job[name])
                for name in ("client_id", "prospect_id", "schedule_id", "priority")
            ),
            wanted.get("created_after") is None or job["created_at"] >= wanted["created_after"],
            wanted.get("created_before") is None or job["created_at"] < wanted["created_before"],
            code is None
            or (
                job["code"] is not None
                and (job["code"].startswith(code[:-1]) if code.endswith("*") else job["code"] == code)
            ),
        )
    )


moments = st.integers(-1, 21).map(lambda minutes: START + timedelta(minutes=minutes)) | st.integers(0, 1200).map(
    lambda seconds: START + timedelta(seconds=seconds)
)
filters = st.fixed_dictionaries(
    {},
    optional={
        "status": st.lists(st.sampled_from([str(status) for status in JobStatus]), min_size=1, max_size=4),
        "client_id": st.sampled_from([*CLIENTS, NOBODY]),
        "prospect_id": st.sampled_from([*PROSPECTS, NOBODY]),
        "schedule_id": st.sampled_from([*SCHEDULES, NOBODY]),
        "priority": st.sampled_from([str(priority) for priority in JobPriority]),
        "created_after": moments,
        "created_before": moments,
        "error_code": st.sampled_from([*CODES, "model", "model*", "model_*", "timed_out*", "*", "zz*", "none"]),
        "job_type": st.just("value_proposition"),
    },
)


async def every_page(api, wanted, *, limit, user=None):
    """All jobs of a list, page by page."""
    found, cursor = [], None
    while True:
        params = wanted | {"limit": limit} | ({"cursor": cursor} if cursor else {})
        answer = await api.get("/api/v1/jobs", params=params, user=user)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) <= limit
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found
        assert len(page["items"]) == limit, "a page with a next one is full"


async def test_every_filter_finds_what_it_says_in_order_and_once(api, rows):
    made = rows(random_jobs(random.Random(7)))

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(wanted=filters, limit=st.sampled_from([1, 7, 50, 200]), bound_to=st.sampled_from([None, *CLIENTS]))
    def draw(wanted, limit, bound_to):
        cases.append((wanted, max(limit, 5), bound_to))

    cases = []
    draw()  # first all, then each is asked for in this test's own loop
    for wanted, limit, bound_to in cases:
        user = api.as_user("viewer", client_id=bound_to) if bound_to else None
        params = {
            name: value.isoformat() if isinstance(value, datetime) else value if name == "status" else str(value)
            for name, value in wanted.items()
        }
        found = await every_page(api, params, limit=limit, user=user)
        expected = sorted(
            (job for job in made if meets(job, wanted, bound_to)),
            key=lambda job: (job["created_at"], job["id"]),
            reverse=True,
        )
        assert [job["id"] for job in found] == [str(job["id"]) for job in expected], (wanted, bound_to)


async def test_pages_skip_and_repeat_nothing_while_jobs_are_added(api):
    client = await api.client()
    order = await api.order(client)
    there = [(await api.made("/api/v1/jobs", order))["id"] for _ in range(9)]
    found, cursor = [], None
    while True:
        answer = await api.get("/api/v1/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        page = answer.json()
        found += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        await api.made("/api/v1/jobs", order)
    assert found == there[::-1]


@pytest.mark.parametrize(
    "query",
    [
        "status=done",
        "priority=urgent",
        "job_type=other",
        "client_id=x",
        "created_after=yesterday",
        "created_after=2026-01-01T00:00:00",
        "created_after=1795376056",
        "created_before=-1",
        "created_before=0001-01-01T00:00:00%2B14:00",
        "error_code=",
        "error_code=A",
        "error_code=a**",
        "error_code=a%00",
        "limit=0",
        "limit=201",
        "state=failed",
    ],
)
async def test_a_condition_that_makes_no_sense_is_refused_by_name(api, query):
    answer = await api.get(f"/api/v1/jobs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert answer.json()["details"][0]["field"].startswith(f"query.{query.split('=')[0]}")


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "bnVsbA",
        "WzEsICJhIl0",
        "WzEsICJhIiwgImIiXQ",
        "WzEsICIyMDI2LTAxLTAxIiwgIjAwMDAwMDAwLTAwMDAtMDAwMC0wMDAwLTAwMDAwMDAwMDAwMCJd",
    ],
)
async def test_a_cursor_of_nobodys_is_a_bad_request(api, cursor):
    answer = await api.get("/api/v1/jobs", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def test_who_may_list(api):
    assert (await api.http.get("/api/v1/jobs")).status_code == 401
    answer = await api.get("/api/v1/jobs", user=api.as_user(scopes={"jobs:write"}))
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


# --- how much is read


U = "00000000-0000-7000-{}-{:012d}".format
BIG, PROSPECT, SCHEDULE = U("8000", 1), U("9000", 1), U("b000", 11)
WANTED = [
    {},
    {"client_id": BIG},
    {"client_id": U("8000", 7)},
    {"client_id": NOBODY},
    *({"status": [status]} for status in JobStatus),
    *({"status": [status], "client_id": BIG} for status in JobStatus),
    {"status": ["failed", "cancelled", "pending"]},
    {"status": ["failed"], "priority": "high", "client_id": BIG},
    {"priority": "high"},
    {"priority": "high", "prospect_id": PROSPECT, "status": ["failed"]},
    {"prospect_id": PROSPECT, "client_id": BIG},
    {"prospect_id": PROSPECT, "client_id": U("8000", 2)},
    {"schedule_id": SCHEDULE, "prospect_id": U("9000", 11), "client_id": BIG},
    {"schedule_id": SCHEDULE, "prospect_id": PROSPECT},
    {"schedule_id": SCHEDULE, "status": ["cancelled"]},
    {"created_after": "2020-01-01T00:00:00Z", "created_before": "2021-01-01T00:00:00Z"},
    *(
        {"error_code": code} | owner
        for code, owner in product(
            ("model_failed", "facts_missing", "model_*", "*", "nothing_such"),
            ({}, {"client_id": BIG}, {"prospect_id": PROSPECT}, {"schedule_id": SCHEDULE}),
        )
    ),
    {"error_code": "*", "status": ["pending"], "client_id": BIG},
]


def rows_read(plan):
    """How many rows of the table a plan looked at, in it or in an index of it."""
    own = 0
    if plan.get("Relation Name") == "generation_jobs":
        removed = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
        own = (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return own + sum(rows_read(part) for part in plan.get("Plans", ()))


async def test_no_filter_reads_more_than_a_page_of_each_status_and_priority(postgres_url, monkeypatch):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("SET triton.jobs = 20000")
        connection.execute((Path(__file__).parent / "fill.sql").read_bytes())
        connection.execute("VACUUM ANALYZE generation_jobs")
    staff = Principal(subject="", role="", scopes=frozenset(), token_id="", expires_at=0, token="")
    read = []

    async def explained(database, statement, values):
        async with connected(database) as connection:
            [plan] = await fetch(connection, f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
            read.append(rows_read(plan["QUERY PLAN"][0]["Plan"]))
        return []

    monkeypatch.setattr(listing, "rows", explained)
    async with Database.connect(postgres_url) as database:
        for wanted in WANTED:
            await listing.page(database, JobFilter.model_validate(wanted), principal=staff, limit=50, cursor=None)
            # 51 of each of 15 pairs, then the page itself; with a prefix, of each of the codes that begin so
            assert read[-1] <= 51 * 16 * (4 if wanted.get("error_code", "").endswith("*") else 1), wanted
    assert len(read) == len(WANTED)


async def test_two_that_migrate_at_once_wait_for_one_another(postgres_url, member_folder):
    async def alembic(*command):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "alembic", *command),
            cwd=member_folder,
            env=os.environ | {"DATABASE_URL": postgres_url},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        assert process.returncode == 0, said.decode()

    await alembic("downgrade", "0004")
    await asyncio.gather(alembic("upgrade", "head"), alembic("upgrade", "head"))


@pytest.mark.parametrize(
    ("path", "parameter", "values"),
    [
        ("jobs", "client_id", 2),
        ("jobs", "limit", 2),
        ("jobs/stats", "client_id", 2),
        ("schedules", "enabled", 2),
        ("webhooks", "cursor", 2),
        ("documents", "prospect_id", 3),
        ("clients", "include_archived", 2),
    ],
)
async def test_a_condition_that_takes_one_value_is_refused_with_several(api, nobody, path, parameter, values):
    answer = await api.get(f"/api/v1/{path}", params=[(parameter, nobody)] * values)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [(detail["field"], detail["code"]) for detail in answer.json()["details"]] == [
        (f"query.{parameter}", "repeated")
    ]


async def test_a_condition_that_takes_several_takes_them(api):
    answer = await api.get("/api/v1/jobs", params=[("status", "pending"), ("status", "failed")])
    assert answer.json()["items"] == []


@pytest.mark.parametrize("verb", ["cancel", "retry"])
async def test_a_change_of_many_is_no_job_to_read(api, verb):
    answer = await api.get(f"/api/v1/jobs/{verb}")
    assert (answer.status_code, answer.json()["code"], answer.headers["Allow"]) == (405, "not_allowed", "POST")
