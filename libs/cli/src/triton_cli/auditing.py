"""`triton audit`: who did what, as a list or a CSV file, and whether the log is what was written."""

import codecs
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from triton_cli.command import (
    DEFAULT_STATE,
    JsonOption,
    StateOption,
    UrlOption,
    clean,
    columns,
    output,
    platform,
    progress,
    say,
    sentences,
)
from triton_cli.filters import ClientOption, Json, moment, resolved
from triton_cli.lists import AllOption, CursorOption, Extent, LimitOption, cells_of, given, listed, table_of
from triton_cli.people import user_id
from triton_cli.state import CommandFailed

if TYPE_CHECKING:
    from triton_cli.api import Api

AUDIT: Final = "/api/v1/auth/audit"
COLUMNS: Final = (
    *("seq", "at", "action", "outcome", "actor_kind", "actor_id", "object_kind", "object_id", "client_id"),
    *("address", "request_id", "source"),
)
SHOWN: Final = ("at", "action", "outcome", "actor_id", "object_kind", "object_id", "address")
AT_ONCE: Final = 100_000  # events that one request verifies
VERIFY_TIMEOUT: Final = 120.0  # seconds for them, on a platform that is busy
FAULTS: Final = {
    "changed": "it, or its place, was changed",
    "missing": "it is missing",
    "inserted": "it was put in",
    "cut": "the log ends before it",
    "other_head": "another one stands in its place",
}

ActorOption = Annotated[
    str | None, typer.Option("--actor", metavar="ID|EMAIL", help="Who did it; also `anonymous`, `system`.")
]
ActionOption = Annotated[
    str | None, typer.Option("--action", help="What was done: login.failed, or all that begin so: login.*")
]
KindOption = Annotated[str | None, typer.Option("--object-kind", metavar="KIND", help="To what: user, prospect, …")]
ObjectOption = Annotated[str | None, typer.Option("--object-id", metavar="ID", help="To which.")]
OutcomeOption = Annotated[
    Literal["succeeded", "refused", "failed"] | None, typer.Option("--outcome", help="What came of it.")
]
RequestOption = Annotated[str | None, typer.Option("--request", metavar="ID", help="In the request of this id.")]
SinceOption = Annotated[
    str | None, typer.Option("--since", parser=moment, metavar="TIME", help="Then or later: a time, or how long ago.")
]
UntilOption = Annotated[str | None, typer.Option("--until", parser=moment, metavar="TIME", help="Earlier than that.")]


def head(text: str) -> str:
    """A head of the chain, as auth-service logs it: seq and hash."""
    if re.fullmatch(r"\d{1,18}:[0-9a-f]{64}", text) is None:
        raise typer.BadParameter(f"{text} is no head: SEQ:HASH is, as auth-service logged them.")
    return text


