"""When expressions fire, what they may not say, and what happens to them when clocks change."""

import zoneinfo
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile

import pytest

from jobs_service import cron


def local(*numbers: int, zone: str) -> datetime:
    return datetime(*numbers, tzinfo=zoneinfo.ZoneInfo(zone)).astimezone(UTC)


def on(day: str, expression: str, zone: str) -> list[str]:
    """The runs of this day and the morning after, on the clock of the zone."""
    start = datetime.fromisoformat(day).replace(tzinfo=zoneinfo.ZoneInfo(zone)).astimezone(UTC) - timedelta(seconds=1)
    found = takewhile(lambda run: run <= start + timedelta(hours=40), cron.runs(expression, zone, after=start))
    return [run.astimezone(zoneinfo.ZoneInfo(zone)).strftime("%d %H:%M %z") for run in found]


@pytest.mark.parametrize(
    ("day", "expression", "zone", "expected"),
    [
        # the skipped hour: once, just after it
        ("2026-03-08", "30 2 * * *", "America/New_York", ["08 03:00 -0400", "09 02:30 -0400"]),
        ("2026-03-29", "30 2 * * *", "Europe/Berlin", ["29 03:00 +0200", "30 02:30 +0200"]),
        ("2026-03-08", "0,30 2 * * *", "America/New_York", ["08 03:00 -0400", "09 02:00 -0400", "09 02:30 -0400"]),
        ("2026-03-08", "0 2,3 * * *", "America/New_York", ["08 03:00 -0400", "09 02:00 -0400", "09 03:00 -0400"]),
        # the doubled hour: once, in the first
        ("2026-11-01", "30 1 * * *", "America/New_York", ["01 01:30 -0400", "02 01:30 -0500"]),
        ("2026-10-25", "30 2 * * *", "Europe/Berlin", ["25 02:30 +0200", "26 02:30 +0100"]),
        # hours beside them: as on any day
        ("2026-03-08", "0 6 * * *", "America/New_York", ["08 06:00 -0400", "09 06:00 -0400"]),
        ("2026-11-01", "0 6 * * *", "America/New_York", ["01 06:00 -0500", "02 06:00 -0500"]),
        ("2026-10-25", "@daily", "Europe/Berlin", ["25 00:00 +0200", "26 00:00 +0100"]),
        # a star goes by the clock: not in the skipped hour, in both of the doubled
        ("2026-03-08", "*/30 2 * * *", "America/New_York", ["09 02:00 -0400", "09 02:30 -0400"]),
        (
            "2026-11-01",
            "*/30 1 * * *",
            "America/New_York",
            [
                "01 01:00 -0400",
                "01 01:30 -0400",
                "01 01:00 -0500",
                "01 01:30 -0500",
                "02 01:00 -0500",
                "02 01:30 -0500",
            ],
        ),
        # midnight itself is skipped in Cairo
        ("2026-04-24", "0 0 * * *", "Africa/Cairo", ["24 01:00 +0300", "25 00:00 +0300"]),
        # nobody turns this clock
        ("2026-03-29", "30 2 * * *", "UTC", ["29 02:30 +0000", "30 02:30 +0000"]),
    ],
)
def test_runs_where_clocks_change(day: str, expression: str, zone: str, expected: list[str]):
    assert on(day, expression, zone) == expected


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Africa/Cairo", "Australia/Lord_Howe"])
@pytest.mark.parametrize("expression", ["30 1 * * *", "30 2 * * *", "0,30 1,2,3 * * *", "*/15 * * * *", "15 */2 * * *"])
def test_runs_are_the_same_from_wherever_they_are_begun(expression: str, zone: str):
    """Also from within a doubled hour, where the clock shows again what it showed before."""
    for changes in ("2026-03-08", "2026-03-29", "2026-04-04", "2026-04-24", "2026-10-24", "2026-10-30", "2026-11-01"):
        start = datetime.fromisoformat(changes).replace(tzinfo=UTC) - timedelta(days=1)
        end = start + timedelta(days=3)
        full = list(takewhile(lambda run: run <= end, cron.runs(expression, zone, after=start)))  # noqa: B023  used at once
        assert full == sorted(set(full))
        for minutes in range(0, 3 * 1440, 45):
            begun = start + timedelta(minutes=minutes)
            assert cron.following(expression, zone, after=begun) == next(
                (run for run in full if run > begun), cron.following(expression, zone, after=end)
            )


