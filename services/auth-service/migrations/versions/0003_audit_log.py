"""The audit log is read by any of its columns, newest first."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.drop_index("ix_audit_events_actor", "audit_events")
    op.drop_index("ix_audit_events_object", "audit_events")
    op.create_index("ix_audit_events_actor", "audit_events", [sa.text("coalesce(actor_id, actor_kind)"), "at", "id"])
    op.create_index("ix_audit_events_action", "audit_events", ["action", "at", "id"])
    op.create_index("ix_audit_events_object_kind", "audit_events", ["object_kind", "at", "id"])
    for column in ("object_id", "client_id"):
        op.create_index(
            f"ix_audit_events_{column}",
            "audit_events",
            [column, "at", "id"],
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )
    op.create_index("ix_audit_events_request_id", "audit_events", ["request_id", "at", "id"])
    op.create_index(
        "ix_audit_events_not_succeeded",
        "audit_events",
        ["outcome", "at", "id"],
        postgresql_where=sa.text("outcome <> 'succeeded'"),
    )


def downgrade() -> None:
    """Take back."""
    for name in ("not_succeeded", "request_id", "client_id", "object_id", "object_kind", "action", "actor"):
        op.drop_index(f"ix_audit_events_{name}", "audit_events")
    op.create_index("ix_audit_events_actor", "audit_events", ["actor_id", "at"])
    op.create_index("ix_audit_events_object", "audit_events", ["object_kind", "object_id", "at"])
