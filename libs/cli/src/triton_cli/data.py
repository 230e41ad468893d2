"""`triton data`: a prospect's extracts, on any platform: looked at before they are stored, loaded with a bar, listed
and taken out."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import UUID

import typer

from triton_cli.command import (
    DEFAULT_STATE,
    JsonOption,
    StateOption,
    UrlOption,
    YesOption,
    clean,
    columns,
    output,
    platform,
    say,
    sentences,
    until_signal,
)
from triton_cli.filters import id_of
from triton_cli.lists import (
    AllOption,
    CursorOption,
    Extent,
    LimitOption,
    Noun,
    ask,
    cells_of,
    list_of,
    show,
    table_of,
)
from triton_cli.sending import send, with_bar
from triton_cli.state import CommandFailed

if TYPE_CHECKING:
    from triton_cli.api import Api

TOLD: Final = 20  # problems of rows that are shown; --rejects keeps all that are known
NOTHING_DONE: Final = "The same files once more are stored once, however often they are sent."

app = typer.Typer(no_args_is_help=True, help="A prospect's claims, clinical, utilization and pharmacy rows.")

Dataset = Literal["claims", "clinical", "utilization", "pharmacy"]
DatasetArgument = Annotated[Dataset, typer.Argument(metavar="DATASET", help="What the rows are.", show_default=False)]
FilesArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE…",
        exists=True,
        dir_okay=False,
        readable=True,
        help="CSV, NDJSON or Parquet, plain or packed with gzip or zstd; all that the source makes the rows of.",
        show_default=False,
    ),
]
ProspectOption = Annotated[
    str, typer.Option("--prospect", metavar="ID|NAME", help="Whose data it is.", show_default=False)
]
SourceOption = Annotated[
    str, typer.Option("--source", help="Who wrote the files: triton (its own columns), synthea, cms-synpuf.")
]
MappingOption = Annotated[
    Path | None,
    typer.Option(
        "--mapping",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="A mapping of your own, in place of a source's: docs/mappings.md.",
        show_default=False,
    ),
]
BatchArgument = Annotated[UUID, typer.Argument(metavar="BATCH", help="The batch's id.", show_default=False)]


@app.command()
@sentences
async def load(
    dataset: DatasetArgument,
    files: FilesArgument,
    *,
    prospect: ProspectOption,
    source: SourceOption = "triton",
    mapping: MappingOption = None,
    skip: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Store the good rows; without it one bad row means none.")
    ] = False,
    rejects: Annotated[
        Path | None,
        typer.Option("--rejects", metavar="FILE", help="Write the rows that are refused there: place, code, reason."),
    ] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Load files as one batch: all of it or nothing. The same files again change nothing.

    Prints the batch's id, its rows and those refused; --json answers the batch.
    """
    from uuid_utils.compat import uuid7  # noqa: PLC0415  see platform

    from triton_cli.api import Refused, Unreachable  # noqa: PLC0415  see platform

    params = {"source": source, "on_error": "skip" if skip else "abort"}
    async with platform(url, state) as api:
        path = f"/api/v1/analytics/prospects/{await id_of(api, 'prospects', prospect)}"
        batch_id = str(uuid7())
        try:
            async with with_bar(api, f"{path}/batches/{batch_id}"):
                batch = await send(
                    api, f"{path}/{dataset}", files, mapping, params=params, headers={"Batch-Id": batch_id}
                )
        except Refused as error:
            if rejects is not None:
                _write(rejects, error.details)
            raise
        except Unreachable as error:
            raise CommandFailed(f"{error}\n{NOTHING_DONE}") from None
        except asyncio.CancelledError:
            say(f"What has come whole is still stored: `triton data get {batch_id} --prospect …` tells.")
            raise
    if rejects is not None:
        _write(rejects, batch["rejects"])
    if as_json:
        print(json.dumps(batch))
        return
    _tell(batch["rejects"], batch["rejected"])
    if output.is_terminal:
        again = ", which was there already" if batch["id"] != batch_id else ""
        refused = f", {batch['rejected']:,} refused" if batch["rejected"] else ""
        print(f"Batch {clean(batch['id'])}{again}: {batch['rows']:,} rows of {dataset}{refused}.")
    else:
        print(columns(cells_of(batch, ("id", "rows", "rejected"))))


