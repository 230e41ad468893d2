"""How fast jobs are taken and done, by Triton and by those that it is compared with."""

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Final

from triton_trials.peers import Peer, Procrastinate, RawCelery, Triton, TritonOneClient
from triton_trials.platform import Platform
from triton_trials.wire import open_loop

PEERS: Final[Sequence[type[Peer]]] = (RawCelery, Procrastinate, Triton, TritonOneClient)
IDLE_RATE: Final = 20.0  # submissions a second that are no load
LOADED: Final = 0.5  # of the rate at which a peer takes and does jobs at once
WARM: Final = 0.1  # of the jobs, before the rate is taken: connections are opened, modules loaded


@dataclass
class Speed:
    """One peer's numbers, one a round; rates a second, latencies in seconds, memory in bytes."""

    submitted: list[float] = field(default_factory=list)
    drained: list[float] = field(default_factory=list)
    through: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)
    loaded: list[float] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    computed: dict[str, float] = field(default_factory=dict)
    """Seconds a job, of each process: what a busy machine does not change."""


async def measure(platform: Platform, *, jobs: int, rounds: int, say: Callable[[str], None]) -> dict[str, Speed]:
    """Every peer in turn, round after round; latencies in the last one."""
    speeds: dict[str, Speed] = defaultdict(Speed)
    for number in range(rounds):
        for peer in PEERS:
            say(f"round {number + 1} of {rounds}: {peer.name}")
            await _turn(peer, platform, speeds[peer.name], jobs=jobs, latencies=number == rounds - 1)
    return speeds


async def _turn(kind: type[Peer], platform: Platform, speed: Speed, *, jobs: int, latencies: bool) -> None:
    async with kind(platform) as peer:
        began = time.perf_counter()
        await peer.submit(jobs)
        speed.submitted.append(jobs / (time.perf_counter() - began))
        await peer.start_workers()
        speed.drained.append(drain_rate((await peer.all_done()).values()))

        computed = peer.processor_time()
        before, sent = set(peer.ids), time.time()
        await peer.submit(jobs)
        done = await peer.all_done()
        last = max(at for one, at in done.items() if one not in before)
        speed.through.append(jobs / (last - sent))
        speed.computed = {name: (at - computed[name]) / jobs for name, at in peer.processor_time().items()}
        speed.memory = peer.memory()
        if latencies:
            speed.idle += await _latencies(peer, rate=IDLE_RATE, count=max(20, jobs // 20))
            speed.loaded += await _latencies(peer, rate=LOADED * median(speed.through), count=jobs)
            if isinstance(peer, Triton):
                speed.seen += [await peer.until_seen() for _ in range(max(20, jobs // 20))]


def drain_rate(times: Iterable[float]) -> float:
    """Jobs a second, from when the first tenth was done to the end."""
    ordered = sorted(times)
    first = int(WARM * len(ordered))
    return (len(ordered) - 1 - first) / (ordered[-1] - ordered[first])


async def _latencies(peer: Peer, *, rate: float, count: int) -> list[float]:
    """From before the submission to when the peer's record says it was done."""
    sent: dict[Hashable, float] = {}

    async def one(_: int) -> None:
        at = time.time()
        sent[await peer.one()] = at

    await open_loop(one, rate=rate, count=count)
    done = await peer.all_done()
    return [done[job] - at for job, at in sent.items()]


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """p50, p95, p99."""
    cuts = quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[94], cuts[98]
