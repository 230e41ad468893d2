"""Tokens verified a second with and without the cache; logins; what a burst of logins does to other requests."""

import asyncio
import base64
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any, Final

from joserfc.jwk import KeySet

from triton_common.api_keys import ApiKeys
from triton_common.auth import Principal, TokenVerifier
from triton_common.testing import AUDIENCE, ISSUER, KEY, access_token
from triton_trials.benchmarks.report import Report, Wanted, console
from triton_trials.benchmarks.stack import Stack, bearer, stack
from triton_trials.speed import percentiles
from triton_trials.submissions import PROPOSITION
from triton_trials.wire import Wire, closed_loop, encode, open_loop

TOKENS: Final = 10_000  # as many as a verifier remembers
CONCURRENT: Final = (1, 4, 16)
BURST: Final = 16  # logins at once while others ask
RATE: Final = 50.0  # requests a second of those others: far from what the machine can do
JOBS: Final = 50  # a page of them is what those others ask for
PASSWORD: Final = "four words that nobody guesses"  # noqa: S105  of users that live as long as the benchmark


async def verify(report: Report, wanted: Wanted) -> None:
    """Tokens verified for the first time, and again: in this process, one after another."""
    count = 200 if wanted.quick else wanted.count or TOKENS
    keys = KeySet([KEY]).as_dict()
    tokens = [access_token() for _ in range(count)]
    api_keys = [f"trk_{base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b'=').decode()}" for _ in range(count)]

    async def published() -> Any:
        return keys

    async def owner(key: str) -> Principal:
        return Principal(
            subject="owner", kind="api_key", role="admin", scopes=frozenset(), token_id=key, token=key,
            expires_at=int(time.time()) + 600,
        )  # fmt: skip

    found: dict[str, list[float]] = {"token, first time": [], "token, remembered": [], "API key, remembered": []}
    for _ in range(wanted.rounds):
        verifier = TokenVerifier(
            published, issuer=ISSUER, audience=AUDIENCE, api_keys=ApiKeys(owner, revocations_are_read=lambda: True)
        )
        async with verifier:
            for key in api_keys:
                await verifier.verify(key)
            for name, asked in (
                ("token, first time", tokens),
                ("token, remembered", tokens),
                ("API key, remembered", api_keys),
            ):
                began = time.perf_counter()
                for token in asked:
                    verifier.known(token) or await verifier.verify(token)
                found[name].append(count / (time.perf_counter() - began))
    report.raw["verify"] = found
    report.rates("verified/s", found)
    report.goal("a remembered token, µs", 1e6 / median(found["token, remembered"]), at_most=5)


async def logins(report: Report, platform: Stack, wanted: Wanted, requests: Sequence[bytes]) -> None:
    """Logins of different people, so many at once."""
    seconds = 0.5 if wanted.quick else 5.0
    found: dict[int, list[float]] = {at_once: [] for at_once in CONCURRENT}
    rate: dict[int, list[float]] = {at_once: [] for at_once in CONCURRENT}
    for _ in range(wanted.rounds):
        for at_once in CONCURRENT:
            load = await _logins(platform, requests[:at_once], seconds=seconds)
            found[at_once] += load
            rate[at_once].append(len(load) / seconds)
    report.raw["logins"] = {str(at_once): {"seconds": found[at_once], "rate": rate[at_once]} for at_once in CONCURRENT}
    report.table(
        ["logins at once", "a second", "ms: p50", "p95", "p99"],
        [
            [str(at_once), f"{median(rate[at_once]):.0f}", *(f"{1000 * one:.0f}" for one in percentiles(times))]
            for at_once, times in found.items()
        ],
    )


async def burst(report: Report, platform: Stack, wanted: Wanted, requests: Sequence[bytes]) -> None:
    """GET /api/v1/jobs at an even rate, at rest and during a burst of logins."""
    seconds = 1.0 if wanted.quick else 10.0
    token = await platform.login()
    await _make_jobs(platform, token)
    page = encode("GET", f"/api/v1/jobs?limit={JOBS}", headers=bearer(token))
    found: dict[str, list[float]] = {"at rest": [], "during the burst": []}
    ratios = []
    for _ in range(wanted.rounds):
        rest = await _asked(platform, page, seconds=seconds)
        burst, _logged_in = await asyncio.gather(
            _asked(platform, page, seconds=seconds), _logins(platform, requests[:BURST], seconds=seconds)
        )
        ratios.append(percentiles(burst)[2] / percentiles(rest)[2])
        found["at rest"] += rest
        found["during the burst"] += burst
    report.raw["burst"] = found | {"ratios of p99": ratios}
    report.table(
        ["GET /api/v1/jobs, ms", "p50", "p95", "p99"],
        [[name, *(f"{1000 * one:.1f}" for one in percentiles(times))] for name, times in found.items()],
    )
    report.goal("p99 of GET /jobs during 16 logins at once / at rest", median(ratios), at_most=2)


