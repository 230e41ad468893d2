"""The shape every service has: errors, ids, limits, health, metrics, logs."""

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from triton_common.app import _drain_on_sigterm
from triton_common.testing import eventually


async def test_invalid_body_names_each_field(http):
    answer = await http.post("/widgets", json={"name": "a", "size": "x", "colour": "red"})
    problem = answer.json()
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["code"] == "validation_failed"
    assert {(d["field"], d["code"]) for d in problem["details"]} == {
        ("body.name", "string_too_short"),
        ("body.size", "int_parsing"),
        ("body.colour", "extra_forbidden"),
    }


async def test_invalid_value_is_not_echoed(http):
    answer = await http.post("/widgets", json={"name": "ok", "size": "canary-999-17-5017"})
    assert "canary" not in answer.text


async def test_body_that_is_not_utf8_is_malformed(http):
    answer = await http.post("/widgets", content=b'{"name": "\xff"}', headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "malformed_json")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_a_body_that_is_not_said_to_be_json_is_told_what_it_should_be(http, kind):
    answer = await http.post("/widgets", content=b'{"name": "ok"}', headers={"content-type": kind} if kind else {})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_content")
    assert "application/json" in answer.json()["message"]
    document = (await http.get("/openapi.json")).json()
    assert "415" in document["paths"]["/widgets"]["post"]["responses"]
    wrong = await http.post("/widgets", json="a string")
    assert (wrong.status_code, wrong.json()["details"][0]["issue"]) == (422, "Input should be an object")


async def test_crash_can_be_read_by_a_browsers_application(http):
    answer = await http.get("/crash", headers={"Origin": "https://app.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (500, "https://app.example")


async def test_answer_that_breaks_off_is_cut(app, serving):
    with serving(app) as url, pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(f"{url}/breaks-off")


async def test_stream_does_not_count_as_slow(http):
    assert (await http.get("/stream")).status_code == 200
    text = (await http.get("/metrics")).text
    assert 'http_requests_total{method="GET",route="/stream"' in text
    assert 'http_request_duration_seconds_count{method="GET",route="/stream"' not in text


async def test_malformed_json_is_told_apart(http):
    answer = await http.post("/widgets", content=b'{"name": ', headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "malformed_json")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_request"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "not_found"),
        (409, "widget_broken"),
        (413, "content_too_large"),
        (422, "unprocessable"),
        (429, "too_many_requests"),
        (503, "unavailable"),
    ],
)
async def test_every_error_has_the_one_shape(http, status, code):
    answer = await http.get(f"/raise/{status}")
    problem = answer.json()
    assert answer.status_code == problem["status"] == status
    assert problem["code"] == code
    assert problem["type"].endswith(f"#{code}")
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert set(problem) == {"type", "title", "status", "code", "message", "details", "request_id"}


async def test_unauthorized_says_how_and_too_many_says_when(http):
    assert (await http.get("/raise/401")).headers["www-authenticate"] == "Bearer"
    assert (await http.get("/raise/429")).headers["retry-after"] == "7"


async def test_unknown_path_and_method_are_problems(http):
    missing = await http.get("/nowhere")
    wrong = await http.put("/widgets")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["allow"]) == (405, "not_allowed", "POST")


