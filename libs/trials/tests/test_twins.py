"""The apps that routes are compared with answer as those do."""

import httpx2
from uuid_utils.compat import uuid7

from triton_trials import twins
from triton_trials.issuer import Issuer, token_of


def http(app):
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://twin")


async def test_the_bare_twin_answers_what_it_was_given():
    job = {
        name: None
        for name, field in twins.Job.model_fields.items()
        if type(None) in getattr(field.annotation, "__args__", ())
    }
    names = {"client_id", "prospect_id", "value_proposition_id"}
    job |= {name: str(uuid7()) for name in names} | {"id": str(uuid7()), "job_type": "value_proposition"}
    job |= dict.fromkeys(("progress", "series", "time_limit_seconds", "attempt", "max_attempts"), 1)
    job |= {"status": "pending", "priority": "normal", "parameters": {}, "created_by": "", "request_id": ""}
    job |= dict.fromkeys(("created_at", "run_after"), "2026-11-22T00:00:00Z")
    async with http(twins.bare()) as client:
        assert (await client.put(f"/api/v1/jobs/{job['id']}", json=job)).status_code == 200
        assert (await client.get(f"/api/v1/jobs/{job['id']}")).json() == job


async def test_the_guarded_twin_asks_for_a_token(monkeypatch):
    with Issuer() as issuer:
        monkeypatch.setenv("TRITON_AUTH_URL", issuer.url)
        app = twins.guarded()
        async with app.router.lifespan_context(app), http(app) as client:
            headers = {"Authorization": f"Bearer {token_of('viewer')}"}
            assert (await client.get(f"/open/{uuid7()}")).status_code == 200
            assert (await client.get(f"/guarded/{uuid7()}")).status_code == 401
            assert (await client.get(f"/guarded/{uuid7()}", headers=headers)).status_code == 200
