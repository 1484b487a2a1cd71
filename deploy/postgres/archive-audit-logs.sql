-- Detaches the oldest partition of audit_logs while the service runs, and keeps the proof that the rest continues it.
--
--   psql -X "$MIGRATION_DATABASE_URL" -f deploy/postgres/archive-audit-logs.sql
--   psql -X -v schema=bulkhead ...   where the tables are (public)
--
-- Run it as the owner of the tables or as a superuser. It moves the partition to the schema audit_archive, where only the owner can
-- use it, and writes the last entry of each chain to audit_archive.ends. It changes nothing if a chain is not whole at the border.
-- docs/scaling.md describes how to dump, check and drop what is there. It may be run again after it was interrupted.

\set ON_ERROR_STOP on
\if :{?schema} \else \set schema public \endif
SET client_min_messages = warning;
SET timezone = 'UTC';
SET search_path = :"schema";
SET lock_timeout = '3s';
SELECT rolname AS owner FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
    WHERE c.oid = 'audit_logs'::regclass \gset
SELECT format('CREATE SCHEMA audit_archive AUTHORIZATION %I', :'owner') WHERE to_regnamespace('audit_archive') IS NULL
\gexec
SET ROLE :"owner";
CREATE TABLE IF NOT EXISTS audit_archive.ends (
    tenant_id uuid, partition_name text, sequence bigint NOT NULL, hash text NOT NULL, PRIMARY KEY (tenant_id, partition_name)
);
-- What an interrupted run has detached and not moved.
SELECT format('ALTER TABLE %I NO FORCE ROW LEVEL SECURITY', c.relname), format('ALTER TABLE %I SET SCHEMA audit_archive', c.relname)
    FROM pg_class c WHERE NOT c.relispartition AND c.relnamespace = current_schema()::regnamespace
        AND c.relname IN (SELECT e.partition_name FROM audit_archive.ends e)
\gexec

-- The oldest partition, if it has ended.
SELECT c.relname AS partition, i.inhdetachpending AS pending,
        substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''')::timestamptz <= clock_timestamp() AS ended
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'audit_logs'::regclass AND c.relname <> 'audit_logs_later'
    ORDER BY substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''')::timestamptz LIMIT 1 \gset
\if :ended \else
    \echo audit_logs has no partition that has ended: nothing is detached
    \quit
\endif
SELECT set_config('archive.partition', :'partition', false) AS partition \gset

-- Each chain: the last entry of the partition, and what the first entry after it says. The owner sees one tenant at a time.
BEGIN ISOLATION LEVEL REPEATABLE READ;
DO $$
DECLARE
    partition text := current_setting('archive.partition');
    tenant record;
    before record;
    after record;
BEGIN
    PERFORM set_config('app.directory', 'on', true);
    FOR tenant IN SELECT id, external_id FROM tenants ORDER BY id LOOP
        PERFORM set_config('app.current_tenant_id', tenant.id::text, true);
        EXECUTE format('SELECT sequence, hash, (SELECT max(created_at) FROM %1$I WHERE tenant_id = $1) AS newest FROM %1$I
            WHERE tenant_id = $1 ORDER BY sequence DESC LIMIT 1', partition) INTO before USING tenant.id;
        CONTINUE WHEN before.sequence IS NULL;
        SELECT l.sequence - 1 AS sequence, l.prev_hash AS hash INTO after FROM audit_logs l
            WHERE l.tenant_id = tenant.id AND l.created_at > before.newest ORDER BY l.sequence LIMIT 1;
        IF NOT FOUND THEN
            SELECT h.sequence, h.hash INTO after FROM audit_heads h WHERE h.tenant_id = tenant.id;
        END IF;
        IF (before.sequence, before.hash) IS DISTINCT FROM (after.sequence, after.hash) THEN
            RAISE EXCEPTION 'the audit log of % does not continue %: its last entry there is %, and the rest begins after entry %',
                tenant.external_id, partition, before.sequence, after.sequence;
        END IF;
        INSERT INTO audit_archive.ends VALUES (tenant.id, partition, before.sequence, before.hash)
            ON CONFLICT (tenant_id, partition_name) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash;
    END LOOP;
END $$;
COMMIT;

-- Waits for the transactions that use the partition, and blocks none.
\if :pending
    ALTER TABLE audit_logs DETACH PARTITION :"partition" FINALIZE;
\else
    ALTER TABLE audit_logs DETACH PARTITION :"partition" CONCURRENTLY;
\endif
-- The owner, who dumps it, sees its rows there.
BEGIN;
ALTER TABLE :"partition" NO FORCE ROW LEVEL SECURITY;
ALTER TABLE :"partition" SET SCHEMA audit_archive;
COMMIT;
\echo audit_archive.:partition is detached
