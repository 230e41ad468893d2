"""What `triton backup` has of analytics-service: everything out of one engine and into another."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import pytest
from conftest import Prospect
from test_ingest import GOOD, claims
from uuid_utils.compat import uuid7

from analytics_service import backup, batches
from analytics_service.backup import CONTENTS, BackupFailed, dump, load
from analytics_service.batches import Batch
from analytics_service.prospects import Tenant


def program(verb: str, folder: Path, data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """As `triton backup` runs it: one process may have an engine's folder."""
    environment = os.environ | {"CLICKHOUSE_URL": f"chdb://{folder}", "ANALYTICS_SPOOL_DIR": str(folder.parent)}
    command = [sys.executable, "-m", "analytics_service.backup", verb]
    return subprocess.run(command, input=data, env=environment, capture_output=True, check=False, timeout=120)


@pytest.fixture
async def dumped(app, prospect: Prospect, tmp_path) -> bytes:
    """A prospect's claims, and with them whatever other tests have loaded."""
    assert (await prospect.send("claims", claims(GOOD))).status_code == 201
    out = io.BytesIO()
    await app.state.clickhouse.write(lambda engine: dump(engine, out, spool=tmp_path))
    return out.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}


def packed(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


async def test_what_is_dumped_and_loaded_is_the_same(dumped, tmp_path):
    loaded = program("load", tmp_path / "db", dumped)
    assert loaded.returncode == 0, loaded.stderr
    again = program("dump", tmp_path / "db")
    assert again.returncode == 0, again.stderr
    assert json.loads(members(again.stdout)[CONTENTS]) == json.loads(members(dumped)[CONTENTS])
    first, second = (gzip.decompress(members(data)["claims"]) for data in (dumped, again.stdout))
    assert sorted(first) == sorted(second)

    twice = program("load", tmp_path / "db", dumped)
    assert twice.returncode == 1
    assert b"ClickHouse is not empty: there are rows in ingest_batches, claims" in twice.stderr


async def test_rows_of_batches_that_are_not_complete_stay_out(app, prospect: Prospect, tmp_path, dumped):
    def unfinished(engine):
        tenant = Tenant(prospect.client_id, prospect.id)
        batch = Batch(tenant, uuid7(), "claims", "triton", "0" * 64, created_at=datetime.now(UTC), rows=1)
        batches.begin(engine, batch)
        engine.command(
            "INSERT INTO claims SELECT * REPLACE ({new:UUID} AS batch_id) FROM claims LIMIT 1", {"new": batch.id}
        )
        out = io.BytesIO()
        dump(engine, out, spool=tmp_path)
        batches.remove(engine, batch)
        return out.getvalue()

    again = await app.state.clickhouse.write(unfinished)
    assert json.loads(members(again)[CONTENTS]) == json.loads(members(dumped)[CONTENTS])


@pytest.mark.parametrize(("times", "fails"), [(1, False), (9, True)])
async def test_batches_that_come_meanwhile_have_the_tables_read_anew(  # noqa: PLR0917  fixtures come by name
    app, dumped, tmp_path, monkeypatch, times, fails
):
    tenant = Tenant(uuid7(), uuid7())
    added = []
    real = backup.Engine.copy_out

    def copy_out(engine, sql, file):
        real(engine, sql, file)
        if "pharmacy" in sql and len(added) < times:
            added.append(Batch(tenant, uuid7(), "claims", "triton", "1" * 64, created_at=datetime.now(UTC)))
            batches.complete(engine, added[-1])

    monkeypatch.setattr(backup.Engine, "copy_out", copy_out)
    out = io.BytesIO()

    def work(engine):
        try:
            dump(engine, out, spool=tmp_path)
        finally:
            for batch in added:
                batches.remove(engine, batch)

    if fails:
        with pytest.raises(BackupFailed, match="all the while"):
            await app.state.clickhouse.write(work)
        return
    await app.state.clickhouse.write(work)
    rows = [json.loads(members(data)[CONTENTS])["rows"]["ingest_batches"] for data in (dumped, out.getvalue())]
    assert rows[1] == rows[0] + 1


def edited(dumped: bytes, **changes: object) -> bytes:
    files = members(dumped)
    return packed({CONTENTS: json.dumps(json.loads(files.pop(CONTENTS)) | changes).encode()} | files)


class Empty:
    """An engine without rows, which takes what it is given: a process for each damage would take minutes."""

    def __init__(self, migrations: list[str]) -> None:
        self._migrations = migrations

    def rows(self, sql: str) -> list[dict[str, str]]:  # noqa: ARG002  it knows one table
        return [{"name": name} for name in self._migrations]

    def row(self, sql: str) -> dict[str, int]:  # noqa: ARG002  same
        return {"rows": 0}

    def copy_in(self, table: str, file: IO[bytes]) -> None:  # noqa: ARG002  same
        file.read()


async def test_what_is_no_whole_backup_is_refused_in_a_sentence(dumped):
    files = members(dumped)
    rows, known = (json.loads(files[CONTENTS])[name] for name in ("rows", "migrations"))
    migrations = ["0001_batches.sql", "0099_more.sql"]
    for said, data in {
        "newer release: this one does not know 0099_more.sql": edited(dumped, migrations=migrations),
        "not the tables of this release": edited(dumped, rows={"ingest_batches": 0}),
        "is not whole": edited(dumped, rows=dict.fromkeys(rows, 1)),
        "is (damaged|not whole): ": dumped[: dumped.index(b"claims", 1024) + 512],
        "damaged: Not a gzipped file": packed({CONTENTS: files[CONTENTS], "claims": b"no gzip"}),
        "claims is no table of a backup": packed({"claims": files["claims"]}),
        "is not whole: it says None": packed({}),
    }.items():
        with pytest.raises(BackupFailed, match=said):
            load(Empty(known), io.BytesIO(data))


def test_the_command_has_two_verbs(tmp_path):
    done = program("copy", tmp_path / "db")
    assert done.returncode == 1
    assert b"dump | load" in done.stderr


def test_an_engine_that_is_in_use_is_a_sentence(app, http, clickhouse_folder):
    done = program("dump", clickhouse_folder / "db")
    assert done.returncode == 1
    assert b"The analytics database does not answer" in done.stderr
