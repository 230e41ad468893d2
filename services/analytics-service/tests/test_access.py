"""Who may do what: tokens, scopes, clients; and prospects that jobs-service does not know."""

import re

import pytest
from conftest import JobsService, NewProspect, Prospect
from test_ingest import GOOD, claims
from uuid_utils.compat import uuid7

from analytics_service.prospects import Prospects
from triton_common.auth import TOKEN_ERRORS
from triton_common.client import ServiceClient
from triton_common.pages import encode_cursor

ONE_ENGINE = True

ROUTES = [
    ("POST", "claims", "data:write"),
    ("POST", "claims/preview", "data:write"),
    ("GET", "batches", "data:read"),
    ("GET", f"batches/{uuid7()}", "data:read"),
    ("DELETE", f"batches/{uuid7()}", "data:write"),
    ("GET", "reports/summary", "data:read"),
    ("GET", "reports/cost-trend", "data:read"),
    ("GET", "reports/conditions", "data:read"),
    ("GET", "reports/utilization", "data:read"),
    ("GET", "reports/pharmacy", "data:read"),
    ("GET", "reports/high-cost", "data:read"),
    ("GET", "reports/readmissions", "data:read"),
    ("GET", "reports/summary/export", "data:read"),
    ("POST", "reports/cohort", "data:read"),
    ("POST", "query", "data:read"),
]
BODIES = {
    "reports/cohort": {"codes": [{"system": "icd10cm", "code": "E11*"}]},
    "query": {"dataset": "claims", "measures": ["members"]},
}


async def call(prospect: Prospect, method: str, path: str, headers: dict[str, str]):
    plain = path.partition("?")[0]
    body = (
        {"json": BODIES[plain]} if plain in BODIES else {"content": claims(GOOD)} if path.startswith("claims") else {}
    )
    kind = {} if "json" in body else {"Content-Type": "text/csv"}
    return await prospect.http.request(method, f"{prospect.path}/{path}", headers=headers | kind, **body)


def test_every_route_is_listed(app):
    paths = app.openapi()["paths"]
    known = {(method, path.split("{prospect_id}/")[1]) for path, kinds in paths.items() for method in kinds}
    assert len(known) == len(ROUTES)


def test_every_route_declares_what_all_may_answer(app):
    common = {
        "401": {error.code for error in TOKEN_ERRORS},
        "403": {"insufficient_scope"},
        "404": {"prospect_not_found"},
        "429": {"analytics_busy"},
        "503": {"clickhouse_unavailable", "keys_unavailable", "service_unreachable", "audit_unavailable"},
    }
    for path, kinds in app.openapi()["paths"].items():
        for method, operation in kinds.items():
            for status, codes in common.items():
                declared = set(re.findall(r"`(\w+)`", operation["responses"][status]["description"]))
                assert codes <= declared, (method, path, status)


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
async def test_without_a_token(prospect: Prospect, method: str, path: str, scope: str):
    answer = await call(prospect, method, path, {})
    assert (answer.status_code, answer.json()["code"]) == (401, "missing_token")


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
async def test_a_parameter_that_a_route_does_not_know_is_named(prospect, method: str, path: str, scope: str):
    answer = await call(prospect, method, f"{path}?sinse=2024-01-01", prospect.headers)
    assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "query.sinse")
    assert (await call(prospect, method, f"{path}?sinse=2024-01-01", {})).status_code == 401


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
async def test_without_the_scope(prospect: Prospect, as_user, method: str, path: str, scope: str):
    others = {"data:read", "data:write", "prospects:read", "jobs:work"} - {scope}
    answer = await call(prospect, method, path, as_user(scopes=others))
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
async def test_another_clients_prospect_is_not_there(prospect: Prospect, as_user, method: str, path: str, scope: str):
    stranger = as_user("editor", client_id=uuid7())
    assert (await call(prospect, method, path, stranger)).json()["code"] == "prospect_not_found"
    await prospect.get("batches")  # a member of staff asked, and the answer is remembered: it still is not there
    answer = await call(prospect, method, path, stranger)
    assert (answer.status_code, answer.json()["code"]) == (404, "prospect_not_found")


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
async def test_a_prospect_that_does_not_exist(prospect: Prospect, method: str, path: str, scope: str):
    prospect.path = prospect.path.replace(str(prospect.id), str(uuid7()))
    answer = await call(prospect, method, path, prospect.headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "prospect_not_found")


