"""Waiting for something slow, and being told to stop meanwhile."""

import threading

import pytest

from agent_runner.stop import Stop, Stopped
from triton_common.logging import current_request_id, log_context


def test_every_answer_comes_in_order_with_the_callers_context():
    with log_context(request_id="request-1"):
        assert Stop().gather([lambda: "a", current_request_id], timeout=5) == ["a", "request-1"]


def test_the_first_error_is_raised():
    def fail() -> None:
        raise KeyError("x")

    forever = threading.Event()
    with pytest.raises(KeyError):
        Stop().gather([forever.wait, fail], timeout=5)
    forever.set()


def test_a_call_that_takes_too_long_is_left():
    forever = threading.Event()
    with pytest.raises(TimeoutError):
        Stop().gather([forever.wait], timeout=0.01)
    forever.set()


def test_the_first_reason_to_stop_stands_and_ends_every_wait():
    stop = Stop()
    stop.check()
    stop.wait(0)
    forever = threading.Event()

    def set_twice() -> bool:
        stop.set("cancelled")
        stop.set("released")
        return forever.wait()

    with pytest.raises(Stopped) as stopped:
        stop.gather([set_twice], timeout=5)
    assert stopped.value.reason == stop.reason == "cancelled"
    with pytest.raises(Stopped):
        stop.wait(60)
    forever.set()
