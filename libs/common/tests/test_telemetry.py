"""Spans of requests and statements, and metrics of several processes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, use_span
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from triton_common import telemetry
from triton_common.app import create_app
from triton_common.db import Database, transaction
from triton_common.messages import RunJob
from triton_common.queue.memory import MemoryTaskQueue
from triton_common.settings import CommonSettings
from triton_common.telemetry import span_below, statement_span
from triton_common.testing import eventually, free_port

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Every span that ends."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer("test"))
    monkeypatch.setattr(telemetry.trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    return exporter


@pytest.mark.parametrize(
    ("share", "traceparent", "recorded"),
    [
        ("0", "", False),
        ("1", "", True),
        ("0", f"{PARENT}-01", True),  # whoever sends has decided
        ("1", f"{PARENT}-00", False),
        ("1", "nonsense", True),
    ],
)
def test_a_trace_is_recorded_by_share_or_as_its_sender_does(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, share: str, traceparent: str, recorded: bool
):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", share)
    span = span_below("GET", traceparent=traceparent)
    span.end()

    assert len(spans.get_finished_spans()) == recorded
    trace_id = f"{span.get_span_context().trace_id:032x}"
    assert (trace_id == PARENT[3:35]) == traceparent.startswith(PARENT)


async def test_statements_of_a_recorded_request_are_spans_without_values(
    spans: InMemorySpanExporter, postgres_server: Any
):
    async with Database.connect(postgres_server.url("postgres"), pool_size=1) as database:
        with use_span(span_below("POST", traceparent=f"{PARENT}-01"), end_on_exit=True):
            async with transaction(database) as session:
                await (await session.connection()).execute(
                    text("SELECT relname FROM pg_class WHERE relname = :name"), {"name": "canary-1"}
                )
            async with database.pool.connection() as connection:
                await connection.execute(b"SELECT datname FROM pg_database WHERE datname = %(x)s", {"x": "canary-2"})
            with pytest.raises(ProgrammingError):
                async with transaction(database) as session:
                    await (await session.connection()).execute(
                        text("DELETE FROM nowhere WHERE name = :name"), {"name": "canary-3"}
                    )
            with pytest.raises(psycopg.errors.UndefinedTable):
                async with database.pool.connection() as connection:
                    await connection.execute("UPDATE nowhere SET name = %s", ["canary-4"])
        async with transaction(database) as session:  # of no request
            await (await session.connection()).execute(text("SELECT 1"))

    told = [(span.name, span.status.status_code) for span in spans.get_finished_spans()]
    assert told == [
        ("SELECT pg_class", StatusCode.UNSET),
        ("SELECT pg_database", StatusCode.UNSET),
        ("DELETE nowhere", StatusCode.ERROR),
        ("UPDATE nowhere", StatusCode.ERROR),
        ("POST", StatusCode.UNSET),
    ]
    assert "canary" not in "".join(span.to_json() for span in spans.get_finished_spans())


async def test_a_message_on_its_way_into_the_queue_is_a_span_of_its_senders_trace(spans: InMemorySpanExporter):
    recorded, not_recorded, untold = f"{PARENT}-01", f"{PARENT}-00", ""
    messages = [RunJob(job_id=uuid4(), traceparent=traceparent) for traceparent in (recorded, not_recorded, untold)]
    queue = MemoryTaskQueue()
    await queue.send(messages)
    with pytest.raises(ValueError, match="a priority is a number"):
        await queue.send(messages, priority=10)

    told = [(span.name, span.kind, span.status.status_code) for span in spans.get_finished_spans()]
    assert told == [
        ("send agent-runner", SpanKind.PRODUCER, StatusCode.UNSET),
        ("send agent-runner", SpanKind.PRODUCER, StatusCode.ERROR),
    ]
    assert all(f"{span.parent.span_id:016x}" == PARENT[36:] for span in spans.get_finished_spans() if span.parent)


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("WITH a AS (SELECT id FROM jobs FOR UPDATE SKIP LOCKED) UPDATE jobs SET x = 1 FROM a", "UPDATE jobs"),
        ("INSERT INTO keys (k) VALUES (1) ON CONFLICT DO UPDATE SET k = 2", "INSERT keys"),
        ("SELECT c.* FROM jsonb_to_recordset(%(calls)s) c JOIN (SELECT id FROM jobs) j ON true", "SELECT jobs"),
        ("LISTEN changes", "LISTEN"),
    ],
)
def test_a_statement_is_named_after_what_it_does(spans: InMemorySpanExporter, statement: str, name: str):
    with use_span(span_below("POST", traceparent=f"{PARENT}-01")), statement_span("postgresql", statement):
        pass
    assert [span.name for span in spans.get_finished_spans()] == [name]


SERVED = """
from triton_common.app import create_app
from triton_common.settings import CommonSettings
from triton_common.telemetry import AUDIT_WAITING


def build():
    AUDIT_WAITING.labels("served").set(1)
    return create_app(CommonSettings(), name="served", version="1", description="")
"""


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[str]:
    """The URL of a service with three processes."""
    (tmp_path / "served.py").write_text(SERVED)
    (tmp_path / "metrics").mkdir()
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", "served:build", "--port", str(port), "--no-access-log"],
        cwd=tmp_path,
        env=os.environ | {"WEB_CONCURRENCY": "3", "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: len(serving_now(tmp_path / "metrics")) == 3 and answers(url), within=60)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def serving_now(folder: Path) -> set[int]:
    """The processes that have set the gauge."""
    return {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_livesum_*.db")}


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health/live").is_success
    except httpx2.TransportError:
        return False


def test_what_a_dead_process_counted_stays_and_what_it_measured_goes(workers: str, tmp_path: Path):
    def asked(times: int) -> None:
        for _ in range(times):  # a connection each, so that every process gets some
            assert httpx2.get(f"{workers}/nothing").status_code == 404

    def value(name: str) -> float:
        [found] = re.findall(rf"^{name}{{.*}} (\S+)$", httpx2.get(f"{workers}/metrics").text, re.MULTILINE)
        return float(found)

    asked(60)
    assert (value("http_requests_total"), value("triton_audit_events_waiting")) == (60, 3)

    before = serving_now(tmp_path / "metrics")
    os.kill(min(before), signal.SIGKILL)
    eventually(lambda: serving_now(tmp_path / "metrics") - before, within=60)  # uvicorn starts another
    eventually(lambda: value("triton_audit_events_waiting") == 3)
    assert value("http_requests_total") == 60

    asked(60)
    assert (value("http_requests_total"), value("http_request_duration_seconds_count")) == (120, 120)


def test_several_processes_need_a_folder_for_their_metrics(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    with pytest.raises(ValueError, match="set PROMETHEUS_MULTIPROC_DIR"):
        create_app(CommonSettings(), name="x", version="1", description="")


async def test_connections_are_let_go_now_and_then_so_that_a_new_replica_gets_its_share(http: httpx2.AsyncClient):
    said = [(await http.get("/nothing")).headers.get("connection") for _ in range(400)]
    assert said.count("close") == 2
