CREATE INDEX users_live_role
    ON users (tenant_id, role, created_at DESC, id DESC) WHERE deleted_at IS NULL
