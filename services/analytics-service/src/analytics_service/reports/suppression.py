"""Small groups: what is not shown, so that nobody is told of a few people (CMS cell-size rule: none under 11 members).

The rule covers what could be computed too: of groups that add up, a hidden one alone is what the others leave of the
total. So what is hidden holds at least two groups and as many members as the smallest group that is shown.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from analytics_service.clickhouse import ClickHouse
from analytics_service.reports.parts import Scope, select
from triton_common.errors import Unprocessable

T = TypeVar("T")


class GroupTooSmall(Unprocessable):
    """The figures are of too few people to be shown."""


def is_small(members: int, smallest: int) -> bool:
    """Whether a group of somebody is too small to show. Nobody is not a group."""
    return 0 < members < smallest


def shown(rows: Sequence[T], members: Callable[[T], int], *, smallest: int, add_up: bool) -> list[T]:
    """The rows that may be shown, in their order. `add_up`: they are parts of a total that is known."""
    hidden = [row for row in rows if is_small(members(row), smallest)]
    left = sorted((row for row in rows if members(row) >= max(smallest, 1)), key=members)
    while add_up and hidden and left and (len(hidden) < 2 or sum(map(members, hidden)) < smallest):
        hidden.append(left.pop(0))
    gone = {id(row) for row in hidden}
    return [row for row in rows if id(row) not in gone]


async def check(clickhouse: ClickHouse, scope: Scope) -> None:
    """Raises GroupTooSmall when the scope holds too few members, or its filters leave out too few."""
    if scope.smallest:
        counts = [
            await _members(clickhouse, one) for one in ([scope] if scope == scope.whole else [scope, scope.whole])
        ]
        check_parts([counts[0], counts[-1] - counts[0]], smallest=scope.smallest)


def check_parts(members: Iterable[int], *, smallest: int) -> None:
    """Raises GroupTooSmall when a part of a whole is too small: another could be computed from it."""
    if any(is_small(count, smallest) for count in members):
        raise GroupTooSmall(
            f"These figures are not shown: they are of fewer than {smallest} members, or leave out fewer than that."
        )


async def _members(clickhouse: ClickHouse, scope: Scope) -> int:
    [row] = await select(clickhouse, scope, "SELECT uniqExact(member_id) AS members FROM events")
    return int(row["members"])
