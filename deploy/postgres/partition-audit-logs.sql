-- Partitions audit_logs by month while the service runs, and makes the partitions of the months to come.
--
--   psql -X "$MIGRATION_DATABASE_URL" -f deploy/postgres/partition-audit-logs.sql
--   psql -X -v months=24 ...      how many months ahead to make (12)
--   psql -X -v schema=bulkhead ... where the tables are (public)
--
-- Run it as the owner of the tables or as a superuser: once to partition the log, then every month. It may be run again at any
-- time, also after it was interrupted. docs/scaling.md describes what it does and what it costs.
--
-- The existing table becomes the first partition, and none of its rows is moved. Every partition has a primary key (id) and a
-- unique key (tenant_id, sequence) of its own, since such a key of the whole table would have to contain created_at
-- (postgresql.org/docs/current/ddl-partitioning.html, "Limitations"). The newest partition, audit_logs_later, has no upper
-- bound: a month whose partition was not made in time is written there.

\set ON_ERROR_STOP on
\if :{?months} \else \set months 12 \endif
\if :{?schema} \else \set schema public \endif
SET client_min_messages = warning;
-- Bounds are printed in this zone, and months are those of UTC.
SET timezone = 'UTC';
SET search_path = :"schema";
SELECT set_config('partition.months', :'months', false) AS months \gset

-- As the owner, to whom the new tables shall belong.
SELECT rolname AS owner FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
    WHERE c.oid = 'audit_logs'::regclass \gset
SET ROLE :"owner";

DO $$
BEGIN
    IF current_setting('server_version_num')::integer < 140000 THEN
        RAISE EXCEPTION 'PostgreSQL 14 or newer is needed';
    END IF;
    IF (SELECT prosrc FROM pg_proc WHERE oid = 'continue_audit_chain()'::regprocedure) NOT LIKE '%relispartition%' THEN
        RAISE EXCEPTION 'bulkhead migrate up comes first: the chain''s trigger does not know partitions yet';
    END IF;
    IF current_setting('partition.months')::integer NOT BETWEEN 1 AND 120 THEN
        RAISE EXCEPTION 'months: 1 to 120';
    END IF;
END $$;

-- 1. A bound for the existing entries, which new ones must keep from now on. It is not checked yet, so that the table is locked for
--    a moment only. The month that begins first ends it, unless that is within two days: step 3 must be done by then.
SET lock_timeout = '300ms';
DO $$
DECLARE
    bound timestamptz := date_trunc('month', clock_timestamp() + interval '2 days') + interval '1 month';
BEGIN
    IF (SELECT relkind FROM pg_class WHERE oid = 'audit_logs'::regclass) = 'r' AND NOT EXISTS (
        SELECT FROM pg_constraint WHERE conrelid = 'audit_logs'::regclass AND conname LIKE 'audit\_logs\_before\_%')
    THEN
        EXECUTE format('ALTER TABLE audit_logs ADD CONSTRAINT %I CHECK (created_at < %L) NOT VALID',
            to_char(bound, '"audit_logs_before_"YYYY_MM'), bound);
    END IF;
END $$;

-- 2. The entries are read once to check the bound; reads and writes go on (SHARE UPDATE EXCLUSIVE).
SELECT format('ALTER TABLE audit_logs VALIDATE CONSTRAINT %I', conname)
    FROM pg_constraint WHERE conrelid = 'audit_logs'::regclass AND conname LIKE 'audit\_logs\_before\_%' AND NOT convalidated
\gexec

-- 3. A partitioned table takes the name of the existing one, which becomes its first partition. The bound is known to hold, so
--    nothing is read. Requests wait while the transaction runs.
--
-- Foreign keys have triggers on the tables that they refer to, so these are locked as well. A request may hold one of the three
-- tables and wait for another. Whoever waits for a second looks for such a circle and ends its own transaction
-- (deadlock_timeout); the locks are given back before that, and asked for again.
DO $$
DECLARE
    bound text;
    first text;
    line record;
    statement text;
    statements text[] := '{}';
