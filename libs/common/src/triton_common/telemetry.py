"""Metrics and traces: HTTP metrics, W3C trace context in and out, spans of requests and of statements."""

import os
import random
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

HTTP_REQUESTS = Counter("http_requests_total", "Requests answered", ["service", "method", "route", "status"])
HTTP_DURATION = Histogram(
    "http_request_duration_seconds",
    "From the first byte of a request to the last of its answer",
    ["service", "method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
AUDIT_WAITING = Gauge(
    "triton_audit_events_waiting",
    "Events on disk that the audit log has not confirmed",
    ["service"],
    multiprocess_mode="livesum",
)
AUDIT_OLDEST = Gauge(
    "triton_audit_oldest_waiting_age_seconds",
    "Age of the oldest such event that was sent; 0 without one",
    ["service"],
    multiprocess_mode="livemax",
)

SAMPLED: Final = 0.05  # of the traces that begin here; costs 3 % of an empty request (docs/benchmarks.md)

tracer = trace.get_tracer("triton")
_ids = RandomIdGenerator()
_WRITES: Final = re.compile(r"\b(INSERT INTO|(?<!FOR )(?<!DO )UPDATE|DELETE FROM)\s+(?:ONLY )?([a-z_.]+)")
_READS: Final = re.compile(r"\b(FROM)\s+([a-z_.]+)\b(?!\()")  # no function


def configure_tracing(*, service: str, version: str) -> None:
    """Export spans by OTLP/HTTP when OTEL_EXPORTER_OTLP_ENDPOINT is set; without it none is recorded, yet ids travel.

    To be called after a fork, never before: the exporter has a thread.
    """
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    resource = Resource.create(
        {"service.name": os.environ.get("OTEL_SERVICE_NAME", service), "service.version": version}
    )
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        # a tenth of a second of imports that few need
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        # which traces begin is span_below()'s to say: the SDK would take ten times as long to say no
        provider = TracerProvider(resource=resource, sampler=ParentBased(ALWAYS_ON))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    else:
        provider = TracerProvider(resource=resource, sampler=ALWAYS_OFF)
    trace.set_tracer_provider(provider)


@lru_cache
def _share(value: str) -> float:
    return float(value)


def span_below(name: str, *, traceparent: str, kind: SpanKind = SpanKind.SERVER) -> Span:
    """The span of a request or message being dealt with, below its sender's; to be ended.

    It is recorded when its sender's is; without a sender, in a share of the cases that OTEL_TRACES_SAMPLER_ARG says.
    Where nothing is recorded it has ids alone.
    """
    parent = propagate.extract({"traceparent": traceparent}) if traceparent else Context()
    caller = trace.get_current_span(parent).get_span_context()
    if getattr(trace.get_tracer_provider(), "sampler", None) is not ALWAYS_OFF:
        share = _share(os.environ.get("OTEL_TRACES_SAMPLER_ARG") or str(SAMPLED))
        if caller.trace_flags.sampled if caller.is_valid else random.random() < share:  # noqa: S311  no secret
            return tracer.start_span(name, context=parent, kind=kind)
    trace_id = caller.trace_id if caller.is_valid else _ids.generate_trace_id()
    return NonRecordingSpan(SpanContext(trace_id, _ids.generate_span_id(), is_remote=False))


def begin_statement(system: str, statement: str) -> Span | None:
    """The span of a statement that a database runs for the present request, to be ended; None unless that is recorded.

    The values of a statement are no part of it.
    """
    if not trace.get_current_span().is_recording():
        return None
    attributes = {"db.system.name": system, "db.query.text": statement[:2000]}
    return tracer.start_span(_summary(statement), kind=SpanKind.CLIENT, attributes=attributes)


def end_statement(span: Span | None, error: BaseException | None = None) -> None:
    """End what begin_statement began, or another span. Of an error its type is kept: its text may quote values."""
    if span is not None:
        if error is not None:
            span.set_status(StatusCode.ERROR, type(error).__name__)
        span.end()


@contextmanager
def statement_span(system: str, statement: str) -> Iterator[None]:
    """Both, around a statement."""
    span = begin_statement(system, statement)
    try:
        yield
    except BaseException as error:
        end_statement(span, error)
        raise
    end_statement(span)


@contextmanager
def sending(queue: str, traceparents: Iterable[str]) -> Iterator[None]:
    """The way of messages into a queue, around it: a span below each sender's that is recorded."""
    spans = [
        span_below(f"send {queue}", traceparent=traceparent, kind=SpanKind.PRODUCER)
        for traceparent in traceparents
        if traceparent.endswith("-01")  # thousands a second are not, and cost nothing here
    ]
    failed: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failed = error
        raise
    finally:
        for span in spans:
            end_statement(span, failed)


@lru_cache(maxsize=500)
def _summary(statement: str) -> str:
    """What a statement does to which table, its first write before its first read: OpenTelemetry's query summary."""
    found = _WRITES.search(statement) or _READS.search(statement)
    if found is None:
        return statement.split(None, 1)[0]
    verb = "SELECT" if found[1] == "FROM" else found[1].split()[0]
    return f"{verb} {found[2]}"


def exposition() -> bytes:
    """All metrics as Prometheus reads them: this process', or with PROMETHEUS_MULTIPROC_DIR those of all its siblings.

    What a process counted stays when it is gone; what it measured goes with it.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not folder:
        return generate_latest(REGISTRY)
    for pid in {int(file.stem.rpartition("_")[2]) for file in Path(folder).glob("gauge_live*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            with suppress(FileNotFoundError):  # a sibling was asked at the same time
                mark_process_dead(pid)  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def outgoing_headers(request_id: str | None) -> dict[str, str]:
    """What a call to another service carries: the request id and the trace context."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    if request_id:
        headers["X-Request-ID"] = request_id
    return headers


def current_traceparent() -> str:
    """The trace context of the present span as a W3C header; empty outside one."""
    return outgoing_headers(None).get("traceparent", "")
