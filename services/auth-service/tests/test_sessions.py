"""Login, refresh and logout."""

import asyncio
import statistics
import time
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from pydantic import ValidationError

from auth_service.main import build

EMAIL = "ada@triton.local"
PASSWORD = "a long enough password"


async def refresh(http, token):
    return await http.post("/refresh", json={"refresh_token": token})


async def test_login_gives_tokens_that_no_cache_keeps(http):
    answer = await http.post("/login", json={"email": EMAIL, "password": PASSWORD})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json().keys() == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert answer.json()["token_type"] == "Bearer"
    assert answer.json()["expires_in"] == 24 * 3600


@pytest.mark.parametrize("spelling", ["ADA@Triton.LOCAL", " ada@triton.local ", "\uff41\uff44\uff41@triton.local"])
async def test_login_knows_an_address_in_any_spelling(http, spelling):
    answer = await http.post("/login", json={"email": spelling, "password": PASSWORD})
    assert answer.status_code == 200


async def test_wrong_password_and_unknown_address_get_the_same_answer(http):
    wrong = await http.post("/login", json={"email": EMAIL, "password": "not the password"})
    unknown = await http.post("/login", json={"email": "eve@triton.local", "password": PASSWORD})
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
    assert wrong.json()["code"] == "invalid_credentials"
    assert wrong.headers.keys() == unknown.headers.keys()


async def test_wrong_password_and_unknown_address_cost_the_same_time(make_settings, starting):
    seconds = {EMAIL: [], "eve@triton.local": []}
    async with starting(build(make_settings(argon2_memory_kib=19_456, argon2_passes=2))) as http:
        for _ in range(8):
            for email, taken in seconds.items():
                started = time.perf_counter()
                await http.post("/login", json={"email": email, "password": "not the password"})
                taken.append(time.perf_counter() - started)
    known, unknown = (statistics.median(taken) for taken in seconds.values())
    # the hash takes ten times as long as the rest: without it for unknown users the ratio is over 3
    assert 0.5 < known / unknown < 2


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"body.email", "body.password"}),
        ({"email": EMAIL, "password": PASSWORD, "role": "admin"}, {"body.role"}),
        ({"email": "no address", "password": PASSWORD}, {"body.email"}),
        ({"email": "ada\x00@triton.local", "password": PASSWORD}, {"body.email"}),
        ({"email": EMAIL, "password": ""}, {"body.password"}),
        ({"email": EMAIL, "password": 5}, {"body.password"}),
        ({"email": EMAIL, "password": "x" * 129}, {"body.password"}),
        ([], {"body"}),
    ],
)
async def test_login_names_each_bad_field(http, body, fields):
    answer = await http.post("/login", json=body)
    assert answer.status_code == 422
    assert {detail["field"] for detail in answer.json()["details"]} == fields


@pytest.mark.parametrize("path", ["/login", "/refresh", "/logout"])
async def test_half_a_surrogate_pair_is_refused(http, path):
    secret = "password" if path == "/login" else "refresh_token"
    body = f'{{"email": "{EMAIL}", "{secret}": "\\ud800"}}'
    answer = await http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert f"body.{secret}" in {detail["field"] for detail in answer.json()["details"]}


async def test_a_bad_field_is_not_quoted(http):
    answer = await http.post("/login", json={"email": EMAIL, "password": "sesame" * 30})
    assert "sesame" not in answer.text


async def test_logins_are_counted_by_outcome(http):
    def count(outcome):
        return REGISTRY.get_sample_value("triton_login_attempts_total", {"outcome": outcome})

    before = count("succeeded"), count("failed")
    await http.post("/login", json={"email": EMAIL, "password": PASSWORD})
    await http.post("/login", json={"email": EMAIL, "password": "not the password"})
    await http.post("/login", json={"email": "eve@triton.local", "password": PASSWORD})
    assert (count("succeeded"), count("failed")) == (before[0] + 1, before[1] + 2)


async def test_a_login_replaces_a_hash_of_weaker_parameters(make_settings, starting, rows):
    async with starting(build(make_settings())):
        (weak,) = rows("SELECT password_hash FROM users")
    async with starting(build(make_settings(argon2_passes=2))) as http:
        assert (await http.post("/login", json={"email": EMAIL, "password": "not the password"})).status_code == 401
        assert rows("SELECT password_hash FROM users") == [weak]
        assert (await http.post("/login", json={"email": EMAIL, "password": PASSWORD})).status_code == 200
        ((strong,),) = rows("SELECT password_hash FROM users")
        assert "t=1" in weak[0]
        assert "t=2" in strong
        assert (await http.post("/login", json={"email": EMAIL, "password": PASSWORD})).status_code == 200
        assert rows("SELECT password_hash FROM users") == [(strong,)]


async def test_refresh_replaces_the_token(http, pair):
    second = await refresh(http, pair["refresh_token"])
    assert second.status_code == 200
    assert second.headers["Cache-Control"] == "no-store"
    assert second.json()["refresh_token"] != pair["refresh_token"]
    assert second.json()["access_token"] != pair["access_token"]
    third = await refresh(http, second.json()["refresh_token"])
    assert third.status_code == 200


async def test_refresh_brings_the_present_role(http, pair, rows):
    rows("UPDATE users SET role = 'viewer' RETURNING id")
    second = (await refresh(http, pair["refresh_token"])).json()
    me = await http.get("/me", headers={"Authorization": f"Bearer {second['access_token']}"})
    assert me.json()["role"] == "viewer"
    assert "users:admin" not in me.json()["scopes"]


