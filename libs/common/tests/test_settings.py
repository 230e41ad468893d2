"""Settings: what dev forgives, staging and prod refuse."""

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from triton_common.settings import CommonSettings, Environment


class WidgetSettings(CommonSettings):
    """A service's settings."""

    model_config = SettingsConfigDict(env_prefix="WIDGET_")

    key: SecretStr = SecretStr("")
    size: int = 3


def test_environment_is_read_under_prefix_and_full_names(monkeypatch):
    monkeypatch.setenv("WIDGET_SIZE", "7")
    monkeypatch.setenv("TRITON_ENV", "dev")
    monkeypatch.setenv("TRITON_CORS_ORIGINS", "https://a.example, https://b.example,")
    settings = WidgetSettings()
    assert (settings.size, settings.environment) == (7, Environment.DEV)
    assert settings.cors_origins == ["https://a.example", "https://b.example"]


def test_variable_of_a_field_is_known():
    assert WidgetSettings.variable_of("key") == "WIDGET_KEY"
    assert WidgetSettings.variable_of("environment") == "TRITON_ENV"


def test_outside_dev_revocations_must_be_read(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "")
    assert CommonSettings().redis_url.get_secret_value() == ""
    with pytest.raises(ValidationError, match="set REDIS_URL"):
        CommonSettings(environment="prod")


@pytest.fixture(autouse=True)
def redis_somewhere(monkeypatch):
    """What else a start outside dev needs."""
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:6379/0")


@pytest.mark.parametrize("secret", ["", "s3cr3t!", "changeme-changeme-changeme", "placeholder-0123456789"])
@pytest.mark.parametrize("environment", ["staging", "prod"])
def test_weak_secret_stops_the_start_and_is_named_not_shown(monkeypatch, secret, environment):
    monkeypatch.setenv("TRITON_ENV", environment)
    monkeypatch.setenv("WIDGET_KEY", secret)
    with pytest.raises(ValidationError, match="set WIDGET_KEY") as caught:
        WidgetSettings()
    assert not secret or secret not in str(caught.value)


def test_strong_secret_is_taken_and_dev_takes_any(monkeypatch):
    assert WidgetSettings(key=SecretStr("")).key.get_secret_value() == ""
    monkeypatch.setenv("TRITON_ENV", "prod")
    monkeypatch.setenv("WIDGET_KEY", "kX9-strong-and-long-enough")
    assert WidgetSettings().environment is Environment.PROD


@pytest.mark.parametrize("url", ["postgresql://triton:change-me@db/jobs", "redis://:short@cache:6379/0"])
def test_weak_password_in_a_url_is_seen(monkeypatch, url):
    monkeypatch.setenv("TRITON_ENV", "prod")
    monkeypatch.setenv("WIDGET_KEY", url)
    with pytest.raises(ValidationError, match="set WIDGET_KEY"):
        WidgetSettings()


@pytest.mark.parametrize("url", ["chdb:///var/lib/x", "postgresql://triton:kX9%2Fstrong-and-long@db/jobs"])
def test_url_without_or_with_a_strong_password_is_taken(monkeypatch, url):
    monkeypatch.setenv("TRITON_ENV", "prod")
    monkeypatch.setenv("WIDGET_KEY", url)
    assert WidgetSettings().key.get_secret_value() == url


@pytest.mark.parametrize("environment", ["staging", "prod"])
def test_open_origins_are_for_dev_alone(monkeypatch, environment):
    monkeypatch.setenv("TRITON_CORS_ORIGINS", "*")
    assert CommonSettings().cors_origins == ["*"]
    monkeypatch.setenv("TRITON_ENV", environment)
    with pytest.raises(ValidationError, match="TRITON_CORS_ORIGINS"):
        CommonSettings()
