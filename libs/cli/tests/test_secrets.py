"""`triton secrets init`: the file that compose reads."""

import pytest
from typer.testing import CliRunner

from triton_cli.environment import COMPOSE, DEMANDED
from triton_cli.main import app


def init(file):
    return CliRunner().invoke(app, ["secrets", "init", "--file", str(file)])


def values(file):
    return dict(line.split("=", 1) for line in file.read_text().splitlines() if line and not line.startswith("#"))


def test_every_secret_that_compose_demands_is_written(tmp_path):
    file = tmp_path / ".env"
    done = init(file)
    assert done.exit_code == 0, done.output
    assert values(file).keys() == set(DEMANDED.findall(COMPOSE.read_text()))
    assert all(len(value) == 32 for value in values(file).values())
    assert len(set(values(file).values())) == len(values(file))
    assert not any(value in done.output for value in values(file).values())
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_is_there_stays(tmp_path):
    file = tmp_path / ".env"
    init(file)
    before = file.read_bytes()
    done = init(file)
    assert done.exit_code == 0
    assert "nothing was changed" in done.output
    assert file.read_bytes() == before


@pytest.mark.parametrize("line", ["REDIS_PASSWORD=", "# REDIS_PASSWORD=mine", ""])
def test_what_is_missing_is_added(tmp_path, line):
    file = tmp_path / ".env"
    file.write_text(f"AUTH_KEY_SECRET=chosen by me\n{line}")
    assert init(file).exit_code == 0
    assert values(file)["AUTH_KEY_SECRET"] == "chosen by me"
    assert len(values(file)["REDIS_PASSWORD"]) == 32


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    done = init(tmp_path / "nowhere" / ".env")
    assert done.exit_code == 1
    assert "could not be written" in done.output
