"""Indexes for every filter of the list of jobs, and for what ended when.

They are built beside the work (CONCURRENTLY): nobody who writes jobs waits, however many there are. What a run that
broke off has left is dropped first.
"""

from alembic import op

from triton_common.migrations import LOCK_TIMEOUT, STATEMENT_TIMEOUT

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

NEWEST = "status, priority, created_at, id"
CODE = "(error ->> 'code')"
NEW = {
    "ix_generation_jobs_status_priority_created_at_id": f"({NEWEST})",
    "ix_generation_jobs_client_id_status_priority_created_at_id": f"(client_id, {NEWEST})",
    "ix_generation_jobs_prospect_id_status_priority_created_at_id": f"(prospect_id, {NEWEST})",
    "ix_generation_jobs_schedule_id_status_priority_created_at_id": (
        f"(schedule_id, {NEWEST}) WHERE schedule_id IS NOT NULL"
    ),
    "ix_generation_jobs_code": f"({CODE}, {NEWEST}) WHERE error IS NOT NULL",
    "ix_generation_jobs_client_code": f"(client_id, {CODE}, {NEWEST}) WHERE error IS NOT NULL",
    "ix_generation_jobs_prospect_code": f"(prospect_id, {CODE}, {NEWEST}) WHERE error IS NOT NULL",
    "ix_generation_jobs_schedule_code": (
        f"(schedule_id, {CODE}, {NEWEST}) WHERE error IS NOT NULL AND schedule_id IS NOT NULL"
    ),
    "ix_generation_jobs_client_id_status_finished_at": "(client_id, status, finished_at) WHERE finished_at IS NOT NULL",
}
OLD = {
    "ix_generation_jobs_client_id_id": "(client_id, id)",
    "ix_generation_jobs_prospect_id_id": "(prospect_id, id)",
    "ix_generation_jobs_status_id": "(status, id)",
}


def upgrade() -> None:
    """Apply."""
    _replace(OLD, NEW)


def downgrade() -> None:
    """Take back."""
    _replace(NEW, OLD)


def _replace(old: dict[str, str], new: dict[str, str]) -> None:
    with op.get_context().autocommit_block():
        # they wait for every transaction that is open, and take minutes of a big table: neither blocks anybody
        op.execute("SET lock_timeout = 0")
        op.execute("SET statement_timeout = 0")
        for name, definition in new.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON generation_jobs {definition}")
        for name in old:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        op.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'")
