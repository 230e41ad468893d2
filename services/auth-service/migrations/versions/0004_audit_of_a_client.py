"""The audit log of a client is read by action: for its admins' `login.*` all its other events need not be read.

It is built beside the work (CONCURRENTLY); what a run that broke off has left is dropped first.
"""

from alembic import op

from triton_common.migrations import LOCK_TIMEOUT, STATEMENT_TIMEOUT

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NAME = "ix_audit_events_client_id_action"


def upgrade() -> None:
    """Apply."""
    _run(
        f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}",
        f"CREATE INDEX CONCURRENTLY {NAME} ON audit_events (client_id, action, at, id) WHERE client_id IS NOT NULL",
    )


def downgrade() -> None:
    """Take back."""
    _run(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")


def _run(*statements: str) -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")  # it waits for every transaction that is open, and blocks nobody
        op.execute("SET statement_timeout = 0")
        for statement in statements:
            op.execute(statement)
        op.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        op.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'")
