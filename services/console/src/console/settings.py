"""What console reads from the environment."""

from datetime import timedelta

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from triton_common.settings import CommonSettings


class Settings(CommonSettings):
    """Where the services are, and how long console waits for one of them."""

    model_config = SettingsConfigDict(env_prefix="CONSOLE_")

    jobs_url: str = Field(default="http://127.0.0.1:8002", validation_alias="TRITON_JOBS_URL")
    analytics_url: str = Field(default="http://127.0.0.1:8003", validation_alias="TRITON_ANALYTICS_URL")
    agents_url: str = Field(default="http://127.0.0.1:8004", validation_alias="TRITON_AGENTS_URL")
    ask_timeout: timedelta = Field(
        default=timedelta(seconds=3), description="Above CHECK_TIMEOUT: a service itself says what it lacks"
    )
