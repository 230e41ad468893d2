"""Every route of a prospect's data leaves an event in the audit log, whatever it answers."""

import shutil

import pytest
from fastapi.routing import iter_route_contexts
from test_ingest import GOOD, claims
from uuid_utils.compat import uuid7

from triton_common.audit import recorded_routes
from triton_common.testing import WORKSPACE, recorded_events

ONE_ENGINE = True

PREFIX = "/api/v1/analytics/prospects/{prospect_id}"
RECORDED = {
    ("POST", "/{dataset}"): ("data.loaded", {"dataset": "claims", "batch_id": "", "rows": 1}),
    ("GET", "/batches"): ("batch.listed", {}),
    ("GET", "/batches/{batch_id}"): ("batch.read", {"batch_id": ""}),
    ("GET", "/reports/summary"): ("report.read", {"report": "summary"}),
    ("GET", "/reports/cost-trend"): ("report.read", {"report": "cost-trend"}),
    ("GET", "/reports/conditions"): ("report.read", {"report": "conditions"}),
    ("GET", "/reports/utilization"): ("report.read", {"report": "utilization"}),
    ("GET", "/reports/pharmacy"): ("report.read", {"report": "pharmacy"}),
    ("GET", "/reports/high-cost"): ("report.read", {"report": "high-cost"}),
    ("GET", "/reports/readmissions"): ("report.read", {"report": "readmissions"}),
    ("GET", "/reports/{name}/export"): ("report.exported", {"name": "summary"}),
    ("POST", "/query"): ("data.queried", {}),
    ("POST", "/{dataset}/preview"): ("data.previewed", {"dataset": "claims"}),
    ("POST", "/reports/cohort"): ("report.read", {"report": "cohort"}),
    ("DELETE", "/batches/{batch_id}"): ("data.deleted", {"batch_id": ""}),
}


@pytest.fixture
def told(settings):
    return lambda: recorded_events(settings.audit_spool)


def ask(prospect, route, batch_id, headers):
    method, path = route
    content = {"json": {"codes": [{"system": "icd10cm", "code": "E11*"}]}} if "cohort" in path else {}
    if path == "/query":
        content = {"json": {"dataset": "claims", "measures": ["members"]}}
    if "dataset" in path:
        content, headers = {"content": claims(GOOD)}, headers | {"Content-Type": "text/csv"}
    named = (prospect.path + path).format(dataset="claims", name="summary", batch_id=batch_id)
    return prospect.http.request(method, named, headers=headers, **content)


def test_every_route_records(app):
    ours = [route for route in iter_route_contexts(app.routes) if str(route.path_format).startswith("/api/")]
    assert {(method, route.path_format) for route in ours for method in route.methods} == set(
        recorded_routes(app.routes)
    )
    assert recorded_routes(app.routes) == {
        (method, PREFIX + path): action for (method, path), (action, _) in RECORDED.items()
    }


def test_every_action_is_explained():
    text = (WORKSPACE / "docs" / "audit.md").read_text()
    assert [action for action, _ in RECORDED.values() if f"`{action}`" not in text] == []


async def test_what_is_asked_is_recorded(prospect, told):
    batch_id = (await prospect.send("claims", claims(GOOD))).json()["id"]
    for route, (action, details) in RECORDED.items():
        answer = await ask(prospect, route, batch_id, prospect.headers)
        assert answer.is_success, route
        last = told()[-1]
        assert (last.action, last.outcome, last.source) == (action, "succeeded", "analytics-service")
        assert (last.object_kind, last.object_id, last.client_id) == ("prospect", str(prospect.id), prospect.client_id)
        assert last.details == {name: value or batch_id for name, value in details.items()}
        assert last.request_id == answer.headers["X-Request-ID"]


async def test_what_is_refused_is_recorded(prospect, told, as_user):
    for route, (action, _) in RECORDED.items():
        for who, status in ((as_user("admin", client_id=uuid7()), 404), (as_user("viewer", scopes=set()), 403)):
            before = len(told())
            assert (await ask(prospect, route, uuid7(), who)).status_code == status, route
            (event,) = told()[before:]
            assert (event.action, event.outcome, event.object_id) == (action, "refused", str(prospect.id))
            assert event.client_id != prospect.client_id
    assert (await ask(prospect, ("GET", "/batches/{batch_id}"), batch := uuid7(), prospect.headers)).status_code == 404
    assert (told()[-1].outcome, told()[-1].details) == ("refused", {"batch_id": str(batch)})


async def test_a_worker_is_a_service_and_its_request_id_leads_to_its_job(new_prospect, told):
    prospect = new_prospect("service")
    headers = prospect.headers | {"X-Request-ID": "request-of-a-job"}
    assert (await ask(prospect, ("GET", "/reports/summary"), "", headers)).status_code == 200
    assert (told()[-1].actor_kind, told()[-1].request_id) == ("service", "request-of-a-job")


async def test_what_was_not_loaded_leaves_no_event(prospect, told):
    before = len(told())
    assert (await prospect.send("claims", "nothing\n1\n")).status_code == 422
    assert told()[before:] == []


async def test_without_its_spool_nothing_is_told(prospect, settings):
    batch_id = (await prospect.send("claims", claims(GOOD))).json()["id"]
    shutil.rmtree(settings.audit_spool)
    try:
        for route in RECORDED:
            answer = await ask(prospect, route, batch_id, prospect.headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable"), route
    finally:
        settings.audit_spool.mkdir()
