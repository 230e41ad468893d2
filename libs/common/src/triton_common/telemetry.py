"""Metrics and traces: the HTTP metrics every service has, and W3C trace context in and out."""

import os

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind
from prometheus_client import Counter, Gauge, Histogram

HTTP_REQUESTS = Counter("http_requests_total", "Requests answered", ["service", "method", "route", "status"])
HTTP_DURATION = Histogram(
    "http_request_duration_seconds",
    "From the first byte of a request to the last of its answer",
    ["service", "method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
AUDIT_WAITING = Gauge("triton_audit_events_waiting", "Events on disk that the audit log has not confirmed", ["service"])
AUDIT_OLDEST = Gauge(
    "triton_audit_oldest_waiting_age_seconds", "Age of the oldest such event that was sent; 0 without one", ["service"]
)

tracer = trace.get_tracer("triton")
_ids = RandomIdGenerator()


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

        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    else:
        provider = TracerProvider(resource=resource, sampler=ALWAYS_OFF)
    trace.set_tracer_provider(provider)


def span_below(name: str, *, traceparent: str, kind: SpanKind = SpanKind.SERVER) -> Span:
    """The span of a request or message being dealt with, below its sender's; to be ended. Where nothing is recorded it
    has ids alone, which the SDK would take ten times as long to say."""
    parent = propagate.extract({"traceparent": traceparent}) if traceparent else Context()
    if getattr(trace.get_tracer_provider(), "sampler", None) is not ALWAYS_OFF:
        return tracer.start_span(name, context=parent, kind=kind)
    caller = trace.get_current_span(parent).get_span_context()
    trace_id = caller.trace_id if caller.is_valid else _ids.generate_trace_id()
    return NonRecordingSpan(SpanContext(trace_id, _ids.generate_span_id(), is_remote=False))


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
