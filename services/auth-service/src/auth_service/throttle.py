"""Logins are slowed down by account and by address: some wrong ones are free, then each has to wait longer.

Nobody can lock an account: who is refused is told when to come again and is let in then, whatever others did meanwhile,
since the wait belongs to account *and* address. The counters are in Redis, for all processes, and in each process's own
memory, for a Redis that is down or was emptied; the longer wait counts.
"""

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from loguru import logger
from redis.asyncio import Redis
from redis.exceptions import RedisError

from triton_common.errors import Forbidden, TooManyRequests, Unauthorized

LONGEST_OF_ACCOUNT: Final = 300  # seconds: 288 guesses a day and address
LONGEST_OF_ADDRESS: Final = 60  # seconds; many people may share an address
WITHOUT_REDIS: Final = (
    5.0  # seconds until a Redis that did not answer is asked again: a frozen one takes one a question
)
PREFIX: Final = "triton:login:"
REMEMBERED: Final = 100_000  # counters in a process's memory
TOLD: Final = 10  # refusals of an address in a window that the audit log is told of: nobody can fill it


class TooManyAttempts(TooManyRequests):
    """Too many logins for this account or from this address went wrong; wait and try again."""

    is_news = False  # the first refusal of its account there in this window, and not one of very many of its address


@dataclass(frozen=True)
class Gate:
    """One of the two counts an attempt meets: `free` wrong ones, then a pause that doubles up to `longest` seconds."""

    count: str
    slot: str
    free: int
    longest: int

    def pause(self, wrong: int) -> float:
        """Seconds to wait after so many wrong attempts."""
        return float(min(2 ** min(wrong - self.free, 30), self.longest)) if wrong >= self.free else 0.0


Gates = tuple[Gate, ...]
"""Those of one attempt: of an account's, its own is the first."""


class Throttle:
    """Admits attempts. Each counts when it begins, so that many at once do not slip through, and not if it succeeds."""

    def __init__(self, redis: Redis | None, *, free_of_account: int, free_of_address: int, window: timedelta) -> None:
        self._redis = redis
        self._free = (free_of_account, free_of_address)
        self._window = int(window.total_seconds())
        self._memory = Memory(self._window)
        self._reachable = True
        self._ask_from = 0.0

    @asynccontextmanager
    async def attempt(self, account: str, *, address: str) -> AsyncIterator[None]:
        """Around a login. Raises TooManyAttempts. An error but Unauthorized or Forbidden is no wrong login."""
        gates = self._gates(account, address)
        await self._admit(gates)
        try:
            yield
        except (Unauthorized, Forbidden):
            raise
        except BaseException:
            await self._take_back(gates)
            raise
        await self._take_back(gates, succeeded=True)

    @asynccontextmanager
    async def beginning(self, *, address: str) -> AsyncIterator[None]:
        """Around the beginning of a login that goes on elsewhere: it counts until it is `finished`. Raises
        TooManyAttempts."""
        gates = self._gates_of_beginning(address)
        await self._admit(gates)
        try:
            yield
        except BaseException:  # it has not begun
            await self._take_back(gates)
            raise

    async def finished(self, *, address: str) -> None:
        """A login that was begun there has succeeded."""
        await self._take_back(self._gates_of_beginning(address))

    def _gates(self, account: str, address: str) -> Gates:
        name = hashlib.sha256(account.encode()).hexdigest()[:32]
        place = _network(address)
        return (
            Gate(f"{PREFIX}account:{name}", f"{PREFIX}slot:{name}:{place}", self._free[0], LONGEST_OF_ACCOUNT),
            Gate(f"{PREFIX}address:{place}", f"{PREFIX}slot:{place}", self._free[1], LONGEST_OF_ADDRESS),
        )

    def _gates_of_beginning(self, address: str) -> Gates:
        place = _network(address)
        return (Gate(f"{PREFIX}begun:{place}", f"{PREFIX}slot:begun:{place}", self._free[1], LONGEST_OF_ADDRESS),)

    async def _admit(self, gates: Gates) -> None:
        here, everywhere = self._memory.admit(gates), await self._admitted(gates)
        if here or everywhere:
            if not here:  # one of the two has counted what does not take place
                self._memory.take_back(gates, succeeded=False)
            elif not everywhere:
                await self._run(_TAKE_BACK, gates, [0])
            refused = TooManyAttempts(retry_after=math.ceil(max(here, everywhere)))
            of_account, of_address = (self._memory.counted(f"told:{n}:{gates[n].slot}") for n in (0, -1))
            refused.is_news = of_account == 1 and of_address <= TOLD
            raise refused

    async def _admitted(self, gates: Gates) -> float:
        """Seconds to wait, as Redis has it; none without Redis."""
        limits = [limit for gate in gates for limit in (gate.free, gate.longest)]
        return float(await self._run(_ADMIT, gates, [self._window, *limits]) or 0)

    async def _take_back(self, gates: Gates, *, succeeded: bool = False) -> None:
        self._memory.take_back(gates, succeeded=succeeded)
        await self._run(_TAKE_BACK, gates, [int(succeeded)])

    async def _run(self, script: str, gates: Gates, arguments: list[int]) -> Any:
        if self._redis is None or time.monotonic() < self._ask_from:
            return None
        keys = [key for gate in gates for key in (gate.count, gate.slot)]
        try:
            answer: Any = await self._redis.eval(script, len(keys), *keys, *arguments)
        except (RedisError, OSError, TimeoutError):
            if self._reachable:
                logger.warning("logins are throttled by each process alone: Redis does not answer")
            self._reachable = False
            self._ask_from = time.monotonic() + WITHOUT_REDIS
            return None
        self._reachable = True
        return answer


