"""Small groups: what is not shown, so that nobody is told of a few people (CMS cell-size rule: none under 11 members).

The rule covers what could be computed too: of groups that add up, a hidden one alone is what the others leave of the
total. So what is hidden holds at least two groups and as many members as the smallest group that is shown. That goes
for an answer, and for it beside the same question without one of its filters or dimensions; not for any two questions.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from analytics_service.clickhouse import ClickHouse
from analytics_service.reports.parts import Scope, select
from triton_common.errors import Unprocessable

T = TypeVar("T")
Cell = tuple[Hashable, ...]
"""A group by the values of its dimensions."""


class GroupTooSmall(Unprocessable):
    """The figures are of too few people to be shown."""


def is_small(members: int, smallest: int) -> bool:
    """Whether a group of somebody is too small to show. Nobody is not a group."""
    return 0 < members < smallest


def shown(rows: Sequence[T], members: Callable[[T], int], *, smallest: int) -> list[T]:
    """The rows that may be shown, in their order: parts of a total that is known."""
    counts: dict[Cell, int] = {(number,): members(row) for number, row in enumerate(rows)}
    hidden = hidden_cells(counts, smallest=smallest)
    return [row for cell, row in zip(counts, rows, strict=True) if cell not in hidden]


def hidden_cells(members: Mapping[Cell, int], *, smallest: int) -> set[Cell]:
    """The cells of a table that are not shown: the small ones, and with them those that would tell of one by a sum over
    one of the dimensions."""
    hidden = {cell for cell, count in members.items() if is_small(count, smallest)}
    before = 0
    while len(hidden) > before:
        before = len(hidden)
        for line in _lines(members):
            gone = [cell for cell in line if cell in hidden]
            if gone:
                left = sorted((cell for cell in line if cell not in hidden and members[cell]), key=lambda c: members[c])
                while left and (len(gone) < 2 or sum(members[cell] for cell in gone) < smallest):
                    gone.append(left.pop(0))
                hidden.update(gone)
    return hidden


def _lines(members: Mapping[Cell, int]) -> Iterator[list[Cell]]:
    """Cells that differ in one dimension alone; where there is but one, all of them."""
    for axis in range(len(next(iter(members), ()))):
        lines: dict[Cell, list[Cell]] = defaultdict(list)
        for cell in members:
            lines[cell[:axis] + cell[axis + 1 :]].append(cell)
        yield from lines.values()


async def check(clickhouse: ClickHouse, scope: Scope) -> None:
    """Raises GroupTooSmall when the scope holds too few members, or its filters leave out too few: members, or members'
    rows before its first day or after its last."""
    if not scope.smallest:
        return
    chosen = await _members(clickhouse, scope)
    parts = [chosen]
    if scope.conditions:
        parts.append(await _members(clickhouse, replace(scope, conditions=())) - chosen)
    if scope.since:
        parts.append(await _members(clickhouse, replace(scope.whole, until=scope.since - timedelta(days=1))))
    if scope.until:
        parts.append(await _members(clickhouse, replace(scope.whole, since=scope.until + timedelta(days=1))))
    check_parts(parts, smallest=scope.smallest)


def check_parts(members: Iterable[int], *, smallest: int) -> None:
    """Raises GroupTooSmall when a part of a whole is too small: another could be computed from it."""
    if any(is_small(count, smallest) for count in members):
        raise GroupTooSmall(
            f"These figures are not shown: they are of fewer than {smallest} members, or leave out fewer than that."
        )


async def _members(clickhouse: ClickHouse, scope: Scope) -> int:
    [row] = await select(clickhouse, scope, "SELECT uniqExact(member_id) AS members FROM events")
    return int(row["members"])
