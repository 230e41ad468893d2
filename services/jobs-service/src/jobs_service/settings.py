"""What jobs-service reads from the environment."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, IPvAnyNetwork, SecretStr, StringConstraints, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from triton_common.settings import CommonSettings, Environment, is_weak

ErrorCode = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class JobPolicy(BaseModel):
    """How often and how long jobs of a type are tried. What runs already keeps the limits it was submitted with."""

    max_attempts: int = Field(default=3, ge=1, le=20)
    retry_delay: timedelta = Field(default=timedelta(seconds=5), description="Before the second attempt; then doubled")
    longest_retry_delay: timedelta = timedelta(minutes=5)
    time_limit: timedelta = Field(default=timedelta(minutes=30), gt=timedelta(0))
    permanent: Annotated[frozenset[ErrorCode], NoDecode] = Field(
        default=frozenset(), description="Comma-separated: error codes after which no attempt follows"
    )

    @field_validator("permanent", mode="before")
    @classmethod
    def split_codes(cls, value: Any) -> Any:
        """`no_data, currency_mismatch` → both."""
        return _split(value)


class Policies(BaseModel):
    """A policy for each job type."""

    value_proposition: JobPolicy = JobPolicy()

    def of(self, job_type: str) -> JobPolicy:
        """The policy of a job type."""
        policy: JobPolicy = getattr(self, job_type)
        return policy


def _unknown(values: Any, model: type[BaseModel], variable: str) -> Iterator[str]:
    """The variables that stand for no field of a model."""
    for name, value in values.items() if isinstance(values, dict) else ():
        inner = f"{variable}__{name}".upper()
        field = model.model_fields.get(name)
        if field is None:
            yield inner
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _unknown(value, field.annotation, inner)


class Settings(CommonSettings):
    """Settings of jobs-service. Durations are ISO 8601: PT30S."""

    model_config = SettingsConfigDict(env_prefix="JOBS_", env_nested_delimiter="__")

    database_url: SecretStr = Field(default=SecretStr(""), validation_alias="DATABASE_URL")
    task_queue_url: SecretStr = Field(default=SecretStr("redis://127.0.0.1:6379/0"), validation_alias="TASK_QUEUE_URL")
    pool_size: int = Field(default=8, ge=2, le=100)
    lease: timedelta = Field(default=timedelta(seconds=30), gt=timedelta(0))
    sweep_interval: timedelta = Field(default=timedelta(seconds=1), gt=timedelta(0))
    policies: Policies = Policies()
    concurrent_per_client: int = Field(default=16, ge=1, description="Jobs of a client that may be in flight at once")
    max_pending_per_client: int = Field(default=10_000, ge=1, description="Over it, submitting answers 429")
    stream_heartbeat: timedelta = Field(default=timedelta(seconds=10), gt=timedelta(0))
    encryption_keys: SecretStr = Field(
        default=SecretStr("change-me-encryption-key"), description="Comma-separated; the first encrypts, all decrypt"
    )
    webhook_allow_private: bool = Field(default=False, description="Webhooks may go to any address, and over http")
    webhook_allowed_networks: Annotated[list[IPvAnyNetwork], NoDecode] = Field(
        default=[], description="Comma-separated: addresses that webhooks may go to beside the public ones"
    )
    webhook_disable_after: timedelta = Field(default=timedelta(days=3), gt=timedelta(0))
    webhook_deliveries_kept: timedelta = Field(default=timedelta(days=30), gt=timedelta(0))

    @field_validator("webhook_allowed_networks", mode="before")
    @classmethod
    def split_networks(cls, value: Any) -> Any:
        """`10.0.0.0/8, fd00::/8` → both."""
        return _split(value)

    @field_validator("policies", mode="before")
    @classmethod
    def policies_are_known(cls, value: Any) -> Any:
        """Refuse a typo in a variable's name, which would leave the default in force."""
        if unknown := sorted(_unknown(value, Policies, cls.variable_of("policies"))):
            raise ValueError(f"there is no setting {', '.join(unknown)}")
        return value

    @model_validator(mode="after")
    def each_key_is_strong(self) -> Self:
        """Judge every key by itself; outside dev a weak one stops the start."""
        keys = self.encryption_keys.get_secret_value().split(",")
        if self.environment is not Environment.DEV and any(is_weak(key.strip()) for key in keys):
            raise ValueError("set JOBS_ENCRYPTION_KEYS: empty, short or placeholder keys are only for dev")
        return self
