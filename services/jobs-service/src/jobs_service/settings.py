"""What jobs-service reads from the environment."""

from datetime import timedelta

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from triton_common.settings import CommonSettings


class Settings(CommonSettings):
    """Settings of jobs-service. Durations are ISO 8601: PT30S."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    database_url: SecretStr = Field(default=SecretStr(""), validation_alias="DATABASE_URL")
    task_queue_url: SecretStr = Field(default=SecretStr("redis://127.0.0.1:6379/0"), validation_alias="TASK_QUEUE_URL")
    pool_size: int = Field(default=8, ge=2, le=100)
    lease: timedelta = Field(default=timedelta(seconds=30), gt=timedelta(0))
    sweep_interval: timedelta = Field(default=timedelta(seconds=1), gt=timedelta(0))
    max_attempts: int = Field(default=3, ge=1, le=20)
    retry_delay: timedelta = Field(default=timedelta(seconds=5), description="Before the second attempt; then doubled")
    stream_heartbeat: timedelta = Field(default=timedelta(seconds=10), gt=timedelta(0))
