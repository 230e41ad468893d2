"""An index for the versions of a document: those of the same prospect and value proposition.

It is built beside the work (CONCURRENTLY); what a run that broke off has left is dropped first.
"""

from alembic import op

from triton_common.migrations import LOCK_TIMEOUT, STATEMENT_TIMEOUT

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

NAME = "ix_documents_prospect_id_value_proposition_id_id"


def upgrade() -> None:
    """Apply."""
    _run(
        f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}",
        f"CREATE INDEX CONCURRENTLY {NAME} ON documents (prospect_id, value_proposition_id, id)",
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
