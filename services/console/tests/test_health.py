import asyncio
from time import perf_counter

from fastapi import FastAPI, Response

from console import health
from console.main import build
from console.settings import Settings
from triton_common.app import CHECK_TIMEOUT, Degraded, create_app
from triton_common.errors import Unavailable
from triton_common.settings import CommonSettings


def with_check(name: str, check) -> FastAPI:
    return create_app(CommonSettings(), name=name, version="1.2.3", description="", readiness=[check])


async def test_all_ready_is_200_with_version_and_latency_of_each(running, platform, services):
    async with running(build(platform(**services))) as http:
        answer = await http.get("/health")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert body["status"] == "ok"
    assert set(body["services"]) == {"auth-service", "jobs-service", "analytics-service", "agent-runner"}
    for found in body["services"].values():
        assert found["status"] == "ok"
        assert found["version"] == "1.2.3"
        assert 0 < found["latency_ms"] < 500


async def test_a_service_that_does_not_listen_is_503_and_named(running, platform, services):
    del services["jobs"]
    async with running(build(platform(**services))) as http:
        answer = await http.get("/health")
    assert answer.status_code == 503
    assert answer.json()["status"] == "down"
    assert answer.json()["services"]["jobs-service"]["message"] == "jobs-service does not answer."
    assert answer.json()["services"]["auth-service"]["status"] == "ok"


async def test_a_dependency_that_is_down_is_passed_on(running, platform, services):
    async def postgres(_: FastAPI) -> None:
        raise Unavailable("Postgres does not answer.")

    async with running(build(platform(**services | {"auth": with_check("auth-service", postgres)}))) as http:
        answer = await http.get("/health")
    assert answer.status_code == 503
    found = answer.json()["services"]["auth-service"]
    assert found["status"] == "down"
    assert found["dependencies"]["postgres"]["message"] == "Postgres does not answer."


async def test_a_degraded_service_is_200_and_said_so(running, platform, services):
    async def redis(_: FastAPI) -> None:
        raise Degraded("Redis does not answer; jobs wait in Postgres.")

    async with running(build(platform(**services | {"jobs": with_check("jobs-service", redis)}))) as http:
        answer = await http.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"


async def test_a_service_that_hangs_costs_no_more_than_the_timeout(running, platform, services):
    async def hanging(_: FastAPI) -> None:
        await asyncio.sleep(5)

    async with running(build(platform(**services | {"analytics": with_check("analytics-service", hanging)}))) as http:
        started = perf_counter()
        answer = await http.get("/health")
        assert perf_counter() - started < 1
    assert answer.status_code == 503
    assert (
        answer.json()["services"]["analytics-service"]["message"] == "analytics-service does not answer within 0.5 s."
    )


def test_console_waits_for_what_a_service_says_of_a_dependency_that_hangs():
    """Else a service that does without it for a while would pass for down."""
    assert Settings().ask_timeout.total_seconds() > CHECK_TIMEOUT


async def test_something_else_on_the_port_is_down(running, platform, services):
    app = FastAPI()

    @app.get("/health/ready")
    async def ready() -> Response:
        return Response("hello", status_code=200)

    async with running(build(platform(**services | {"agents": app}))) as http:
        answer = await http.get("/health")
    assert answer.status_code == 503
    assert answer.json()["services"]["agent-runner"]["message"] == "agent-runner answered 200 and no readiness."


async def test_many_who_ask_cost_the_services_one_question_a_round(running, platform, services):
    asked = 0

    async def counting(_: FastAPI) -> None:
        nonlocal asked
        asked += 1

    settings = platform(**services | {"jobs": with_check("jobs-service", counting)})
    async with running(build(settings)) as http:
        answers = await asyncio.gather(*(http.get("/health") for _ in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        assert asked == 1


async def test_rounds_go_on_while_somebody_asks_and_begin_anew_later(running, platform, services, monkeypatch):
    monkeypatch.setattr(health, "PAUSE", 0.02)
    monkeypatch.setattr(health, "INTEREST", 0.3)
    down = False

    async def postgres(_: FastAPI) -> None:
        if down:
            raise Unavailable

    settings = platform(**services | {"jobs": with_check("jobs-service", postgres)})
    async with running(build(settings)) as http:
        first = (await http.get("/health")).json()
        assert first["status"] == "ok"
        down = True
        await asyncio.sleep(0.2)
        second = await http.get("/health")
        assert second.status_code == 503  # found without a question of ours
        await asyncio.sleep(0.8)  # nobody asks, so the services are left alone
        down = False
        third = (await http.get("/health")).json()
        assert third["status"] == "ok"  # not what was found long ago
        assert first["checked_at"] < second.json()["checked_at"] < third["checked_at"]


async def test_health_answers_within_50_ms(running, platform, services):
    async with running(build(platform(**services))) as http:
        await http.get("/health")  # connects
        seconds = []
        for _ in range(20):
            started = perf_counter()
            await http.get("/health")
            seconds.append(perf_counter() - started)
    assert sorted(seconds)[18] < 0.05
