"""`triton data` on the real platform: files looked at, loaded, loaded again, listed and taken out."""

import gzip
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from triton_cli.main import app

pytestmark = [pytest.mark.demo, pytest.mark.timeout(300)]

HEADER = "member_id,claim_id,service_date,claim_type,paid,member_paid"
GOOD = "M-1,C-{},2024-01-31,inpatient,100.10,5"
BAD = "M-1,C-9,never,inpatient,1,1"
MAPPING = """
[[claims]]
rows = "*"
[claims.columns]
member_id = "Who"
claim_id = "Claim"
service_date = { ymd = "Day" }
claim_type = { value = "other" }
paid = "Plan"
member_paid = { value = "0" }
"""


@pytest.fixture
def prospect(platform, tmp_path: Path) -> str:
    """The name of a prospect without data."""
    name = f"Prospect of {tmp_path.name}"
    platform.create("/prospects", client_id=platform.create("/clients", name=f"Client of {tmp_path.name}"), name=name)
    return name


@pytest.fixture
def data(platform, prospect: str) -> Callable[..., Any]:
    """Run `triton data …` about that prospect."""

    def run(*arguments: object) -> Any:
        command = ["data", *map(str, arguments), "--prospect", prospect]
        answer = CliRunner().invoke(app, command, env={"TRITON_STATE": str(platform.state)})
        assert isinstance(answer.exception, SystemExit | None), answer.exception
        return answer

    return run


def file_of(folder: Path, name: str, *rows: str) -> Path:
    file = folder / name
    text = "\n".join([HEADER, *rows, ""]).encode()
    file.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return file


def test_a_file_from_preview_to_taken_out(data, tmp_path: Path):
    file = file_of(tmp_path, "claims.csv.gz", GOOD.format(1), GOOD.format(2))
    seen = json.loads(data("preview", "claims", file, "--json").stdout)
    assert (seen["good"], seen["rejected"], seen["rows"][0]["paid"]) == (2, 0, "100.10")
    assert "2 rows to store, 0 refused." in data("preview", "claims", file).stderr
    assert json.loads(data("list", "--json").stdout)["items"] == []
    loaded = data("load", "claims", file)
    assert loaded.exit_code == 0, loaded.stderr
    batch_id, rows, rejected = loaded.stdout.split()
    assert (rows, rejected) == ("2", "0")
    assert json.loads(data("load", "claims", file, "--json").stdout)["id"] == batch_id
    assert data("list").stdout.split("\t")[:5] == [batch_id, "completed", "claims", "triton", "2"]
    assert json.loads(data("get", batch_id, "--json").stdout)["rows"] == 2
    assert data("delete", batch_id, "--yes").exit_code == 0
    assert data("list").stdout == ""
    assert data("delete", batch_id, "--yes").exit_code == 1


def test_several_files_are_one_batch(data, tmp_path: Path):
    files = [file_of(tmp_path, f"{name}.csv", GOOD.format(name)) for name in ("january", "february")]
    assert data("load", "claims", *files).stdout.split()[1] == "2"


def test_a_mapping_of_ones_own_goes_with_the_files(data, tmp_path: Path):
    mapping = tmp_path / "ours.toml"
    mapping.write_text(MAPPING)
    file = tmp_path / "extract.csv"
    file.write_text("Who,Claim,Day,Plan\nM,C,20240131,5.00\n")
    batch = json.loads(data("load", "claims", file, "--mapping", mapping, "--json").stdout)
    assert (batch["rows"], batch["source"][:4]) == (1, "own:")


def test_bad_rows_are_told_and_kept_in_a_file(data, tmp_path: Path):
    file, kept = file_of(tmp_path, "claims.csv", *[GOOD.format(1)], *[BAD] * 30), tmp_path / "rejects.tsv"
    refused = data("load", "claims", file, "--rejects", kept)
    assert refused.exit_code == 1
    assert "line 3, column service_date: is not a date" in refused.stderr
    assert "and 10 more" in refused.stderr
    lines = kept.read_text().splitlines()
    assert (len(lines), lines[1].split("\t")[:2]) == (31, ["line 3, column service_date", "invalid_date"])
    kept.unlink()
    skipped = data("load", "claims", file, "--skip-bad-rows", "--rejects", kept)
    assert skipped.exit_code == 0
    batch_id, *counts = skipped.stdout.split()
    assert counts == ["1", "30"]
    assert "30 in all" in skipped.stderr
    assert kept.read_text().splitlines() == lines
    assert "line 3, column service_date" in data("get", batch_id).stderr


def test_what_is_wrong_is_told_in_a_sentence(data, tmp_path: Path):
    file = file_of(tmp_path, "claims.csv", GOOD.format(1))
    assert "unknown_source" in data("load", "claims", file, "--source", "nobody").stderr
    assert data("load", "claims", tmp_path / "nothing.csv").exit_code == 2
    assert data("load", "dreams", file).exit_code == 2


def test_a_bar_on_a_terminal(platform, prospect: str, tmp_path: Path):
    """Bytes that have come, then rows on disk; the sentence at the end."""
    file = file_of(tmp_path, "claims.csv", *(GOOD.format(number) for number in range(300_000)))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "triton_cli.main", "data", "load", "claims", str(file), "--prospect", prospect]
    environment = os.environ | {"TRITON_STATE": str(platform.state), "COLUMNS": "100", "TERM": "xterm"}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment, close_fds=True)
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([ours], [], [], 1)
        if ready:
            try:
                shown += os.read(ours, 65_536)
            except OSError:
                break  # the terminal's other end has closed
    os.close(ours)
    assert process.wait(10) == 0, shown
    assert b"sending" in shown
    assert b"300,000 rows of claims" in shown
