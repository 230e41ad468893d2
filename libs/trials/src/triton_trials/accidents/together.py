"""One accident after another, drawn by dice that a seed throws again."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from signal import SIGCONT, SIGKILL, SIGQUIT, SIGSTOP, SIGTERM
from typing import Final

from triton_trials.load import Size, load, replaced
from triton_trials.platform import Platform
from triton_trials.trial import Trial

LONGEST_FREEZE: Final = 5.0  # seconds


async def _worker_killed(platform: Platform, dice: Random) -> None:
    await replaced(dice.choice(platform.workers), SIGKILL)


async def _worker_stopped(platform: Platform, dice: Random) -> None:
    await replaced(dice.choice(platform.workers), SIGTERM)


async def _service_killed(platform: Platform, dice: Random) -> None:
    await replaced(dice.choice(platform.services), SIGKILL)


async def _postgres_killed(platform: Platform, _: Random) -> None:
    await replaced(platform.postgres, SIGQUIT)


async def _redis_killed(platform: Platform, _: Random) -> None:
    await replaced(platform.redis, SIGKILL)


async def _redis_flushed(platform: Platform, _: Random) -> None:
    await platform.messages.flush()


async def _link_cut(platform: Platform, _: Random) -> None:
    platform.proxy.cut()


async def _frozen(platform: Platform, dice: Random) -> None:
    part = dice.choice([*platform.workers, *platform.services, platform.redis])
    seconds = dice.uniform(0.1, LONGEST_FREEZE)
    part.tell(SIGSTOP)
    await asyncio.sleep(seconds)
    part.tell(SIGCONT)


Accident = Callable[[Platform, Random], Awaitable[None]]
DECK: Final[list[Accident]] = [
    _worker_killed,
    _worker_stopped,
    _service_killed,
    _postgres_killed,
    _redis_killed,
    _redis_flushed,
    _link_cut,
    _frozen,
]


def drawn(dice: Random) -> Iterator[Accident]:
    """The deck, shuffled, again and again."""
    while True:
        yield from dice.sample(DECK, len(DECK))


async def all_at_random(trial: Trial, size: Size) -> None:
    """Now this, now that, for a while, and each at least once."""
    end = time.monotonic() + 2 * size.seconds
    happened: Counter[str] = Counter()
    async with load(trial, size.jobs):
        for accident in drawn(trial.dice):
            if time.monotonic() > end and len(happened) == len(DECK):
                break
            await trial.until_working()
            await accident(trial.platform, trial.dice)
            happened[accident.__name__] += 1
    trial.note = f"{happened.total()} accidents"
