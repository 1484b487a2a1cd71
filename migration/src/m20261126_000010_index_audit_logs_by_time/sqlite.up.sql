CREATE INDEX audit_logs_time ON audit_logs (tenant_id, created_at DESC, sequence DESC)
