"""What auth-service reads from the environment, beside what all services do."""

from datetime import timedelta

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from triton_common.settings import CommonSettings


class Settings(CommonSettings):
    """The defaults of secrets are for dev: outside it they count as placeholders and stop the start."""

    model_config = SettingsConfigDict(env_prefix="AUTH_")

    database_url: SecretStr = Field(default=SecretStr(""), validation_alias="DATABASE_URL")
    pool_size: int = Field(default=8, ge=1)
    access_token_ttl: timedelta = Field(default=timedelta(hours=24), ge=timedelta(seconds=60))
    refresh_token_ttl: timedelta = Field(
        default=timedelta(days=30), description="Absolute: refreshing does not extend it"
    )
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
