"""Claims sent over the public API beside the engine's own INSERT of the same file, and what a large file takes."""

import asyncio
import http.client
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil

from triton_trials import extracts
from triton_trials.alone import Alone, alone
from triton_trials.benchmarks.report import MIB, Report, Wanted
from triton_trials.benchmarks.stack import Stack, bearer, triton

ROWS: Final = 2_000_000
LARGE: Final = 13_500_000  # rows: two gigabytes of CSV
KINDS: Final = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
PATIENCE: Final = 600.0  # seconds for an answer
# The columns as the dataset has them, ids as the file has them: no hash, no check of a value
TABLE: Final = """
    member_id String, claim_id String, line_number UInt32, service_date DateTime64(3, 'UTC'),
    paid_date Nullable(DateTime64(3, 'UTC')), claim_type LowCardinality(String),
    place_of_service LowCardinality(String), diagnosis_codes String, code_system LowCardinality(String),
    procedure_code LowCardinality(String), provider_id String,
    billed Decimal(18, 2), allowed Decimal(18, 2), paid Decimal(18, 2), member_paid Decimal(18, 2)
"""


async def ingest(report: Report, platform: Stack, wanted: Wanted, folder: Path) -> None:
    """Rows a second from the first byte sent to the answer, and from the engine's own INSERT … SELECT FROM file."""
    rows = 20_000 if wanted.quick else wanted.count or ROWS
    found: dict[str, dict[str, list[float]]] = {}
    async with alone(folder / "engine") as engine:
        files = {}
        for kind in KINDS:
            files[kind] = folder / f"claims.{kind}"
            began = time.perf_counter()
            await extracts.write(engine, files[kind], rows=rows)
            report.say(
                f"{rows:,} claims as {kind}, {files[kind].stat().st_size / 1e6:,.0f} MB, written in "
                f"{time.perf_counter() - began:.1f} s"
            )
        for kind, path in files.items():
            found[kind] = {"triton": [], "engine": []}
            for _ in range(1 + wanted.rounds):
                found[kind]["engine"].append(rows / await _engines_own(engine, path))
                found[kind]["triton"].append(rows / await _sent(platform, path, rows))
    found = {kind: {who: rates[1:] for who, rates in by.items()} for kind, by in found.items()}  # the first warms up
    report.raw["ingest"] = {"rows": rows, "rates": found}
    for kind, by in found.items():
        report.rates(f"{kind}, rows/s", by)
        ratios = [ours / its for ours, its in zip(by["triton"], by["engine"], strict=True)]
        report.goal(f"{kind}: rows/s ÷ the engine's own INSERT", median(ratios), at_least=0.6)


async def _engines_own(engine: Alone, path: Path) -> float:
    await engine.timed("DROP TABLE IF EXISTS claims SYNC")
    await engine.timed(f"CREATE TABLE claims ({TABLE}) ENGINE = MergeTree ORDER BY (member_id, service_date)")
    return await engine.timed(f"INSERT INTO claims SELECT * FROM file('{path}', '{extracts.FORMATS[path.suffix[1:]]}')")  # noqa: S608


async def load(platform: Stack, path: Path, rows: int) -> tuple[tuple[str, str], float]:
    """Send a file into a prospect of its own: the ids of its client and of it, and the seconds."""
    token = await platform.login()
    name = str(time.time_ns())
    client = (await platform.ask("POST", "/api/v1/clients", token=token, body={"name": name})).json["id"]
    body = {"client_id": client, "name": name}
    prospect = (await platform.ask("POST", "/api/v1/prospects", token=token, body=body)).json["id"]
    began = time.perf_counter()
    answer = await asyncio.to_thread(_post, platform, path, f"/api/v1/analytics/prospects/{prospect}/claims", token)
    seconds = time.perf_counter() - began
    if answer.get("rows") != rows:
        raise RuntimeError(f"{path.name} was answered {answer}")
    return (client, prospect), seconds


async def _sent(platform: Stack, path: Path, rows: int) -> float:
    """Seconds of a load, which is taken out again."""
    (_, prospect), seconds = await load(platform, path, rows)
    token = await platform.login()
    batches = f"/api/v1/analytics/prospects/{prospect}/batches"
    for batch in (await platform.ask("GET", batches, token=token)).json["items"]:
        await platform.ask("DELETE", f"{batches}/{batch['id']}", token=token)
    return seconds


def _post(platform: Stack, path: Path, url: str, token: str) -> dict[str, Any]:
    """A file as a body, a megabyte at a time: a client that costs next to nothing."""
    headers = {**bearer(token), "Content-Type": KINDS[path.suffix[1:]], "Content-Length": str(path.stat().st_size)}
    connection = http.client.HTTPConnection(*platform.gateway, timeout=PATIENCE, blocksize=MIB)
    try:
        with path.open("rb") as file:
            connection.request("POST", url, body=file, headers=headers)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
    finally:
        connection.close()


async def memory(report: Report, platform: Stack, wanted: Wanted, folder: Path) -> None:
    """The memory of analytics-service above what it has at rest, at its highest while it takes a large file."""
    rows = 50_000 if wanted.quick else LARGE
    process = psutil.Process(_pid(platform, "analytics"))
    at_rest = process.memory_info().rss
    above: dict[str, float] = {}
    async with alone(folder / "engine") as engine:
        for kind in KINDS:
            path = folder / f"large.{kind}"
            await extracts.write(engine, path, rows=rows)
            async with _highest(process) as seen:
                seconds = await _sent(platform, path, rows)
            above[kind] = (max(seen) - at_rest) / MIB
            size = path.stat().st_size / 1e6
            report.say(f"{kind}: {size:,.0f} MB in {seconds:.0f} s, {above[kind]:.0f} MiB above rest")
            path.unlink()
    report.raw["memory"] = {"rows": rows, "mib_above_rest": above}
    for kind, mib in above.items():
        report.goal(f"{kind}: memory above rest for {rows:,} rows, MiB", mib, at_most=300)


def _pid(platform: Stack, name: str) -> int:
    parts = json.loads(triton("status", "--json", "--state", str(platform.state)))["parts"]
    [pid] = [part["pid"] for part in parts if part["name"] == name]
    return int(pid)


@asynccontextmanager
async def _highest(process: psutil.Process) -> AsyncIterator[list[int]]:
    """The process' resident bytes, twenty times a second."""
    seen = [process.memory_info().rss]

    async def look() -> None:
        while True:
            await asyncio.sleep(0.05)
            seen.append(process.memory_info().rss)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
