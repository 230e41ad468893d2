"""When a cron expression fires. The one file that imports cronsim and looks for timezones.

Five fields as Debian's cron reads them, with `L`, `LW`, `5L` and `MON#2`; when day of month and day of week are both
named, either will do. When clocks change, an expression that names its minutes and hours fires once: just after a
skipped hour, in the first of two doubled ones. One whose minute or hour begins with `*` goes by the clock: not in the
skipped hour, in both of the doubled ones.
"""

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
NEVER: Final = "it never fires: no such day comes in the next 50 years"
_FIELDS: Final = (
    ("minute", "{} * * * *", "0 to 59"),
    ("hour", "* {} * * *", "0 to 23"),
    ("day of month", "* * {} * *", "1 to 31, L (the last) or LW (the last weekday)"),
    ("month", "* * * {} *", "1 to 12 or JAN to DEC"),
    ("day of week", "* * * * {}", "0 to 7 or SUN to SAT, 5L (the last Friday), MON#2 (the second Monday)"),
)


class InvalidCron(ValueError):
    """An expression that says nothing, or that never fires."""


class InvalidTimezone(ValueError):
    """A name that is no timezone's."""


def check(expression: str) -> str:
    """The expression, its spaces made single. Raises InvalidCron, which says what is wrong."""
    parts = expression.split()
    known = NICKNAMES.get(expression.strip().lower())
    if known is not None:
        return expression.strip().lower()
    if expression.strip().startswith("@"):
        raise InvalidCron(f"{expression.strip()} is not one of {', '.join(NICKNAMES)}")
    if len(parts) != len(_FIELDS):
        raise InvalidCron(f"five fields are needed, not {len(parts)}: minute, hour, day of month, month, day of week")
    for part, (name, alone, allowed) in zip(parts, _FIELDS, strict=True):
        try:
            CronSim(alone.format(part), datetime.now(UTC))
        except CronSimError as error:
            raise InvalidCron(
                f"the {name} {part!r} is not valid: {allowed}; lists, ranges and /steps of these"
            ) from error
    following(" ".join(parts), "UTC", after=datetime.now(UTC))
    return " ".join(parts)


@cache
def _timezones() -> frozenset[str]:
    # the machine's and those of the tzdata package; localtime is the machine's own, whatever that is
    return frozenset(available_timezones() - {"localtime"})


def check_timezone(name: str) -> str:
    """The name, UTC's in any case. Raises InvalidTimezone."""
    if name.upper() == "UTC":
        return "UTC"
    if name not in _timezones():
        raise InvalidTimezone("this is no timezone's name: give one as Europe/Berlin, America/New_York or UTC")
    return name


def following(expression: str, timezone: str, *, after: datetime) -> datetime:
    """The first run after a time. Raises InvalidCron when there is none within 50 years, InvalidTimezone."""
    for run in runs(expression, timezone, after=after):
        return run
    raise InvalidCron(NEVER)


def runs(expression: str, timezone: str, *, after: datetime) -> Iterator[datetime]:
    """The runs after a time, in UTC, each later than the one before. Raises InvalidCron, InvalidTimezone."""
    local = after.astimezone(ZoneInfo(check_timezone(timezone)))
    try:
        simulated = CronSim(NICKNAMES.get(expression, expression), local)
    except CronSimError as error:  # the fields are well, so it is a day that no month has
        raise InvalidCron(NEVER) from error
    for run in simulated:
        moment = run.astimezone(UTC)
        # begun in the second of doubled hours, it names a time of the first, which is over
        if moment > after:
            yield moment


def due(
    expression: str, timezone: str, *, first: datetime, until: datetime, limit: int
) -> tuple[list[datetime], datetime]:
    """(the last `limit` runs of those from `first`, which is one, to `until`, oldest first; the run after these).

    Looks back further and further from `until`, so that a long time of many runs costs no more than it gives.
    Raises InvalidCron when no run follows, InvalidTimezone.
    """
    span = timedelta(minutes=limit)
    while True:
        start = max(first, until - span)
        last = deque([first] if start == first else [], maxlen=limit)
        for run in runs(expression, timezone, after=start):
            if run > until:
                break
            last.append(run)
        else:
            raise InvalidCron(NEVER)
        if start == first or len(last) == limit:
            return list(last), run
        span *= 4
