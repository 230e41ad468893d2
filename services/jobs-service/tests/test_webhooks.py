"""Webhook endpoints over the API: who may do what to whose, and where the secrets are not."""

import asyncio
from ipaddress import ip_network

import psycopg
import pytest
from loguru import logger
from psycopg.errors import CheckViolation
from pydantic import SecretStr, ValidationError

from jobs_service.settings import Settings
from jobs_service.webhooks import ENDPOINTS_PER_CLIENT, Vault, reencrypt

URL = "https://receiver.example/hook?token=in-the-query"


async def endpoint(api, client, **changes):
    body = {"client_id": client["id"], "url": URL} | changes
    return await api.made("/api/v1/webhooks", body)


async def test_an_endpoint_is_created_with_a_secret_that_is_shown_once(api):
    client = await api.client()
    answer = await api.post("/api/v1/webhooks", {"client_id": client["id"], "url": URL, "description": "Ours"})
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/api/v1/webhooks/{made['id']}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert made["secret"].startswith("whsec_")
    assert made["event_types"] == ["job.cancelled", "job.completed", "job.failed"]
    assert (made["enabled"], made["url"], made["description"]) == (True, URL, "Ours")
    read = (await api.get(f"/api/v1/webhooks/{made['id']}")).json()
    assert read == {name: value for name, value in made.items() if name != "secret"}
    assert (await api.get("/api/v1/webhooks")).json()["items"] == [read]


async def test_a_repeated_creation_answers_the_same_secret_and_none_is_stored_in_plain_text(api):
    client = await api.client()
    body, key = {"client_id": client["id"], "url": URL}, {"Idempotency-Key": "create-1"}
    first = await api.post("/api/v1/webhooks", body, headers=key)
    again = await api.post("/api/v1/webhooks", body, headers=key)
    assert again.status_code == 201
    assert again.json() == first.json()
    other = await api.post("/api/v1/webhooks", body | {"description": "x"}, headers=key)
    assert other.json()["code"] == "idempotency_key_reused"
    made = first.json()
    rotate = f"/api/v1/webhooks/{made['id']}/rotate-secret"
    rotated = await api.post(rotate, headers={"Idempotency-Key": "rotate-1"})
    assert rotated.headers["Cache-Control"] == "no-store"
    assert (await api.post(rotate, headers={"Idempotency-Key": "rotate-1"})).json() == rotated.json()
    secrets = {made["secret"], rotated.json()["secret"]}
    assert len(secrets) == 2
    stored = api.sql("SELECT to_jsonb(e)::text AS all FROM webhook_endpoints AS e")
    stored += api.sql("SELECT to_jsonb(k)::text AS all FROM idempotency_keys AS k")
    for secret in secrets:
        assert not any(secret.removeprefix("whsec_") in row["all"] for row in stored)
    await api.call("DELETE", f"/api/v1/webhooks/{made['id']}")
    gone = await api.post("/api/v1/webhooks", body, headers=key)
    assert gone.json()["code"] == "webhook_endpoint_not_found"


