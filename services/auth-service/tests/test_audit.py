"""The audit log is read by its filters, page by page or as CSV, by those who may; and each change leaves its event."""

import asyncio
import csv
import io
import re
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.types.json import Jsonb
from sqlalchemy import event
from uuid_utils.compat import uuid7

from auth_service import events
from auth_service.audit_schemas import AuditConditions, AuditFilter
from auth_service.models import AuditEvent
from triton_common.auth import Principal
from triton_common.db import Database, transaction

ADMIN = {"email": "ada@triton.local", "password": "a long enough password"}
START = datetime(2026, 1, 1, tzinfo=UTC)
ACME, OTHER = uuid7(), uuid7()


@pytest.fixture
def put(postgres_url):
    """Puts events in, a minute apart from `START` on."""

    def add(*many, at=START):
        with psycopg.connect(postgres_url) as connection:
            for number, values in enumerate(many):
                columns = {
                    "id": uuid7(),
                    "at": at + timedelta(minutes=number),
                    "source": "jobs-service",
                    "actor_kind": "user",
                    "actor_id": "eve",
                    "action": "prospect.read",
                    "request_id": "request-1",
                    "outcome": "succeeded",
                    "details": {},
                } | values
                columns["details"] = Jsonb(columns["details"])
                connection.execute(
                    f"INSERT INTO audit_events ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})",
                    list(columns.values()),
                )

    return add


async def bound_admin(http, bearer, client_id):
    """Headers of an admin of one client."""
    user = {"email": f"{client_id}@triton.local", "password": "a long enough password", "role": "admin"}
    made = await http.post("/users", json=user | {"client_id": str(client_id)}, headers=bearer)
    assert made.status_code == 201
    pair = (await http.post("/login", json={"email": user["email"], "password": user["password"]})).json()
    return {"Authorization": f"Bearer {pair['access_token']}"}


async def found(http, headers, **params):
    answer = await http.get("/audit", params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


SOME = [
    {"actor_id": "ada", "action": "login.failed", "outcome": "refused", "object_kind": "user", "object_id": "1"},
    {"actor_kind": "anonymous", "actor_id": None, "action": "login.failed", "outcome": "failed"},
    {"actor_id": "ada", "action": "login.succeeded", "client_id": ACME, "request_id": "request-2"},
    {"action": "loginx.failed", "object_kind": "prospect", "object_id": "1"},
    {"actor_kind": "system", "actor_id": None, "action": "signing_key.made", "client_id": OTHER},
    {"action": "prospect.read", "object_kind": "prospect", "object_id": "2", "client_id": ACME},
]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"until": START + timedelta(days=1)}, [5, 4, 3, 2, 1, 0]),
        ({"actor": "ada", "until": START + timedelta(days=1)}, [2, 0]),
        ({"actor": "anonymous", "until": START + timedelta(days=1)}, [1]),
        ({"actor": "system", "until": START + timedelta(days=1)}, [4]),
        ({"action": "login.failed"}, [1, 0]),
        ({"action": "login.*", "until": START + timedelta(days=1)}, [2, 1, 0]),
        ({"action": "nothing.*"}, []),
        ({"action": "login.*", "actor": "ada", "outcome": "refused"}, [0]),
        ({"object_kind": "prospect"}, [5, 3]),
        ({"object_id": "1"}, [3, 0]),
        ({"object_kind": "prospect", "object_id": "1"}, [3]),
        ({"client_id": ACME}, [5, 2]),
        ({"outcome": "refused"}, [0]),
        ({"outcome": "failed"}, [1]),
        ({"outcome": "succeeded", "actor": "eve"}, [5, 3]),
        ({"request_id": "request-2"}, [2]),
        ({"since": START + timedelta(minutes=2), "until": START + timedelta(minutes=4)}, [3, 2]),
        ({"actor": "' OR 1=1 --"}, []),
    ],
)
async def test_each_filter_finds_its_events_newest_first(http, bearer, put, params, expected):
    put(*SOME)
    sent = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in params.items()}
    items = await found(http, bearer, **sent)
    assert [round((datetime.fromisoformat(one["at"]) - START) / timedelta(minutes=1)) for one in items] == expected
    answer = await http.get("/audit.csv", params={"until": "2026-02-01T00:00:00Z"} | sent, headers=bearer)
    assert len(answer.text.splitlines()) == 1 + len(expected)


