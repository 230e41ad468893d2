"""The engine underneath: one process, bounded lanes, kills, errors that nobody sees, migrations."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import pytest
from conftest import Prospect
from test_ingest import GOOD, claims
from uuid_utils.compat import uuid7

from analytics_service import batches
from analytics_service.batches import Batch
from analytics_service.clickhouse import ClickHouse
from analytics_service.engine import Engine
from analytics_service.lanes import AnalyticsBusy, ClickhouseUnavailable, Lane
from analytics_service.prospects import Tenant
from analytics_service.reports import parts
from analytics_service.schema import migrate
from analytics_service.settings import Settings

CHILD = Path(__file__).with_name("child.py")


def child(folder: Path, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), what], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("point", ["_insert", "refused", "complete"])
def test_killed_in_the_middle_nothing_is_seen_and_the_next_start_cleans_up(tmp_path: Path, point: str):
    with child(tmp_path, f"hang-at-{point}") as process:
        assert any("standing still" in line for line in process.stdout)
        process.send_signal(signal.SIGKILL)
    left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"canary-member-7" in left  # or what follows would show nothing
    with child(tmp_path, "look") as process:
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert json.loads(output.splitlines()[-1]) == {
        "staging": 0,
        "rows": 0,
        "statuses": {"failed": 1},
        "on_disk": False,
        "again": [True, 1000],
    }


def test_a_second_process_is_told_why_it_cannot_start(app, http, clickhouse_folder: Path):
    with child(clickhouse_folder / "db", "open") as process:
        output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert "another process has the folder of CLICKHOUSE_URL open" in output


async def test_a_server_that_is_not_there_is_noticed_at_once(log_lines):
    started = time.monotonic()
    with pytest.raises(ClickhouseUnavailable):
        async with ClickHouse.connect(
            "http://user:canary-password@127.0.0.1:1", readers=1, waiting=1, query_timeout=Settings().query_timeout
        ):
            pass
    assert time.monotonic() - started < 10
    assert any("cannot open ClickHouse" in line for line in log_lines)
    assert "canary-password" not in "".join(log_lines)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server that a test may stop, and its URL."""
    command = [sys.executable, str(CHILD.with_name("clickhouse_server.py")), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server, f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.kill()


async def test_a_server_that_hangs_or_dies_is_answered_503_and_asked_again_when_it_is_back(own_server):
    server, url = own_server
    async with ClickHouse.connect(url, readers=1, waiting=1, query_timeout=timedelta(seconds=1)) as clickhouse:
        assert await clickhouse.read("SELECT 1 AS one") == [{"one": 1}]
        server.send_signal(signal.SIGSTOP)
        for asked in (clickhouse.read("SELECT 1 AS one"), clickhouse.ping()):
            with pytest.raises(ClickhouseUnavailable) as caught:
                await asyncio.wait_for(asked, 30)
            assert caught.value.status == 503
        server.send_signal(signal.SIGCONT)
        assert await clickhouse.read("SELECT 2 AS two") == [{"two": 2}]
        server.kill()
        for asked in (clickhouse.read("SELECT 1 AS one"), clickhouse.write(lambda engine: engine.rows("SELECT 1"))):
            with pytest.raises(ClickhouseUnavailable):
                await asyncio.wait_for(asked, 30)


async def test_a_slow_query_holds_up_neither_the_loop_nor_the_health_check(app, http):
    slow = [asyncio.create_task(app.state.clickhouse.read("SELECT sleep(2)")) for _ in range(6)]
    ready = await http.get("/health/ready")
    assert ready.json()["dependencies"]["clickhouse"]["status"] == "ok"
    assert not any(task.done() for task in slow)
    await asyncio.gather(*slow)


class Idle:
    """A client that nobody asks anything."""

    def close(self) -> None:
        """Nothing to close."""


async def test_a_full_line_is_answered_429_and_empties_again():
    lane = Lane([Idle()], name="test", waiting=1)
    go = threading.Event()
    running = [asyncio.create_task(lane.run(lambda _: go.wait())) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(AnalyticsBusy) as caught:
        await lane.run(lambda _: None)
    assert (caught.value.status, caught.value.retry_after) == (429, 2)
    go.set()
    await asyncio.gather(*running)
    await asyncio.sleep(0.05)
    assert await lane.run(lambda _: "served") == "served"
    lane.close()


async def test_a_caller_who_leaves_gives_the_place_back_when_the_work_is_done():
    lane = Lane([Idle()], name="test", waiting=0)
    go = threading.Event()
    caller = asyncio.create_task(lane.run(lambda _: go.wait()))
    await asyncio.sleep(0.05)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    with pytest.raises(AnalyticsBusy):
        await lane.run(lambda _: None)
    go.set()
    await asyncio.sleep(0.1)
    assert await lane.run(lambda _: "served") == "served"
    lane.close()


async def test_readers_cannot_write(app):
    with pytest.raises(ClickhouseUnavailable):
        await app.state.clickhouse.read("CREATE TABLE written (x Int8) ENGINE = Memory")


async def test_errors_of_the_engine_are_shown_to_nobody(app, prospect: Prospect, monkeypatch, log_lines, capfd):
    monkeypatch.setattr(parts, "parts", lambda **_: "canary AS (SELECT * FROM canary_table)")
    answer = await prospect.http.get(f"{prospect.path}/reports/summary", headers=prospect.headers)
    assert (answer.status_code, answer.json()["code"]) == (503, "clickhouse_unavailable")
    assert answer.json()["message"] == "The analytics database does not answer; try again"
    assert answer.headers["retry-after"] == "2"
    logged = "".join(log_lines) + "".join(capfd.readouterr())
    assert "UNKNOWN_" in logged
    assert "canary" not in logged
    assert "canary" not in answer.text


async def test_an_ingest_that_fails_inside_leaves_nothing(app, prospect: Prospect, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ClickhouseUnavailable

    monkeypatch.setattr("analytics_service.ingest._insert", fail)
    answer = await prospect.send("claims", claims(GOOD))
    assert answer.status_code == 503
    monkeypatch.undo()
    assert (await prospect.get("reports/summary"))["members"] == 0
    rows = await app.state.clickhouse.read("SELECT count() AS rows FROM system.tables WHERE startsWith(name, 'stage_')")
    assert rows == [{"rows": 0}]
    assert (await prospect.send("claims", claims(GOOD))).status_code == 201


async def test_two_services_that_took_the_same_content_count_it_once(app, prospect: Prospect):
    """On a server, two processes may pass each other: reports take the first batch of a content."""
    first = await prospect.send("claims", claims(GOOD))
    batch = first.json()

    def double(engine: Engine) -> None:
        other = Batch(
            Tenant(prospect.client_id, prospect.id),
            uuid7(),
            "claims",
            "triton",
            batch["content_sha256"],
            created_at=datetime.now(UTC),
            rows=1,
        )
        batches.complete(engine, other)
        engine.command(
            "INSERT INTO claims SELECT * REPLACE ({new:UUID} AS batch_id) "
            "FROM (SELECT * FROM claims WHERE batch_id = {old:UUID})",
            {"new": other.id, "old": batch["id"]},
        )

    await app.state.clickhouse.write(double)
    rows = await app.state.clickhouse.read(
        "SELECT count() AS rows FROM claims WHERE prospect_id = {id:UUID}", {"id": prospect.id}
    )
    assert rows == [{"rows": 2}]
    assert (await prospect.get("reports/summary"))["total_paid"] == "105.10"


async def test_migrations_are_applied_once_each(app, http):
    names = sorted(file.name for file in (files("analytics_service") / "migrations").iterdir())
    assert names[:3] == ["0001_batches.sql", "0002_datasets.sql", "0003_progress.sql"]
    assert await app.state.clickhouse.write(migrate) == []
    applied = await app.state.clickhouse.read("SELECT name, count() AS times FROM schema_migrations GROUP BY name")
    assert sorted((row["name"], row["times"]) for row in applied) == [(name, 1) for name in names]


async def test_a_migration_that_was_changed_is_noticed(app, http):
    def changed(engine: Engine) -> None:
        row = {"name": "0001_batches.sql", "sha256": "another", "applied_at": "2100-01-01T00:00:00Z"}
        engine.insert("schema_migrations", [row])
        try:
            migrate(engine)
        finally:
            engine.command("ALTER TABLE schema_migrations DELETE WHERE sha256 = 'another' SETTINGS mutations_sync = 2")

    with pytest.raises(RuntimeError, match=r"0001_batches\.sql was changed"):
        await app.state.clickhouse.write(changed)


async def test_the_sweep_leaves_finished_batches_alone(app, prospect: Prospect):
    await prospect.send("claims", claims(GOOD))
    await app.state.clickhouse.write(batches.sweep)
    assert (await prospect.get("reports/summary"))["members"] == 1