async def test_a_rotation_that_is_repeated_beside_the_first_answers_the_same_secret(api):
    """Not the one before, which would end a day later with whoever stored it."""
    made = await endpoint(api, await api.client())
    rotate, key = f"/api/v1/webhooks/{made['id']}/rotate-secret", {"Idempotency-Key": "rotate-1"}
    answers = await asyncio.gather(*(api.post(rotate, headers=key) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    [secret] = {answer.json()["secret"] for answer in answers}
    assert secret != made["secret"]


async def test_a_second_rotation_within_the_day_must_be_forced(api):
    """Two clicks would end the secret that the receiver has."""
    made = await endpoint(api, await api.client())
    rotate = f"/api/v1/webhooks/{made['id']}/rotate-secret"
    answers = await asyncio.gather(api.post(rotate), api.post(rotate))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    first, refused = sorted(answers, key=lambda answer: answer.status_code)
    assert refused.json()["code"] == "secret_just_rotated"
    assert (await api.post(rotate, {"force": False})).status_code == 409
    forced = await api.made(rotate, {"force": True}, headers={"Idempotency-Key": "rotate-1"})
    assert forced["secret"] not in {made["secret"], first.json()["secret"]}
    other = await api.post(rotate, {"force": False}, headers={"Idempotency-Key": "rotate-1"})
    assert other.json()["code"] == "idempotency_key_reused"
    api.sql("UPDATE webhook_endpoints SET previous_secret_expires_at = now()")
    assert (await api.post(rotate)).status_code == 200


async def behind(api, statement, request):
    """The answer to a request that found a row locked by a statement, which is committed then."""
    async with await psycopg.AsyncConnection.connect(api.database_url) as other:
        await other.execute(statement)
        asked = asyncio.create_task(request)
        async with asyncio.timeout(10):
            while not asked.done() and not api.sql("SELECT 1 FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await other.commit()
        return await asked


async def test_a_delivery_that_ends_while_it_is_ordered_again_is_sent_again(api):
    made = await endpoint(api, await api.client())
    ordered = await api.made(f"/api/v1/webhooks/{made['id']}/test", None)
    answer = await behind(
        api,
        "UPDATE webhook_deliveries SET status = 'delivered', delivered_at = now(), next_attempt_at = NULL",
        api.post(f"/api/v1/webhooks/{made['id']}/deliveries/{ordered['id']}/redeliver"),
    )
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["delivered_at"]) == ("pending", None)


async def test_an_endpoint_that_is_disabled_while_it_is_enabled_is_enabled(api):
    made = await endpoint(api, await api.client())
    answer = await behind(
        api,
        "UPDATE webhook_endpoints SET enabled = false, disabled_at = now(), disabled_reason = 'It answered 410 Gone.'",
        api.call("PATCH", f"/api/v1/webhooks/{made['id']}", json={"enabled": True}),
    )
    state = answer.json()
    assert (answer.status_code, state["enabled"], state["disabled_reason"]) == (200, True, None)


async def test_secrets_and_urls_are_in_no_log(api):
    lines = []
    sink = logger.add(lambda message: lines.append(f"{message} {message.record['extra']}"), level="TRACE")
    try:
        made = await endpoint(api, await api.client())
        rotated = await api.made(f"/api/v1/webhooks/{made['id']}/rotate-secret", None)
        refused = await api.post(
            "/api/v1/webhooks", {"client_id": made["client_id"], "url": "http://10.0.0.1/?token=in-the-query"}
        )
    finally:
        logger.remove(sink)
    assert refused.status_code == 422
    assert lines
    for word in (made["secret"], rotated["secret"], "in-the-query"):
        assert not any(word in line for line in lines)


async def test_who_is_bound_to_a_client_need_not_name_it_and_staff_must(api):
    client, other = await api.client(), await api.client("Other")
    mine = await api.post("/api/v1/webhooks", {"url": URL}, user=api.bound(client))
    assert mine.json()["client_id"] == client["id"]
    assert (await api.post("/api/v1/webhooks", {"url": URL})).json()["code"] == "client_not_named"
    theirs = await api.post("/api/v1/webhooks", {"url": URL, "client_id": other["id"]}, user=api.bound(client))
    assert (theirs.status_code, theirs.json()["code"]) == (404, "client_not_found")
    await api.post(f"/api/v1/clients/{other['id']}/archive")
    archived = await api.post("/api/v1/webhooks", {"url": URL, "client_id": other["id"]})
    assert (archived.status_code, archived.json()["code"]) == (409, "client_archived")


async def test_a_client_has_so_many_endpoints_however_many_come_at_once(api):
    client = await api.client()
    body = {"client_id": client["id"], "url": URL}
    answers = await asyncio.gather(*(api.post("/api/v1/webhooks", body) for _ in range(ENDPOINTS_PER_CLIENT + 5)))
    assert sorted(answer.status_code for answer in answers) == [201] * ENDPOINTS_PER_CLIENT + [409] * 5
    assert {answer.json()["code"] for answer in answers if answer.is_error} == {"too_many_webhook_endpoints"}
    page = (await api.get("/api/v1/webhooks", params={"limit": 15})).json()
    rest = (await api.get("/api/v1/webhooks", params={"limit": 15, "cursor": page["next_cursor"]})).json()
    assert len({made["id"] for made in page["items"] + rest["items"]}) == ENDPOINTS_PER_CLIENT
    assert rest["next_cursor"] is None


async def test_a_condition_that_lists_do_not_know_is_refused(api):
    made = await endpoint(api, await api.client())
    for path in ("/api/v1/webhooks", f"/api/v1/webhooks/{made['id']}/deliveries"):
        answer = await api.get(path, params={"state": "failed"})
        assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "query.state")


async def test_another_clients_endpoint_does_not_exist(api, nobody):
    client, other = await api.client(), await api.client("Other")
    made, theirs = await endpoint(api, client), await endpoint(api, other)
    delivery = await api.made(f"/api/v1/webhooks/{theirs['id']}/test", None)
    stranger = api.bound(client)
    path = f"/api/v1/webhooks/{theirs['id']}"
    calls = [
        ("GET", path, None),
        ("PATCH", path, {"enabled": False}),
        ("DELETE", path, None),
        ("POST", f"{path}/rotate-secret", None),
        ("POST", f"{path}/test", None),
        ("GET", f"{path}/deliveries", None),
        ("POST", f"{path}/deliveries/{delivery['id']}/redeliver", None),
        ("GET", f"/api/v1/webhooks/{nobody}", None),
    ]
    for method, url, body in calls:
        answer = await api.call(method, url, json=body, user=stranger)
        assert (answer.status_code, answer.json()["code"]) == (404, "webhook_endpoint_not_found"), (method, url)
    # nor is a delivery reached through an endpoint that is not its own
    through = f"/api/v1/webhooks/{made['id']}/deliveries/{delivery['id']}/redeliver"
    assert (await api.post(through, user=stranger)).json()["code"] == "webhook_delivery_not_found"
    listed = (await api.get("/api/v1/webhooks", user=stranger)).json()["items"]
    assert [item["id"] for item in listed] == [made["id"]]
    assert (await api.get("/api/v1/webhooks", params={"client_id": other["id"]}, user=stranger)).json()["items"] == []
    of_other = (await api.get("/api/v1/webhooks", params={"client_id": other["id"]})).json()["items"]
    assert [item["id"] for item in of_other] == [theirs["id"]]


async def test_every_route_asks_for_its_scope(api, nobody):
    path = f"/api/v1/webhooks/{nobody}"
    for method, url, scope in (
        ("GET", "/api/v1/webhooks", "webhooks:read"),
        ("POST", "/api/v1/webhooks", "webhooks:write"),
        ("GET", path, "webhooks:read"),
        ("PATCH", path, "webhooks:write"),
        ("DELETE", path, "webhooks:write"),
        ("POST", f"{path}/rotate-secret", "webhooks:write"),
        ("POST", f"{path}/test", "webhooks:write"),
        ("GET", f"{path}/deliveries", "webhooks:read"),
        ("POST", f"{path}/deliveries/{nobody}/redeliver", "webhooks:write"),
    ):
        assert (await api.http.request(method, url)).status_code == 401
        all_others = {"webhooks:read", "webhooks:write", "jobs:read", "jobs:write"} - {scope}
        refused = await api.call(method, url, user=api.as_user("editor", scopes=all_others))
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
        assert (await api.call(method, url, user=api.as_user("viewer"))).status_code == 403
        assert (await api.call(method, url, user=api.as_user("editor"))).status_code != 403


async def test_an_endpoint_is_changed_disabled_and_enabled_again(api):
    made = await endpoint(api, await api.client())
    path = f"/api/v1/webhooks/{made['id']}"
    api.sql("UPDATE webhook_endpoints SET failing_since = now()")
    changed = await api.call("PATCH", path, json={"event_types": ["job.retried", "job.claimed", "job.claimed"]})
    assert changed.json()["event_types"] == ["job.claimed", "job.retried"]
    assert changed.json()["failing_since"] is not None
    changed = await api.call("PATCH", path, json={"url": "https://other.example/", "description": "New"})
    assert (changed.json()["url"], changed.json()["description"]) == ("https://other.example/", "New")
    assert changed.json()["failing_since"] is None, "what failed was another URL"
    off = (await api.call("PATCH", path, json={"enabled": False})).json()
    assert (off["enabled"], off["disabled_reason"]) == (False, "It was disabled by a user.")
    again = (await api.call("PATCH", path, json={"enabled": False})).json()
    assert again["disabled_at"] == off["disabled_at"]
    refused = await api.post(f"{path}/test")
    assert (refused.status_code, refused.json()["code"]) == (409, "webhook_endpoint_disabled")
    on = (await api.call("PATCH", path, json={"enabled": True})).json()
    assert (on["enabled"], on["disabled_at"], on["disabled_reason"]) == (True, None, None)
    assert on["updated_at"] > made["updated_at"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"url": "https://127.0.0.1/"}, "webhook_url_refused"),
        ({"url": "https://user:pass@example.com/"}, "webhook_url_refused"),
        ({"event_types": []}, "validation_failed"),
        ({"event_types": ["job.progress"]}, "validation_failed"),
        ({"description": "x" * 201}, "validation_failed"),
        ({"secret": "whsec_mine"}, "validation_failed"),
    ],
)
async def test_what_is_not_valid_is_refused(api, change, code):
    client = await api.client()
    refused = await api.post("/api/v1/webhooks", {"client_id": client["id"], "url": URL} | change)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    made = await endpoint(api, client)
    refused = await api.call("PATCH", f"/api/v1/webhooks/{made['id']}", json=change)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    nothing = await api.call("PATCH", f"/api/v1/webhooks/{made['id']}", json={"enabled": None})
    assert nothing.status_code == 422


