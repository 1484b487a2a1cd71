-- For lists of a tenant's users by role. The index is built without blocking writes.

CREATE INDEX CONCURRENTLY IF NOT EXISTS users_live_role
    ON users (tenant_id, role, created_at DESC, id DESC) WHERE deleted_at IS NULL
