"""What a stranger is told: every route of the platform, asked through the gateway for objects of another client.

A route that the table does not know fails the test, so whoever adds one says here what strangers get from it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import httpx2
import pytest
from uuid_utils.compat import uuid7

from triton_common.auth import ALL_SCOPES, SCOPES_OF_ROLE, STAFF_SCOPES
from triton_common.testing import eventually

pytestmark = [pytest.mark.demo, pytest.mark.timeout(300)]

LISTED: Final = 200  # as if there were nothing: the answer for ids that nobody has, without a word of theirs
STAFF: Final = 403  # of no client at all
ANYONE: Final = 0  # names no object: a word of theirs would be a leak all the same
REFUSALS: Final = {"insufficient_scope", "session_required", "staff_only", "chain_of_all_clients"}
SERVICES: Final = {1: "auth", 2: "jobs", 3: "analytics", 4: "agent-runner"}  # by their place in the block of ports
PASSWORD: Final = "four words of no one"  # of users that live for a minute
CSV: Final = {"content-type": "text/csv"}
JOB: Final = {"job_type": "value_proposition"}
WEEKLY: Final = JOB | {"name": "Weekly", "cron": "0 3 * * 1"}
THEIRS: Final = {"prospect_id": "{prospect_id}", "value_proposition_id": "{value_proposition_id}"}


class Ask(NamedTuple):
    """A request that names objects by `{…}`, and what strangers get whose scopes suffice: the code of a 404, or one of
    the numbers above. The others of them are forbidden it. `path` where the request has another than the route."""

    route: str
    answer: str | int
    body: Any = None
    query: str = ""
    path: str = ""
    headers: Mapping[str, str] = MappingProxyType({})

    def __str__(self) -> str:
        return f"{self.route}{self.query}{'' if self.body is None else ' ' + json.dumps(self.body)}{self.path}"


# In an order in which staff can do it all.
TABLE: Final = [
    Ask("GET /", ANYONE),
    Ask("GET /health", ANYONE),
    Ask("GET /api/v1/agents", ANYONE),
    Ask("GET /api/v1/agents/runs", LISTED, query="?job_id={job_id}"),
    Ask("GET /api/v1/agents/runs/{run_id}", "agent_run_not_found"),
    # the catalogue
    Ask("GET /api/v1/clients", LISTED, query="?include_archived=true"),
    Ask("POST /api/v1/clients", STAFF, {"name": "Another"}),
    Ask("GET /api/v1/clients/{client_id}", "client_not_found"),
    Ask("PATCH /api/v1/clients/{client_id}", "client_not_found", {"name": "Taken"}),
    Ask("GET /api/v1/prospects", LISTED),
    Ask("GET /api/v1/prospects", LISTED, query="?client_id={client_id}&include_archived=true"),
    Ask("POST /api/v1/prospects", "client_not_found", {"client_id": "{client_id}", "name": "Planted"}),
    Ask("GET /api/v1/prospects/{prospect_id}", "prospect_not_found"),
    Ask("PATCH /api/v1/prospects/{prospect_id}", "prospect_not_found", {"name": "Taken"}),
    Ask("GET /api/v1/value-propositions", LISTED),
    Ask("GET /api/v1/value-propositions", LISTED, query="?client_id={client_id}&include_archived=true"),
    Ask(
        "POST /api/v1/value-propositions",
        "client_not_found",
        {"client_id": "{client_id}", "name": "Planted", "content": "{content}"},
    ),
    Ask("GET /api/v1/value-propositions/{value_proposition_id}", "value_proposition_not_found"),
    Ask("PATCH /api/v1/value-propositions/{value_proposition_id}", "value_proposition_not_found", {"name": "Taken"}),
    # jobs, documents, schedules
    Ask("GET /api/v1/jobs", LISTED),
    Ask("GET /api/v1/jobs", LISTED, query="?client_id={client_id}"),
    Ask("GET /api/v1/jobs", LISTED, query="?prospect_id={prospect_id}"),
    Ask("GET /api/v1/jobs/stats", LISTED, query="?client_id={client_id}"),
    Ask("POST /api/v1/jobs", "prospect_not_found", JOB | THEIRS),
    Ask("GET /api/v1/jobs/{job_id}", "job_not_found"),
    Ask("GET /api/v1/jobs/{job_id}/events", "job_not_found"),
    Ask("GET /api/v1/jobs/{job_id}/events", "job_not_found", headers={"accept": "text/event-stream"}),
    Ask("POST /api/v1/jobs/cancel", LISTED, {"ids": ["{job_id}", "{waiting_job_id}"]}),
    Ask("POST /api/v1/jobs/cancel", LISTED, {"client_id": "{client_id}", "dry_run": True}),
    Ask("POST /api/v1/jobs/{job_id}/cancel", "job_not_found"),
    Ask("POST /api/v1/jobs/retry", LISTED, {"prospect_id": "{prospect_id}"}),
    Ask("POST /api/v1/jobs/{job_id}/retry", "job_not_found"),
    Ask("GET /api/v1/documents", LISTED),
    Ask("GET /api/v1/documents", LISTED, query="?client_id={client_id}"),
    Ask("GET /api/v1/documents", LISTED, query="?prospect_id={prospect_id}&job_id={job_id}"),
    Ask("GET /api/v1/documents/{document_id}", "document_not_found"),
    Ask("GET /api/v1/documents/{document_id}", "document_not_found", query="?format=md"),
    Ask("GET /api/v1/documents/{document_id}", "document_not_found", query="?format=html"),
    Ask("GET /api/v1/documents/{document_id}", "document_not_found", query="?format=pdf"),
    Ask("GET /api/v1/documents/{document_id}", "document_not_found", headers={"accept": "text/html"}),
    Ask("GET /api/v1/documents/{document_id}/versions", "document_not_found"),
    Ask("GET /api/v1/documents/{document_id}/facts", "document_not_found"),
    Ask("GET /api/v1/documents/{document_id}/facts/{fact_id}", "document_not_found"),
    Ask("GET /api/v1/schedules", LISTED),
    Ask("GET /api/v1/schedules", LISTED, query="?client_id={client_id}"),
    Ask("POST /api/v1/schedules", "prospect_not_found", WEEKLY | THEIRS),
    Ask("GET /api/v1/schedules/{schedule_id}", "schedule_not_found"),
    Ask("PATCH /api/v1/schedules/{schedule_id}", "schedule_not_found", {"enabled": False}),
    Ask("POST /api/v1/schedules/{schedule_id}/run", "schedule_not_found"),
    Ask("GET /api/v1/jobs", LISTED, query="?schedule_id={schedule_id}"),
    # webhooks
    Ask("GET /api/v1/webhooks", LISTED),
    Ask("GET /api/v1/webhooks", LISTED, query="?client_id={client_id}"),
    Ask(
        "POST /api/v1/webhooks",
        "client_not_found",
        {"url": "https://hooks.example.com/planted", "client_id": "{client_id}"},
    ),
    Ask("GET /api/v1/webhooks/{endpoint_id}", "webhook_endpoint_not_found"),
    Ask("PATCH /api/v1/webhooks/{endpoint_id}", "webhook_endpoint_not_found", {"description": "Taken"}),
    Ask("GET /api/v1/webhooks/{endpoint_id}/deliveries", "webhook_endpoint_not_found"),
    Ask("POST /api/v1/webhooks/{endpoint_id}/test", "webhook_endpoint_not_found"),
    Ask("POST /api/v1/webhooks/{endpoint_id}/deliveries/{delivery_id}/redeliver", "webhook_endpoint_not_found"),
    Ask("POST /api/v1/webhooks/{endpoint_id}/rotate-secret", "webhook_endpoint_not_found", {"force": True}),
    # a prospect's data
    Ask("GET /api/v1/analytics/prospects/{prospect_id}/batches", "prospect_not_found"),
    Ask("GET /api/v1/analytics/prospects/{prospect_id}/batches/{batch_id}", "prospect_not_found"),
    Ask("GET /api/v1/analytics/prospects/{prospect_id}/reports/summary", "prospect_not_found"),
    Ask("GET /api/v1/analytics/prospects/{prospect_id}/reports/cost-trend", "prospect_not_found"),
    Ask("GET /api/v1/analytics/prospects/{prospect_id}/reports/conditions", "prospect_not_found"),
    Ask(
        "POST /api/v1/analytics/prospects/{prospect_id}/reports/cohort",
        "prospect_not_found",
        {"codes": [{"system": "icd10cm", "code": "E11.9"}]},
    ),
    Ask(
        "POST /api/v1/analytics/prospects/{prospect_id}/{dataset}",
        "prospect_not_found",
        "member_id,claim_id,claim_type,service_date,paid,member_paid\nM-1,C-1,other,2025-01-05,1,1\n",
        query="?on_error=skip",
        headers=CSV,
    ),
    # accounts
    Ask("GET /api/v1/auth/.well-known/jwks.json", ANYONE),
    Ask("POST /api/v1/auth/login", ANYONE, {}),
    Ask("POST /api/v1/auth/refresh", ANYONE, {}),
    Ask("POST /api/v1/auth/logout", ANYONE, {}),
    Ask("POST /api/v1/auth/token", ANYONE, {}),
    Ask("GET /api/v1/auth/sso/login", ANYONE),
    Ask("GET /api/v1/auth/sso/callback", ANYONE),
    Ask("POST /api/v1/auth/sso/token", ANYONE, {}),
    Ask("GET /api/v1/auth/me", ANYONE),
    Ask("PUT /api/v1/auth/me/password", ANYONE, {}),
    Ask("GET /api/v1/auth/sessions", ANYONE),
    Ask("DELETE /api/v1/auth/sessions", ANYONE),
    Ask("GET /api/v1/auth/api-keys", ANYONE),
    Ask("POST /api/v1/auth/api-keys", ANYONE, {}),
    Ask("GET /api/v1/auth/users", LISTED),
    Ask("GET /api/v1/auth/users", LISTED, query="?client_id={client_id}"),
    Ask("GET /api/v1/auth/users", LISTED, query="?email={email}"),
    Ask(
        "POST /api/v1/auth/users",
        "user_client_not_found",
        {"email": "planted@example.com", "password": PASSWORD, "role": "viewer", "client_id": "{client_id}"},
    ),
    Ask(
        "PATCH /api/v1/auth/users/{user_id}",
        "user_client_not_found",
        {"client_id": "{client_id}"},
        path="/api/v1/auth/users/{own_user_id}",
    ),
    Ask("GET /api/v1/auth/users/{user_id}", "user_not_found"),
    Ask("PATCH /api/v1/auth/users/{user_id}", "user_not_found", {"role": "viewer"}),
    Ask("GET /api/v1/auth/users/{user_id}/sessions", "user_not_found"),
    Ask("GET /api/v1/auth/users/{user_id}/api-keys", "user_not_found"),
    Ask("DELETE /api/v1/auth/users/{user_id}/sso-identities", "user_not_found"),
    Ask("DELETE /api/v1/auth/api-keys/{key_id}", "api_key_not_found"),
    Ask("DELETE /api/v1/auth/sessions/{session_id}", "session_not_found"),
    Ask("DELETE /api/v1/auth/users/{user_id}/sessions", "user_not_found"),
    Ask("PUT /api/v1/auth/users/{user_id}/password", "user_not_found", {"password": PASSWORD}),
    Ask("POST /api/v1/auth/users/{user_id}/deactivate", "user_not_found"),
    Ask("POST /api/v1/auth/users/{user_id}/activate", "user_not_found"),
    # the audit log, which also tells strangers of what they asked for themselves
    Ask("GET /api/v1/auth/audit", LISTED, query="?client_id={client_id}"),
    Ask("GET /api/v1/auth/audit", LISTED, query="?object_id={user_id}&outcome=succeeded"),
    Ask("GET /api/v1/auth/audit", LISTED, query="?actor={user_id}"),
    Ask("GET /api/v1/auth/audit", LISTED, query="?action=user.*&outcome=succeeded"),
    Ask("GET /api/v1/auth/audit.csv", LISTED, query="?client_id={client_id}"),
    Ask("GET /api/v1/auth/audit.csv", LISTED, query="?action=user.*&outcome=succeeded"),
    Ask("GET /api/v1/auth/audit/verify", STAFF),
    # what is the whole platform's
    Ask("GET /api/v1/auth/service-accounts", STAFF),
    Ask(
        "POST /api/v1/auth/service-accounts",
        STAFF,
        {"name": "planted", "scopes": ["jobs:read"], "client_id": "{client_id}"},
    ),
    Ask("GET /api/v1/auth/service-accounts/{account_id}", STAFF),
    Ask("PATCH /api/v1/auth/service-accounts/{account_id}", STAFF, {"description": "Taken"}),
    Ask("POST /api/v1/auth/service-accounts/{account_id}/rotate-secret", STAFF, {}),
    Ask("POST /api/v1/auth/service-accounts/{account_id}/deactivate", STAFF),
    Ask("POST /api/v1/auth/service-accounts/{account_id}/activate", STAFF),
    Ask("GET /api/v1/auth/keys", STAFF),
    Ask("POST /api/v1/auth/keys/rotate", STAFF, {}),
    Ask("DELETE /api/v1/auth/keys/{kid}", STAFF),
    # the end of things
    Ask("DELETE /api/v1/webhooks/{endpoint_id}", "webhook_endpoint_not_found"),
    Ask("DELETE /api/v1/schedules/{schedule_id}", "schedule_not_found"),
    Ask("DELETE /api/v1/analytics/prospects/{prospect_id}/batches/{batch_id}", "prospect_not_found"),
    Ask("POST /api/v1/value-propositions/{value_proposition_id}/archive", "value_proposition_not_found"),
    Ask("POST /api/v1/prospects/{prospect_id}/archive", "prospect_not_found"),
    Ask("POST /api/v1/clients/{client_id}/archive", "client_not_found"),
]
# Together with an object of their own, one of the others': not even staff may do that.
WITH_OWN: Final = [
    Ask(
        "GET /api/v1/analytics/prospects/{prospect_id}/batches/{batch_id}",
        "batch_not_found",
        path="/api/v1/analytics/prospects/{own_prospect_id}/batches/{batch_id}",
    ),
    Ask(
        "DELETE /api/v1/analytics/prospects/{prospect_id}/batches/{batch_id}",
        "batch_not_found",
        path="/api/v1/analytics/prospects/{own_prospect_id}/batches/{batch_id}",
    ),
    Ask(
        "POST /api/v1/webhooks/{endpoint_id}/deliveries/{delivery_id}/redeliver",
        "webhook_delivery_not_found",
        path="/api/v1/webhooks/{own_endpoint_id}/deliveries/{delivery_id}/redeliver",
    ),
    Ask("POST /api/v1/jobs", "prospect_not_found", JOB | THEIRS | {"value_proposition_id": "{own_proposition_id}"}),
    Ask("POST /api/v1/jobs", "value_proposition_not_found", JOB | THEIRS | {"prospect_id": "{own_prospect_id}"}),
    Ask(
        "POST /api/v1/schedules", "value_proposition_not_found", WEEKLY | THEIRS | {"prospect_id": "{own_prospect_id}"}
    ),
]
# Not of the gateway; here by the services' own doors.
INTERNAL: Final = [
    Ask("POST /internal/v1/jobs/{job_id}/claim", STAFF, {"worker": "w"}),
    Ask("POST /internal/v1/jobs/{job_id}/progress", STAFF, {"attempt": 1, "progress": 1, "stage": "writing"}),
    Ask("POST /internal/v1/jobs/{job_id}/finish", STAFF, {"attempt": 1, "outcome": "released"}),
    Ask(
        "POST /internal/v1/jobs/calls",
        STAFF,
        {"calls": [{"call": "claim", "job_id": "{job_id}", "body": {"worker": "w"}}]},
    ),
    Ask("GET /internal/v1/principal", ANYONE),
]


@dataclass
class World:
    """Objects of one client by their names in paths, and the tokens of another's people and machines."""

    http: httpx2.Client
    port: int
    staff: str
    theirs: dict[str, str]
    own: dict[str, Any]
    strangers: dict[str, str] = field(default_factory=dict)

    @property
    def words(self) -> set[str]:
        """What no stranger may read."""
        return {word for name, word in self.theirs.items() if name not in ("kid", "dataset", "fact_id")}

    def ask(self, ask: Ask, token: str, named: dict[str, Any], *, base: str = "") -> tuple[int, str]:
        """The answer's status and text, in which the ids that the request named stand as their names."""

        def fill(text: str) -> str:
            content = json.dumps(named["content"])
            return re.sub(r"\{(\w+)\}", lambda m: str(named[m[1]]), text.replace('"{content}"', content))

        method, _, route = ask.route.partition(" ")
        kinds = {"authorization": f"Bearer {token}", "x-request-id": "one-for-both", "content-type": "application/json"}
        body = ask.body if isinstance(ask.body, str) or ask.body is None else json.dumps(ask.body)
        answer = self.http.request(
            method,
            base + fill((ask.path or route) + ask.query),
            content=None if body is None else fill(body),
            headers=kinds | dict(ask.headers),
        )
        text = answer.text
        for name in set(re.findall(r"\{(\w+)\}", f"{ask.path or route}{ask.query}{body}")) - {"content"}:
            text = text.replace(str(named[name]), f"{{{name}}}")
        return answer.status_code, text

    def documents(self) -> dict[str, int]:
        """Every route of the services' own documents, and the place of its service."""
        found: dict[str, int] = {}
        for place in SERVICES:
            document = self.http.get(f"http://127.0.0.1:{self.port + place}/openapi.json").raise_for_status().json()
            found |= dict.fromkeys(_routes(document), place)
        return found

    def as_it_is(self) -> dict[str, Any]:
        """What strangers could have changed."""
        headers = {"authorization": f"Bearer {self.staff}"}
        paths = [ask.route.removeprefix("GET ") for ask in TABLE if ask.route.startswith("GET ") and "{" in ask.route]
        paths += ["/api/v1/jobs/{waiting_job_id}"]
        known: dict[str, Any] = {}
        for path in paths:
            found = self.http.get(path.format(**self.theirs), headers=headers).raise_for_status().json()
            # webhooks are sent again and again meanwhile: of lists, what is in them
            known[path] = [item.get("id", item) for item in found["items"]] if "items" in found else found
        return known


