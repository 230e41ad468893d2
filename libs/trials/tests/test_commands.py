"""`just chaos`, as it is typed."""

import asyncio

import pytest
from typer.testing import CliRunner

from triton_trials import chaos
from triton_trials.cases import CASES, Case
from triton_trials.trial import TrialFailed
from triton_trials.verdict import Verdict

pytestmark = pytest.mark.timeout(180)


def test_an_unknown_case_names_those_there_are():
    done = CliRunner().invoke(chaos.app, ["redis-drowned"])
    assert done.exit_code == 2
    assert all(name in done.output for name in CASES)


def test_a_violation_is_a_failure_that_names_jobs_and_keeps_the_logs(monkeypatch):
    async def lost(trial, size):
        """A job that nobody submitted, as far as the history knows."""
        await trial.add_client("0 ms")
        await trial.submit(1)
        await trial.until_over()
        trial.submissions.clear()

    async def broken(trial, size):
        """It does not get far."""
        async with asyncio.TaskGroup() as group:
            group.create_task(trial.call("GET", "/jobs/nothing"))

    monkeypatch.setattr(chaos, "SERVICES", 1)
    monkeypatch.setattr(chaos, "WORKERS", 1)
    monkeypatch.setattr(chaos, "CASES", {"lost": Case("lost", lost), "broken": Case("broken", broken)})
    done = CliRunner().invoke(chaos.app, ["--seed", "7"])
    assert done.exit_code == 1
    assert "The dice are thrown by --seed 7." in done.output
    assert "no job was accepted" in done.output
    assert "1 times: there, and never accepted: " in done.output
    assert f"the case broke off: {TrialFailed.__name__}" in done.output
    assert "The logs are in" in done.output


def test_all_is_well_without_violations(tmp_path, capsys):
    assert chaos.told([Verdict("quiet", jobs=3, attempts=3, over=0.5, note="nothing happened")], tmp_path)
    said = capsys.readouterr().out
    assert "nothing happened" in said
    assert "The logs" not in said
