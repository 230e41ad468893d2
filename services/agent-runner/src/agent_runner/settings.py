"""What agent-runner reads from the environment, its API and its worker alike."""

from datetime import timedelta
from decimal import Decimal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from agent_runner.budget import Price
from triton_common.settings import CommonSettings


class Settings(CommonSettings):
    """Under the prefix AGENT_. AWS_* are read by boto3 itself."""

    model_config = SettingsConfigDict(env_prefix="AGENT_")

    database_url: SecretStr = Field(default=SecretStr(""), validation_alias="DATABASE_URL")
    pool_size: int = Field(default=4, ge=1, description="The API's connections to Postgres; a worker has one")
    runs_kept: timedelta = Field(default=timedelta(days=90), gt=timedelta(0), description="How long runs are kept")
    task_queue_url: SecretStr = Field(default=SecretStr("redis://127.0.0.1:6379/0"), validation_alias="TASK_QUEUE_URL")
    jobs_url: str = Field(default="http://127.0.0.1:8002", validation_alias="TRITON_JOBS_URL")
    analytics_url: str = Field(default="http://127.0.0.1:8003", validation_alias="TRITON_ANALYTICS_URL")
    client_id: str = "agent-runner"
    client_secret: SecretStr = SecretStr("change-me-agent-runner")
    model: str = Field(default="offline:template", description="offline:template, bedrock:<id> or openai-like:<id>")
    fallback_model: str | None = Field(default=None, description="Asked when the model fails or refuses")
    openai_base_url: str = "http://127.0.0.1:11434/v1"
    openai_api_key: SecretStr | None = None
    model_timeout: timedelta = Field(default=timedelta(seconds=90), description="For the answer to one model call")
    model_max_tokens: int = Field(default=8192, ge=256, description="Of one answer")
    deadline: timedelta = Field(default=timedelta(minutes=6), description="For one agent, its retries included")
    max_calls: int = Field(default=10, ge=1, description="Model calls of one agent, its retries included")
    job_max_tokens: int | None = Field(default=1_000_000, ge=1, description="Of all agents of a job, read and written")
    job_max_cost: Decimal | None = Field(default=None, gt=0, description="The same in money, by the prices")
    prices: dict[str, Price] = Field(default={}, description="JSON, by model: of a million tokens, input and output")
    price_currency: str = Field(default="USD", pattern="^[A-Z]{3}$")
    trace_prompts: bool = Field(default=False, description="Prompts in spans; they hold what a prospect's data shows")
    retry_pause: timedelta = Field(default=timedelta(seconds=1), description="Before the first retry; it doubles")
    shutdown_grace: timedelta = Field(default=timedelta(seconds=5), description="For running jobs, after SIGTERM")
    metrics_port: int | None = Field(default=None, description="The worker's Prometheus metrics; none without it")
    metrics_host: str = "127.0.0.1"
