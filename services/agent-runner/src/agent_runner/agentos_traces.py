"""Shows runs of jobs in AgentOS: each row of agent_runs becomes a trace, each model call a span below it.

The worker does not write them: rows are there whatever happens to AgentOS, which catches up when it comes back, and the
worker needs none of agno's database code. Spans hold what the row holds: no prompt and no answer.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agno.db.postgres import PostgresDb
from agno.tracing.schemas import Span, Trace
from loguru import logger

from triton_common.db import Database, DatabaseUnavailable, translated_errors

INTERVAL: Final = 2.0  # seconds
BACK: Final = timedelta(days=7)  # what a first start shows
OVERLAP: Final = timedelta(seconds=30)  # transactions that were under way at the last look
BATCH: Final = 200
_OVER: Final = """
    SELECT * FROM agent_runs WHERE updated_at > %(since)s AND status <> 'running' ORDER BY updated_at LIMIT %(batch)s
"""


async def run(database: Database, db: PostgresDb) -> None:
    """For ever, every few seconds."""
    since, shown = datetime.now(UTC) - BACK, set[str]()
    while True:
        try:
            async with translated_errors(), database.pool.connection() as connection:
                found = await (await connection.execute(_OVER, {"since": since, "batch": BATCH})).fetchall()
        except DatabaseUnavailable:
            logger.warning("runs could not be read for AgentOS")
            found = []
        new = [row for row in found if _key(row) not in shown]
        await asyncio.to_thread(_show, db, new)
        shown = {_key(row) for row in found}
        if found:
            since = found[-1]["updated_at"] - (timedelta(0) if len(found) == BATCH else OVERLAP)
        if len(found) < BATCH:
            await asyncio.sleep(INTERVAL)


def _key(row: dict[str, Any]) -> str:
    return f"{row['id']} {row['status']}"


def _show(db: PostgresDb, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        trace, spans = trace_of(row)
        is_new = db.get_trace(trace_id=trace.trace_id) is None
        db.upsert_trace(trace)
        if is_new:
            db.create_spans(spans)
            if db.get_trace(trace_id=trace.trace_id) is None:  # agno logs and goes on
                logger.bind(run_id=str(row["id"])).error("AgentOS does not take the trace of a run")


def trace_of(row: dict[str, Any]) -> tuple[Trace, list[Span]]:
    """A row of agent_runs as agno keeps it. Its ids are made of the run's, so that the same row is the same trace."""
    trace_id, ended = row["id"].hex, row["started_at"] + timedelta(seconds=row["seconds"] or 0)
    failed = row["status"] in ("failed", "lost")
    context = {"run_id": str(row["id"]), "session_id": str(row["job_id"]), "agent_id": row["agent"]}
    root = _span(
        trace_id,
        0,
        f"{row['agent']}.run",
        began=row["started_at"],
        ended=ended,
        error=(row["error"] or {}).get("code", row["status"]) if failed else None,
        attributes=context
        | {
            "status": row["status"],
            "model": row["model"],
            "prompt_version": row["prompt_version"],
            "attempt": row["attempt"],
            "gen_ai.usage.input_tokens": row["input_tokens"],
            "gen_ai.usage.output_tokens": row["output_tokens"],
            "otel_trace_id": row["trace_id"],
        },
    )
    calls = []
    for number, call in enumerate(row["calls"], start=1):
        began = datetime.fromisoformat(call["began_at"])
        calls.append(
            _span(
                trace_id,
                number,
                f"chat {call['model']}",
                began=began,
                ended=began + timedelta(seconds=call["seconds"]),
                error=call["reason"] if call["outcome"] == "failed" else None,
                attributes={name: call[name] for name in ("outcome", "reason", "input_tokens", "output_tokens")},
            )
        )
    trace = Trace(
        trace_id=trace_id,
        name=root.name,
        status="ERROR" if failed else "OK",
        start_time=root.start_time,
        end_time=root.end_time,
        duration_ms=root.duration_ms,
        total_spans=1 + len(calls),
        error_count=sum(span.status_code == "ERROR" for span in (root, *calls)),
        user_id=None,
        team_id=None,
        workflow_id=None,
        created_at=root.created_at,
        **context,
    )
    return trace, [root, *calls]


def _span(
    trace_id: str,
    number: int,
    name: str,
    *,
    began: datetime,
    ended: datetime,
    error: str | None,
    attributes: dict[str, Any],
) -> Span:
    return Span(
        span_id=f"{trace_id[-12:]}{number:04x}",
        trace_id=trace_id,
        parent_span_id=f"{trace_id[-12:]}0000" if number else None,
        name=name,
        span_kind="CLIENT" if number else "INTERNAL",
        status_code="ERROR" if error else "OK",
        status_message=error,
        start_time=began,
        end_time=ended,
        duration_ms=round((ended - began).total_seconds() * 1000),
        attributes=attributes,
        created_at=began,
    )
