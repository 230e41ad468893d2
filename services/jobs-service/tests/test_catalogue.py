"""Clients, value propositions and prospects."""

from typing import Any

import pytest

NOUNS = ["clients", "value-propositions", "prospects"]
CODES = {"clients": "client", "value-propositions": "value_proposition", "prospects": "prospect"}


async def body_for(api, noun: str, client: dict[str, Any] | None = None) -> dict[str, Any]:
    if noun == "clients":
        return {"name": "Acme"}
    body: dict[str, Any] = {"client_id": (client or await api.client())["id"], "name": "Thing"}
    return body | ({"content": api.content} if noun == "value-propositions" else {})


@pytest.mark.parametrize("noun", NOUNS)
async def test_create_answers_201_and_where_it_is(api, noun: str):
    answer = await api.post(f"/api/v1/{noun}", await body_for(api, noun))
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/api/v1/{noun}/{answer.json()['id']}"
    assert answer.json()["archived_at"] is None
    assert answer.json()["created_at"].endswith("Z")
    assert (await api.get(answer.headers["Location"])).json() == answer.json()


@pytest.mark.parametrize("noun", NOUNS)
async def test_list_is_newest_first_in_pages(api, noun: str):
    client = await api.client() if noun != "clients" else None
    made = [(await api.made(f"/api/v1/{noun}", await body_for(api, noun, client)))["id"] for _ in range(3)]
    first = (await api.get(f"/api/v1/{noun}", params={"limit": 2})).json()
    assert [item["id"] for item in first["items"]] == [made[2], made[1]]
    second = (await api.get(f"/api/v1/{noun}", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [item["id"] for item in second["items"]] == [made[0]]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("noun", NOUNS)
@pytest.mark.parametrize("cursor", ["x", "%00", "WzEsICJub3QtYS11dWlkIl0", "bnVsbA"])
async def test_a_cursor_of_nobodys_is_a_bad_request(api, noun: str, cursor: str):
    answer = await api.get(f"/api/v1/{noun}?cursor={cursor}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize("noun", ["value-propositions", "prospects"])
async def test_list_of_one_client(api, noun: str):
    ours, other = await api.client(), await api.client("Other")
    made = await api.made(f"/api/v1/{noun}", await body_for(api, noun, ours))
    await api.made(f"/api/v1/{noun}", await body_for(api, noun, other))
    listed = (await api.get(f"/api/v1/{noun}", params={"client_id": ours["id"]})).json()
    assert [item["id"] for item in listed["items"]] == [made["id"]]


@pytest.mark.parametrize("noun", NOUNS)
async def test_change_leaves_the_rest(api, noun: str):
    made = await api.made(f"/api/v1/{noun}", await body_for(api, noun))
    answer = await api.call("PATCH", f"/api/v1/{noun}/{made['id']}", json={"name": "  Renamed "})
    assert answer.status_code == 200
    changed = answer.json()
    assert changed["updated_at"] > made["updated_at"]
    assert changed == made | {"name": "Renamed", "updated_at": changed["updated_at"]}


async def test_content_of_a_value_proposition_is_replaced(api):
    made = await api.value_proposition(await api.client())
    content = api.content | {"ramp_up_months": 6}
    answer = await api.call("PATCH", f"/api/v1/value-propositions/{made['id']}", json={"content": content})
    assert answer.json()["content"]["ramp_up_months"] == 6
    assert answer.json()["name"] == made["name"]


@pytest.mark.parametrize("noun", NOUNS)
@pytest.mark.parametrize("body", [{}, {"name": None}, {"name": " "}, {"name": "a\x00b"}, {"nome": "x"}])
async def test_a_change_that_makes_no_sense_is_refused(api, noun: str, body: dict[str, Any]):
    made = await api.made(f"/api/v1/{noun}", await body_for(api, noun))
    answer = await api.call("PATCH", f"/api/v1/{noun}/{made['id']}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


@pytest.mark.parametrize("noun", NOUNS)
@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\x00b", 7, None])
async def test_a_name_that_is_none_is_refused_by_field(api, noun: str, name: object):
    answer = await api.post(f"/api/v1/{noun}", await body_for(api, noun) | {"name": name})
    assert answer.status_code == 422
    assert [detail["field"] for detail in answer.json()["details"]] == ["body.name"]


@pytest.mark.parametrize("noun", NOUNS)
async def test_an_unknown_field_is_refused(api, noun: str):
    answer = await api.post(f"/api/v1/{noun}", await body_for(api, noun) | {"colour": "blue"})
    assert answer.status_code == 422
    assert answer.json()["details"][0]["field"] == "body.colour"


@pytest.mark.parametrize("noun", NOUNS)
async def test_archive_twice_is_once_and_hides_from_lists(api, noun: str):
    made = await api.made(f"/api/v1/{noun}", await body_for(api, noun))
    first = await api.post(f"/api/v1/{noun}/{made['id']}/archive")
    assert first.status_code == 200
    assert first.json()["archived_at"] is not None
    assert (await api.post(f"/api/v1/{noun}/{made['id']}/archive")).json() == first.json()
    assert (await api.get(f"/api/v1/{noun}")).json()["items"] == []
    assert len((await api.get(f"/api/v1/{noun}", params={"include_archived": True})).json()["items"]) == 1
    assert (await api.get(f"/api/v1/{noun}/{made['id']}")).status_code == 200


@pytest.mark.parametrize("noun", ["value-propositions", "prospects"])
async def test_an_archived_client_gets_nothing_new(api, noun: str):
    client = await api.client()
    await api.post(f"/api/v1/clients/{client['id']}/archive")
    answer = await api.post(f"/api/v1/{noun}", await body_for(api, noun, client))
    assert (answer.status_code, answer.json()["code"]) == (409, "client_archived")


@pytest.mark.parametrize("noun", NOUNS)
async def test_the_same_idempotency_key_creates_once(api, noun: str):
    body = await body_for(api, noun)
    first = await api.post(f"/api/v1/{noun}", body, headers={"Idempotency-Key": "k"})
    await api.call("PATCH", f"/api/v1/{noun}/{first.json()['id']}", json={"name": "Renamed"})
    again = await api.post(f"/api/v1/{noun}", body, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Location"] == first.headers["Location"]
    other = await api.post(f"/api/v1/{noun}", body | {"name": "Other"}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


# --- who may


def calls(noun: str, record: str, body: dict[str, Any]) -> list[tuple[str, str, dict[str, Any] | None]]:
    path = f"/api/v1/{noun}"
    return [
        ("POST", path, body),
        ("GET", path, None),
        ("GET", f"{path}/{record}", None),
        ("PATCH", f"{path}/{record}", {"name": "x"}),
        ("POST", f"{path}/{record}/archive", None),
    ]


@pytest.mark.parametrize("noun", NOUNS)
async def test_nobody_gets_in_without_a_token(api, noun: str, nobody: str):
    for method, path, body in calls(noun, nobody, await body_for(api, noun)):
        answer = await api.http.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (401, "missing_token"), path


@pytest.mark.parametrize("noun", NOUNS)
async def test_a_token_without_the_scope_is_refused(api, noun: str, nobody: str):
    other = api.as_user(scopes={"jobs:read", f"{noun}:read"})
    for method, path, body in calls(noun, nobody, await body_for(api, noun)):
        user = api.as_user(scopes={"jobs:read"}) if method == "GET" else other
        answer = await api.call(method, path, user=user, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope"), path


@pytest.mark.parametrize("noun", NOUNS)
async def test_another_clients_things_do_not_exist(api, noun: str):
    ours, other = await api.client("Ours"), await api.client("Other")
    theirs = other if noun == "clients" else await api.made(f"/api/v1/{noun}", await body_for(api, noun, other))
    mine = ours if noun == "clients" else await api.made(f"/api/v1/{noun}", await body_for(api, noun, ours))
    user = api.bound(ours)
    for method, path, body in calls(noun, theirs["id"], await body_for(api, noun, other)):
        if path == f"/api/v1/{noun}":
            continue
        answer = await api.call(method, path, user=user, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, f"{CODES[noun]}_not_found"), path
    listed = await api.get(f"/api/v1/{noun}", user=user)
    assert [item["id"] for item in listed.json()["items"]] == [mine["id"]]
    if noun != "clients":
        created = await api.post(f"/api/v1/{noun}", await body_for(api, noun, other), user=user)
        assert (created.status_code, created.json()["code"]) == (404, "client_not_found")
        filtered = await api.get(f"/api/v1/{noun}", user=user, params={"client_id": other["id"]})
        assert filtered.json()["items"] == []


async def test_only_staff_create_clients(api):
    answer = await api.post("/api/v1/clients", {"name": "Mine"}, user=api.bound(await api.client()))
    assert (answer.status_code, answer.json()["code"]) == (403, "staff_only")


@pytest.mark.parametrize("noun", NOUNS)
async def test_what_is_not_there_is_not_found(api, noun: str, nobody: str):
    for method, path, body in calls(noun, nobody, {})[2:]:
        answer = await api.call(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, f"{CODES[noun]}_not_found")
    assert (await api.get(f"/api/v1/{noun}/not-an-id")).status_code == 422
