-- Only `bulkhead audit repair` records that a chain of the audit log was repaired, and only with the rights of the tables'
-- owner. The role of run time may not TRUNCATE, which nobody grants it; the owner may, and so does a superuser. To name
-- the role instead would bind the owner, too, who is a member of it. A restrictive policy takes away from what others allow
-- (postgresql.org/docs/current/sql-createpolicy.html). SQLite has no roles.

CREATE POLICY repairs ON audit_logs AS RESTRICTIVE FOR INSERT
    WITH CHECK (action <> 'CHAIN_REPAIRED' OR has_table_privilege('audit_logs'::regclass, 'TRUNCATE'));
