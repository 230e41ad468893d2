"""Schedules, and which of them, for when, a job is of."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PRIORITY = postgresql.ENUM("high", "normal", "low", name="job_priority", create_type=False)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "schedules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("prospect_id", sa.Uuid(), nullable=False),
        sa.Column("value_proposition_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("job_type", sa.String(), nullable=False),
        sa.Column(
            "parameters", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("priority", PRIORITY, server_default="normal", nullable=False),
        sa.Column("time_limit_seconds", sa.Integer(), nullable=True),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("cron", sa.String(), nullable=False),
        sa.Column("timezone", sa.String(), nullable=False),
        sa.Column("missed_runs", sa.String(), nullable=False),
        sa.Column("overlap", sa.String(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("next_run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_job_id", sa.Uuid(), nullable=True),
        sa.Column("last_error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint("enabled = (next_run_at IS NOT NULL)", name=op.f("ck_schedules_next_run_when_enabled")),
        sa.CheckConstraint("missed_runs IN ('skip', 'one', 'all')", name=op.f("ck_schedules_missed_runs")),
        sa.CheckConstraint("time_limit_seconds > 0", name=op.f("ck_schedules_time_limit")),
        sa.CheckConstraint("overlap IN ('allow', 'skip')", name=op.f("ck_schedules_overlap")),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_schedules_client_id_clients")),
        sa.ForeignKeyConstraint(["prospect_id"], ["prospects.id"], name=op.f("fk_schedules_prospect_id_prospects")),
        sa.ForeignKeyConstraint(
            ["value_proposition_id"],
            ["value_propositions.id"],
            name=op.f("fk_schedules_value_proposition_id_value_propositions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
    )
    op.create_index(op.f("ix_schedules_client_id_id"), "schedules", ["client_id", "id"])
    op.create_index(op.f("ix_schedules_prospect_id_id"), "schedules", ["prospect_id", "id"])
    op.create_index(
        "ix_schedules_due", "schedules", ["next_run_at"], postgresql_where=sa.text("next_run_at IS NOT NULL")
    )
    op.add_column("generation_jobs", sa.Column("schedule_id", sa.Uuid(), nullable=True))
    op.add_column("generation_jobs", sa.Column("scheduled_for", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "uq_generation_jobs_scheduled",
        "generation_jobs",
        ["schedule_id", "scheduled_for"],
        unique=True,
        postgresql_where=sa.text("schedule_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("uq_generation_jobs_scheduled", table_name="generation_jobs")
    op.drop_column("generation_jobs", "scheduled_for")
    op.drop_column("generation_jobs", "schedule_id")
    op.drop_table("schedules")
