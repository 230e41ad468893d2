"""Accidents of jobs-service, its database, and the way to it."""

import asyncio
from signal import SIGINT, SIGKILL, SIGQUIT, SIGTERM

from triton_trials.load import Size, all_replaced, load, replaced
from triton_trials.proxy import Proxy
from triton_trials.trial import Trial


async def postgres_restarted(trial: Trial, size: Size) -> None:
    """Restart Postgres, fast and immediate."""
    async with load(trial, size.jobs):
        for _ in range((size.times + 1) // 2):
            for number in (SIGINT, SIGQUIT):
                await trial.until_working()
                await replaced(trial.platform.postgres, number)
    again = sum(one.tries > 1 for one in trial.submissions)
    trial.note = f"{again} submissions sent again"
    silent = sum(0 in one.statuses for one in trial.submissions)
    trial.demand(silent == 0, f"{silent} submissions were not answered, in place of 503")


async def services_stopped(trial: Trial, size: Size) -> None:
    """SIGTERM and SIGKILL jobs-service, one process after the other, then all; a tenth of its answers is lost."""
    services = trial.platform.services
    async with Proxy(trial.platform.addresses) as gate:
        gate.lose = 0.1
        trial.entrances = lambda: [("127.0.0.1", gate.port)]
        async with load(trial, size.jobs):
            for number in range(size.times):
                await replaced(services[number % len(services)], (SIGTERM, SIGKILL)[number % 2])
            await all_replaced(services, SIGKILL)
    trial.note = f"{gate.lost} answers lost, {gate.refused} connections refused"
    trial.demand(gate.lost > 0, "no answer was lost: the accident did not happen")
    trial.demand(gate.refused > 0, "no connection was refused: the accident did not happen")


async def link_cut(trial: Trial, size: Size) -> None:
    """Between workers and jobs-service all is cut, then nothing passes, then a fifth of the answers is lost."""
    link = trial.platform.proxy
    counted = "broken", "refused", "held", "lost"
    before = [getattr(link, name) for name in counted]
    async with load(trial, size.jobs):
        await trial.until_working()
        link.refuses = True
        link.cut()
        await asyncio.sleep(size.seconds / 3)
        link.refuses = False
        await trial.until_working()
        link.stall()
        await asyncio.sleep(size.seconds / 3)
        link.flow()
        await trial.until_working()
        link.lose = 0.2
        await asyncio.sleep(size.seconds / 3)
        link.lose = 0.0
    counts = {name: getattr(link, name) - was for name, was in zip(counted, before, strict=True)}
    trial.note = (
        f"{counts['broken']} connections broken, {counts['refused']} refused, {counts['held']} messages held up, "
        f"{counts['lost']} answers lost"
    )
    for name, count in counts.items():
        trial.demand(count > 0, f"nothing was {name}: the accident did not happen")