async def test_a_deleted_endpoint_takes_its_log_along(api):
    made = await endpoint(api, await api.client())
    path = f"/api/v1/webhooks/{made['id']}"
    await api.made(f"{path}/test", None)
    assert (await api.call("DELETE", path)).status_code == 204
    assert (await api.get(path)).status_code == 404
    assert api.sql("SELECT id FROM webhook_deliveries") == []


async def test_new_keys_take_over_and_old_ones_can_be_dropped(api, settings):
    made = await endpoint(api, await api.client())
    await api.made(f"/api/v1/webhooks/{made['id']}/rotate-secret", None)
    old = settings.encryption_keys.get_secret_value()
    both, new = Vault(SecretStr(f"the-new-key-of-today, {old}")), Vault(SecretStr("the-new-key-of-today"))
    await reencrypt(api.app.state.database, vault=both)
    [stored] = api.sql("SELECT secret, previous_secret FROM webhook_endpoints")
    assert new.decrypt(stored["previous_secret"]) == made["secret"]
    await reencrypt(api.app.state.database, vault=both)
    assert api.sql("SELECT secret, previous_secret FROM webhook_endpoints") == [stored], "once is enough"
    logged = []
    sink = logger.add(lambda message: logged.append(message.record["message"]), level="ERROR")
    await reencrypt(api.app.state.database, vault=Vault(SecretStr("a-key-that-never-was")))
    logger.remove(sink)
    assert logged == ["JOBS_ENCRYPTION_KEYS lacks the key of a webhook's secret"]
    assert api.sql("SELECT secret, previous_secret FROM webhook_endpoints") == [stored]


