from typing import Any

import pytest
from fastapi import FastAPI, Response
from openapi_spec_validator import validate
from pydantic import create_model

from console import openapi
from console.main import build
from console.openapi import merge
from console.services import Service, services_of
from console.settings import Settings
from triton_common.auth import CurrentPrincipal

OWN: dict[str, Any] = {"openapi": "3.1.0", "info": {"title": "Triton", "version": "1"}, "paths": {}}
AUTH, JOBS, ANALYTICS, AGENTS = services_of(Settings())


def document(path: str, schemas: dict[str, Any], *, uses: str = "Thing", operation_id: str = "read") -> dict[str, Any]:
    """A service's document with one operation that answers the schema `uses`."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{uses}"}}}
    operation = {"operationId": operation_id, "responses": {"200": {"description": "", "content": content}}}
    return {"paths": {path: {"get": operation}}, "components": {"schemas": schemas}}


def answer_of(merged: dict[str, Any], path: str) -> str:
    """The name of the schema that GET `path` answers."""
    reference: str = merged["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    return reference.removeprefix("#/components/schemas/")


def test_a_service_has_its_paths_by_whole_segments():
    assert JOBS.has("/api/v1/jobs")
    assert JOBS.has("/api/v1/jobs/{job_id}")
    assert not JOBS.has("/api/v1/jobsX")
    assert not JOBS.has("/internal/v1/jobs/{job_id}/claim")


def test_the_same_schema_is_kept_once():
    thing = {"type": "object"}
    merged = merge(
        OWN,
        [
            (AUTH, document("/api/v1/auth/me", {"Thing": thing})),
            (JOBS, document("/api/v1/jobs", {"Thing": thing}, operation_id="list")),
        ],
    )
    assert merged["components"]["schemas"] == {"Thing": thing}
    assert answer_of(merged, "/api/v1/auth/me") == answer_of(merged, "/api/v1/jobs") == "Thing"
    assert "x-missing" not in merged


def test_another_schema_of_the_same_name_is_renamed_with_all_that_use_it():
    def schemas(kind: str) -> dict[str, Any]:
        return {
            "Thing": {"properties": {"part": {"$ref": "#/components/schemas/Part"}}},
            "Part": {"type": kind},
        }

    merged = merge(
        OWN,
        [
            (AUTH, document("/api/v1/auth/me", schemas("string"))),
            (JOBS, document("/api/v1/jobs", schemas("integer"), operation_id="list")),
        ],
    )
    found = merged["components"]["schemas"]
    assert set(found) == {"Thing", "Part", "JobsServiceThing", "JobsServicePart"}
    assert answer_of(merged, "/api/v1/auth/me") == "Thing"
    assert answer_of(merged, "/api/v1/jobs") == "JobsServiceThing"
    assert found["JobsServiceThing"]["properties"]["part"]["$ref"] == "#/components/schemas/JobsServicePart"
    assert found["JobsServicePart"] == {"type": "integer"}


def test_references_of_discriminators_and_security_follow_a_renaming():
    def with_union(kind: str) -> dict[str, Any]:
        part = "#/components/schemas/Part"
        union = {"oneOf": [{"$ref": part}], "discriminator": {"propertyName": "kind", "mapping": {"part": part}}}
        made = document("/x", {"Thing": union, "Part": {"type": kind}})
        made["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": kind}}
        made["paths"]["/x"]["get"]["security"] = [{"bearer": []}]
        return made

    first, second = (Service(name, "", ("/x" if name == "one" else "/y",)) for name in ("one", "two"))
    other = with_union("integer")
    other["paths"] = {"/y": other["paths"]["/x"] | {"parameters": []}}
    merged = merge(OWN, [(first, with_union("string")), (second, other)])
    assert merged["components"]["schemas"]["TwoThing"]["discriminator"]["mapping"] == {
        "part": "#/components/schemas/TwoPart"
    }
    assert merged["paths"]["/y"]["get"]["security"] == [{"TwoBearer": []}]
    assert merged["components"]["securitySchemes"]["TwoBearer"]["scheme"] == "integer"


def test_a_property_called_security_or_mapping_is_left_alone():
    thing = {"properties": {"security": {"type": "string"}, "mapping": {"type": "string"}}, "required": ["security"]}
    merged = merge(OWN, [(JOBS, document("/api/v1/jobs", {"Thing": thing}))])
    assert merged["components"]["schemas"]["Thing"] == thing


def test_operation_ids_stay_unique():
    merged = merge(OWN, [(AUTH, document("/api/v1/auth/me", {})), (JOBS, document("/api/v1/jobs", {}))])
    assert merged["paths"]["/api/v1/auth/me"]["get"]["operationId"] == "read"
    assert merged["paths"]["/api/v1/jobs"]["get"]["operationId"] == "jobs_service_read"


def test_internal_paths_and_what_only_they_use_are_left_out():
    public = document("/api/v1/jobs", {"Thing": {"type": "object"}, "Claim": {"type": "object"}})
    public["paths"]["/internal/v1/jobs/{job_id}/claim"] = document("/", {}, uses="Claim")["paths"]["/"]
    public["tags"] = [{"name": "jobs", "description": "Generation jobs"}]
    merged = merge(OWN, [(JOBS, public)])
    assert set(merged["paths"]) == {"/api/v1/jobs"}
    assert set(merged["components"]["schemas"]) == {"Thing"}
    assert merged["tags"] == [{"name": "jobs", "description": "Generation jobs"}]
    assert merged["paths"]["/api/v1/jobs"]["get"]["tags"] == ["jobs-service"]


@pytest.fixture
def apps(services: dict[str, FastAPI]) -> dict[str, FastAPI]:
    """Each service with a route behind a token, all of the same operation id; jobs-service answers another Item."""
    paths = {"auth": "/auth/me", "jobs": "/jobs", "analytics": "/analytics/prospects", "agents": "/agents"}
    for key, app in services.items():
        item = create_model("Item", **{"name" if key == "jobs" else "title": (str, ...)})  # type: ignore[call-overload]

        async def read(principal: CurrentPrincipal) -> Any:
            return {}

        app.add_api_route(f"/api/v1{paths[key]}", read, methods=["GET"], response_model=item, operation_id="read")
    return services


async def test_the_documents_become_one_that_is_valid(running, platform, apps):
    async with running(build(platform(**apps))) as http:
        merged = (await http.get("/openapi.json")).json()
    validate(merged)
    assert merged["info"]["title"] == "Triton"
    assert merged["servers"] == [{"url": "/"}]
    assert {"/", "/health", "/api/v1/auth/me", "/api/v1/jobs", "/api/v1/agents"} <= set(merged["paths"])
    assert merged["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert merged["paths"]["/api/v1/jobs"]["get"]["security"] == [{"bearer": []}]
    assert answer_of(merged, "/api/v1/jobs") == "JobsServiceItem"
    assert answer_of(merged, "/api/v1/agents") == "Item"
    ids = [operation["operationId"] for item in merged["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


async def test_a_silent_service_is_named_and_the_gap_is_not_kept(running, platform, apps, monkeypatch):
    jobs = apps.pop("jobs")
    settings = platform(**apps)
    async with running(build(settings)) as http:
        merged = (await http.get("/openapi.json")).json()
        assert merged["x-missing"] == ["jobs-service"]
        assert "jobs-service did not answer" in merged["info"]["description"]
        assert "/api/v1/auth/me" in merged["paths"]
        validate(merged)

    settings = platform(jobs=jobs, **apps)
    async with running(build(settings)) as http:
        assert "x-missing" not in (await http.get("/openapi.json")).json()
        asked = []

        async def ask(*args: object, **options: object) -> None:
            asked.append(args)

        monkeypatch.setattr(openapi, "ask", ask)
        assert "x-missing" not in (await http.get("/openapi.json")).json()
        assert not asked


async def test_a_service_that_answers_no_document_is_missing(running, platform):
    app = FastAPI(openapi_url=None)

    @app.get("/openapi.json")
    async def broken() -> Response:
        return Response("hello")

    other = FastAPI(openapi_url=None)

    @other.get("/openapi.json")
    async def other_json() -> list[str]:
        return ["paths"]

    async with running(build(platform(auth=app, jobs=FastAPI(openapi_url=None), analytics=other))) as http:
        merged = (await http.get("/openapi.json")).json()
    assert merged["x-missing"] == ["auth-service", "jobs-service", "analytics-service", "agent-runner"]
