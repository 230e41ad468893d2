"""A job from claim to outcome, over real HTTP to the stand-in."""

import threading
from uuid import uuid4

import examples
import pytest
from platform_standin import Platform, Row

from agent_runner import attempts, collecting, gathering, runs
from agent_runner.runs import Worker
from triton_common.errors import ContentTooLarge, Forbidden, Unprocessable
from triton_common.schemas import Fees, JobStage
from triton_common.testing import eventually, free_port


def run(worker: Worker, row: Row) -> str:
    return runs.run(worker, row.job.job_id, name="worker-1", task_id="task-1")


def test_a_job_is_claimed_run_and_finished_with_a_document(platform: Platform, worker: Worker):
    row = platform.add(examples.job())

    assert run(worker, row) == "completed"

    assert row.status == "completed"
    assert (row.claims[0].worker, row.claims[0].task_id) == ("worker-1", "task-1")
    document = row.document
    assert document.title == "Diabetes 360 for Acme Health"
    assert document.model == "offline:template"
    assert "No language model wrote this document" in (document.notice or "")
    assert [section.key for section in document.sections] == [
        *("executive_summary", "population", "cost_drivers", "programme_fit"),
        *("financial_case", "assumptions", "risks", "next_steps"),
    ]
    assert document.prompt_versions == {"population_analyst": "3", "proposal_writer": "3"}
    shown = {fact.id: fact.display for fact in document.facts}
    assert (shown["members"], shown["pmpm"], shown["cohort.members"]) == ("1,000", "$500.00", "100")
    assert not worker.running


def test_progress_goes_up_through_the_four_stages_under_the_jobs_request_id(platform: Platform, worker: Worker):
    row = platform.add(examples.job(request_id="request-of-the-caller"))

    run(worker, row)

    assert list(dict.fromkeys(report.stage for report in row.reports)) == list(JobStage)
    progress = [report.progress for report in row.reports]
    assert progress == sorted(progress)
    assert row.request_ids == {"request-of-the-caller"}


def test_the_reports_are_read_in_parallel(platform: Platform, worker: Worker):
    row = platform.add(examples.job())
    everyone = threading.Barrier(6, timeout=20)  # breaks, and the job fails, unless all six wait at the same time
    platform.gate = Gate(everyone)

    assert run(worker, row) == "completed"


