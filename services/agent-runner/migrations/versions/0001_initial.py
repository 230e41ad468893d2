"""Runs of agents. AgentOS makes its own tables in another schema, when it starts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "agent_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("prompt_version", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("ends_by", TIME, nullable=False),
        sa.Column("seconds", sa.Double()),
        sa.Column("calls", postgresql.JSONB(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.Numeric(18, 6)),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("error", postgresql.JSONB()),
        sa.CheckConstraint(
            "status IN ('running', 'completed', 'failed', 'cancelled', 'released', 'lost')",
            name=op.f("ck_agent_runs_status"),
        ),
        sa.CheckConstraint(
            "status = 'lost' OR (status = 'running') = (seconds IS NULL)", name=op.f("ck_agent_runs_seconds_when_over")
        ),
        sa.CheckConstraint("(status = 'failed') = (error IS NOT NULL)", name=op.f("ck_agent_runs_error_when_failed")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_runs")),
    )
    op.create_index(op.f("ix_agent_runs_job_id"), "agent_runs", ["job_id", "id"])
    op.create_index(op.f("ix_agent_runs_client_id"), "agent_runs", ["client_id", "id"])
    op.create_index(op.f("ix_agent_runs_status"), "agent_runs", ["status", "id"])
    op.create_index(op.f("ix_agent_runs_updated_at"), "agent_runs", ["updated_at"])
    op.create_index(
        op.f("ix_agent_runs_ends_by"), "agent_runs", ["ends_by"], postgresql_where=sa.text("status = 'running'")
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("agent_runs")