@pytest.mark.parametrize(
    "params",
    [
        {"actor": "a\x00b"},
        {"actor": ""},
        {"action": "login%"},
        {"action": "*"},
        {"outcome": "great"},
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"unknown": "1"},
        {"limit": 0},
        {"limit": 201},
        {"client_id": "1"},
        {"request_id": "x" * 201},
    ],
)
async def test_conditions_that_are_none_are_refused(http, bearer, params):
    assert (await http.get("/audit", params=params, headers=bearer)).status_code == 422
    if "limit" not in params:
        assert (await http.get("/audit.csv", params=params, headers=bearer)).status_code == 422


@pytest.mark.parametrize(
    "cursor",
    ["x", "WzEsIjIwMjYtMDEtMDEiLCJ4Il0", "WzEsIjIwMjYtMDEtMDEiLCIwMWEyMDNkYS00M2I1LTc2MDktYjNlYy02ZTE3MjNmODIxYzAiXQ"],
)
async def test_a_cursor_of_nobodys_is_refused(http, bearer, cursor):
    answer = await http.get("/audit", params={"cursor": cursor}, headers=bearer)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize("action", [None, "prospect.*"])
async def test_pages_lose_and_repeat_nothing_while_events_arrive(http, bearer, put, action):
    put(*[{"action": f"prospect.{'read' if number % 3 else 'seen'}"} for number in range(25)])
    same_time = [{"at": START, "object_id": str(number), "action": "prospect.read"} for number in range(10)]
    put(*same_time)
    params = {"actor": "eve", "limit": 4} | ({"action": action} if action else {})
    seen, cursor = [], None
    while True:
        answer = (
            await http.get("/audit", params=params | ({"cursor": cursor} if cursor else {}), headers=bearer)
        ).json()
        seen += [one["id"] for one in answer["items"]]
        cursor = answer["next_cursor"]
        if cursor is None:
            break
        put({"action": "prospect.new"}, at=START + timedelta(days=1))
    assert len(seen) == len(set(seen)) == 35


async def test_who_is_bound_to_a_client_reads_its_events_alone(http, bearer, put):
    put(*SOME)
    headers = await bound_admin(http, bearer, ACME)
    items = await found(http, headers)
    assert {one["client_id"] for one in items} == {str(ACME)}
    assert "prospect.read" in {one["action"] for one in items}
    assert await found(http, headers, client_id=str(OTHER)) == []
    lines = (await http.get("/audit.csv", headers=headers)).text
    assert "signing_key.made" not in lines
    assert "prospect.read" in lines
    answer = await http.get("/audit/verify", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "chain_of_all_clients")


async def test_editors_read_no_audit_log(http, bearer):
    user = {"email": "ed@triton.local", "password": "a long enough password", "role": "editor"}
    await http.post("/users", json=user, headers=bearer)
    pair = (await http.post("/login", json={"email": user["email"], "password": user["password"]})).json()
    for path in ("/audit", "/audit.csv", "/audit/verify"):
        answer = await http.get(path, headers={"Authorization": f"Bearer {pair['access_token']}"})
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
        assert (await http.get(path)).status_code == 401


async def test_csv_has_every_column_and_computes_nothing(http, bearer, put, monkeypatch):
    monkeypatch.setattr(events, "CSV_PAGE", 3)
    evil = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", 'a "b", c\r\nd', "é ∑ 😀"]
    put(*[{"object_id": value, "details": {"value": value}} for value in evil])
    answer = await http.get("/audit.csv", params={"actor": "eve"}, headers=bearer)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(r'attachment; filename="audit-[\dTZ-]+\.csv"', answer.headers["content-disposition"])
    assert answer.headers["cache-control"] == "no-store"
    assert answer.content.endswith(b"\r\n")
    header, *lines = csv.reader(io.StringIO(answer.content.decode(), newline=""))
    assert set(header) == set(AuditEvent.model_fields) - {"hash"}
    cells = [line[header.index("object_id")] for line in reversed(lines)]
    assert cells == [*(f"'{value}" for value in evil[:8]), *evil[8:]]
    assert not [cell for line in lines for cell in line if cell.startswith(events.FORMULA)]
    assert lines[-1][header.index("at")] == "2026-01-01T00:00:00+00:00"


