"""Whether a worker consumes: what Pulse says by a clock of the test's."""

import json
from http import HTTPStatus

import pytest

from agent_runner import pulse
from agent_runner.pulse import SILENCE, Pulse


class Clock:
    """Time, and when Redis last answered."""

    now = 1000.0
    heard = -float("inf")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    chosen = Clock()
    monkeypatch.setattr(pulse, "monotonic", lambda: chosen.now)
    return chosen


def status(of: Pulse) -> HTTPStatus:
    return of.answer("/health/ready")[0]


def test_a_worker_that_redis_does_not_answer_is_not_ready(clock: Clock):
    beat = Pulse(threads=2, heard=lambda: clock.heard)
    assert (beat.silence(), status(beat)) == (0, HTTPStatus.OK)  # it has just begun

    clock.now += SILENCE + 1
    assert (beat.silence(), status(beat)) == (SILENCE + 1, HTTPStatus.SERVICE_UNAVAILABLE)
    assert json.loads(beat.answer("/health/ready")[2]) == {"status": "down", "silence_seconds": SILENCE + 1}

    clock.heard = clock.now - 1
    assert (beat.silence(), status(beat)) == (1, HTTPStatus.OK)


def test_a_worker_whose_threads_are_all_busy_asks_for_nothing_and_is_well(clock: Clock):
    beat = Pulse(threads=2, heard=lambda: clock.heard)
    beat.begin("one")
    clock.now += 100
    assert beat.silence() == 100

    beat.begin("two")
    assert beat.silence() == 0

    beat.end("one", "a.task", "SUCCESS")
    beat.end("never seen to begin", "a.task", "FAILURE")
    assert beat.silence() == 100
    text = beat.answer("/metrics")[2].decode()
    assert 'celery_tasks_total{state="success",task="a.task"} 1.0' in text
    assert 'celery_task_duration_seconds_sum{task="a.task"} 100.0' in text
    assert "celery_worker_busy_threads 1.0" in text
    assert "celery_worker_threads 2.0" in text


def test_other_paths_are_not_found(clock: Clock):
    assert Pulse(threads=1, heard=lambda: clock.heard).answer("/")[0] is HTTPStatus.NOT_FOUND
