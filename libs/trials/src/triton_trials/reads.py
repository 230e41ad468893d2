"""What reading costs, and how fast a Redis that has lost all gets its messages back.

One job beside a route without a database, a token beside none, a list of a million jobs beside one of a thousand.
"""

import asyncio
import base64
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

import psycopg
from redis.asyncio import Redis

from triton_common.messages import RunJob
from triton_common.testing import WORKSPACE, free_port
from triton_trials.issuer import token_of
from triton_trials.peers import TritonUnlimited
from triton_trials.platform import Part, Platform, get
from triton_trials.speed import percentiles
from triton_trials.wire import Wire, closed_loop, encode

CONNECTIONS: Final = 16
PATIENCE: Final = 60.0  # seconds
SMALL: Final = 1_000  # rows
FILL: Final = WORKSPACE / "services" / "jobs-service" / "tests" / "fill.sql"
CLIENT: Final = "00000000-0000-7000-8000-000000000001"  # the ids that fill.sql makes: 1 is the largest of each
PROSPECTS: Final = "00000000-0000-7000-9000-000000000001", "00000000-0000-7000-9000-000000000950"
SCHEDULE: Final = "00000000-0000-7000-b000-000000000011"
FILTERS: Final[Sequence[str]] = (
    "",
    *(f"status={status}" for status in ("pending", "processing", "completed", "failed", "cancelled")),
    "status=failed&status=cancelled",
    "status=pending&priority=high",
    "priority=high",
    f"client_id={CLIENT}",
    *(f"prospect_id={prospect}" for prospect in PROSPECTS),
    f"schedule_id={SCHEDULE}",
    "created_before={middle}",
    "created_after={before_middle}&created_before={middle}",
    "created_before=2020-01-01T00:00:00Z",
    "error_code=timed_out",
    "error_code=model_*",
    "error_code=model_refused",
    "error_code=nothing_such",
    f"prospect_id={PROSPECTS[0]}&status=failed&priority=normal",
)


@asynccontextmanager
async def twin(platform: Platform, factory: str) -> AsyncIterator[tuple[str, int]]:
    """One of the apps of twins.py, as our services are run; where it listens."""
    port = free_port()
    part = Part(
        f"twin-{factory}",
        [
            *(sys.executable, "-m", "uvicorn", "--factory", f"triton_trials.twins:{factory}"),
            *("--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--http", "httptools"),
            *("--no-access-log", "--log-level", "warning"),
        ],
        logs=platform.logs,
        check=lambda: get(port, "/openapi.json"),
        environment={"TRITON_AUTH_URL": platform.issuer.url},
    )
    try:
        await part.start()
        yield "127.0.0.1", port
    finally:
        part.kill()