async def _asked(platform: Stack, request: bytes, *, seconds: float) -> list[float]:
    """Seconds from when each request was due to its answer."""
    free: list[Wire] = []
    times: list[float] = []

    async def one(_: int) -> None:
        began = time.perf_counter()
        wire = free.pop() if free else Wire(*platform.gateway)
        answer = await wire.send(request)
        times.append(time.perf_counter() - began)
        free.append(wire)
        if answer.status != 200:
            raise RuntimeError(f"GET /jobs answered {answer.status}")

    await open_loop(one, rate=RATE, count=int(seconds * RATE))
    for wire in free:
        wire.close()
    return times


async def _logins(platform: Stack, requests: Sequence[bytes], *, seconds: float) -> list[float]:
    """Each request on a connection of its own, again and again; how long each took."""
    turn = cycle(requests)
    load = await closed_loop(platform.gateway, lambda: next(turn), connections=len(requests), seconds=seconds)
    if load.statuses.keys() != {200}:
        raise RuntimeError(f"logins answered {load.statuses}")
    return load.latencies


async def _make_users(platform: Stack, count: int) -> list[bytes]:
    """Their logins, as they go over the wire."""
    token = await platform.login()
    logins = []
    for number in range(count):
        user = {"email": f"user-{number}@bench.example", "password": PASSWORD, "role": "viewer"}
        made = await platform.ask("POST", "/api/v1/auth/users", token=token, body=user)
        if made.status != 201:
            raise RuntimeError(f"a user could not be made: {made.body.decode()}")
        logins.append(encode("POST", "/api/v1/auth/login", body={key: user[key] for key in ("email", "password")}))
    return logins


async def _make_jobs(platform: Stack, token: str) -> None:
    """Jobs of a prospect without data: they fail soon, and are listed."""

    async def make(path: str, body: Mapping[str, Any]) -> str:
        answer = await platform.ask("POST", f"/api/v1{path}", token=token, body=body)
        if answer.status not in {201, 202}:
            raise RuntimeError(f"{path} answered {answer.status}: {answer.body.decode()}")
        return str(answer.json["id"])

    client_id = await make("/clients", {"name": "Bench"})
    prospect_id = await make("/prospects", {"client_id": client_id, "name": "Without data"})
    proposition = {"client_id": client_id, "name": "Coaching", "content": PROPOSITION}
    job = {
        "job_type": "value_proposition",
        "prospect_id": prospect_id,
        "value_proposition_id": await make("/value-propositions", proposition),
    }
    for _ in range(JOBS):
        await make("/jobs", job)
    left = 1
    while left:
        pending = await platform.ask("GET", "/api/v1/jobs?status=pending&status=processing", token=token)
        left = len(pending.json["items"])
        await asyncio.sleep(0.2 if left else 0)


Part = Callable[[Report, Stack, Wanted, Sequence[bytes]], Awaitable[None]]
ON_THE_PLATFORM: Final[Mapping[str, Part]] = {"logins": logins, "burst": burst}
PARTS: Final = ("verify", *ON_THE_PLATFORM)


async def measure(report: Report, wanted: Wanted, folder: Path) -> None:
    """Measure the parts. `count` is of tokens."""
    if "verify" in wanted.parts:
        console.print(f"[bold]verify[/]  {verify.__doc__}")
        await verify(report, wanted)
    if not set(ON_THE_PLATFORM) & set(wanted.parts):
        return
    report.say("the platform starts")
    async with stack(folder) as platform:
        requests = await _make_users(platform, max(*CONCURRENT, BURST))
        for name, part in ON_THE_PLATFORM.items():
            if name in wanted.parts:
                console.print(f"[bold]{name}[/]  {part.__doc__}")
                await part(report, platform, wanted, requests)