@pytest.mark.parametrize("keys", ["", "change-me-encryption-key", "short", "a-good-and-long-key-1,short"])
def test_outside_dev_a_start_without_good_keys_ends_with_their_name(monkeypatch, keys):
    for name, value in {
        "TRITON_ENV": "prod",
        "DATABASE_URL": "postgresql:///jobs",
        "REDIS_URL": "redis://127.0.0.1:6379/0",
        "JOBS_ENCRYPTION_KEYS": keys,
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match="set JOBS_ENCRYPTION_KEYS: "):
        Settings()
    monkeypatch.setenv("JOBS_ENCRYPTION_KEYS", "a-good-and-long-key-1, a-good-and-long-key-2")
    monkeypatch.setenv("JOBS_WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/8, fd00::/8")
    assert Settings().webhook_allowed_networks == [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize("change", ["enabled = false", "disabled_at = now()", "previous_secret = 'x'"])
async def test_the_database_refuses_an_endpoint_that_makes_no_sense(api, change):
    await endpoint(api, await api.client())
    with pytest.raises(CheckViolation):
        api.sql(f"UPDATE webhook_endpoints SET {change}")


@pytest.mark.parametrize("change", ["status = 'sent'", "status = 'failed'", "next_attempt_at = NULL"])
async def test_the_database_refuses_a_delivery_that_makes_no_sense(api, change):
    made = await endpoint(api, await api.client())
    await api.made(f"/api/v1/webhooks/{made['id']}/test", None)
    with pytest.raises(CheckViolation):
        api.sql(f"UPDATE webhook_deliveries SET {change}")
