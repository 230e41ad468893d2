"""What auth-service reads from the environment, beside what all services do."""

import re
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from triton_common.settings import CommonSettings, Environment


class Settings(CommonSettings):
    """The defaults of secrets are for dev: outside it they count as placeholders and stop the start."""

    model_config = SettingsConfigDict(env_prefix="AUTH_")

    database_url: SecretStr = Field(default=SecretStr(""), validation_alias="DATABASE_URL")
    pool_size: int = Field(default=8, ge=1)
    access_token_ttl: timedelta = Field(default=timedelta(hours=24), ge=timedelta(seconds=60))
    refresh_token_ttl: timedelta = Field(
        default=timedelta(days=30), description="Absolute: refreshing does not extend it"
    )
    session_idle: timedelta = Field(default=timedelta(days=7), description="Without a refresh a session ends after it")
    refresh_grace: timedelta = Field(
        default=timedelta(seconds=10), description="To repeat a refresh whose answer was lost"
    )
    bootstrap_email: str | None = None
    bootstrap_password: SecretStr | None = None
    key_secret: SecretStr = Field(default=SecretStr("change-me-key-secret"), description="Encrypts the signing keys")
    key_rotation: timedelta = Field(default=timedelta(days=90), gt=timedelta(0))
    key_lead: timedelta = Field(
        default=timedelta(minutes=10), description="A key is published that long before it signs"
    )
    agent_client_secret: SecretStr = Field(default=SecretStr("change-me-agent-runner"), max_length=128)
    api_key_max_age: timedelta = Field(default=timedelta(days=365), gt=timedelta(0))
    # OWASP Password Storage Cheat Sheet: argon2id with 19 MiB, two passes, one lane
    argon2_memory_kib: int = Field(default=19_456, ge=8)
    argon2_passes: int = Field(default=2, ge=1)
    hashing_threads: int = Field(default=2, ge=1, description="Hashes computed at once; each takes a core for ~18 ms")
    hashing_queue: int = Field(default=32, ge=0, description="Hashes that may wait; 503 beyond")
    throttle_account: int = Field(default=10, ge=1, description="Wrong logins of an account before each has to wait")
    throttle_address: int = Field(default=50, ge=1, description="The same of an address, whatever the accounts")
    throttle_window: timedelta = Field(default=timedelta(minutes=15), ge=timedelta(minutes=5))

    # Single sign-on by OpenID Connect: on with a discovery URL, docs/single-sign-on.md
    sso_discovery_url: str | None = None
    sso_client_id: str = ""
    sso_client_secret: SecretStr | None = Field(default=None, description="Without it a public client, by PKCE alone")
    sso_redirect_uri: str = Field(default="", description="…/api/v1/auth/sso/callback, as the provider has it")
    sso_return_origins: Annotated[list[str], NoDecode] = Field(default=[], description="Comma-separated")
    sso_allowed_domains: Annotated[list[str], NoDecode] = Field(default=[], description="Comma-separated")
    sso_scope: str = "openid email profile"
    sso_verified_claim: str = "email_verified"
    sso_role_claim: str | None = None
    sso_role_map: dict[str, Literal["admin", "editor", "viewer"]] = Field(default={}, description="JSON")
    sso_default_role: Literal["admin", "editor", "viewer"] | None = Field(default=None, description="None: refused")
    sso_timeout: timedelta = Field(default=timedelta(seconds=5), gt=timedelta(0), description="Of one call")

    @field_validator("sso_return_origins", "sso_allowed_domains", mode="before")
    @classmethod
    def split_list(cls, value: Any) -> Any:
        """`a, B` → [`a`, `b`]: both are compared in lower case."""
        return (
            [one.strip().lower().rstrip("/") for one in value.split(",") if one.strip()]
            if isinstance(value, str)
            else value
        )

    @model_validator(mode="after")
    def idle_sessions_outlive_their_tokens(self) -> Self:
        """Else who works on with an access token could not refresh it."""
        if self.session_idle <= self.access_token_ttl:
            raise ValueError(
                "AUTH_SESSION_IDLE must be longer than AUTH_ACCESS_TOKEN_TTL: a refresh is what counts as use"
            )
        return self

    @model_validator(mode="after")
    def single_sign_on_is_whole(self) -> Self:
        """With a provider, what its login needs; outside dev, over TLS alone."""
        if self.sso_discovery_url is None:
            return self
        needed = ("sso_client_id", "sso_redirect_uri", "sso_return_origins", "sso_allowed_domains")
        if missing := [self.variable_of(name) for name in needed if not getattr(self, name)]:
            raise ValueError(f"with AUTH_SSO_DISCOVERY_URL set {', '.join(missing)} too")
        if not self.sso_discovery_url.endswith("/.well-known/openid-configuration"):
            raise ValueError("AUTH_SSO_DISCOVERY_URL must end in /.well-known/openid-configuration")
        if not all(re.fullmatch(r"https?://[^/?#@\\\s*]+", origin) for origin in self.sso_return_origins):
            raise ValueError("AUTH_SSO_RETURN_ORIGINS are origins: https://host or https://host:port, without a path")
        urls = [self.sso_discovery_url, self.sso_redirect_uri, *self.sso_return_origins]
        if self.environment is not Environment.DEV and not all(url.startswith("https://") for url in urls):
            raise ValueError("outside dev all URLs of AUTH_SSO_ must be https")
        return self