class Gate(threading.Event):
    """Opens when all have come."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__()
        self._barrier = barrier

    def wait(self, timeout: float | None = None) -> bool:
        self._barrier.wait(timeout)
        return True


def test_a_job_that_is_not_to_be_had_is_dropped(platform: Platform, worker: Worker):
    row = platform.add(examples.job())
    run(worker, row)

    assert run(worker, row) == "not_claimed"
    assert runs.run(worker, uuid4(), name="worker-1", task_id=None) == "not_claimed"
    assert len(row.finishes) == 1


def test_a_claim_without_an_answer_is_repeated_for_a_while_and_dropped(worker_with, monkeypatch):
    monkeypatch.setattr(attempts, "CLAIM_PATIENCE", 0.5)
    worker = worker_with(jobs_url=f"http://127.0.0.1:{free_port()}")

    assert runs.run(worker, uuid4(), name="worker-1", task_id=None) == "not_claimed"


def test_a_claim_whose_answer_was_lost_is_repeated_as_the_same_claim(platform: Platform, worker: Worker):
    row = platform.add(examples.job())
    platform.trouble["answer to claim"] = 2

    assert run(worker, row) == "completed"

    assert platform.calls["claim"] == len(row.claims) == 3
    assert len({claim.claim_id for claim in row.claims}) == 1
    assert row.claims[0].claim_id is not None
    assert [finish.attempt for finish in row.finishes] == [1]


def test_each_claim_has_an_id_of_its_own(platform: Platform, worker: Worker):
    first, second = platform.add(examples.job()), platform.add(examples.job())

    run(worker, first)
    run(worker, second)

    assert first.claims[0].claim_id != second.claims[0].claim_id


def test_a_claim_that_is_refused_is_dropped(platform: Platform, worker: Worker):
    row = platform.add(examples.job())

    def refuse() -> None:
        raise Forbidden

    platform.hooks["claim"] = refuse

    assert run(worker, row) == "not_claimed"
    assert platform.calls["claim"] == 1
    assert row.status == "pending"


def test_a_worker_that_drains_claims_once_more_and_no_longer(platform: Platform, worker: Worker):
    row = platform.add(examples.job())
    platform.trouble["claim"] = 1_000_000
    platform.hooks["claim"] = worker.drain

    assert run(worker, row) == "not_claimed"
    assert platform.calls["claim"] == 2


def test_a_claim_that_outlasts_the_grace_is_given_back_at_once(platform: Platform, worker: Worker):
    row = platform.add(examples.job())

    def slow() -> None:
        worker.drain()
        assert eventually(lambda: worker.releasing)

    platform.hooks["claim"] = slow

    assert run(worker, row) == "released"
    assert row.status == "pending"


def test_a_busy_analytics_service_is_waited_for(platform: Platform, worker: Worker):
    row = platform.add(examples.job())
    platform.busy["cohort"] = collecting.BUSY_TRIES - 1

    assert run(worker, row) == "completed"
    assert len(row.finishes) == 1


def test_a_job_goes_back_while_analytics_service_stays_busy(platform: Platform, worker: Worker):
    row = platform.add(examples.job())
    platform.busy["cohort"] = 1_000_000

    assert run(worker, row) == "released"

    [finish] = row.finishes
    assert finish.outcome == "released"
    assert collecting.BUSY_BREAK <= finish.retry_after_seconds <= 2 * collecting.BUSY_BREAK
    assert platform.calls["cohort"] == collecting.BUSY_TRIES


def test_a_job_that_waits_for_a_busy_analytics_service_can_be_cancelled(
    platform: Platform, worker: Worker, monkeypatch
):
    monkeypatch.setattr(collecting, "BUSY_TRIES", 1_000_000)
    row = platform.add(examples.job(lease_seconds=0.15))  # a heartbeat every 50 ms
    platform.busy["cohort"] = 1_000_000

    def cancel() -> None:
        row.cancel = True

    platform.hooks["cohort"] = cancel

    assert run(worker, row) == "cancelled"


def test_no_data_fails_with_a_sentence_that_says_what_to_do(platform: Platform, worker: Worker):
    row = platform.add(examples.job())
    platform.reports = examples.reports(
        summary=examples.NO_DATA,
        trend=examples.trend(0),
        by_prevalence=examples.NO_CONDITIONS,
        by_cost=examples.NO_CONDITIONS,
        cohort=examples.cohort(cohort=examples.part(0, 0, "0.00"), rest=examples.part(0, 0, "0.00")),
    )

    assert run(worker, row) == "failed"

    [finish] = row.finishes
    assert finish.error is not None
    assert finish.error.code == "no_data"
    assert "load its claims first" in finish.error.message
    assert not finish.retryable


def test_analytics_away_fails_the_attempt_for_another_try(platform: Platform, worker: Worker):
    row = platform.add(examples.job())
    platform.trouble["cohort"] = 1  # a POST: not repeated by the client

    assert run(worker, row) == "failed"

    [finish] = row.finishes
    assert finish.error is not None
    assert finish.error.code == "unavailable"
    assert finish.retryable


def test_a_slow_report_fails_the_attempt_for_another_try(platform: Platform, worker: Worker, monkeypatch):
    row = platform.add(examples.job())
    platform.gate.clear()
    monkeypatch.setattr(collecting, "TIMEOUT", 0.05)

    assert run(worker, row) == "failed"

    platform.gate.set()
    [finish] = row.finishes
    assert finish.error is not None
    assert (finish.error.code, finish.retryable) == ("reports_late", True)


@pytest.mark.parametrize(
    ("different", "code", "field"),
    [
        ({"job_type": "weather_report"}, "job_type_unknown", None),
        ({"parameters": {"horizon_months": 7}}, "parameters_invalid", "parameters.horizon_months"),
        ({"parameters": {"colour": "red"}}, "parameters_invalid", "parameters.colour"),
        ({"value_proposition": examples.terms(currency="EUR")}, "currency_mismatch", None),
    ],
)
def test_a_job_that_cannot_work_fails_at_once(platform: Platform, worker: Worker, different, code, field):
    row = platform.add(examples.job(**different))

    assert run(worker, row) == "failed"

    [finish] = row.finishes
    assert finish.error is not None
    assert (finish.error.code, finish.retryable) == (code, False)
    assert [detail.field for detail in finish.error.details] == ([field] if field else [])


def test_the_horizon_is_a_parameter(platform: Platform, worker: Worker):
    row = platform.add(examples.job(parameters={"horizon_months": 24}))

    run(worker, row)

    ids = {fact.id for fact in row.document.facts}
    assert "net.base.year2" in ids
    assert "net.base.year3" not in ids


def test_what_nobody_foresaw_fails_with_the_tracebacks_id_alone(
    platform: Platform, worker: Worker, monkeypatch, logged
):
    row = platform.add(examples.job())

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("the secret 123-45-6789")

    monkeypatch.setattr(gathering, "gather", crash)

    assert run(worker, row) == "failed"

    [finish] = row.finishes
    assert finish.error is not None
    assert finish.error.code == "job_crashed"
    assert "123-45-6789" not in finish.model_dump_json()
    [line] = [line for line in logged if line["extra"].get("traceback_id")]
    assert line["extra"]["traceback_id"] == finish.error.traceback_id
    assert line["exception"] is not None


def test_an_outcome_is_repeated_until_it_is_taken(platform: Platform, worker: Worker, monkeypatch):
    row = platform.add(examples.job())
    platform.trouble["finish"] = 3
    monkeypatch.setattr(attempts, "PAUSE", 0.001)

    assert run(worker, row) == "completed"

    assert platform.calls["finish"] == 4
    assert len(row.finishes) == 1


def test_an_outcome_that_nobody_takes_is_given_up_in_the_end(platform: Platform, worker: Worker, monkeypatch):
    row = platform.add(examples.job())
    platform.trouble["finish"] = 1_000_000
    monkeypatch.setattr(attempts, "PAUSE", 0.001)
    monkeypatch.setattr(attempts, "PATIENCE", 0.05)

    assert run(worker, row) == "lost"

    assert platform.calls["finish"] > 1
    assert row.status == "processing"  # its lease ends, and another attempt runs


def test_a_document_that_is_refused_fails_the_job(platform: Platform, worker: Worker):
    row = platform.add(examples.job())

    def refuse() -> None:
        del platform.hooks["finish"]
        raise ContentTooLarge("The document is too large.")

    platform.hooks["finish"] = refuse

    assert run(worker, row) == "failed"

    [finish] = row.finishes
    assert finish.error is not None
    assert finish.error.code == "content_too_large"


@pytest.mark.parametrize("refusal", [Forbidden, Unprocessable])
@pytest.mark.parametrize("different", [{}, {"job_type": "weather_report"}])
def test_an_attempt_whose_every_outcome_is_refused_ends_with_its_lease(
    platform: Platform, worker: Worker, logged, refusal, different
):
    row = platform.add(examples.job(**different))

    def refuse() -> None:
        raise refusal

    platform.hooks["finish"] = refuse

    assert run(worker, row) == "lost"
    assert row.status == "processing"
    assert any(line["message"] == "the outcome is refused" for line in logged)


def test_a_failure_whose_details_are_refused_is_told_without_them(platform: Platform, worker: Worker):
    row = platform.add(examples.job(parameters={"colour": "red"}))

    def refuse() -> None:
        del platform.hooks["finish"]
        raise Unprocessable

    platform.hooks["finish"] = refuse

    assert run(worker, row) == "failed"
    [finish] = row.finishes
    assert finish.error is not None
    assert (finish.error.code, finish.error.details) == ("parameters_invalid", [])


def test_a_worker_that_is_refused_its_release_leaves_the_job_to_its_lease(platform: Platform, worker: Worker):
    row = platform.add(examples.job())

    def refuse() -> None:
        raise Forbidden

    platform.hooks["finish"] = refuse
    platform.hooks["summary"] = lambda: [worker.hurry(attempt) for attempt in worker.running]

    assert run(worker, row) == "lost"


def test_an_analytics_service_that_restarts_costs_no_attempt(platform: Platform, worker_with, monkeypatch):
    monkeypatch.setattr(collecting, "BUSY_TRIES", 1)
    worker = worker_with(analytics_url=f"http://127.0.0.1:{free_port()}")
    row = platform.add(examples.job())

    assert run(worker, row) == "released"
    [finish] = row.finishes
    assert finish.retry_after_seconds >= collecting.BUSY_BREAK


def test_a_lost_lease_ends_the_attempt_quietly(platform: Platform, worker: Worker):
    row = platform.add(examples.job())
    platform.hooks["cohort"] = lambda: platform.sweep(row)

    assert run(worker, row) == "lost"

    assert not row.finishes


def test_a_lease_lost_just_before_the_end_leaves_the_other_attempts_result(platform: Platform, worker: Worker):
    row = platform.add(examples.job())
    platform.hooks["finish"] = lambda: platform.sweep(row)

    assert run(worker, row) == "lost"

    assert not row.finishes


def test_jobs_service_away_between_claim_and_finish_does_not_stop_the_work(platform: Platform, worker: Worker):
    row = platform.add(examples.job())
    platform.trouble["progress"] = 1_000_000

    assert run(worker, row) == "completed"


def test_a_cancelled_job_stops_at_its_next_report(platform: Platform, worker: Worker):
    row = platform.add(examples.job())
    row.cancel = True

    assert run(worker, row) == "cancelled"

    assert [finish.outcome for finish in row.finishes] == ["cancelled"]
    assert platform.calls["summary"] == 0


def test_a_job_cancelled_after_its_last_report_stays_cancelled(platform: Platform, worker: Worker):
    row = platform.add(examples.job())

    def cancel() -> None:
        row.cancel = True

    platform.hooks["finish"] = cancel

    assert run(worker, row) == "cancelled"


def test_a_job_cancelled_while_it_waits_stops_at_the_next_heartbeat(platform: Platform, worker: Worker):
    row = platform.add(examples.job(lease_seconds=0.15))  # a heartbeat every 50 ms
    platform.gate.clear()  # the reports do not come
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(run(worker, row)))
    thread.start()
    platform.wait(lambda: len(row.reports) > 2)  # the lease is renewed meanwhile

    row.cancel = True
    thread.join(10)

    assert ended == ["cancelled"]
    assert [finish.outcome for finish in row.finishes] == ["cancelled"]
    platform.gate.set()


def test_a_heartbeat_that_finds_the_lease_lost_ends_the_wait(platform: Platform, worker: Worker):
    row = platform.add(examples.job(lease_seconds=0.15))
    platform.gate.clear()
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(run(worker, row)))
    thread.start()
    platform.wait(lambda: row.reports)

    platform.sweep(row)
    thread.join(10)

    assert ended == ["lost"]
    assert not row.finishes
    platform.gate.set()


def test_a_worker_that_shuts_down_releases_its_jobs_and_takes_no_more(platform: Platform, worker: Worker):
    row = platform.add(examples.job())
    platform.gate.clear()
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(run(worker, row)))
    thread.start()
    platform.wait(lambda: row.reports)

    worker.drain()
    thread.join(10)

    assert ended == ["released"]
    assert row.status == "pending"
    assert run(worker, row) == "not_taken"
    assert row.status == "pending"
    platform.gate.set()


def test_a_programme_without_fees_has_no_return_on_them(platform: Platform, worker: Worker):
    free = examples.terms(fees=Fees(per_engaged_member_per_month="0.00", one_time="0.00"))
    row = platform.add(examples.job(value_proposition=free))

    assert run(worker, row) == "completed"

    assert not [fact.id for fact in row.document.facts if fact.id.startswith("roi.")]