def _routes(document: dict[str, Any]) -> set[str]:
    return {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}


@pytest.fixture(scope="module")
def world(platform: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    platform.log_in()  # its tokens are of before other tests' accidents
    folder: Path = tmp_path_factory.mktemp("tenancy")

    def create(path: str, token: str | None = None, **body: Any) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        created: dict[str, Any] = platform.http.post(path, json=body, headers=headers).raise_for_status().json()
        return created

    def log_in(email: str) -> str:
        token: str = create("/auth/login", email=email, password=PASSWORD)["access_token"]
        return token

    def person(email: str, role: str, client_id: str) -> str:
        user_id: str = create("/auth/users", email=email, password=PASSWORD, role=role, client_id=client_id)["id"]
        return user_id

    def endpoint(name: str, client_id: str) -> str:
        url = f"https://hooks.{name.lower()}.example/in"
        endpoint_id: str = create("/webhooks", url=url, client_id=client_id)["id"]
        return endpoint_id

    theirs = platform.client_with_data(folder / "theirs", "Harbourlight", "Fernbrook", "Lanternwood")
    theirs["endpoint_id"] = endpoint("Harbourlight", theirs["client_id"])
    of_both = theirs["prospect_id"], theirs["value_proposition_id"]
    theirs["job_id"] = platform.submit(*of_both)
    theirs |= {"document_id": platform.completes(theirs["job_id"])["document_id"], "fact_id": "members"}
    runs = {"job_id": theirs["job_id"]}
    kept = eventually(lambda: platform.http.get("/agents/runs", params=runs).raise_for_status().json()["items"])
    theirs["run_id"] = kept[0]["id"]
    theirs["delivery_id"] = create(f"/webhooks/{theirs['endpoint_id']}/test")["id"]
    both = {"prospect_id": of_both[0], "value_proposition_id": of_both[1]}
    theirs["schedule_id"] = create("/schedules", **WEEKLY | both)["id"]
    theirs["email"] = "rose@harbourlight.example"
    theirs["user_id"] = person(theirs["email"], "editor", theirs["client_id"])
    rose = log_in(theirs["email"])
    theirs["key_id"] = create("/auth/api-keys", rose, name="Rosebud", scopes=["jobs:read"])["id"]
    listed = platform.http.get("/auth/sessions", headers={"authorization": f"Bearer {rose}"}).raise_for_status()
    theirs["session_id"] = listed.json()["items"][0]["id"]
    account = {"name": "harbourlight-etl", "scopes": ["jobs:read"], "client_id": theirs["client_id"]}
    theirs["account_id"] = create("/auth/service-accounts", **account)["id"]
    theirs["kid"] = platform.http.get("/auth/keys").raise_for_status().json()["items"][0]["kid"]
    theirs |= {"dataset": "claims", "names": "Fernbrook", "more": "Lanternwood", "most": "Rosebud"}

    mine = platform.client_with_data(folder / "own", "Southwind", "Millpond", "Weathervane")
    client_id = mine["client_id"]
    content = platform.http.get(f"/value-propositions/{mine['value_proposition_id']}").json()["content"]
    own: dict[str, Any] = {
        "own_prospect_id": mine["prospect_id"],
        "own_proposition_id": mine["value_proposition_id"],
        "own_endpoint_id": endpoint("Southwind", client_id),
        "own_user_id": person("edith@southwind.example", "editor", client_id),
        "content": content,
    }
    person("adam@southwind.example", "admin", client_id)
    edith, adam = log_in("edith@southwind.example"), log_in("adam@southwind.example")
    scopes = sorted(SCOPES_OF_ROLE["editor"])
    machine = create(
        "/auth/service-accounts",
        name="southwind-etl",
        scopes=sorted(ALL_SCOPES - STAFF_SCOPES),
        client_id=client_id,
    )
    form = {"grant_type": "client_credentials"}
    secret = (machine["name"], machine["client_secret"])
    granted = platform.http.post("/auth/token", data=form, auth=secret).raise_for_status().json()
    strangers = {
        "an editor": edith,
        "an admin": adam,
        "an API key": create("/auth/api-keys", edith, name="Key", scopes=scopes)["key"],
        "a service account": granted["access_token"],
    }
    root = str(platform.http.base_url.copy_with(path="/")).rstrip("/")
    with httpx2.Client(base_url=root, timeout=30) as http:
        staff = platform.http.headers["authorization"].removeprefix("Bearer ")
        with platform.frozen("agent-worker"):  # a job that waits is there for the taking
            theirs["waiting_job_id"] = platform.submit(*of_both)
            yield World(http, platform.port, staff, theirs, own, strangers)


@pytest.fixture(scope="module")
def before(world: World) -> dict[str, Any]:
    return world.as_it_is()


def nobodys(theirs: dict[str, str]) -> dict[str, str]:
    """Ids that nobody has, in the place of those that are ids."""
    return {
        name: str(uuid7()) if name.endswith("_id") else "no@body.example" if name == "email" else known
        for name, known in theirs.items()
    }


def told(world: World, ask: Ask, *, base: str = "") -> None:
    """Asserts that each stranger is told of theirs what they are told of what nobody has, and what the table says."""
    got: set[str | int] = set()
    for stranger, token in world.strangers.items():
        status, text = world.ask(ask, token, world.theirs | world.own, base=base)
        leaked = {word for word in world.words if word in text}
        assert not leaked, f"{stranger} reads {leaked}: {text}"
        if ask.answer == ANYONE:
            continue
        unknown = world.ask(ask, token, nobodys(world.theirs) | world.own, base=base)
        assert (status, text) == unknown, f"{stranger} can tell theirs from what nobody has"
        code = json.loads(text).get("code") if status >= 400 else None
        if status == 403:
            assert code in REFUSALS, stranger
            got.add(STAFF)
        else:
            assert status in (200, 404), f"{stranger}: {status} {text}"
            got.add(code or LISTED)
    assert not got or got - {STAFF} == {ask.answer} - {STAFF}, got


def test_the_table_has_every_route(world):
    public = _routes(world.http.get("/openapi.json").raise_for_status().json())
    assert public == {ask.route for ask in TABLE}
    assert set(world.documents()) - public == {ask.route for ask in INTERNAL}
    assert {ask.route for ask in WITH_OWN} <= public


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("ask", TABLE + WITH_OWN, ids=str)
def test_a_stranger_is_told_as_if_it_did_not_exist(world, ask):
    told(world, ask)


@pytest.mark.parametrize("ask", INTERNAL, ids=str)
def test_the_gateway_knows_no_internal_route_and_strangers_find_no_other_way(world, ask):
    for token in (world.staff, *world.strangers.values()):
        status, text = world.ask(ask, token, world.theirs | world.own)
        assert (status, json.loads(text)["code"]) == (404, "not_found")
    told(world, ask, base=f"http://127.0.0.1:{world.port + world.documents()[ask.route]}")


def test_strangers_have_changed_nothing(world, before):
    assert world.as_it_is() == before


@pytest.mark.parametrize("ask", [ask for ask in TABLE if ask.answer != ANYONE], ids=str)
def test_staff_are_told_what_strangers_are_not(world, ask):
    """Else the table would hold for requests that nobody could make."""
    status, text = world.ask(ask, world.staff, world.theirs | world.own)
    assert status < 400 or status == 409, text
    if ask.answer == LISTED:
        assert text != world.ask(ask, world.strangers["an admin"], world.theirs | world.own)[1]
