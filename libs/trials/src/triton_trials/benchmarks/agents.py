"""A document without a model, from claim to finish, of more and more data; the worker's memory, and its import."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx2
import psutil

from triton_trials.benchmarks.report import MIB, Report, Wanted, console
from triton_trials.benchmarks.stack import Stack, stack, triton
from triton_trials.speed import percentiles
from triton_trials.submissions import PROPOSITION

MEMBERS: Final = (500, 2000, 8000)  # of the generated sample: `triton demo` makes 2000
JOBS: Final = 20  # of each size
STAGES: Final = ("collecting", "modelling", "writing", "checking")
OFFERED: Final = 2000  # members whose jobs the goal is about


async def load(report: Report, wanted: Wanted) -> None:
    """The worker's module in a fresh interpreter."""
    seconds, processor = [], []
    for _ in range(1 + wanted.rounds):
        began, used = time.perf_counter(), _children()
        command = [sys.executable, "-c", "import agent_runner.worker"]
        await asyncio.to_thread(subprocess.run, command, check=True)
        seconds.append(time.perf_counter() - began)
        processor.append(_children() - used)
    report.raw["load"] = {"seconds": seconds[1:], "processor": processor[1:]}  # the first one may compile
    report.table(["import of the worker", "s"], [["by the clock", f"{median(seconds[1:]):.2f}"]])
    report.goal("import of the worker, s of a core", median(processor[1:]), at_most=3)


def _children() -> float:
    """Seconds of a core that ended processes have used: a busy machine adds less to them than to the clock's."""
    times = psutil.Process().cpu_times()
    return float(times.children_user + times.children_system)


async def documents(report: Report, platform: Stack, wanted: Wanted) -> None:
    """Jobs one after another, each from its claim to its end, and what of that is collecting the reports."""
    sizes = MEMBERS[:2] if wanted.quick else MEMBERS
    count = 2 if wanted.quick else wanted.count or JOBS
    found: dict[int, dict[str, list[float]]] = {}
    token = await platform.login()
    async with httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{platform.port}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=120
    ) as http:
        for members in sizes:
            report.say(f"a prospect of {members} members")
            job = await _prospect(http, platform.state.parent / f"sample-{members}", members)
            await _run(http, job)  # the first one warms everything up
            found[members] = {"whole": [], **{stage: [] for stage in STAGES}}
            for _ in range(count):
                for name, seconds in (await _run(http, job)).items():
                    found[members][name].append(seconds)
    report.raw["documents"] = {str(members): times for members, times in found.items()}
    report.table(
        ["members", "ms: p50", "p95", "p99", *(f"{stage} p50" for stage in STAGES)],
        [
            [
                str(members),
                *(f"{1000 * one:.0f}" for one in percentiles(times["whole"])),
                *(f"{1000 * median(times[stage]):.0f}" for stage in STAGES),
            ]
            for members, times in found.items()
        ],
    )
    own = {members: _own(times) for members, times in found.items()}
    report.goal("a document of the sample, p50 ms", 1000 * median(found[OFFERED]["whole"]), at_most=250)
    report.goal(f"all but the reports, {sizes[-1]} members to {sizes[0]}", own[sizes[-1]] / own[sizes[0]], at_most=1.5)
    parts = json.loads(triton("status", "--json", "--state", str(platform.state)))["parts"]
    [pid] = [part["pid"] for part in parts if part["name"] == "agent-worker"]
    memory = psutil.Process(pid).memory_info().rss / MIB
    report.raw["worker_mib"] = memory
    report.goal("the worker's memory, MiB", memory, at_most=250)


def _own(times: Mapping[str, list[float]]) -> float:
    return median(whole - collecting for whole, collecting in zip(times["whole"], times["collecting"], strict=True))


async def _prospect(http: httpx2.AsyncClient, folder: Path, members: int) -> dict[str, str]:
    """The body of a job about a prospect with a generated population."""

    async def make(path: str, **body: Any) -> str:
        answer = await http.post(path, json=body)
        return str(answer.raise_for_status().json()["id"])

    await asyncio.to_thread(triton, "sample", "--out", str(folder), "--members", str(members))
    client_id = await make("/clients", name=f"Bench {members}")
    prospect_id = await make("/prospects", client_id=client_id, name=f"Of {members}")
    proposition = await make("/value-propositions", client_id=client_id, name="Coaching", content=PROPOSITION)
    files = await asyncio.to_thread(lambda: {file.stem: file.read_bytes() for file in folder.glob("*.csv")})
    for dataset, content in files.items():
        answer = await http.post(
            f"/analytics/prospects/{prospect_id}/{dataset}", content=content, headers={"content-type": "text/csv"}
        )
        answer.raise_for_status()
    return {"job_type": "value_proposition", "prospect_id": prospect_id, "value_proposition_id": proposition}


async def _run(http: httpx2.AsyncClient, body: Mapping[str, str]) -> dict[str, float]:
    """Seconds of a job from its claim to its end, and of each stage, by jobs-service's clock."""
    submitted = await http.post("/jobs", json=body)
    path = f"/jobs/{submitted.raise_for_status().json()['id']}"
    while (job := (await http.get(path)).json())["finished_at"] is None:  # noqa: ASYNC110  the job is elsewhere
        await asyncio.sleep(0.05)
    if job["status"] != "completed":
        raise RuntimeError(f"a job {job['status']}: {job['error']}")
    began, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    events = (await http.get(f"{path}/events")).json()["items"]
    at = {event["stage"]: datetime.fromisoformat(event["at"]) for event in reversed(events) if event["stage"] in STAGES}
    marks = [began, *(at[stage] for stage in STAGES[1:]), ended]
    spent = {
        stage: (after - before).total_seconds() for stage, (before, after) in zip(STAGES, pairwise(marks), strict=True)
    }
    return {"whole": (ended - began).total_seconds(), **spent}


Part = Callable[[Report, Stack, Wanted], Awaitable[None]]
ON_THE_PLATFORM: Final[Mapping[str, Part]] = {"documents": documents}
PARTS: Final = ("load", *ON_THE_PLATFORM)


async def measure(report: Report, wanted: Wanted, folder: Path) -> None:
    """Measure the parts. `count` is of jobs for each size."""
    if "load" in wanted.parts:
        console.print(f"[bold]load[/]  {load.__doc__}")
        await load(report, wanted)
    if "documents" not in wanted.parts:
        return
    report.say("the platform starts")
    async with stack(folder) as platform:
        console.print(f"[bold]documents[/]  {documents.__doc__}")
        await documents(report, platform, wanted)
