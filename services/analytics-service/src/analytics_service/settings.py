"""What analytics-service reads from the environment."""

import tempfile
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from triton_common.settings import CommonSettings


class Settings(CommonSettings):
    """See `.env.example` for what each is for."""

    model_config = SettingsConfigDict(env_prefix="ANALYTICS_")

    clickhouse_url: SecretStr = Field(
        default=SecretStr("chdb:///tmp/triton-analytics"), validation_alias="CLICKHOUSE_URL"
    )
    jobs_url: str = Field(default="http://127.0.0.1:8002", validation_alias="TRITON_JOBS_URL")
    member_key: SecretStr = SecretStr("")
    max_upload_bytes: int = Field(default=2 * 1024**3, ge=1024)
    spool_dir: Path = Path(tempfile.gettempdir())
    readers: int = Field(default=3, ge=1, le=32)
    waiting: int = Field(default=32, ge=1)
    query_timeout: timedelta = Field(default=timedelta(seconds=30), ge=timedelta(seconds=1))
    query_memory_bytes: int = Field(default=2 * 1024**3, ge=64 * 1024**2)
    query_rows: int = Field(default=2_000_000_000, ge=1)
    smallest_group: int = Field(default=11, ge=1)
    retention: dict[UUID, timedelta] = Field(default={})
    clickhouse_cluster: str = Field(default="", pattern="^[a-z][a-z0-9_]*$|^$", validation_alias="CLICKHOUSE_CLUSTER")
