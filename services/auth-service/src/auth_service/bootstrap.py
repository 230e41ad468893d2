"""What must be in the database before the first request: a signing key, the first admin, agent-runner's account."""

from typing import Final

from auth_service import keys, service_accounts, users
from auth_service.keys import KeyRing
from auth_service.passwords import Passwords
from auth_service.settings import Settings
from triton_common.db import Database, transaction

AGENT_RUNNER: Final = "agent-runner"


async def bootstrap(database: Database, ring: KeyRing, *, settings: Settings, passwords: Passwords) -> None:
    """Make what is missing, in one transaction, and load the keys. Doing it again changes nothing."""
    async with transaction(database) as session:
        await keys.lock(session)
        await keys.load_or_make(session, ring)
        await users.bootstrap_admin(
            session, passwords=passwords, email=settings.bootstrap_email, password=settings.bootstrap_password
        )
        await service_accounts.ensure(
            session,
            passwords=passwords,
            name=AGENT_RUNNER,
            secret=settings.agent_client_secret.get_secret_value(),
        )
