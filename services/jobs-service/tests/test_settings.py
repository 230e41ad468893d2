"""What jobs-service takes from the environment, and what stops its start."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from jobs_service.settings import Policies, Settings

POLICY = "JOBS_POLICIES__VALUE_PROPOSITION"


def test_a_policy_is_read_field_by_field(monkeypatch):
    monkeypatch.setenv(f"{POLICY}__MAX_ATTEMPTS", "7")
    monkeypatch.setenv(f"{POLICY}__TIME_LIMIT", "PT1M")
    monkeypatch.setenv(f"{POLICY}__PERMANENT", "no_data, currency_mismatch,")
    policy = Settings().policies.of("value_proposition")
    assert (policy.max_attempts, policy.time_limit) == (7, timedelta(minutes=1))
    assert policy.permanent == {"no_data", "currency_mismatch"}
    assert policy.retry_delay == Policies().value_proposition.retry_delay


def test_no_error_is_permanent_without_a_word(monkeypatch):
    monkeypatch.setenv(f"{POLICY}__PERMANENT", "")
    assert Settings().policies == Policies()


@pytest.mark.parametrize(
    "variable", ["JOBS_POLICIES__NOPE", "JOBS_POLICIES__NOPE__MAX_ATTEMPTS", f"{POLICY}__MAX_ATEMPTS"]
)
def test_a_typo_in_the_name_of_a_policys_variable_stops_the_start(monkeypatch, variable):
    monkeypatch.setenv(variable, "3")
    with pytest.raises(ValidationError, match="there is no setting") as caught:
        Settings()
    [named] = [word for word in str(caught.value).split() if word.startswith("JOBS_")]
    assert variable.startswith(named.rstrip(","))


@pytest.mark.parametrize(
    ("name", "value"),
    [("PERMANENT", '["no_data"]'), ("PERMANENT", "No data"), ("MAX_ATTEMPTS", "0"), ("TIME_LIMIT", "PT0S")],
)
def test_a_value_that_makes_no_sense_stops_the_start_and_its_place_is_named(monkeypatch, name, value):
    monkeypatch.setenv(f"{POLICY}__{name}", value)
    with pytest.raises(ValidationError, match=rf"policies\.value_proposition\.{name.lower()}"):
        Settings()


def test_several_networks_are_taken(monkeypatch):
    monkeypatch.setenv("JOBS_WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/8, fd00::/8")
    assert [str(network) for network in Settings().webhook_allowed_networks] == ["10.0.0.0/8", "fd00::/8"]