@sentences
async def list_events(
    *,
    actor: ActorOption = None,
    action: ActionOption = None,
    object_kind: KindOption = None,
    object_id: ObjectOption = None,
    client: ClientOption = None,
    outcome: OutcomeOption = None,
    request: RequestOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = None,
    everything: AllOption = False,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """List events, newest first: a table on a terminal, elsewhere a line each with columns between tabs.

    The columns are seq, at, action, outcome, actor_kind, actor_id, object_kind, object_id, client_id, address,
    request_id, source. --json answers one object, {"items": […], "next_cursor": …}, with the details.
    """
    conditions = given(
        action=action,
        object_kind=object_kind,
        object_id=object_id,
        client=client,
        outcome=outcome,
        request_id=request,
        since=since,
        until=until,
    )
    async with platform(url, state) as api:
        await listed(
            api,
            AUDIT,
            await _filters(api, actor, conditions),
            extent=Extent(limit, everything, cursor),
            as_json=as_json,
            cells=lambda event: cells_of(event, COLUMNS),
            table=lambda events: table_of(events, SHOWN),
        )


@sentences
async def export(
    *,
    actor: ActorOption = None,
    action: ActionOption = None,
    object_kind: KindOption = None,
    object_id: ObjectOption = None,
    client: ClientOption = None,
    outcome: OutcomeOption = None,
    request: RequestOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where it goes, once it is whole.", show_default="stdout"),
    ] = None,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Write events as CSV, newest first, to stdout or to a file for its owner alone."""
    conditions = given(
        action=action,
        object_kind=object_kind,
        object_id=object_id,
        client=client,
        outcome=outcome,
        request_id=request,
        since=since,
        until=until,
    )
    async with platform(url, state) as api:
        chunks = api.download(f"{AUDIT}.csv", **await _filters(api, actor, conditions))
        if out is None:
            await _copied(chunks, _to_terminal() if output.is_terminal else _to_stdout)
        else:
            with _whole(out) as write:
                await _copied(chunks, write)
            say(f"Wrote {out}.")


@sentences
async def verify(
    *,
    expected: Annotated[
        str | None,
        typer.Option("--head", parser=head, metavar="SEQ:HASH", help="A head that auth-service logged: is it there?"),
    ] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Compute the chain of hashes again: is the log what was written? Exit status 1 where it is not, and where.

    Prints `valid`, the number of events, and seq and hash of the last one; with --json what the API answers, in one.
    """
    async with platform(url, state) as api:
        report = await _verified(api, expected)
    if as_json:
        print(json.dumps(report))
    if not report["valid"]:
        bad = report["first_bad"]
        of_id = f", {bad['id']}," if bad["id"] else ""
        raise CommandFailed(
            f"The audit log is not what was written. Event {bad['seq']}{of_id} is the first that shows it: "
            f"{FAULTS.get(bad['reason'], clean(bad['reason']))}. {report['events']:,} events before it hold."
        )
    if not as_json:
        print(columns(["valid", report["events"], report["head_seq"], report["head_hash"]]))


async def _filters(api: "Api", actor: str | None, conditions: Json) -> Json:
    """The conditions with ids for names."""
    if actor is not None:
        conditions["actor"] = await user_id(api, actor) if "@" in actor else actor
    return await resolved(api, conditions)


async def _verified(api: "Api", expected: str | None) -> Json:
    """One report of the whole chain, which several requests go through: each from the head of the one before."""
    total: Json = {"events": 0}
    since: Json = {}
    logged: Json = dict(zip(("expected_seq", "expected_hash"), expected.split(":"), strict=True)) if expected else {}
    while True:
        params = {"limit": AT_ONCE} | since | logged
        report = await api.call("GET", f"{AUDIT}/verify", params=params, timeout=VERIFY_TIMEOUT)
        total = report | {"events": total["events"] + report["events"]}
        if not report["valid"] or report["next_seq"] is None:
            return total
        if progress.is_terminal:
            say(f"{total['events']:,} events hold so far.")
        since = {"since_seq": report["next_seq"]}
        logged = {"expected_seq": report["head_seq"], "expected_hash": report["head_hash"]}


async def _copied(chunks: AsyncIterator[bytes], write: Callable[[bytes], object]) -> None:
    from triton_cli.api import Unreachable  # noqa: PLC0415  see platform

    began = False
    try:
        async for chunk in chunks:
            began = True
            write(chunk)
    except Unreachable as error:
        if not began:
            raise
        raise CommandFailed(f"The export broke off, and is not whole: {error}") from None


def _to_stdout(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)


def _to_terminal() -> Callable[[bytes], None]:
    """Others' text, safe for a terminal: no control characters but the ends of lines."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def write(chunk: bytes) -> None:
        text = decoder.decode(chunk).replace("\r\n", "\n")
        print("\n".join(clean(line) for line in text.split("\n")), end="")

    return write


@contextmanager
def _whole(out: Path) -> Iterator[Callable[[bytes], object]]:
    """A file that is there once all is written, or not at all."""
    part = out.with_name(f"{out.name}.part")
    try:
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            try:
                yield file.write
                file.flush()
                part.replace(out)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise CommandFailed(f"{out} cannot be written: {error.strerror}.") from error


app = typer.Typer(no_args_is_help=True, help="List, export and verify the audit log. For admins.")
app.command("list")(list_events)
app.command("export")(export)
app.command("verify")(verify)