async def test_crash_says_nothing_of_the_inside(http, capfd):
    answer = await http.get("/crash", headers={"X-Request-ID": "crash-test-1"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "canary" not in answer.text
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    logged = next(line for line in lines if line["level"] == "error")
    assert logged["request_id"] == "crash-test-1"
    assert "RuntimeError" in logged["exception"]
    assert "in crash" in logged["exception"]
    assert not any("canary" in json.dumps(line) for line in lines)


@pytest.mark.parametrize("given", ["short", "x" * 65, "has space in it", "quote\"'<script>"])
async def test_unfit_request_id_is_replaced(http, given):
    answer = await http.get("/raise/404", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 36


async def test_fit_request_id_is_kept(http):
    answer = await http.get("/raise/404", headers={"X-Request-ID": "abc.DEF_12-3"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "abc.DEF_12-3"


async def test_body_over_the_limit_is_refused(http):
    declared = await http.post("/raw", content=b"x" * 2049)

    async def chunks():
        for _ in range(5):
            yield b"x" * 500

    counted = await http.post("/raw", content=chunks())
    parsed = await http.post("/widgets", content=chunks(), headers={"content-type": "application/json"})
    fits = await http.post("/raw", content=b"x" * 2048)
    assert (declared.status_code, declared.json()["code"]) == (413, "content_too_large")
    assert (counted.status_code, counted.json()["code"]) == (413, "content_too_large")
    assert (parsed.status_code, parsed.json()["code"]) == (413, "content_too_large")
    assert declared.headers["x-request-id"] == declared.json()["request_id"]
    assert fits.json() == {"bytes": 2048}


async def test_cors_lets_only_the_named_origin_in(http):
    async def allowed(origin):
        answer = await http.options("/widgets", headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
        return answer.headers.get("access-control-allow-origin")

    assert await allowed("https://app.example") == "https://app.example"
    assert await allowed("https://evil.example") is None


async def test_health_tells_each_dependency(http, app):
    assert (await http.get("/health/live")).json()["status"] == "ok"
    ready = await http.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["dependencies"]["brick"]["status"] == "ok"
    app.state.brick = "degraded"
    degraded = await http.get("/health/ready")
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
    app.state.brick = "down"
    down = await http.get("/health/ready")
    assert (down.status_code, down.json()["status"]) == (503, "down")
    assert "db.internal" not in down.text
    assert (await http.get("/health/live")).status_code == 200


async def test_readiness_fails_once_the_service_stops(http, app):
    app.state.draining.set()
    answer = await http.get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "stopping")


async def test_metrics_count_by_route_template(http):
    await http.get("/raise/404")
    await http.get("/nowhere/at/all")
    text = (await http.get("/metrics")).text
    labels = 'method="GET",route="/raise/{status}",service="widget-service",status="404"'
    assert f"http_requests_total{{{labels}}}" in text
    assert "/nowhere" not in text


async def test_a_line_is_logged_for_each_request(http, capfd):
    await http.get("/raise/404?token=canary", headers={"X-Request-ID": "line-test-1"})
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    served = next(line for line in lines if line["message"] == "request served")
    assert served["request_id"] == "line-test-1"
    assert served["service"] == "widget-service"
    assert (served["method"], served["route"], served["status"]) == ("GET", "/raise/{status}", 404)
    assert len(served["trace_id"]) == 32
    assert not any("canary" in json.dumps(line) for line in lines)


async def test_trace_of_the_caller_is_continued(http, capfd):
    trace = "0af7651916cd43dd8448eb211c80319c"
    await http.get("/raise/404", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    assert f'"trace_id":"{trace}"' in capfd.readouterr().out


async def test_what_workers_ask_all_the_time_is_not_worth_a_line(http, capfd):
    assert (await http.get("/internal/v1/nothing")).status_code == 404
    assert "request served" not in capfd.readouterr().out


ONE_REQUEST = """
import asyncio, httpx2
from triton_common.app import create_app
from triton_common.settings import CommonSettings

app = create_app(CommonSettings(), name="traced", version="1", description="")

async def ask():
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://test") as http:
        await http.get("/nowhere", headers={"traceparent": "00-%s-b7ad6b7169203331-01"})

asyncio.run(ask())
"""


def test_a_request_is_one_span_where_spans_are_recorded():
    exported = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            exported.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    trace = "0af7651916cd43dd8448eb211c80319c"
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        subprocess.run(
            [sys.executable, "-c", ONE_REQUEST % trace],
            env=os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": url},
            check=True,
            capture_output=True,
            timeout=60,
        )
        server.shutdown()
    requests = [ExportTraceServiceRequest.FromString(body) for body in exported]
    spans = [span for one in requests for of in one.resource_spans for scope in of.scope_spans for span in scope.spans]
    [span] = spans
    assert span.name == "GET unmatched"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, "b7ad6b7169203331")
    assert {a.key: a.value.int_value for a in span.attributes}["http.response.status_code"] == 404


def test_served_app_answers_and_drains_on_sigterm(app, serving):
    with serving(app) as url:
        assert httpx2.get(f"{url}/health/ready").status_code == 200


def test_sigterm_reaches_readiness_and_the_handler_before(app, monkeypatch):
    heard = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: heard.set())
    try:
        _drain_on_sigterm(app)
        os.kill(os.getpid(), signal.SIGTERM)
        eventually(heard.is_set)
        assert app.state.draining.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_routes_declare_their_errors_in_openapi(app):
    document = app.openapi()
    answers = document["paths"]["/widgets"]["post"]["responses"]
    assert "`widget_broken`" in answers["409"]["description"]
    assert answers["409"]["content"]["application/problem+json"]["schema"]["$ref"] == "#/components/schemas/Problem"
    assert set(document["paths"]["/widgets"]["post"]["responses"]["422"]["content"]) == {"application/problem+json"}
    assert "Problem" in document["components"]["schemas"]
    assert "`content_too_large`" in answers["413"]["description"]
    assert "413" not in document["paths"]["/me"]["get"]["responses"], "nothing is sent there"
    assert "/health/ready" not in document["paths"]