class Memory:
    """The same rule as in Redis, for one process."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._values: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key: (its end, its value)

    def admit(self, gates: Gates) -> float:
        """Seconds to wait; 0 counts the attempt."""
        now = time.monotonic()
        wait = 0.0
        for gate in gates:
            if pause := gate.pause(int(self._value(gate.count, now))):
                opens = self._value(gate.slot, now)
                if not opens:
                    opens = now + pause
                    self._set(gate.slot, opens, now)
                wait = max(wait, opens - now)
        if wait > 0:
            return wait
        for gate in gates:
            wrong = int(self._value(gate.count, now)) + 1
            self._set(gate.count, wrong, now)
            if pause := gate.pause(wrong):
                self._set(gate.slot, now + pause, now)
        return 0.0

    def take_back(self, gates: Gates, *, succeeded: bool) -> None:
        """The attempt was no wrong one; after one that succeeded its account begins anew."""
        now = time.monotonic()
        for gate in gates:
            if wrong := self._value(gate.count, now):
                self._set(gate.count, wrong - 1, now)
        if succeeded:
            self._values.pop(gates[0].count, None)
            self._values.pop(gates[0].slot, None)

    def counted(self, key: str) -> int:
        """How often it was counted in the window that its first time began, with this one."""
        now = time.monotonic()
        end, count = self._values.get(key, (0.0, 0.0))
        if end <= now:
            end, count = now + self._window, 0.0
        self._keep(key, (end, count + 1))
        return int(count) + 1

    def _value(self, key: str, now: float) -> float:
        end, value = self._values.get(key, (0.0, 0.0))
        return value if end > now else 0.0

    def _set(self, key: str, value: float, now: float) -> None:
        self._keep(key, (now + self._window, value))

    def _keep(self, key: str, value: tuple[float, float]) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > REMEMBERED:
            self._values.popitem(last=False)


# KEYS: count and slot of each gate. ARGV: the window, then free and longest of each gate.
_ADMIT: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local window = tonumber(ARGV[1])
local function pause(gate, wrong)
  local free, longest = tonumber(ARGV[2 * gate]), tonumber(ARGV[2 * gate + 1])
  if wrong < free then return 0 end
  return math.min(2 ^ math.min(wrong - free, 30), longest)
end
local wait = 0
for gate = 1, #KEYS / 2 do
  local due = pause(gate, tonumber(redis.call('GET', KEYS[2 * gate - 1]) or '0'))
  if due > 0 then
    local opens = tonumber(redis.call('GET', KEYS[2 * gate]) or '0')
    if opens == 0 then
      opens = now + due
      redis.call('SET', KEYS[2 * gate], string.format('%.6f', opens), 'EX', window)
    end
    wait = math.max(wait, opens - now)
  end
end
if wait > 0 then return string.format('%.6f', wait) end
for gate = 1, #KEYS / 2 do
  local wrong = redis.call('INCR', KEYS[2 * gate - 1])
  redis.call('EXPIRE', KEYS[2 * gate - 1], window)
  local due = pause(gate, wrong)
  if due > 0 then redis.call('SET', KEYS[2 * gate], string.format('%.6f', now + due), 'EX', window) end
end
return '0'
"""

_TAKE_BACK: Final = """
for gate = 1, #KEYS / 2 do
  if tonumber(redis.call('GET', KEYS[2 * gate - 1]) or '0') > 0 then redis.call('DECR', KEYS[2 * gate - 1]) end
end
if ARGV[1] == '1' then redis.call('DEL', KEYS[1], KEYS[2]) end
"""


def _network(address: str) -> str:
    """The address; of IPv6 the /64 that one subscriber has."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
