DROP POLICY repairs ON audit_logs;
