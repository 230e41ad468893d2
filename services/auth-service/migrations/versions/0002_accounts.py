"""Accounts that end and change, API keys, keys that follow one another, revocations, the audit log, single sign-on."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("now()")
TEXTS = postgresql.ARRAY(sa.Text())
END_REASONS = "end_reason IN ('logout', 'token_reused', 'ended', 'ended_by_admin', 'deactivated', 'password_changed')"


def upgrade() -> None:
    """Apply."""
    op.alter_column("users", "password_hash", nullable=True)
    op.add_column("users", sa.Column("deactivated_at", TIME))
    op.add_column("users", sa.Column("token_epoch", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("users", sa.Column("password_changed_at", TIME))
    op.add_column("users", sa.Column("last_login_at", TIME))

    op.add_column("sessions", sa.Column("method", sa.Text(), server_default=sa.text("'password'"), nullable=False))
    op.add_column("sessions", sa.Column("address", sa.Text()))
    op.add_column("sessions", sa.Column("user_agent", sa.Text()))
    op.add_column("sessions", sa.Column("last_used_at", TIME, server_default=NOW, nullable=False))
    op.drop_constraint(op.f("ck_sessions_end_reason_known"), "sessions")
    op.create_check_constraint(op.f("ck_sessions_end_reason_known"), "sessions", END_REASONS)
    op.create_check_constraint(op.f("ck_sessions_method_known"), "sessions", "method IN ('password', 'sso')")

    op.add_column("service_accounts", sa.Column("description", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.add_column(
        "service_accounts",
        sa.Column(
            "scopes",
            TEXTS,
            server_default=sa.text("'{jobs:work,data:read,prospects:read}'::text[]"),
            nullable=False,
        ),
    )
    op.add_column("service_accounts", sa.Column("client_id", sa.Uuid()))
    op.add_column("service_accounts", sa.Column("deactivated_at", TIME))
    op.add_column(
        "service_accounts", sa.Column("token_epoch", sa.Integer(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("service_accounts", sa.Column("previous_secret_hash", sa.Text()))
    op.add_column("service_accounts", sa.Column("previous_expires_at", TIME))
    op.add_column("service_accounts", sa.Column("secret_changed_at", TIME))
    op.add_column("service_accounts", sa.Column("last_used_at", TIME))
    op.create_check_constraint(
        op.f("ck_service_accounts_previous_secret_expires"),
        "service_accounts",
        "(previous_secret_hash IS NULL) = (previous_expires_at IS NULL)",
    )

    op.add_column("signing_keys", sa.Column("signs_from", TIME, server_default=NOW, nullable=False))
    op.add_column("signing_keys", sa.Column("verifies_until", TIME))

    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("scopes", TEXTS, server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("last_used_at", TIME),
        sa.Column("revoked_at", TIME),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_keys_user_id_users"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
    )
    op.create_index(op.f("ix_api_keys_user_id"), "api_keys", ["user_id"])

    op.create_table(
        "revocations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("published_at", TIME),
        sa.CheckConstraint("kind IN ('session', 'subject', 'token', 'keys')", name=op.f("ck_revocations_kind_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revocations")),
    )
    op.create_index(
        "ix_revocations_unpublished", "revocations", ["id"], postgresql_where=sa.text("published_at IS NULL")
    )
    _audit()
    _single_sign_on()


def _audit() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("recorded_at", TIME, server_default=NOW, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text()),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object_kind", sa.Text()),
        sa.Column("object_id", sa.Text()),
        sa.Column("client_id", sa.Uuid()),
        sa.Column("address", sa.Text()),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB(), nullable=False),
        sa.Column("seq", sa.BigInteger()),
        sa.Column("hash", sa.LargeBinary()),
        sa.CheckConstraint(
            "actor_kind IN ('user', 'service', 'api_key', 'anonymous', 'system')",
            name=op.f("ck_audit_events_actor_kind_known"),
        ),
        sa.CheckConstraint("outcome IN ('succeeded', 'refused', 'failed')", name=op.f("ck_audit_events_outcome_known")),
        sa.CheckConstraint("(seq IS NULL) = (hash IS NULL)", name=op.f("ck_audit_events_sealed_whole")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
        sa.UniqueConstraint("seq", name=op.f("uq_audit_events_seq")),
    )
    op.create_index("ix_audit_events_at", "audit_events", ["at", "id"])
    op.create_index("ix_audit_events_actor", "audit_events", ["actor_id", "at"])
    op.create_index("ix_audit_events_object", "audit_events", ["object_kind", "object_id", "at"])
    op.create_index(
        "ix_audit_events_unsealed", "audit_events", ["recorded_at", "id"], postgresql_where=sa.text("seq IS NULL")
    )
    op.execute("""
        CREATE FUNCTION audit_events_stay() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF TG_OP = 'UPDATE' AND OLD.seq IS NULL AND NEW.seq IS NOT NULL
             AND (to_jsonb(NEW) - 'seq' - 'hash') = (to_jsonb(OLD) - 'seq' - 'hash') THEN
            RETURN NEW;
          END IF;
          RAISE EXCEPTION 'audit events stay as they are' USING ERRCODE = 'restrict_violation';
        END $$""")
    op.execute("""
        CREATE TRIGGER audit_events_stay BEFORE UPDATE OR DELETE ON audit_events
        FOR EACH ROW EXECUTE FUNCTION audit_events_stay()""")
    op.execute("""
        CREATE TRIGGER audit_events_are_not_truncated BEFORE TRUNCATE ON audit_events
        FOR EACH STATEMENT EXECUTE FUNCTION audit_events_stay()""")


def _single_sign_on() -> None:
    op.create_table(
        "sso_identities",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("last_used_at", TIME, server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_sso_identities_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sso_identities")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_sso_identities_issuer_subject")),
    )
    op.create_index(op.f("ix_sso_identities_user_id"), "sso_identities", ["user_id"])
    op.create_table(
        "sso_logins",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("state_hash", sa.LargeBinary(), nullable=False),
        sa.Column("browser_hash", sa.LargeBinary(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("code_verifier", sa.Text(), nullable=False),
        sa.Column("return_to", sa.Text(), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("exchange_hash", sa.LargeBinary()),
        sa.Column("user_id", sa.Uuid()),
        sa.Column("used_at", TIME),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_sso_logins_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sso_logins")),
        sa.UniqueConstraint("state_hash", name=op.f("uq_sso_logins_state_hash")),
        sa.UniqueConstraint("exchange_hash", name=op.f("uq_sso_logins_exchange_hash")),
    )


def downgrade() -> None:
    """Take back. Users without a password cannot stay."""
    op.drop_table("sso_logins")
    op.drop_table("sso_identities")
    op.drop_table("audit_events")
    op.execute("DROP FUNCTION audit_events_stay()")
    op.drop_table("revocations")
    op.drop_table("api_keys")
    for column in ("verifies_until", "signs_from"):
        op.drop_column("signing_keys", column)
    op.drop_constraint(op.f("ck_service_accounts_previous_secret_expires"), "service_accounts")
    for column in (
        *("last_used_at", "secret_changed_at", "previous_expires_at", "previous_secret_hash", "token_epoch"),
        *("deactivated_at", "client_id", "scopes", "description"),
    ):
        op.drop_column("service_accounts", column)
    op.execute("DELETE FROM sessions WHERE end_reason NOT IN ('logout', 'token_reused')")
    op.drop_constraint(op.f("ck_sessions_method_known"), "sessions")
    op.drop_constraint(op.f("ck_sessions_end_reason_known"), "sessions")
    op.create_check_constraint(
        op.f("ck_sessions_end_reason_known"), "sessions", "end_reason IN ('logout', 'token_reused')"
    )
    for column in ("last_used_at", "user_agent", "address", "method"):
        op.drop_column("sessions", column)
    op.execute("DELETE FROM users WHERE password_hash IS NULL OR deactivated_at IS NOT NULL")
    for column in ("last_login_at", "password_changed_at", "token_epoch", "deactivated_at"):
        op.drop_column("users", column)
    op.alter_column("users", "password_hash", nullable=False)
