"""The end of a Parquet file, which tells its columns, rows and sizes: enough to refuse what should not be read.

The footer is a Thrift struct in the compact protocol (parquet.thrift of apache/parquet-format, and Apache Thrift's
thrift-compact-protocol.md).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from triton_common.errors import ContentTooLarge, Unprocessable

MAGIC: Final = b"PAR1"
MAX_FOOTER: Final = 16 << 20  # bytes; a thousand columns and a thousand row groups take a few
MAX_DEPTH: Final = 16
MAX_BITS: Final = 64  # of a number; Thrift has no longer ones
MAX_ITEMS: Final = 1 << 17  # columns, or row groups
MAX_FIELD: Final = 15  # the highest number of a field that is kept
INNER: Final = 3  # as deep as this lists are the row groups' columns, most of a footer: passed over
REPEATED: Final = 2
GROWS: Final = 8  # times its size a file may unpack to: columns of few values pack that well
MAX_GROUP: Final = 1 << 30  # bytes of a row group, which writers keep at a tenth of that


class InvalidParquet(Unprocessable):
    """The file is not Parquet."""


@dataclass(frozen=True)
class Footer:
    """`columns` are the top ones by name; those in `lists` hold several values a row, those in `unread` no text:
    structures, and the nulls of no type that writers make of a column without a value."""

    columns: tuple[str, ...]
    lists: frozenset[str]
    unread: frozenset[str]
    rows: int
    unpacked: int
    largest_group: int

    def check(self, *, limit: int) -> None:
        """Raises ContentTooLarge for what unpacks beyond all measure."""
        if self.unpacked > GROWS * limit or self.largest_group > MAX_GROUP:
            raise ContentTooLarge(
                f"The Parquet file unpacks to more than {GROWS * limit} bytes, or a row group of it to more than "
                f"{MAX_GROUP}."
            )


def footer(path: Path) -> Footer:
    """Read a file's footer. Raises InvalidParquet."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        end = file.read()
        length = int.from_bytes(end[:4], "little")
        file.seek(0)
        if file.read(4) != MAGIC or end[4:] != MAGIC or not 0 < length <= min(size - 12, MAX_FOOTER):
            raise InvalidParquet
        file.seek(size - 8 - length)
        data = file.read(length)
    try:
        return _footer(_Compact(data).struct())
    except (IndexError, KeyError, TypeError, ValueError, AttributeError):
        raise InvalidParquet("The footer of the Parquet file cannot be read.") from None


def _footer(meta: dict[int, Any]) -> Footer:
    """FileMetaData: 2 schema, 3 num_rows, 4 row_groups. SchemaElement: 3 repetition, 4 name, 5 num_children, 10 the
    logical type, whose 11 is UNKNOWN: always null. RowGroup: 2 total_byte_size."""
    schema: list[dict[int, Any]] = meta[2]
    names: list[str] = []
    lists: set[str] = set()
    unread: set[str] = set()
    at = 1
    for _ in range(schema[0].get(5, 0)):
        element = schema[at]
        name = element[4].decode()
        names.append(name)
        inside = schema[at : (at := _after(schema, at))]
        if len(inside) > 1 or element.get(3) == REPEATED:
            # a list is a repeated leaf, or a group of one repeated group of one leaf; two leaves are a map
            leaves = sum(1 for one in inside if not one.get(5))
            listed = leaves == 1 and any(one.get(3) == REPEATED for one in inside[:2])
            (lists if listed else unread).add(name)
        elif 11 in element.get(10, {}):
            unread.add(name)
    rows, sizes = int(meta[3]), [int(group[2]) for group in meta[4]]
    return Footer(tuple(names), frozenset(lists), frozenset(unread), rows, sum(sizes), max(sizes, default=0))


def _after(schema: list[dict[int, Any]], at: int) -> int:
    """Where the element after this one and all in it stands."""
    left = 1
    while left:
        left += schema[at].get(5, 0) - 1
        at += 1
    return at


class _Compact:
    """Reads Thrift's compact protocol: a struct is a dict by field number. What it keeps is a few megabytes, whatever
    the footer says."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while kind := (head := self._byte()) & 0x0F:
            number = number + (head >> 4) if head >> 4 else self._integer()
            value = self._value(kind, depth + 1)
            if number <= MAX_FIELD:
                fields[number] = value
        return fields

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > MAX_BITS:
                raise TypeError
        return value | byte << shift

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _bytes(self, length: int) -> bytes:
        value = self._data[self._at : self._at + length]
        if len(value) < length:
            raise IndexError
        self._at += length
        return value

    def _value(self, kind: int, depth: int) -> Any:  # noqa: PLR0911  a kind of value each
        if depth > MAX_DEPTH:
            raise TypeError
        match kind:
            case 1 | 2:
                return kind == 1
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._integer()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._varint())
            case 9 | 10:
                return self._list(depth)
            case 12:
                return self.struct(depth)
        raise TypeError

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._varint()
        kind = head & 0x0F
        kept: list[Any] = []
        if depth < INNER and size > MAX_ITEMS:
            raise TypeError
        for _ in range(size):
            value = self._byte() == 1 if kind in (1, 2) else self._value(kind, depth + 1)
            if depth < INNER:
                kept.append(value)
        return kept