async def test_a_csv_that_is_not_read_to_the_end_holds_no_connection(app, http, bearer, put):
    put(*[{} for _ in range(30)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "CSV_PAGE", 2)
        by = Principal(subject="1", role="admin", scopes=frozenset(), token_id="1", expires_at=1, token="1")
        streams = [events.as_csv(app.state.database, by=by, wanted=AuditConditions(actor="eve")) for _ in range(20)]
        for stream in streams:  # more of them than there are connections
            assert await anext(stream)
            assert await anext(stream)
        assert (await http.get("/audit", headers=bearer)).status_code == 200
        for stream in streams:
            await stream.aclose()


async def test_reading_is_an_event_too(http, bearer, rows):
    await http.get("/audit", params={"action": "login.*", "limit": 3}, headers=bearer)
    await http.get("/audit.csv", params={"client_id": str(ACME)}, headers=bearer)
    await http.get("/audit/verify", headers=bearer)
    read = rows(
        "SELECT action, actor_kind, address IS NOT NULL, request_id <> '', outcome, details->'filters', client_id"
        " FROM audit_events WHERE action LIKE 'audit.%%' ORDER BY at"
    )
    assert read == [
        ("audit.read", "user", True, True, "succeeded", {"action": "login.*"}, None),
        ("audit.exported", "user", True, True, "succeeded", {"client_id": str(ACME)}, ACME),
        ("audit.verified", "user", True, True, "succeeded", None, None),
    ]


async def test_a_report_tells_what_was_changed(http, bearer, app, postgres_url, rows):
    async with asyncio.timeout(8):
        while rows("SELECT count(*) FROM audit_events WHERE seq IS NULL") != [(0,)]:  # noqa: ASYNC110  another task's
            await asyncio.sleep(0.02)
    report = (await http.get("/audit/verify", headers=bearer)).json()
    assert report["valid"]
    head = {"expected_seq": report["head_seq"], "expected_hash": report["head_hash"]}
    assert (await http.get("/audit/verify", params=head, headers=bearer)).json()["valid"]
    for params in ({"expected_seq": 1}, {"expected_hash": "0" * 64}, {"since_seq": 0}, {"limit": 0}):
        assert (await http.get("/audit/verify", params=params, headers=bearer)).status_code == 422
    with psycopg.connect(postgres_url) as connection:
        connection.execute("ALTER TABLE audit_events DISABLE TRIGGER ALL")
        connection.execute("UPDATE audit_events SET actor_id = 'eve' WHERE seq = 1")
    report = (await http.get("/audit/verify", headers=bearer)).json()
    assert not report["valid"]
    assert (report["first_bad"]["seq"], report["first_bad"]["reason"]) == (1, "changed")
    assert rows("SELECT outcome FROM audit_events WHERE action = 'audit.verified' ORDER BY at DESC LIMIT 1") == [
        ("failed",)
    ]


FILL = """
INSERT INTO audit_events (id, at, source, actor_kind, actor_id, action, object_kind, object_id, client_id, request_id,
  outcome, details)
SELECT gen_random_uuid(), now() - i * interval '1 s', 'jobs-service',
  CASE WHEN mod(i, 50) = 0 THEN 'system' ELSE 'user' END, CASE WHEN mod(i, 50) > 0 THEN mod(i, 500)::text END,
  'thing.' || mod(i, 40), 'thing' || mod(i, 40), mod(i, 5000)::text, md5(mod(i, 100)::text)::uuid, i::text,
  CASE WHEN mod(i, 100) = 0 THEN 'refused' ELSE 'succeeded' END, '{}'
FROM generate_series(1, 20000) AS i"""
FILTERS = [
    {},
    {"actor": "7"},
    {"actor": "system"},
    {"action": "thing.7"},
    {"action": "thing.*"},
    {"object_kind": "thing7"},
    {"object_id": "7"},
    {"client_id": "8f14e45f-ceea-467f-8e5b-1a8c9e2d6f10"},
    {"outcome": "refused"},
    {"outcome": "succeeded"},
    {"request_id": "7"},
    {"since": START, "until": START + timedelta(days=1)},
    {"actor": "7", "action": "thing.*", "outcome": "refused"},
]


async def test_no_filter_reads_the_whole_log(postgres_url, rows):
    rows(FILL)
    rows("ANALYZE audit_events")
    asked = []

    def keep(_, __, statement, parameters, *___):
        asked.append((statement, parameters))

    by = Principal(subject="1", role="admin", scopes=frozenset(), token_id="1", expires_at=1, token="1")
    async with Database.connect(postgres_url) as database, transaction(database) as session:
        event.listen(database.engine.sync_engine, "before_cursor_execute", keep)
        for conditions in FILTERS:
            await events.page(session, by=by, wanted=AuditFilter(**conditions))
        event.remove(database.engine.sync_engine, "before_cursor_execute", keep)
        connection = await session.connection()
        assert len(asked) >= len(FILTERS)
        for statement, parameters in asked:
            plan = str((await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)).all())
            assert "ix_audit_events_" in plan
            assert "Seq Scan" not in plan
