"""auth-service: accounts, sessions, tokens and signing keys. Run by `uvicorn --factory auth_service.main:build`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from joserfc.jwk import KeySetSerialization

from auth_service import api_keys, keys, sso, sweeps
from auth_service.bootstrap import bootstrap
from auth_service.chain import Sealer
from auth_service.intake import Intake
from auth_service.keys import KeyRing
from auth_service.passwords import Passwords
from auth_service.revocations import Revoker
from auth_service.routes import api_keys as api_key_routes
from auth_service.routes import audit as audit_routes
from auth_service.routes import keys as key_routes
from auth_service.routes import service_accounts as service_account_routes
from auth_service.routes import sessions as session_routes
from auth_service.routes import sso as sso_routes
from auth_service.routes import users as user_routes
from auth_service.service_accounts import TokenRequestError
from auth_service.settings import Settings
from auth_service.throttle import Throttle
from auth_service.tokens import TokenIssuer
from triton_common import gateway
from triton_common.api_keys import ApiKeys
from triton_common.app import create_app
from triton_common.auth import Principal, TokenVerifier
from triton_common.background import in_background
from triton_common.db import Database, postgres, transaction
from triton_common.revocations import Revocation, redis_client


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
        ring = KeyRing(keys.derive(chosen.key_secret, purpose="signing keys"), access_lifetime=chosen.access_token_ttl)
        redis_url = chosen.redis_url.get_secret_value()

        def apply(revocations: Sequence[Revocation]) -> None:
            app.state.verifier.revoke(revocations)

        async with AsyncExitStack() as stack:
            stack.callback(passwords.close)
            database = await stack.enter_async_context(
                Database.connect(chosen.database_url.get_secret_value(), pool_size=chosen.pool_size)
            )
            redis = redis_client(redis_url) if redis_url else None
            if redis is not None:
                stack.push_async_callback(redis.aclose)
            app.state.database = database
            app.state.passwords = passwords
            app.state.keys = ring
            app.state.sso = sso.configured(chosen)
            await bootstrap(database, ring, settings=chosen, passwords=passwords)
            await stack.enter_async_context(app.state.verifier)
            app.state.issuer = TokenIssuer(
                keys=ring,
                successor_key=keys.derive(chosen.key_secret, purpose="refresh tokens"),
                issuer=chosen.token_issuer,
                audience=chosen.token_audience,
                access_lifetime=chosen.access_token_ttl,
                session_lifetime=chosen.refresh_token_ttl,
                session_idle=chosen.session_idle,
                refresh_grace=chosen.refresh_grace,
            )
            app.state.throttle = Throttle(
                redis,
                free_of_account=chosen.throttle_account,
                free_of_address=chosen.throttle_address,
                window=chosen.throttle_window,
            )
            app.state.revoker = Revoker(database, redis, apply=apply, access_lifetime=chosen.access_token_ttl)
            app.state.chain_key = keys.derive(chosen.key_secret, purpose="audit chain")
            endless = [
                Sealer(database, app.state.chain_key).run(),
                app.state.revoker.run(),
                sweeps.run(database, ring, app.state.revoker, rotation=chosen.key_rotation, lead=chosen.key_lead),
            ]
            if redis is not None:
                endless.append(Intake(database, redis).run())
            await stack.enter_async_context(in_background(*endless))
            yield

    async def own_keys() -> KeySetSerialization:
        ring: KeyRing = app.state.keys
        async with transaction(app.state.database) as session:
            await keys.load(session, ring)
        return ring.published

    async def own_principal(key: str) -> Principal:
        return await api_keys.principal_of(app.state.database, key)

    app = create_app(
        chosen,
        name="auth-service",
        version=version("auth-service"),
        description="Accounts, sessions, tokens and signing keys",
        routers=[
            session_routes.router,
            sso_routes.router,
            service_account_routes.tokens,
            key_routes.public,
            user_routes.router,
            api_key_routes.router,
            api_key_routes.internal,
            service_account_routes.router,
            key_routes.router,
            audit_routes.router,
            gateway.router,
        ],
        lifespan=lifespan,
        readiness=[postgres],
        verifier=TokenVerifier(
            own_keys,
            issuer=chosen.token_issuer,
            audience=chosen.token_audience,
            api_keys=ApiKeys(own_principal, revocations_are_read=lambda: False),
        ),
    )
    app.add_exception_handler(TokenRequestError, service_account_routes.answer_token_request_error)
    return app
