"""The benchmark runs from end to end on a handful of jobs. What it measures then means nothing."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from triton_common.testing import WORKSPACE
from triton_trials import bench, reads, speed, twins
from triton_trials.benchmarks import jobs, report
from triton_trials.benchmarks.report import Goal
from triton_trials.peers import Procrastinate, RawCelery, Triton
from triton_trials.speed import drain_rate, percentiles

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    """Where runs are kept."""
    monkeypatch.setattr(report, "RESULTS", tmp_path / "bench")
    return tmp_path / "bench"


def test_everything_of_jobs_is_measured_and_kept(results, monkeypatch):
    monkeypatch.setattr(speed, "PEERS", (RawCelery, Procrastinate, Triton))  # one Triton is enough
    monkeypatch.setattr(jobs, "QUICK", replace(jobs.QUICK, jobs=50, rows=1_500, asked=2, lost=50))
    done = CliRunner().invoke(bench.app, ["jobs", "--quick"])
    assert done.exit_code == 0, done.output
    assert "Goals" in done.output
    [file] = results.iterdir()
    kept = json.loads(file.read_text())
    assert kept["engine"].keys() == {"Celery", "procrastinate", "Triton"}
    assert kept["read"].keys() >= {"GET /jobs/{id}", "bare FastAPI"}
    assert len(kept["page"]) == 2 * len(reads.FILTERS)
    assert kept["lost"]["jobs"] == 50
    assert all(goal["value"] > 0 for goal in kept["goals"])


def test_everything_of_auth_is_measured_and_kept(results):
    done = CliRunner().invoke(bench.app, ["auth", "--quick"])
    assert done.exit_code == 0, done.output
    [file] = results.iterdir()
    kept = json.loads(file.read_text())
    assert kept["verify"].keys() == {"token, first time", "token, remembered", "API key, remembered"}
    assert all(kept["logins"][at_once]["seconds"] for at_once in ("1", "4", "16"))
    assert len(kept["burst"]["during the burst"]) == len(kept["burst"]["at rest"])
    assert {goal["name"] for goal in kept["goals"] if goal["value"] > 0} == {goal["name"] for goal in kept["goals"]}


def test_everything_of_agents_is_measured_and_kept(results):
    done = CliRunner().invoke(bench.app, ["agents", "--quick"])
    assert done.exit_code == 0, done.output
    [file] = results.iterdir()
    kept = json.loads(file.read_text())
    assert kept["documents"].keys() == {"500", "2000"}
    assert all(len(seconds) == 2 for times in kept["documents"].values() for seconds in times.values())
    assert all(goal["value"] > 0 for goal in kept["goals"])


def test_everything_of_analytics_is_measured_and_kept(results):
    done = CliRunner().invoke(bench.app, ["analytics", "--quick"])
    assert done.exit_code == 0, done.output
    [file] = results.iterdir()
    kept = json.loads(file.read_text())
    assert kept["ingest"]["rates"].keys() == kept["memory"]["mib_above_rest"].keys() == {"csv", "parquet"}
    assert all(rate > 0 for by in kept["ingest"]["rates"].values() for rates in by.values() for rate in rates)
    assert kept["reports"]["seconds"].keys() == kept["reports"]["engine"].keys() == {"20000"}
    assert len(kept["reports"]["seconds"]["20000"]) == len(kept["reports"]["engine"]["20000"]) == len(kept["goals"]) - 4


def test_an_unknown_part_is_refused():
    done = CliRunner().invoke(bench.app, ["jobs", "--only", "nothing"])
    assert done.exit_code == 2
    assert "engine" in done.output


def test_without_a_name_it_lists_what_there_is():
    done = CliRunner().invoke(bench.app, [])
    assert done.exit_code == 0
    assert done.output.startswith("jobs")
    assert CliRunner().invoke(bench.app, ["nothing"]).exit_code == 2


def test_the_twin_is_as_large_as_a_job():
    document = json.loads((WORKSPACE / "docs" / "openapi" / "jobs-service.json").read_text())
    assert twins.Job.model_fields.keys() == document["components"]["schemas"]["JobPublic"]["properties"].keys()


def test_the_first_tenth_is_no_part_of_a_drain_rate():
    assert drain_rate([0.0, *(10 + number / 100 for number in range(10))]) == pytest.approx(100)


def test_percentiles():
    assert percentiles(range(101)) == (50, 95, 99)


def test_goals():
    assert Goal("", 1.0, at_least=1.0).met
    assert not Goal("", 0.9, at_least=1.0).met
    assert not Goal("", 1.1, at_most=1.0).met


def test_a_page_of_a_small_table_that_has_too_few_is_no_measure():
    pages = [
        {"filter": "none", "who": "staff", "items": [50, 50], "p95": [0.004, 0.006]},
        {"filter": "status=failed", "who": "staff", "items": [3, 50], "p95": [0.001, 0.006]},
    ]
    assert [ratio for _, ratio in reads.compared(pages)] == [pytest.approx(1.5), pytest.approx(1.5)]
