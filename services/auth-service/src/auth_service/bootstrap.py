"""What must be in the database before the first request: a signing key, the first admin, agent-runner's account."""

from typing import Final

from sqlmodel import func, select

from auth_service import keys, service_accounts, users
from auth_service.keys import KeyRing
from auth_service.passwords import Passwords
from auth_service.settings import Settings
from triton_common.db import Database, transaction

LOCK: Final = 0x61757468  # "auth": of processes that start at once, one makes things and the others find them
AGENT_RUNNER: Final = "agent-runner"


async def bootstrap(database: Database, *, settings: Settings, passwords: Passwords) -> KeyRing:
    """Make what is missing, in one transaction, and answer the keys. Doing it again changes nothing."""
    async with transaction(database) as session:
        await session.exec(select(func.pg_advisory_xact_lock(LOCK)))
        key_ring = await keys.load_or_make(session, secret=settings.key_secret)
        await users.bootstrap_admin(
            session, passwords=passwords, email=settings.bootstrap_email, password=settings.bootstrap_password
        )
        await service_accounts.ensure(
            session,
            passwords=passwords,
            name=AGENT_RUNNER,
            secret=settings.agent_client_secret.get_secret_value(),
        )
    return key_ring
