-- For a tenant's audit log between two moments. The index is built without blocking writes.

CREATE INDEX CONCURRENTLY IF NOT EXISTS audit_logs_time ON audit_logs (tenant_id, created_at DESC, sequence DESC)