async def test_the_clients_own_people_see_it(prospect: Prospect, as_user):
    own = as_user("editor", client_id=prospect.client_id)
    assert (await call(prospect, "POST", "claims", own)).status_code == 201
    assert len((await call(prospect, "GET", "batches", own)).json()["items"]) == 1
    assert (await call(prospect, "GET", "reports/summary", own)).json()["code"] == "group_too_small"


async def test_roles(new_prospect: NewProspect):
    reads = {role: (await call(p, "GET", "batches", p.headers)).status_code for role, p in roles(new_prospect)}
    writes = {role: (await call(p, "POST", "claims", p.headers)).status_code for role, p in roles(new_prospect)}
    assert reads == dict.fromkeys(("admin", "editor", "viewer", "service"), 200)
    assert writes == {"admin": 201, "editor": 201, "viewer": 403, "service": 403}


def roles(new_prospect: NewProspect):
    return [(role, new_prospect(role)) for role in ("admin", "editor", "viewer", "service")]


async def test_a_batch_of_another_prospect_is_not_there(new_prospect: NewProspect):
    one, other = new_prospect(), new_prospect()
    batch = (await one.send("claims", claims(GOOD))).json()["id"]
    for method in ("GET", "DELETE"):
        answer = await call(other, method, f"batches/{batch}", other.headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "batch_not_found")
    assert len((await one.get("batches"))["items"]) == 1


async def test_jobs_service_is_asked_once(prospect: Prospect, jobs_service: JobsService):
    for _ in range(3):
        await prospect.get("batches")
    assert jobs_service.asked.count(prospect.id) == 1


async def test_the_memory_is_bounded(new_prospect: NewProspect, jobs_url: str, app, monkeypatch):
    monkeypatch.setattr("analytics_service.prospects.REMEMBERED", 2)
    many = [new_prospect() for _ in range(4)]
    principal = await app.state.verifier.verify(many[0].headers["Authorization"].removeprefix("Bearer "))
    async with ServiceClient(jobs_url) as jobs:
        prospects = Prospects(jobs)
        for prospect in many:
            await prospects.tenant(principal, prospect.id)
        assert list(prospects._clients) == [prospect.id for prospect in many[-2:]]


async def test_without_jobs_service_nothing_is_guessed(app, prospect: Prospect, monkeypatch):
    async with ServiceClient("http://127.0.0.1:1") as nobody:
        monkeypatch.setattr(app.state.prospects, "_jobs", nobody)
        answer = await call(prospect, "GET", "reports/summary", prospect.headers)
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unreachable")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("reports/conditions?order=name", "query.order"),
        ("reports/conditions?limit=0", "query.limit"),
        ("reports/conditions?limit=201", "query.limit"),
        ("batches?limit=0", "query.limit"),
    ],
)
async def test_parameters_are_checked(prospect: Prospect, path: str, field: str):
    answer = await call(prospect, "GET", path, prospect.headers)
    assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, field)


@pytest.mark.parametrize("cursor", ["first", str(uuid7()), encode_cursor("no id"), encode_cursor(str(uuid7()), "2")])
async def test_a_cursor_that_no_list_gave(prospect: Prospect, cursor: str):
    answer = await call(prospect, "GET", f"batches?cursor={cursor}", prospect.headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def test_a_dataset_that_does_not_exist(prospect: Prospect):
    answer = await prospect.send("eligibility", claims(GOOD))
    assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "path.dataset")


async def test_bodies_that_are_no_files_have_the_common_limit(prospect: Prospect):
    path = f"{prospect.path}/reports/cohort"
    answer = await prospect.http.post(path, content=b"[" * 2_000_000, headers=prospect.headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "content_too_large")


@pytest.mark.parametrize("code", ["e11", "E11'", "E11.9); DROP TABLE claims", "*", ""])
async def test_code_patterns_are_checked(prospect: Prospect, code: str):
    answer = await prospect.http.post(
        f"{prospect.path}/reports/cohort",
        json={"codes": [{"system": "icd10cm", "code": code}]},
        headers=prospect.headers,
    )
    assert answer.status_code == 422
