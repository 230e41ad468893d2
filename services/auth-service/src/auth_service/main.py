"""auth-service: accounts, sessions, tokens and signing keys. Run by `uvicorn --factory auth_service.main:build`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from joserfc.jwk import KeySetSerialization

from auth_service import keys
from auth_service.bootstrap import bootstrap
from auth_service.passwords import Passwords
from auth_service.routes import answer_token_request_error, router
from auth_service.service_accounts import TokenRequestError
from auth_service.settings import Settings
from auth_service.tokens import TokenIssuer
from triton_common import gateway
from triton_common.app import create_app
from triton_common.auth import TokenVerifier
from triton_common.db import Database, postgres


def build(settings: Settings | None = None) -> FastAPI:
    """The app. Its settings come from the environment unless given."""
    chosen = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        passwords = Passwords(
            memory_kib=chosen.argon2_memory_kib,
            passes=chosen.argon2_passes,
            threads=chosen.hashing_threads,
            queue=chosen.hashing_queue,
        )
        url = chosen.database_url.get_secret_value()
        async with Database.connect(url, pool_size=chosen.pool_size) as database:
            app.state.database = database
            app.state.passwords = passwords
            app.state.keys = await bootstrap(database, settings=chosen, passwords=passwords)
            app.state.issuer = TokenIssuer(
                key=app.state.keys.signing,
                successor_key=keys.derive(chosen.key_secret, purpose="refresh tokens"),
                issuer=chosen.token_issuer,
                audience=chosen.token_audience,
                access_lifetime=chosen.access_token_ttl,
                session_lifetime=chosen.refresh_token_ttl,
                refresh_grace=chosen.refresh_grace,
            )
            try:
                yield
            finally:
                passwords.close()

    async def own_keys() -> KeySetSerialization:
        published: KeySetSerialization = app.state.keys.published
        return published

    app = create_app(
        chosen,
        name="auth-service",
        version=version("auth-service"),
        description="Accounts, sessions, tokens and signing keys",
        routers=[router, gateway.router],
        lifespan=lifespan,
        readiness=[postgres],
        verifier=TokenVerifier(own_keys, issuer=chosen.token_issuer, audience=chosen.token_audience),
    )
    app.add_exception_handler(TokenRequestError, answer_token_request_error)
    return app
