"""`triton audit` on a real auth-service."""

import csv
import io
import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from fastapi import FastAPI, Response

from triton_cli.auditing import COLUMNS, FAULTS, SHOWN
from triton_cli.state import CHECKOUT
from triton_common.settings import CommonSettings
from triton_common.testing import eventually

pytestmark = pytest.mark.timeout(300)  # the first has to wait for the servers

ADMIN = "ada@triton.local"


def as_json(answer: Any) -> Any:
    assert answer.exit_code == 0, answer.stderr
    return json.loads(answer.stdout)


def a_failed_login(admin, auth) -> str:
    """The request id of an event that is in the chain."""
    login = ("login", "--url", auth.url, "--email", ADMIN, "--password-stdin")
    refused = admin(*login, stdin="marked wrong password").stderr
    request_id: str = refused.rpartition("request ")[2].partition(")")[0]
    found = ("audit", "list", "--request", request_id)
    eventually(lambda: admin(*found).stdout.partition("\t")[0])  # its number, once it has one
    return request_id


def test_the_log_says_who_did_what(admin, auth):
    request_id = a_failed_login(admin, auth)
    [event] = as_json(admin("audit", "list", "--request", request_id, "--json"))["items"]
    assert (event["action"], event["outcome"]) == ("login.failed", "refused")
    for chosen in (
        ("--action", "login.*"),
        ("--outcome", "refused", "--since", "1h"),
        ("--object-kind", event["object_kind"], "--object-id", event["object_id"], "--until", "2100-01-01"),
        ("--actor", "anonymous"),
    ):
        listed = admin("audit", "list", "--all", *chosen)
        assert listed.exit_code == 0, listed.stderr
        rows = [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in listed.stdout.splitlines()]
        assert [row["action"] for row in rows if row["request_id"] == request_id] == ["login.failed"], chosen
    mine = admin("audit", "list", "--actor", ADMIN, "--action", "login.succeeded", "-n", "1").stdout.split("\t")
    assert mine[COLUMNS.index("actor_kind")] == "user"
    assert admin("audit", "list", "--until", "100w").stdout == ""
    assert admin("audit", "list", "--action", "no such").exit_code == 1
    assert admin("audit", "list", "--client", "Nobody").exit_code == 1
    assert "marked" not in admin("audit", "list", "--all", "--json").stdout


def test_it_is_exported_as_csv(admin, auth, tmp_path):
    request_id = a_failed_login(admin, auth)
    printed = admin("audit", "export", "--request", request_id)
    assert printed.exit_code == 0, printed.stderr
    [row] = csv.DictReader(io.StringIO(printed.stdout, newline=""))
    assert row["action"] == "login.failed"
    out = tmp_path / "audit.csv"
    (tmp_path / "audit.csv.part").write_text("left by a command that was killed")
    assert f"Wrote {out}." in admin("audit", "export", "--request", request_id, "--out", str(out)).stderr
    assert out.read_bytes().decode() == printed.stdout_bytes.decode()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert not (tmp_path / "audit.csv.part").exists()
    nowhere = admin("audit", "export", "--out", str(tmp_path / "no" / "audit.csv"))
    assert nowhere.exit_code == 1
    assert "cannot be written: No such file or directory." in nowhere.stderr


def test_an_export_that_breaks_off_is_no_file(cli, serving, tmp_path):
    platform = FastAPI()
    platform.state.settings = CommonSettings()

    @platform.get("/api/v1/auth/me")
    async def me() -> dict[str, str]:
        return {}

    @platform.get("/api/v1/auth/audit.csv")
    async def cut_off() -> Response:
        return Response("seq,at\r\n1,", headers={"content-length": "99"})

    with serving(platform) as url:
        script = {"TRITON_URL": url, "TRITON_TOKEN": "x"}
        for where in ((), ("--out", str(tmp_path / "audit.csv"))):
            answer = cli("audit", "export", *where, **script)
            assert answer.exit_code == 1
            assert "The export broke off, and is not whole" in answer.stderr
    assert not list(tmp_path.glob("audit*"))


@contextmanager
def tampered(auth, statement: str, seq: int) -> Iterator[None]:
    """The log after somebody with the database has changed it; as it was in the end."""
    with psycopg.connect(auth.database, autocommit=True) as connection:
        connection.execute("ALTER TABLE audit_events DISABLE TRIGGER ALL")
        connection.execute("CREATE TABLE kept AS SELECT * FROM audit_events WHERE seq = %s", [seq])
        connection.execute(statement.encode(), [seq])
        try:
            yield
        finally:
            connection.execute("DELETE FROM audit_events WHERE id IN (SELECT id FROM kept)")
            connection.execute("INSERT INTO audit_events SELECT * FROM kept")
            connection.execute("DROP TABLE kept")
            connection.execute("ALTER TABLE audit_events ENABLE TRIGGER ALL")


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE audit_events SET outcome = 'succeeded' WHERE seq = %s", "changed"),
        ("DELETE FROM audit_events WHERE seq = %s", "missing"),
    ],
)
def test_verify_says_where_the_chain_is_broken(admin, auth, monkeypatch, statement, reason):
    request_id = a_failed_login(admin, auth)
    [event] = as_json(admin("audit", "list", "--request", request_id, "--json"))["items"]
    monkeypatch.setattr("triton_cli.auditing.AT_ONCE", event["seq"] // 3 + 1)  # so that it takes several requests
    a_failed_login(admin, auth)
    whole = admin("audit", "verify")
    assert whole.exit_code == 0, whole.stderr
    word, events, head_seq, head_hash = whole.stdout.rstrip("\n").split("\t")
    assert word == "valid"
    assert int(events) == int(head_seq) > event["seq"]
    assert as_json(admin("audit", "verify", "--head", f"{head_seq}:{head_hash}", "--json"))["events"] >= int(events)
    with tampered(auth, statement, event["seq"]):
        broken = admin("audit", "verify", "--json")
        assert broken.exit_code == 1
        report = json.loads(broken.stdout)
        assert (report["valid"], report["first_bad"]["seq"]) == (False, event["seq"])
        assert report["first_bad"]["reason"] == reason
        assert report["events"] == event["seq"] - 1
        assert f"Event {event['seq']}" in broken.stderr
        assert FAULTS[reason] in broken.stderr
    assert admin("audit", "verify").exit_code == 0
    other = admin("audit", "verify", "--head", f"{head_seq}:{'0' * 64}")
    assert other.exit_code == 1
    assert FAULTS["other_head"] in other.stderr
    assert admin("audit", "verify", "--head", "nonsense").exit_code == 2


def test_who_may_not_read_it_is_refused(admin, cli, auth):
    made = admin("api-keys", "create", f"reader-{uuid4().hex[:8]}", "--scope", "jobs:read").stdout.strip()
    for command in ("list", "export", "verify"):
        answer = cli("audit", command, TRITON_URL=auth.url, TRITON_API_KEY=made)
        assert answer.exit_code == 1
        assert "(insufficient_scope, request " in answer.stderr


def test_columns_and_faults_are_those_of_the_api():
    schemas = json.loads((CHECKOUT / "docs" / "openapi" / "auth-service.json").read_text())["components"]["schemas"]
    event = schemas["AuditEventPublic"]["properties"]
    assert set(COLUMNS) == set(event) - {"id", "recorded_at", "details"}
    assert set(SHOWN) <= set(COLUMNS)
    assert set(FAULTS) == set(schemas["ChainFault"]["properties"]["reason"]["enum"])
