"""What every service reads from the environment. A service's own settings subclass this under a prefix of their own."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PLACEHOLDERS = re.compile(r"^(change.?me|placeholder|secret|password|example|xxx+|todo)", re.IGNORECASE)


class Environment(StrEnum):
    """Where this runs. Outside dev, strong secrets and closed CORS origins are required."""

    DEV = "dev"
    STAGING = "staging"
    PROD = "prod"


class CommonSettings(BaseSettings):
    """Settings of all services. Subclasses set `env_prefix`; fields with an alias keep their full name."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True,  # compose's ${VAR:-} counts as not set
        extra="ignore",
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    environment: Environment = Field(default=Environment.DEV, validation_alias="TRITON_ENV")
    log_level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", validation_alias="TRITON_LOG_LEVEL"
    )
    log_format: Literal["json", "pretty"] = Field(default="json", validation_alias="TRITON_LOG_FORMAT")
    cors_origins: Annotated[list[str], NoDecode] = Field(
        default=[], validation_alias="TRITON_CORS_ORIGINS", description="Comma-separated; * only in dev"
    )
    max_body_bytes: int = Field(default=1_048_576, ge=1024, validation_alias="TRITON_MAX_BODY_BYTES")
    token_issuer: str = Field(default="triton", validation_alias="TRITON_TOKEN_ISSUER")
    token_audience: str = Field(default="triton", validation_alias="TRITON_TOKEN_AUDIENCE")
    redis_url: SecretStr = Field(
        default=SecretStr(""), validation_alias="REDIS_URL", description="Without it, tokens are good until they expire"
    )
    audit_spool: Path | None = Field(
        default=None, validation_alias="TRITON_AUDIT_SPOOL", description="Without it, events are gone with the process"
    )
    auth_url: str = Field(default="http://127.0.0.1:8001", validation_alias="TRITON_AUTH_URL")

    @field_validator("cors_origins", mode="before")
    @classmethod
    def split_origins(cls, value: Any) -> Any:
        """`a, b` → [`a`, `b`]."""
        return [origin.strip() for origin in value.split(",") if origin.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def fit_for_the_environment(self) -> Self:
        """Refuse outside dev what dev forgives: open CORS, empty or placeholder secrets."""
        if self.environment is not Environment.DEV:
            if "*" in self.cors_origins:
                raise ValueError("TRITON_CORS_ORIGINS must name the origins; * is for dev")
            weak = [name for name, value in self if isinstance(value, SecretStr) and is_weak(value.get_secret_value())]
            if weak:
                names = ", ".join(self.variable_of(name) for name in weak)
                raise ValueError(f"set {names}: empty, short or placeholder secrets are only for dev")
        return self

    @classmethod
    def variable_of(cls, field: str) -> str:
        """The environment variable a field is read from."""
        alias = cls.model_fields[field].validation_alias
        return alias if isinstance(alias, str) else f"{cls.model_config.get('env_prefix', '')}{field}".upper()


def is_weak(secret: str) -> bool:
    """True for a secret that no one may go to production with: under 16 characters, or a placeholder.

    Of a URL the password is judged; one without, like a file's or a trusted socket's, is not weak.
    """
    if "://" in secret:
        password = unquote(urlsplit(secret).password or "")
        return bool(password) and is_weak(password)
    return len(secret) < 16 or bool(PLACEHOLDERS.match(secret))  # 128 bits as base64 are 22