async def rates(
    routes: Mapping[str, tuple[tuple[str, int], bytes]], *, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Answers a second of each route, all in turn, round after round. Raises RuntimeError for an answer but 200."""
    found: dict[str, list[float]] = {name: [] for name in routes}
    for _ in range(rounds):
        for name, (address, request) in routes.items():
            load = await closed_loop(address, lambda sent=request: sent, connections=CONNECTIONS, seconds=seconds)  # type: ignore[misc]
            if load.statuses.keys() != {200}:
                raise RuntimeError(f"{name} answered {load.statuses}")
            found[name].append(load.rate)
    return found


async def one_job(platform: Platform, *, rounds: int, seconds: float) -> dict[str, list[float]]:
    """GET /jobs/{id} of jobs-service and of bare FastAPI; a hot route with and without a token."""
    headers = {"Authorization": f"Bearer {token_of('admin')}"}
    async with (
        TritonUnlimited(platform) as peer,
        twin(platform, "bare") as bare,
        twin(platform, "guarded") as guarded,
    ):
        await peer.one()
        path = f"/api/v1/jobs/{peer.ids[0]}"
        wire = Wire(*peer.address)
        job = (await wire.send(encode("GET", path, headers=headers))).json
        wire.close()
        wire = Wire(*bare)
        await wire.send(encode("PUT", path, body=job))
        wire.close()
        routes = {
            "bare FastAPI": (bare, encode("GET", path)),
            "GET /jobs/{id}": (peer.address, encode("GET", path, headers=headers)),
            "without a token": (guarded, encode("GET", f"/open/{peer.ids[0]}")),
            "with a token": (guarded, encode("GET", f"/guarded/{peer.ids[0]}", headers=headers)),
        }
        return await rates(routes, rounds=rounds, seconds=seconds)


async def lists(platform: Platform, *, large: int, asked: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A page of 50 of a small table and of a large one, asked in turn: for each filter and who asks, how many jobs the
    page has and p95 in seconds, of both."""
    found: list[dict[str, Any]] = []
    wires: dict[int, Wire] = {}
    for rows in (SMALL, large):
        say(f"a table of {rows:,} jobs")
        url = await asyncio.to_thread(_filled, platform, rows)
        await platform.add_service(DATABASE_URL=url).ready()
        wires[rows] = Wire(*platform.addresses()[-1])
    tokens = {"staff": token_of("admin"), "client": token_of("viewer", client_id=CLIENT)}
    try:
        for (who, token), query in itertools.product(tokens.items(), FILTERS):
            headers = {"Authorization": f"Bearer {token}"}
            requests = {rows: encode("GET", _path(query, rows), headers=headers) for rows in wires}
            seconds: dict[int, list[float]] = {rows: [] for rows in wires}
            items: dict[int, int] = {}
            for _, (rows, wire) in itertools.product(range(asked), wires.items()):
                answer = await wire.send(requests[rows])
                if answer.status != 200:
                    raise RuntimeError(f"GET /jobs?{query} answers {answer.status}: {answer.body.decode()}")
                seconds[rows].append(answer.seconds)
                items[rows] = items.get(rows) or len(answer.json["items"])
            p95 = [percentiles(seconds[rows])[1] for rows in wires]
            found.append({"filter": query or "none", "who": who, "items": list(items.values()), "p95": p95})
    finally:
        for wire in wires.values():
            wire.close()
        for service in platform.services:
            service.kill()
        platform.services.clear()
    return found


def _path(query: str, rows: int) -> str:
    """Of a page; the middle is that of the table, which has a job each ten seconds up to now."""
    middle = datetime.now(UTC) - timedelta(seconds=10 * rows / 2)
    times = {"middle": middle, "before_middle": middle - timedelta(hours=1)}
    return "/api/v1/jobs?limit=50&" + query.format(**{name: quote(at.isoformat()) for name, at in times.items()})


def _filled(platform: Platform, rows: int) -> str:
    """A database of its own with so many jobs; its URL."""
    name = f"jobs_{rows}"
    url = platform.database_url.removesuffix("/jobs") + f"/{name}"
    with psycopg.connect(platform.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE jobs".encode())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SET triton.jobs = {rows}".encode())
        connection.execute(FILL.read_bytes())
        connection.execute("VACUUM ANALYZE generation_jobs")
    return url


def compared(found: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], float]]:
    """How many times longer each page of the large table took.

    Where the small table has fewer such jobs, its page is no measure; that of a small table's whole list is.
    """
    whole = {one["who"]: one["p95"][0] for one in found if one["filter"] == "none"}
    return [
        (one, one["p95"][1] / (one["p95"][0] if one["items"][0] == one["items"][1] else whole[one["who"]]))
        for one in found
    ]


async def recovery(platform: Platform, *, jobs: int) -> dict[str, float]:
    """Seconds until the messages of so many jobs are back in a Redis that was emptied, and until the jobs are done."""
    async with TritonUnlimited(platform) as peer, Redis.from_url(platform.redis_url) as redis:
        await peer.submit(jobs)
        await _messages(redis, at_least=jobs)
        began = time.perf_counter()
        await redis.flushall()
        await _messages(redis, at_least=jobs)
        back = time.perf_counter() - began
        there = len(await _jobs_of(redis))
        if there != jobs:
            raise RuntimeError(f"messages of {there} jobs came back, not of {jobs}")
        began = time.time()
        await peer.start_workers()
        done = await peer.all_done()
        return {"jobs": jobs, "messages back": back, "done after": max(done.values()) - began}


async def _messages(redis: Redis, *, at_least: int) -> None:
    """Wait until so many messages are there."""
    deadline = time.monotonic() + PATIENCE
    while sum([await redis.llen(key) for key in await redis.keys(f"{RunJob.queue}*")]) < at_least:
        if time.monotonic() > deadline:
            raise TimeoutError(f"there were no {at_least} messages within {PATIENCE:.0f} s")
        await asyncio.sleep(0.01)


async def _jobs_of(redis: Redis) -> set[str]:
    """The jobs whose messages are there."""
    found = set()
    for key in await redis.keys(f"{RunJob.queue}*"):
        for message in await redis.lrange(key, 0, -1):
            _, payload, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
            found.add(payload["job_id"])
    return found