async def test_the_token_before_is_answered_with_the_same_successor_within_the_grace(http, pair):
    first = await refresh(http, pair["refresh_token"])
    again = await refresh(http, pair["refresh_token"])
    assert again.status_code == 200
    assert again.json()["refresh_token"] == first.json()["refresh_token"]
    assert (await refresh(http, first.json()["refresh_token"])).status_code == 200


async def test_parallel_refreshes_get_one_successor(http, pair, rows):
    answers = await asyncio.gather(*(refresh(http, pair["refresh_token"]) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert rows("SELECT count(*) FROM refresh_tokens") == [(2,)]


async def test_a_token_used_again_after_the_grace_ends_the_session(make_settings, starting, rows):
    async with starting(build(make_settings(refresh_grace=timedelta(0)))) as http:
        first = (await http.post("/login", json={"email": EMAIL, "password": PASSWORD})).json()["refresh_token"]
        second = (await refresh(http, first)).json()["refresh_token"]
        reused = await refresh(http, first)
        assert reused.status_code == 401
        assert reused.json()["code"] == "refresh_token_reused"
        newest = await refresh(http, second)
        assert newest.status_code == 401
        assert newest.json()["code"] == "invalid_refresh_token"
        assert rows("SELECT end_reason FROM sessions") == [("token_reused",)]


async def test_a_token_two_steps_old_ends_the_session_even_within_the_grace(http, pair):
    second = (await refresh(http, pair["refresh_token"])).json()["refresh_token"]
    third = (await refresh(http, second)).json()["refresh_token"]
    assert (await refresh(http, pair["refresh_token"])).json()["code"] == "refresh_token_reused"
    assert (await refresh(http, third)).json()["code"] == "invalid_refresh_token"


async def test_the_end_of_one_session_leaves_the_others(http, pair):
    other = (await http.post("/login", json={"email": EMAIL, "password": PASSWORD})).json()
    await http.post("/logout", json={"refresh_token": pair["refresh_token"]})
    assert (await refresh(http, other["refresh_token"])).status_code == 200


async def test_an_unknown_token_is_refused(http):
    answer = await refresh(http, "nobody-was-given-this-one")
    assert answer.status_code == 401
    assert answer.json()["code"] == "invalid_refresh_token"


async def test_a_session_that_nobody_refreshes_is_over(make_settings, starting, rows):
    settings = make_settings(session_idle=timedelta(hours=2), access_token_ttl=timedelta(hours=1))
    async with starting(build(settings)) as http:
        first = (await http.post("/login", json={"email": EMAIL, "password": PASSWORD})).json()["refresh_token"]
        rows("UPDATE sessions SET created_at = now() - interval '3 hours', expires_at = now() + interval '1 minute'")
        second = (await refresh(http, first)).json()["refresh_token"]
        assert rows(
            "SELECT expires_at BETWEEN now() + interval '119 min' AND now() + interval '2 hours' FROM sessions"
        ) == [(True,)]
        rows("UPDATE sessions SET expires_at = now()")
        assert (await refresh(http, second)).json()["code"] == "invalid_refresh_token"


def test_a_session_must_outlive_its_access_token(make_settings):
    with pytest.raises(ValidationError, match="AUTH_SESSION_IDLE"):
        make_settings(session_idle=timedelta(hours=1), access_token_ttl=timedelta(hours=2))


async def test_a_session_ends_at_its_time_however_often_it_is_refreshed(make_settings, starting, rows):
    async with starting(build(make_settings(refresh_token_ttl=timedelta(hours=1)))) as http:
        first = (await http.post("/login", json={"email": EMAIL, "password": PASSWORD})).json()["refresh_token"]
        second = (await refresh(http, first)).json()["refresh_token"]
        rows("UPDATE sessions SET created_at = now() - interval '50 minutes'")
        third = (await refresh(http, second)).json()["refresh_token"]
        assert rows(
            "SELECT expires_at BETWEEN now() + interval '9 min' AND now() + interval '10 min' FROM sessions"
        ) == [(True,)]
        rows("UPDATE sessions SET expires_at = now()")
        assert (await refresh(http, third)).json()["code"] == "invalid_refresh_token"


async def test_a_login_clears_away_the_users_expired_sessions(http, pair, rows):
    rows("UPDATE sessions SET expires_at = now() - interval '1 second' RETURNING id")
    await http.post("/login", json={"email": EMAIL, "password": PASSWORD})
    assert rows("SELECT count(*) FROM sessions") == [(1,)]
    assert rows("SELECT count(*) FROM refresh_tokens") == [(1,)]


async def test_logout_ends_the_session(http, pair, rows):
    body = {"refresh_token": pair["refresh_token"]}
    answer = await http.post("/logout", json=body)
    assert answer.status_code == 204
    assert answer.content == b""
    assert (await refresh(http, pair["refresh_token"])).json()["code"] == "invalid_refresh_token"
    assert rows("SELECT end_reason FROM sessions") == [("logout",)]
    assert (await http.post("/logout", json=body)).status_code == 204
    assert (await http.post("/logout", json={"refresh_token": "unknown"})).status_code == 204


async def test_an_old_token_logs_out_too(http, pair):
    second = (await refresh(http, pair["refresh_token"])).json()["refresh_token"]
    assert (await http.post("/logout", json={"refresh_token": pair["refresh_token"]})).status_code == 204
    assert (await refresh(http, second)).status_code == 401


async def test_refresh_tokens_are_stored_as_hashes(http, pair, rows):
    ((stored,),) = rows("SELECT token_hash FROM refresh_tokens")
    assert len(stored) == 32
    assert pair["refresh_token"].encode() not in stored
