"""Jobs: priority, admission by client, time limits, series of attempts, claims that may be repeated."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PRIORITY = sa.Enum("high", "normal", "low", name="job_priority")
TABLE = "generation_jobs"
CHECKS = {"time_limit": "time_limit_seconds > 0", "series": "series >= 1"}


def upgrade() -> None:
    """Apply."""
    PRIORITY.create(op.get_bind())
    op.add_column(TABLE, sa.Column("priority", PRIORITY, server_default="normal", nullable=False))
    op.add_column(TABLE, sa.Column("time_limit_seconds", sa.Integer(), server_default="1800", nullable=False))
    op.add_column(TABLE, sa.Column("series", sa.Integer(), server_default="1", nullable=False))
    op.add_column(TABLE, sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(TABLE, sa.Column("claim_id", sa.Uuid(), nullable=True))
    # jobs that are pending have had their message: they are admitted, as a time in dispatch_at says
    op.alter_column(TABLE, "dispatch_at", nullable=True, server_default=None)
    for name, condition in CHECKS.items():
        op.create_check_constraint(op.f(f"ck_{TABLE}_{name}"), TABLE, condition)
    # a lease is renewed all the time: an index on its end would be written each time, and all others with it
    op.drop_index("ix_generation_jobs_leases", table_name=TABLE, postgresql_where=sa.text("status = 'processing'"))
    op.create_index(
        "ix_generation_jobs_deadlines",
        TABLE,
        ["deadline_at"],
        postgresql_where=sa.text("status IN ('pending', 'processing')"),
    )
    op.create_index(
        "ix_generation_jobs_waiting",
        TABLE,
        ["client_id", "priority", "id"],
        postgresql_where=sa.text("status = 'pending' AND dispatch_at IS NULL"),
    )
    op.create_index(
        "ix_generation_jobs_in_flight",
        TABLE,
        ["client_id"],
        postgresql_where=sa.text("status = 'processing' OR status = 'pending' AND dispatch_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Take back."""
    for name in ("in_flight", "waiting", "deadlines"):
        op.drop_index(f"ix_generation_jobs_{name}", table_name=TABLE)
    op.create_index(
        "ix_generation_jobs_leases", TABLE, ["lease_expires_at"], postgresql_where=sa.text("status = 'processing'")
    )
    for name in CHECKS:
        op.drop_constraint(op.f(f"ck_{TABLE}_{name}"), TABLE)
    op.execute("UPDATE generation_jobs SET dispatch_at = now() WHERE dispatch_at IS NULL")
    op.alter_column(TABLE, "dispatch_at", nullable=False, server_default=sa.text("now()"))
    for column in ("claim_id", "deadline_at", "series", "time_limit_seconds", "priority"):
        op.drop_column(TABLE, column)
    PRIORITY.drop(op.get_bind())
