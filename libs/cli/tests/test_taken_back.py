"""What is taken back is refused by every service that asks for a token, as seen through the gateway."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from triton_common.testing import eventually

pytestmark = [pytest.mark.demo, pytest.mark.timeout(300)]

PROMISED = 5.0  # seconds after which no service takes it any more
HEARTBEAT = 2.0  # as conftest.py has it: a stream looks at its token that often


@pytest.fixture
def grace(platform: Any) -> dict[str, Any]:
    """A user of the prospect's client, logged in."""
    platform.log_in()
    client_id = platform.http.get(f"/prospects/{platform.prospect_id}").raise_for_status().json()["client_id"]
    who = {"email": "grace@northstar.example", "password": "four words of no one"}
    made = platform.http.post("/auth/users", json=who | {"role": "editor", "client_id": client_id})
    assert made.status_code in (201, 409), made.text  # of the test before
    pair: dict[str, Any] = platform.http.post("/auth/login", json=who).raise_for_status().json()
    return pair


@pytest.fixture
def answers(platform: Any) -> Callable[[str], dict[str, tuple[int, str]]]:
    """What each service says to a token: status and code. console asks for none."""
    paths = {
        "auth": "/auth/me",
        "jobs": "/jobs?limit=1",
        "analytics": f"/analytics/prospects/{platform.prospect_id}/reports/summary",
        "agents": "/agents",
    }

    def ask(token: str) -> dict[str, tuple[int, str]]:
        headers = {"authorization": f"Bearer {token}"}
        given = {name: platform.http.get(path, headers=headers) for name, path in paths.items()}
        return {
            name: (answer.status_code, answer.json()["code"] if answer.is_error else "")
            for name, answer in given.items()
        }

    return ask


def test_a_logout_ends_the_access_token_everywhere_and_the_streams_it_opened(platform, grace, answers):
    token = grace["access_token"]
    assert set(answers(token).values()) == {(200, "")}
    headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream"}
    with platform.frozen("agent-worker"), ThreadPoolExecutor(1) as thread:
        job_id = platform.submit()
        with platform.http.stream("GET", f"/jobs/{job_id}/events", headers=headers) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("id: 1")
            ending = thread.submit(list, lines)
            logout = platform.http.post("/auth/logout", json={"refresh_token": grace["refresh_token"]})
            assert logout.status_code == 204
            everywhere = dict.fromkeys(answers(token), (401, "token_revoked"))
            eventually(lambda: answers(token) == everywhere, within=PROMISED)
            read = ending.result(timeout=PROMISED + HEARTBEAT)
    assert ": the token is revoked" in read  # perhaps with a heartbeat behind it
    platform.completes(job_id)


def test_a_revoked_api_key_is_refused_everywhere(platform, grace, answers):
    headers = {"authorization": f"Bearer {grace['access_token']}"}
    scopes = ["agents:read", "data:read", "jobs:read", "prospects:read"]
    made = platform.http.post("/auth/api-keys", json={"name": "nightly", "scopes": scopes}, headers=headers)
    key = made.raise_for_status().json()
    assert set(answers(key["key"]).values()) == {(200, "")}
    assert platform.http.delete(f"/auth/api-keys/{key['id']}", headers=headers).status_code == 204
    everywhere = dict.fromkeys(answers(key["key"]), (401, "api_key_invalid"))
    eventually(lambda: answers(key["key"]) == everywhere, within=PROMISED)