BEGIN
    IF (SELECT relkind FROM pg_class WHERE oid = 'audit_logs'::regclass) = 'p' THEN
        RETURN;
    END IF;
    FOR attempt IN 1..60 LOOP
        BEGIN
            LOCK TABLE tenants, users, audit_logs IN ACCESS EXCLUSIVE MODE;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 60 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(random());
        END;
    END LOOP;
    SELECT conname, substring(pg_get_constraintdef(oid) FROM '''([^'']+)''') INTO STRICT first, bound
        FROM pg_constraint WHERE conrelid = 'audit_logs'::regclass AND conname LIKE 'audit\_logs\_before\_%' AND convalidated;

    -- What the new table needs, as the statements that make it, while its name is still that of the old one.
    FOR line IN
        SELECT format('ALTER TABLE audit_logs ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) AS statement
            FROM pg_constraint WHERE conrelid = 'audit_logs'::regclass AND contype = 'f'
        UNION ALL SELECT regexp_replace(pg_get_indexdef(indexrelid), '^CREATE INDEX (\S+) ON \S+ ', 'CREATE INDEX \1 ON audit_logs ')
            FROM pg_index WHERE indrelid = 'audit_logs'::regclass AND NOT indisunique
        UNION ALL SELECT format('CREATE POLICY %I ON audit_logs AS %s FOR %s TO %s', policyname, permissive, cmd,
                (SELECT string_agg(CASE role WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(role) END, ', ') FROM unnest(roles) AS role))
                || coalesce(' USING (' || qual || ')', '') || coalesce(' WITH CHECK (' || with_check || ')', '')
            FROM pg_policies WHERE schemaname = current_schema() AND tablename = 'audit_logs'
        UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'audit_logs'::regclass AND NOT tgisinternal
        UNION ALL SELECT format('GRANT %s ON audit_logs TO %s', privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
            FROM pg_class c, aclexplode(c.relacl) WHERE c.oid = 'audit_logs'::regclass AND grantee <> c.relowner
        UNION ALL SELECT format('GRANT %s (%I) ON audit_logs TO %s', privilege_type, a.attname,
                CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
            FROM pg_attribute a, aclexplode(a.attacl) WHERE a.attrelid = 'audit_logs'::regclass
    LOOP
        statements := statements || line.statement;
    END LOOP;

    -- The old table: other names, nobody's rights, and no trigger that the new one will give it.
    EXECUTE format('ALTER TABLE audit_logs RENAME TO %I', first);
    FOR line IN SELECT indexrelid::regclass::text AS name FROM pg_index WHERE indrelid = first::regclass AND NOT indisunique LOOP
        EXECUTE format('ALTER INDEX %s RENAME TO %I', line.name,
            regexp_replace(line.name, '^.*audit_logs', first));
    END LOOP;
    FOR line IN SELECT tgname FROM pg_trigger WHERE tgrelid = first::regclass AND NOT tgisinternal AND tgtype & 1 = 1 LOOP
        EXECUTE format('DROP TRIGGER %I ON %I', line.tgname, first);
    END LOOP;
    FOR line IN
        SELECT DISTINCT grantee FROM (
            SELECT grantee FROM pg_class c, aclexplode(c.relacl) WHERE c.oid = first::regclass AND grantee <> c.relowner
            UNION ALL SELECT grantee FROM pg_attribute a, aclexplode(a.attacl) WHERE a.attrelid = first::regclass) AS granted
    LOOP
        EXECUTE format('REVOKE ALL ON %I FROM %s', first,
            CASE line.grantee WHEN 0 THEN 'PUBLIC' ELSE line.grantee::regrole::text END);
    END LOOP;

    -- The new one.
    EXECUTE format('CREATE TABLE audit_logs (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (created_at)', first);
    EXECUTE format('ALTER TABLE audit_logs DROP CONSTRAINT %I', first);
    -- Chooses the partition; the trigger sets the entry's time (migration route_entries).
    ALTER TABLE audit_logs ALTER created_at SET DEFAULT clock_timestamp();
    ALTER TABLE audit_logs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    FOREACH statement IN ARRAY statements LOOP
        EXECUTE statement;
    END LOOP;
    EXECUTE format('ALTER TABLE audit_logs ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)', first, bound);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', first, first);
END $$;

-- 4. The partitions of the months to come, and the last one without an upper bound. While that one is empty, which it is if this
--    runs every month, it is replaced. Otherwise it becomes the partition of the months that it has entries of; then it is read
--    once, and entries wait for that.
DO $$
DECLARE
    later regclass := to_regclass('audit_logs_later');
    start timestamptz;
    bound timestamptz;
    until timestamptz := date_trunc('month', clock_timestamp())
        + make_interval(months => current_setting('partition.months')::integer + 1);
    name text;
BEGIN
    FOR attempt IN 1..60 LOOP
        BEGIN
            LOCK TABLE tenants, users, audit_logs IN ACCESS EXCLUSIVE MODE;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 60 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(random());
        END;
    END LOOP;
    -- Where the last partition begins, or, if there is none yet, where the first one ends.
    SELECT max(substring(pg_get_expr(c.relpartbound, c.oid)
            FROM CASE WHEN c.oid = later THEN 'FROM \(''([^'']+)''' ELSE 'TO \(''([^'']+)''' END)::timestamptz)
        INTO STRICT start
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'audit_logs'::regclass;
    IF later IS NOT NULL THEN
        -- No policy shows the owner any row, so the size of the file tells whether there is one.
        IF pg_relation_size(later) > 0 THEN
            bound := greatest(date_trunc('month', clock_timestamp() + interval '2 days'), start) + interval '1 month';
            name := to_char(bound, '"audit_logs_before_"YYYY_MM');
            ALTER TABLE audit_logs DETACH PARTITION audit_logs_later;
            EXECUTE format('ALTER TABLE audit_logs_later RENAME TO %I', name);
            EXECUTE format('ALTER TABLE audit_logs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, start, bound);
            start := bound;
        ELSIF start >= until THEN
            RETURN;
        ELSE
            DROP TABLE audit_logs_later;
        END IF;
    END IF;
    LOOP
        name := CASE WHEN start < until THEN to_char(start, '"audit_logs_"YYYY_MM') ELSE 'audit_logs_later' END;
        bound := CASE WHEN start < until THEN start + interval '1 month' END;
        EXECUTE format('CREATE TABLE %I (LIKE audit_logs INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
            PRIMARY KEY (id), UNIQUE (tenant_id, sequence))', name);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_tenant ON %I
            USING (tenant_id = NULLIF(current_setting(''app.current_tenant_id'', true), '''')::uuid)', name);
        EXECUTE format('CREATE TRIGGER audit_logs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
        EXECUTE format('ALTER TABLE audit_logs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%s)', name, start,
            coalesce(quote_literal(bound), 'MAXVALUE'));
        EXIT WHEN bound IS NULL;
        start := bound;
    END LOOP;
END $$;

-- The planner's statistics of the whole table; autovacuum collects those of each partition only.
ANALYZE audit_logs;

SELECT c.relname AS partition, pg_get_expr(c.relpartbound, c.oid) AS bounds, pg_size_pretty(pg_total_relation_size(c.oid)) AS size
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'audit_logs'::regclass
    ORDER BY pg_get_expr(c.relpartbound, c.oid) LIKE '%MAXVALUE%', substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''');
