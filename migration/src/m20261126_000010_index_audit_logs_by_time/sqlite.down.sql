DROP INDEX audit_logs_time
