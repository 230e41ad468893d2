"""Every route that answers or changes prospects' data leaves an event in the audit log, whatever it answers."""

import shutil

import pytest
from fastapi.routing import iter_route_contexts

from jobs_service.main import build
from jobs_service.settings import Settings
from triton_common.audit import recorded_routes
from triton_common.testing import WORKSPACE, recorded_events

RECORDED = {
    ("POST", "/api/v1/prospects"): "prospect.created",
    ("GET", "/api/v1/prospects"): "prospect.listed",
    ("GET", "/api/v1/prospects/{prospect_id}"): "prospect.read",
    ("PATCH", "/api/v1/prospects/{prospect_id}"): "prospect.changed",
    ("POST", "/api/v1/prospects/{prospect_id}/archive"): "prospect.archived",
    ("GET", "/api/v1/documents"): "document.listed",
    ("GET", "/api/v1/documents/{document_id}"): "document.read",
    ("GET", "/api/v1/documents/{document_id}/versions"): "document.read",
    ("GET", "/api/v1/documents/{document_id}/facts"): "document.read",
    ("GET", "/api/v1/documents/{document_id}/facts/{fact_id}"): "document.read",
}
# A new route is put here, or records. Of a prospect these answer its id alone, and to workers its name.
SILENT = {
    "/api/v1/clients": "GET POST",
    "/api/v1/clients/{client_id}": "GET PATCH",
    "/api/v1/clients/{client_id}/archive": "POST",
    "/api/v1/value-propositions": "GET POST",
    "/api/v1/value-propositions/{value_proposition_id}": "GET PATCH",
    "/api/v1/value-propositions/{value_proposition_id}/archive": "POST",
    "/api/v1/jobs": "GET POST",
    "/api/v1/jobs/stats": "GET",
    "/api/v1/jobs/cancel": "GET POST",
    "/api/v1/jobs/retry": "GET POST",
    "/api/v1/jobs/{job_id}": "GET",
    "/api/v1/jobs/{job_id}/cancel": "POST",
    "/api/v1/jobs/{job_id}/retry": "POST",
    "/api/v1/jobs/{job_id}/events": "GET",
    "/api/v1/schedules": "GET POST",
    "/api/v1/schedules/{schedule_id}": "DELETE GET PATCH",
    "/api/v1/schedules/{schedule_id}/run": "POST",
    "/api/v1/webhooks": "GET POST",
    "/api/v1/webhooks/{endpoint_id}": "DELETE GET PATCH",
    "/api/v1/webhooks/{endpoint_id}/rotate-secret": "POST",
    "/api/v1/webhooks/{endpoint_id}/test": "POST",
    "/api/v1/webhooks/{endpoint_id}/deliveries": "GET",
    "/api/v1/webhooks/{endpoint_id}/deliveries/{delivery_id}/redeliver": "POST",
    "/internal/v1/jobs/{job_id}/claim": "POST",
    "/internal/v1/jobs/{job_id}/progress": "POST",
    "/internal/v1/jobs/{job_id}/finish": "POST",
    "/internal/v1/jobs/calls": "POST",
}


@pytest.fixture
def told(settings):
    return lambda: recorded_events(settings.audit_spool)


@pytest.fixture
async def document(api):
    client = await api.client()
    job = await api.job(client)
    await api.claim(job)
    await api.finish(job)
    return (await api.get("/api/v1/documents")).json()["items"][0]


def test_every_route_records_or_is_known_to_answer_no_prospects_data():
    app = build(Settings())
    assert recorded_routes(app.routes) == RECORDED
    ours = [route for route in iter_route_contexts(app.routes) if str(route.path_format).count("/v1/")]
    silent = {(method, path) for path, methods in SILENT.items() for method in methods.split()}
    assert {(method, route.path_format) for route in ours for method in route.methods} == silent | RECORDED.keys()


def test_every_action_is_explained():
    text = (WORKSPACE / "docs" / "audit.md").read_text()
    assert [action for action in [*RECORDED.values(), "document.exported"] if f"`{action}`" not in text] == []


def asked(route, document):
    """(path, body) of a good request."""
    method, path = route
    if method == "POST" and path == "/api/v1/prospects":
        return path, {"client_id": document["client_id"], "name": "Another"}
    named = path.format(prospect_id=document["prospect_id"], document_id=document["id"], fact_id="members")
    return named, {"name": "Renamed"} if method == "PATCH" else None


@pytest.mark.parametrize("route", RECORDED, ids=" ".join)
async def test_a_good_request_and_a_refused_one_are_recorded(api, told, document, route):
    (path, body), action = asked(route, document), RECORDED[route]
    before = len(told())
    good = await api.call(route[0], path, json=body)
    assert good.is_success
    stranger = api.bound(await api.client("A stranger"))
    refused = await api.call(route[0], path, json=body, user=stranger)
    scopeless = await api.call(route[0], path, json=body, user=api.as_user("viewer", scopes=set()))
    assert scopeless.status_code == 403
    first, second, third = told()[before:]
    assert {first.action, second.action, third.action} == {action}
    assert [first.outcome, third.outcome] == ["succeeded", "refused"]
    assert first.request_id == good.headers["X-Request-ID"]
    assert first.actor_kind == "user"
    listed = action.endswith(".listed")
    assert first.client_id is None if listed else str(first.client_id) == document["client_id"]
    if listed:  # a stranger sees an empty list
        assert (second.outcome, second.details["items"]) == ("succeeded", 0)
    else:
        assert (refused.status_code, second.outcome) == (404, "refused")
        assert (second.object_id or "") in {document["id"], document["prospect_id"], document["client_id"]}
        assert str(second.client_id) != document["client_id"], "it is told to the client of who asked"


@pytest.mark.parametrize(
    ("form", "action"), [("json", "read"), ("md", "exported"), ("html", "exported"), ("pdf", "exported")]
)
async def test_a_document_in_another_form_is_an_export(api, told, document, form, action):
    await api.get(f"/api/v1/documents/{document['id']}?format={form}")
    last = told()[-1]
    assert (last.action, last.object_kind, last.object_id) == (f"document.{action}", "document", document["id"])
    assert last.details == {"format": form, "prospect_id": document["prospect_id"]}


async def test_no_event_holds_a_name(api, told, document):
    await api.call("PATCH", f"/api/v1/prospects/{document['prospect_id']}", json={"name": "A secret plan"})
    assert told()[-1].details == {"fields": ["name"]}
    assert not any("plan" in event.model_dump_json() for event in told())


async def test_without_its_spool_nothing_is_told_and_nothing_changed(api, settings, document):
    shutil.rmtree(settings.audit_spool)
    for route in RECORDED:
        path, body = asked(route, document)
        answer = await api.call(route[0], path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable"), route
        assert "Retry-After" in answer.headers
    assert [row["name"] for row in api.sql("SELECT name FROM prospects WHERE archived_at IS NULL")] == ["A health plan"]
    assert (await api.get(f"/api/v1/jobs/{document['job_id']}")).status_code == 200