@pytest.mark.parametrize("expression", ["* * * * *", "0 3 * * *", "@yearly", "* * 1 1 *", "*/5 9-17 * * MON-FRI"])
@pytest.mark.parametrize("limit", [1, 100])
def test_due_are_the_last_of_all_runs(expression: str, limit: int):
    until = datetime(2026, 1, 3, 12, 30, 7, tzinfo=UTC)
    first = cron.following(expression, "America/New_York", after=until - timedelta(days=40))
    later = takewhile(lambda run: run <= until, cron.runs(expression, "America/New_York", after=first))
    expected = [first, *later][-limit:], cron.following(expression, "America/New_York", after=until)
    assert cron.due(expression, "America/New_York", first=first, until=until, limit=limit) == expected


def test_the_first_due_run_counts_wherever_it_came_from():
    first = datetime(2026, 1, 3, 12, 0, 7, tzinfo=UTC)
    until = first + timedelta(hours=1)
    assert cron.due("@daily", "UTC", first=first, until=until, limit=100) == ([first], datetime(2026, 1, 4, tzinfo=UTC))


def test_runs_are_not_due_where_none_follows():
    first = datetime(2026, 1, 3, tzinfo=UTC)
    for never in ("0 0 */20 * MON#4", "0 0 31 2 *"):
        with pytest.raises(cron.InvalidCron):
            cron.due(never, "UTC", first=first, until=first, limit=1)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "not 0: minute"),
        ("* * * *", "not 4: minute"),
        ("0 0 0 1 1 *", "not 6: minute"),
        ("0 0 0 1 1 * 2026", "not 7: minute"),
        ("60 * * * *", "the minute '60'"),
        ("-1 * * * *", "the minute '-1'"),
        ("*/0 * * * *", "the minute '*/0'"),
        ("1.5 * * * *", "the minute '1.5'"),
        ("² * * * *", "the minute"),
        ("* 24 * * *", "the hour '24'"),
        ("* 5-1 * * *", "the hour '5-1'"),
        ("* * 0 * *", "the day of month '0'"),
        ("* * 15W * *", "the day of month '15W'"),
        ("* * ? * *", "the day of month '?'"),
        ("* * * 13 *", "the month '13'"),
        ("* * * JANUARY *", "the month 'JANUARY'"),
        ("* * * * 8", "the day of week '8'"),
        ("* * * * MON#6", "the day of week 'MON#6'"),
        ("{} {x} * * *", "the minute '{}'"),
        ("0 0 31 2 *", "never fires"),
        ("0 0 30 FEB *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("0 0 */20 * MON#4", "never fires"),
        ("@reboot", "@reboot is not one of @hourly, @daily"),
        ("@every 5m", "@every 5m is not one of"),
    ],
)
def test_what_is_wrong_with_an_expression_is_said(expression: str, said: str):
    with pytest.raises(cron.InvalidCron) as error:
        cron.check(expression)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("expression", "known"),
    [
        ("  0   6 * *  mon-fri ", "0 6 * * mon-fri"),
        ("@Daily", "@daily"),
        ("0 0 29 2 *", "0 0 29 2 *"),
        ("0 0 31 2 MON", "0 0 31 2 MON"),  # either will do
        ("0 0 LW * *", "0 0 LW * *"),
        ("0 0 * * 5L", "0 0 * * 5L"),
        ("0 0 * 2 MON#5", "0 0 * 2 MON#5"),
        (",".join(str(minute) for minute in range(60)) + " * * * *",) * 2,
    ],
)
def test_what_an_expression_may_say(expression: str, known: str):
    assert cron.check(expression) == known
    assert len(list(islice(cron.runs(known, "Europe/Berlin", after=datetime(2026, 1, 1, tzinfo=UTC)), 3))) == 3


def test_an_expression_is_searched_for_long_and_no_longer():
    after = datetime(2026, 11, 22, tzinfo=UTC)
    assert cron.following("0 0 * 2 MON#5", "UTC", after=after) == datetime(2044, 2, 29, tzinfo=UTC)
    for never in ("0 0 */20 * MON#4", "0 0 31 2 *"):
        with pytest.raises(cron.InvalidCron):
            cron.following(never, "UTC", after=after)


@pytest.mark.parametrize(
    "name", ["", "Europe/Bonn", "europe/berlin", "localtime", "../Europe/Berlin", "Europe", "+02:00"]
)
def test_a_name_that_is_no_timezones(name: str):
    with pytest.raises(cron.InvalidTimezone):
        cron.check_timezone(name)


def test_utc_may_be_written_small():
    assert cron.check_timezone("utc") == "UTC"


def test_timezones_are_known_where_the_machine_has_none():
    """As in a slim image: they come with the tzdata package then."""
    known = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=())
    try:
        names = zoneinfo.available_timezones()
        assert {"America/New_York", "Europe/Berlin", "UTC"} <= names
        zone = zoneinfo.ZoneInfo.no_cache("Europe/Berlin")
        assert datetime(2026, 7, 1, tzinfo=zone).utcoffset() == timedelta(hours=2)
    finally:
        zoneinfo.reset_tzpath(to=known)
