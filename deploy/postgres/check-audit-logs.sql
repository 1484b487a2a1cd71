-- Checks the chains of a detached partition of audit_logs, or those of the entries that are left.
--
--   psql -X "$MIGRATION_DATABASE_URL" -v log=audit_archive.audit_logs_2026_12 -f deploy/postgres/check-audit-logs.sql
--   psql -X "$MIGRATION_DATABASE_URL" -v log=audit_logs -f deploy/postgres/check-audit-logs.sql
--   psql -X -v schema=bulkhead ...   where the tables are (public)
--
-- Each chain begins where the partition before it ended (audit_archive.ends), or with entry 1, and must reach its end: that of
-- audit_archive.ends, or for audit_logs the one in audit_heads. psql exits with 3 if a chain is broken. A chain that was repaired
-- (docs/audit.md, "After tampering") is broken at the entry CHAIN_REPAIRED at the latest. It only reads, in one transaction.

\set ON_ERROR_STOP on
\set VERBOSITY terse
\if :{?schema} \else \set schema public \endif
SET timezone = 'UTC';
SET search_path = :"schema";
SELECT set_config('check.log', :'log', false) AS log \gset
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
DO $$
DECLARE
    log regclass := current_setting('check.log')::regclass;
    name text := (SELECT relname FROM pg_class WHERE oid = log);
    whole boolean := log = 'audit_logs'::regclass;
    tenants uuid[];
    tenant uuid;
    first record;
    found record;
    last record;
    faults integer := 0;
BEGIN
    PERFORM set_config('app.directory', 'on', true);
    IF whole THEN
        SELECT array_agg(id ORDER BY id) INTO tenants FROM tenants;
    ELSE
        SELECT array_agg(tenant_id) INTO tenants FROM audit_archive.ends WHERE partition_name = name;
        EXECUTE format('SELECT array_agg(DISTINCT tenant_id ORDER BY tenant_id) FROM (
            SELECT tenant_id FROM %s UNION ALL SELECT unnest($1)) AS t', log) INTO tenants USING tenants;
    END IF;
    FOREACH tenant IN ARRAY coalesce(tenants, '{}') LOOP
        PERFORM set_config('app.current_tenant_id', tenant::text, true);
        SELECT 0::bigint AS sequence, repeat('0', 64) AS hash INTO first;
        IF to_regclass('audit_archive.ends') IS NOT NULL THEN
            EXECUTE format('SELECT e.sequence, e.hash FROM audit_archive.ends e WHERE e.tenant_id = $1
                AND e.sequence < coalesce((SELECT min(l.sequence) FROM %s l WHERE l.tenant_id = $1), $3)
                AND e.partition_name <> $2 ORDER BY e.sequence DESC LIMIT 1', log) INTO found
                USING tenant, name, 9223372036854775807;
            IF found.sequence IS NOT NULL THEN
                first := found;
            END IF;
        END IF;
        -- The hash as the chain's trigger makes it (migration route_entries).
        EXECUTE format($sql$
            SELECT * FROM (
                SELECT l.sequence, CASE
                    WHEN l.sequence <> lag(l.sequence, 1, $2) OVER chain + 1 THEN 'entries before it are missing'
                    WHEN l.prev_hash <> lag(l.hash, 1, $3) OVER chain THEN 'it does not continue the entry before it'
                    WHEN l.hash <> encode(sha256(convert_to(
                        '{"action":' || to_json(l.action)::text
                        || ',"created_at":"' || to_char(l.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                        || '","id":"' || l.id
                        || '","ip":' || coalesce(to_json(host(l.ip))::text, 'null')
                        || ',"metadata":' || canonical_json(l.metadata)
                        || ',"prev_hash":"' || l.prev_hash
                        || '","resource_id":' || coalesce(to_json(l.resource_id)::text, 'null')
                        || ',"resource_type":' || to_json(l.resource_type)::text
                        || ',"sequence":' || l.sequence
                        || ',"tenant_id":"' || l.tenant_id
                        || '","user_agent":' || coalesce(to_json(l.user_agent)::text, 'null')
                        || ',"user_id":' || coalesce(to_json(l.user_id)::text, 'null') || '}', 'UTF8')), 'hex')
                        THEN 'it was edited'
                    END AS fault
                FROM %s l WHERE l.tenant_id = $1 WINDOW chain AS (ORDER BY l.sequence)) AS entries
            WHERE fault IS NOT NULL ORDER BY sequence LIMIT 1
        $sql$, log) INTO found USING tenant, first.sequence, first.hash;
        IF found.fault IS NULL THEN
            IF whole THEN
                SELECT h.sequence, h.hash INTO last FROM audit_heads h WHERE h.tenant_id = tenant;
            ELSE
                SELECT e.sequence, e.hash INTO last FROM audit_archive.ends e WHERE e.tenant_id = tenant AND e.partition_name = name;
            END IF;
            EXECUTE format('SELECT sequence, ''the end of the chain is another one''::text AS fault FROM (
                    SELECT l.sequence, l.hash FROM %s l WHERE l.tenant_id = $1 UNION ALL SELECT $2, $3
                    ORDER BY sequence DESC LIMIT 1) AS newest
                WHERE (sequence, hash) IS DISTINCT FROM ($4, $5)', log) INTO found
                USING tenant, first.sequence, first.hash, last.sequence, last.hash;
        END IF;
        IF found.fault IS NULL THEN
            RAISE INFO 'good    %: entries % to %, hash %', tenant, first.sequence + 1, last.sequence, last.hash;
        ELSE
            RAISE INFO 'BROKEN  %: entry %: %', tenant, found.sequence, found.fault;
            faults := faults + 1;
        END IF;
    END LOOP;
    IF faults > 0 THEN
        RAISE EXCEPTION '% of % chains are broken', faults, cardinality(tenants);
    END IF;
END $$;
COMMIT;
