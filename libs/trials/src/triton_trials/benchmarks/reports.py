"""Reports over the public API beside the same SQL asked of the engine alone, over more and more claims."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

from triton_trials import extracts
from triton_trials.alone import alone
from triton_trials.benchmarks import ingest
from triton_trials.benchmarks.report import Report, Wanted
from triton_trials.benchmarks.stack import Stack, bearer, triton
from triton_trials.platform import PartFailed
from triton_trials.wire import Wire, encode

ROWS: Final = (1_000_000, 10_000_000, 50_000_000)
COMPARED: Final = 10_000_000
ALLOWED: Final = 0.005  # seconds of HTTP, token, tenant and audit that a report may have besides
COHORT: Final = {"codes": [{"system": "icd10cm", "code": "E1*"}]}
NAMES: Final = (
    *("summary", "cost-trend", "conditions", "utilization", "pharmacy", "high-cost", "readmissions", "cohort"),
)


async def reports(report: Report, platform: Stack, wanted: Wanted, folder: Path) -> None:
    """Seconds of each report over claims of one prospect: over the API, and of the same SQL on the engine by itself."""
    sizes = (20_000,) if wanted.quick else (wanted.count,) if wanted.count else ROWS
    prospects: dict[int, tuple[str, str]] = {}
    ours: dict[int, dict[str, float]] = {}
    async with alone(folder / "engine") as engine:
        for rows in sizes:
            path = folder / "claims.parquet"
            began = time.perf_counter()
            await extracts.write(engine, path, rows=rows)
            written = time.perf_counter() - began
            prospects[rows], seconds = await ingest.load(platform, path, rows)
            report.say(f"{rows:,} claims written in {written:.0f} s, taken in in {seconds:.0f} s")
            path.unlink()
    for rows, (_, prospect) in prospects.items():
        ours[rows] = await _over_http(platform, prospect, rounds=wanted.rounds)
        report.say(f"every report asked over {rows:,} claims")
    await asyncio.to_thread(triton, "down", "--state", str(platform.state))
    alone_by = {rows: await _alone(platform.state, *ids, rounds=wanted.rounds) for rows, ids in prospects.items()}
    report.raw["reports"] = {"seconds": ours, "engine": alone_by}
    report.table(
        ["report", *(f"{rows / 1e6:g} M: ms, engine ms" for rows in sizes)],
        [
            (name, *(f"{ours[rows][name] * 1e3:,.0f}  {alone_by[rows][name] * 1e3:,.0f}" for rows in sizes))
            for name in NAMES
        ],
    )
    compared = COMPARED if COMPARED in ours else sizes[-1]
    for name in NAMES:
        ratio = (ours[compared][name] - ALLOWED) / alone_by[compared][name]
        report.goal(f"{name}, {compared:,} claims: (time - 5 ms) ÷ the engine's own", ratio, at_most=1.3)
    if len(sizes) > 1:
        _growth(report, ours, compared, sizes[-1])


def _growth(report: Report, ours: Mapping[int, Mapping[str, float]], less: int, more: int) -> None:
    """A report that takes longer by more than its rows are more has something that grows faster than they do."""
    for name in NAMES:
        growth = ours[more][name] / ours[less][name] / (more / less)
        report.goal(f"{name}: growth of time ÷ of rows, to {more:,}", growth, at_most=1.5)


async def _over_http(platform: Stack, prospect: str, *, rounds: int) -> dict[str, float]:
    token = await platform.login()
    wire = Wire(*platform.gateway)
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    try:
        for name in NAMES:
            for day in range(1 + rounds):
                # another last day each time: what is asked twice is answered from memory
                path = f"/api/v1/analytics/prospects/{prospect}/reports/{name}?until=2199-12-{31 - day}"
                method, body = ("POST", COHORT) if name == "cohort" else ("GET", None)
                answer = await wire.send(encode(method, path, headers=bearer(token), body=body), patience=60.0)
                if answer.status != 200:
                    raise PartFailed(f"{name}: {answer.status} {answer.body.decode()}")
                found[name].append(answer.seconds)
    finally:
        wire.close()
    return {name: median(seconds[1:]) for name, seconds in found.items()}


async def _alone(state: Path, client: str, prospect: str, *, rounds: int) -> dict[str, float]:
    command = [sys.executable, "-m", "triton_trials.asked", str(state / "clickhouse"), client, prospect, str(rounds)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PartFailed(f"the engine alone: {done.stderr}")
    seconds: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seconds