@app.command()
@sentences
async def preview(
    dataset: DatasetArgument,
    files: FilesArgument,
    *,
    prospect: ProspectOption,
    source: SourceOption = "triton",
    mapping: MappingOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Show what a load would store: its first rows, and what is wrong with the others. Stores nothing."""
    async with platform(url, state) as api:
        path = f"/api/v1/analytics/prospects/{await id_of(api, 'prospects', prospect)}/{dataset}/preview"
        seen = await send(api, path, files, mapping, params={"source": source})
    if as_json:
        print(json.dumps(seen))
        return
    if output.is_terminal:
        shown = [{name: value for name, value in row.items() if value not in ("", None, [])} for row in seen["rows"]]
        names = list(dict.fromkeys(name for row in shown for name in row))
        output.print(table_of(shown, names) if shown else "There is no row to store.")
    else:
        print("".join(f"{columns(cells_of(row, list(row)))}\n" for row in seen["rows"]), end="")
    _tell(seen["rejects"], seen["rejected"])
    say(f"{seen['good']:,} rows to store, {seen['rejected']:,} refused.")


@app.command("list")
@sentences
async def list_batches(
    *,
    prospect: ProspectOption,
    limit: LimitOption = None,
    everything: AllOption = False,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """The batches of a prospect, newest first, with those that are loading."""
    async with platform(url, state) as api:
        path = f"/api/v1/analytics/prospects/{await id_of(api, 'prospects', prospect)}/batches"
        names = ("id", "status", "dataset", "source", "rows", "rejected", "bytes", "created_at")
        noun = Noun(path, names, names, find=_find, metavar="BATCH")
        await list_of(api, noun, {}, extent=Extent(limit, everything, cursor), as_json=as_json)


@app.command()
@sentences
async def get(
    batch: BatchArgument,
    *,
    prospect: ProspectOption,
    as_json: JsonOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """One batch: how far it has come, what it holds, or why it failed."""
    async with platform(url, state) as api:
        found = await api.get(f"/api/v1/analytics/prospects/{await id_of(api, 'prospects', prospect)}/batches/{batch}")
    show(found if as_json else {**found, "rejects": None}, as_json=as_json)
    if not as_json:
        _tell(found["rejects"], found["rejected"])


@app.command()
@sentences
def delete(
    batch: BatchArgument,
    *,
    prospect: ProspectOption,
    yes: YesOption = False,
    url: UrlOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Take a batch out: its rows leave every report at once."""
    api = platform(url, state)

    async def find() -> str:
        async with api:
            path = f"/api/v1/analytics/prospects/{await id_of(api, 'prospects', prospect)}/batches/{batch}"
            await api.get(path)
            return path

    async def take_out(path: str) -> None:
        async with api:
            await api.call("DELETE", path)

    path = until_signal(find())
    ask(f"Take out batch {batch} and its rows?", api, yes=yes)
    until_signal(take_out(path))
    print(columns([batch, "taken out"]))


async def _find(_: "Api", text: str) -> str:
    return text


def _tell(problems: Sequence[Any], count: int) -> None:
    for problem in problems[:TOLD]:
        say(f"  {clean(problem['field'])}: {clean(problem['issue'])}", style="yellow")
    if count > TOLD and problems:
        say(f"  and more: {count:,} in all; --rejects FILE keeps the first 1,000.", style="yellow")


def _write(file: Path, problems: Sequence[Any]) -> None:
    lines = [
        columns(("place", "code", "reason")),
        *(columns(cells_of(one, ("field", "code", "issue"))) for one in problems),
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
